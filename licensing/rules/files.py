"""What the release folder holds, by file names alone. A name that fits is taken as met here.

Whether the text in a file is the licence that its name promises is looked at in texts.py, where the files were read.
"""

from __future__ import annotations

from collections.abc import Iterator

from licensing.license_files import is_licence_file, is_notice_file
from licensing.rules.context import Case, Edge, Finding, finding
from licensing.schema import Licence


def files_seen(case: Case) -> Iterator[Finding]:
    """Missing copies and notices: a violation where the files are known, at most a warning where they are not.

    One LICENSE file for two licences is a warning, too: it may hold both.
    """
    if case.papers is not None:
        return  # read, not only listed: texts.py
    names = case.lineage.files
    licence_files = [name for name in names or () if is_licence_file(name)]
    notice = any(is_notice_file(name) for name in names or ())
    for edge in case.roots:
        licence = edge.licence
        if licence is None or case.own(licence):
            continue
        c = licence.copies
        if c.licence_copy is not None and not (case.dataset and (c.licence_copy.by_link or names is None)):
            yield from _copy(case, edge, licence, known=names is not None, found=len(licence_files))
        elif c.copyright_notice is not None and names is not None and not licence_files:
            why = f"no licence file: the copyright line and permission notice of {licence.name} were not seen"
            fix = f"ship the upstream LICENSE of {edge.input.id}"
            code = "W-AGREEMENT-COPY-NOT-SEEN"
            yield finding(code, why, edge=edge, licence=licence, cite=c.copyright_notice, fix=fix, level="held")
        if c.notice is not None and not notice and not case.dataset:
            line = c.notice.text or f"the notice of {licence.name}"
            fix = f"add a file NOTICE that holds: {line}"
            if names is None:
                why = "the files of the release are not known, so the notice was not seen"
                code = f"W-NOTICE-NOT-SEEN:{licence.label}"
                yield finding(code, why, edge=edge, licence=licence, cite=c.notice, fix=fix, level="held")
            else:
                why = "the release holds no notice file"
                code = f"V-NOTICE-MISSING:{licence.label}"
                yield finding(code, why, edge=edge, licence=licence, cite=c.notice, fix=fix)


def _copy(case: Case, edge: Edge, licence: Licence, *, known: bool, found: int) -> Iterator[Finding]:
    fix = f"ship the text of {licence.name} as a file"
    cite = licence.copies.licence_copy
    if known and found == 0:
        why = f"the release holds no licence file, so no copy of {licence.name}"
        code = f"V-LICENCE-COPY-MISSING:{licence.label}"
        yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix)
        return
    if case.declared is None and not case.prose:
        return  # what a lone licence file holds is anybody's guess, and that the licence is not known is said elsewhere
    enough = 1 if case.declared and case.declared.label == licence.label else 2
    if found >= enough or (not known and licence.permissive and enough == 1):
        return
    why = "not confirmed that a copy ships" if not known else "one licence file, two licences: it may hold one only"
    apache = licence.spdx == "Apache-2.0"
    code = "W-APACHE-TEXT-NOT-SEEN" if apache else "W-AGREEMENT-COPY-NOT-SEEN"
    yield finding(code, why, edge=edge, licence=licence, cite=cite, fix=fix, level="held")
