"""The release's license and notice files by content: copies, notice lines, and the LICENSE against the tag."""

from __future__ import annotations

from collections.abc import Iterator

from licensing.license_files import LicenseFile, LicenseFiles
from licensing.rules.context import AuditContext, Dependency, Finding, finding
from licensing.schema import License


def file_contents(ctx: AuditContext) -> Iterator[Finding]:
    """Copies and notice lines that are missing, and a LICENSE that is another license than the tag says.

    A file that was not recognised may be the missing copy: the finding is a warning then and no violation.
    """
    files = ctx.license_files
    if files is None:
        return
    present = {name for file in files.licenses for name in _labels(ctx, file.licenses)}
    unrecognised = [file for file in files.licenses if not (file.licenses or file.mentions or file.near)]
    for root, license in ctx.upstream_licenses:
        c = license.copies
        if _is_present(license, present):
            pass
        elif c.licence_copy is not None:
            if not (ctx.dataset and c.licence_copy.by_link):
                yield _missing_copy(root, license, files, unrecognised)
        elif c.copyright_notice is not None:
            why = f"no file holds the text of {license.name}, so its copyright line and permission notice are missing"
            fix = f"ship the upstream LICENSE of {root.input.id}"
            code, cite = "W-AGREEMENT-COPY-NOT-SEEN", c.copyright_notice
            yield finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level="held")
        if not ctx.dataset:
            yield from _notice_line(root, license, files)
            yield from _phrase(root, license, files)
        yield from _upstream_notice(ctx, root, license, files)
    yield from _principal_file(ctx, files)


def _labels(ctx: AuditContext, ids: tuple[str, ...]) -> set[str]:
    """Labels and SPDX ids of the texts: a license counts as present by either."""
    entries = [ctx.registry.entries.get(name) for name in ids]
    labels = {part for entry in entries if entry for part in (entry.label, entry.spdx) if part}
    return labels | {name for name, entry in zip(ids, entries, strict=True) if entry is None}


def _is_present(license: License, present: set[str]) -> bool:
    return license.label in present or (license.spdx is not None and license.spdx in present)


def _missing_copy(root: Dependency, license: License, files: LicenseFiles, unrecognised: list[LicenseFile]) -> Finding:
    fix = f"ship the text of {license.name} as a file"
    cite = license.copies.licence_copy
    if unrecognised:
        names = ", ".join(file.name for file in unrecognised)
        why = f"no file was recognised as {license.name}; {names} may be it"
        code = "W-APACHE-TEXT-NOT-SEEN" if license.spdx == "Apache-2.0" else "W-AGREEMENT-COPY-NOT-SEEN"
        return finding(code, why, dependency=root, license=license, cite=cite, fix=fix, level="held")
    why = f"the release holds no copy of {license.name}"
    if files.licenses:
        why += "; its license files were read: " + "; ".join(f"{f.name} {_description(f)}" for f in files.licenses)
    code = f"V-LICENCE-COPY-MISSING:{license.label}"
    return finding(code, why, dependency=root, license=license, cite=cite, fix=fix)


def _description(file: LicenseFile) -> str:
    if file.licenses:
        return f"is {' and '.join(file.licenses)}"
    if file.near:
        return f"is like {file.near}, and edited: {file.difference}"
    return f"only names {' or '.join(file.mentions)}"


def _notice_line(root: Dependency, license: License, files: LicenseFiles) -> Iterator[Finding]:
    rule = license.copies.notice
    if rule is None:
        return
    if files.notice is None:
        why = "the release holds no notice file"
    elif rule.text and not files.notice_contains(rule.text):
        why = "the notice file does not hold the line that this license asks for"
    else:
        return
    fix = f"put this line in NOTICE: {rule.text or f'the notice of {license.name}'}"
    code = f"V-NOTICE-MISSING:{license.label}"
    yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix)


def _upstream_notice(ctx: AuditContext, root: Dependency, license: License, files: LicenseFiles) -> Iterator[Finding]:
    """Lines of the upstream's NOTICE, and copyright lines of its LICENSE, that the release repeats nowhere."""
    upstream = ctx.upstream_files.get(root.input.id)
    if upstream is None:
        return
    rule = license.copies.keep_copyrights or license.copies.copyright_notice
    missing = files.missing_copyrights(upstream.copyrights) if rule else []
    if missing:
        why = f'no file of the release repeats "{missing[0]}", which the LICENSE of {root.input.id} holds'
        fix = "put this line into NOTICE, or ship that LICENSE"
        code = f"W-NOTICE-NOT-SEEN:{license.label}"
        yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix, level="held")
    rule = license.copies.keep_notice_file
    missing = files.missing_notices(upstream.notice) if rule and upstream.notice else []
    if missing:
        why = f"{root.input.id} came with a NOTICE file, and the release does not repeat {len(missing)} of its lines"
        fix = f"copy the NOTICE of {root.input.id} into yours, without lines on parts that the release does not hold"
        code = f"V-NOTICE-MISSING:{license.label}"
        yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix)


def _phrase(root: Dependency, license: License, files: LicenseFiles) -> Iterator[Finding]:
    """The phrase may stand on a website instead, so a card without it is a warning."""
    rule = license.copies.attribution
    if rule and files.readme is not None and rule.applies_to(root.input.id) and not files.card_shows(rule.phrases):
        phrases = '" or "'.join(rule.phrases)
        why = f'the card does not show "{phrases}", which this license asks for'
        fix = f'show "{rule.phrases[0]}" on the card'
        code = f"W-ATTR-NOT-SEEN:{rule.phrases[0]}"
        yield finding(code, why, dependency=root, license=license, cite=rule, fix=fix, level="held")


def _principal_file(ctx: AuditContext, files: LicenseFiles) -> Iterator[Finding]:
    """The LICENSE beside the card against the card's tag. An upstream's text there is no contradiction."""
    tag = ctx.declared
    file = next((file for file in files.licenses if file.principal), None)
    if tag is None or file is None:
        return
    everywhere = {name for other in files.licenses for name in _labels(ctx, other.licenses)}
    if any(_is_present(entry, everywhere) for entry in (tag, *ctx.parsed_tag.named)):
        return
    if file.near and ctx.registry.resolve(file.near) in (tag, None):
        why = f"{file.name} is like {file.near}, which the tag names, and edited: {file.difference}"
        fix = "read what was changed, and declare `license: other` with a name for it if it limits anything"
        yield finding("W-CARD-CONTRADICTS", why, fix=fix, level="held")
    if not file.licenses:
        return
    text = ctx.registry.entries.get(file.licenses[0])
    upstream = {license.label for root in ctx.roots for license in root.parsed.licenses}
    if text is not None and text.permissive and text.label in upstream:
        return  # the copy of the upstream's license that has to ship; the tag is the release's own choice
    name = text.label if text else file.licenses[0]
    why = f"the tag says {tag.label}, and {file.name} is the text of {text.name if text else name}"
    fix = f"declare {name}, or ship the text of {tag.name} as {file.name}"
    if text is not None and text.permissive and any(not root.parsed.complete for root in ctx.roots):
        why = f"{why}; it may be the copy of an upstream whose license is not known"
        yield finding("W-CARD-CONTRADICTS", why, license=text, fix=fix, level="held")
        return
    yield finding(f"V-TAG-WRONG:{tag.label}!={name}", why, license=text, fix=fix)
