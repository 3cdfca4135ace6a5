"""The release's license and notice files by name alone; a file with a fitting name is taken for what it promises.

Where the content of the files was read, ``texts.py`` takes over.
"""

from __future__ import annotations

from collections.abc import Iterator

from licensing.license_files import is_license_file, is_notice_file
from licensing.rules.context import AuditContext, Dependency, Finding, finding
from licensing.schema import License


def file_names(ctx: AuditContext) -> Iterator[Finding]:
    """Missing copies and notices: a violation where the files are known, at most a warning where they are not.

    One LICENSE file for two licenses is a warning: it may hold both.
    """
    if ctx.license_files is not None:
        return
    names = ctx.lineage.files
    license_files = [name for name in names or () if is_license_file(name)]
    notice_file = any(is_notice_file(name) for name in names or ())
    for root, license in ctx.upstream_licenses:
        c = license.copies
        if c.licence_copy is not None and not (ctx.dataset and (c.licence_copy.by_link or names is None)):
            yield from _copy(ctx, root, license, listed=names is not None, count=len(license_files))
        elif c.copyright_notice is not None and names is not None and not license_files:
            why = f"no license file: the copyright line and permission notice of {license.name} were not seen"
            fix = f"ship the upstream LICENSE of {root.input.id}"
            code, cite = "W-AGREEMENT-COPY-NOT-SEEN", c.copyright_notice
            yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level="held")
        files = ctx.upstream_files.get(root.input.id) if c.keep_notice_file else None
        upstream = files.notice if files else None
        rule = c.notice or (c.keep_notice_file if upstream else None)
        if rule is None or notice_file or ctx.dataset:
            continue
        content = (c.notice.text if c.notice else None) or f"the notice of {license.name}"
        fix = f"add a file NOTICE that holds {f'the NOTICE of {root.input.id}' if upstream else f'this: {content}'}"
        if names is None:
            why = "the files of the release are not known, so the notice was not seen"
            code = f"W-NOTICE-NOT-SEEN:{license.label}"
            yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix, level="held")
        else:
            why = "the release holds no notice file"
            code = f"V-NOTICE-MISSING:{license.label}"
            yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix)


def _copy(ctx: AuditContext, root: Dependency, license: License, *, listed: bool, count: int) -> Iterator[Finding]:
    fix = f"ship the text of {license.name} as a file"
    cite = license.copies.licence_copy
    if listed and count == 0:
        why = f"the release holds no license file, so no copy of {license.name}"
        code = f"V-LICENCE-COPY-MISSING:{license.label}"
        yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix)
        return
    if ctx.declared is None and not ctx.prose:
        return  # what a single license file holds cannot be guessed; the unknown declaration has its own finding
    enough = 1 if ctx.declared and ctx.declared.label == license.label else 2
    if count >= enough or (not listed and license.permissive and enough == 1):
        return
    why = "not confirmed that a copy ships" if not listed else "one license file, two licenses: it may hold one only"
    code = "W-APACHE-TEXT-NOT-SEEN" if license.spdx == "Apache-2.0" else "W-AGREEMENT-COPY-NOT-SEEN"
    yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level="held")
