"""``distill audit`` and ``distill licences``: what licences allow, and what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from distill.cli.options import Json, LicenseFile
from distill.cli.output import print_json, print_text
from licensing.errors import InputError, Refused


def audit(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            show_default=False,
            help="Lineage file, run directory, model or data folder, hub id owner/name, or datasets/owner/name.",
        ),
    ],
    form: Annotated[
        Literal["table", "json", "cyclonedx", "spdx", "markdown"] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Output format: table, json, cyclonedx, spdx or markdown.",
            show_default="table",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    policy: Annotated[
        Literal["text", "strict"],
        typer.Option(
            metavar="POLICY",
            help="text: what the licences say. strict: also let the terms of training data bind the trained weights.",
        ),
    ] = "text",
    licences_file: LicenseFile = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Suggest a licence, name and files that would make the release clean.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Waive a finding by its code (needs --because). Repeatable."),
    ] = None,
    because: Annotated[
        list[str] | None,
        typer.Option(metavar="REASON", help="Reason for the --allow before it; recorded in the result. Repeatable."),
    ] = None,
    cards: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Folder with local copies of the inputs' repositories, as DIR/owner/name. Repeatable."
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Hub to query.", show_default="HF_ENDPOINT")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Name on the hub that a folder is to be released under.")
    ] = None,
    notice: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write NOTICE and the licence texts that must ship into DIR.")
    ] = None,
) -> None:
    """Audit a release against the licences of its inputs.

    Exit code 1 means that the release breaks one of them.
    """
    from pydantic_core import to_json

    from distill.cli.audit_target import allowances, read_target
    from licensing.audit import audit as audit_lineage
    from licensing.bom import cyclonedx
    from licensing.license_texts import release_license_files, write_license_files
    from licensing.openness import openness, openness_summary, openness_table
    from licensing.registry import load_registry
    from licensing.render import audit_markdown, audit_table
    from licensing.spdx import spdx_document
    from licensing.suggest import suggest as suggest_license

    if as_json and form not in (None, "json"):
        raise InputError("--json and --format contradict each other", where="--format", hint="leave one of them out")
    waived = allowances(allow or [], because or [])
    registry = load_registry(licences_file)
    resolved, waived_by_recipe = read_target(target, registry, cards=cards or [], endpoint=endpoint, name=name)
    lineage, notices, allowed = resolved.lineage, resolved.upstream_files, (*waived_by_recipe, *waived)
    result = audit_lineage(
        lineage, policy, registry, license_files=resolved.license_files, upstream_files=notices, allow=allowed
    )
    unused = [one.code for one in waived if one not in result.allowed]
    if unused:  # it would waive a later finding that nobody has looked at
        raise InputError(
            f"the audit has no finding {', '.join(unused)}",
            where="--allow",
            hint=f"blocking findings: {', '.join(result.blocked_by) or 'none'}",
        )
    proposal = suggest_license(lineage, policy, registry, allowed) if suggest else None
    written = []
    if notice:
        files = release_license_files(lineage, result, resolved.license_texts, registry, notices)
        written = write_license_files(files, notice)
    how_open = openness(lineage, registry=registry)
    if as_json or form == "json":
        values: dict[str, Any] = {**result.to_dict(), "openness": how_open}
        if not Path(target).is_file():  # a lineage file is the user's own
            values["lineage"] = lineage.model_dump(mode="json", exclude_none=True)
            values["notes"] = list(resolved.notes)
        if proposal is not None:
            values["suggestion"] = proposal.to_dict()
        if written:
            values["written"] = [str(path.resolve()) for path in written]
        print_text(to_json(values, indent=2).decode())  # json's own writer takes three times as long
    elif form == "cyclonedx":
        print_text(cyclonedx(lineage, result, how_open, registry).rstrip("\n"))
    elif form == "spdx":
        print_text(spdx_document(lineage, registry).rstrip("\n"))
    else:
        sections = ["\n".join(["Notes", *(f"  {note}" for note in resolved.notes)])] if resolved.notes else []
        sections += [proposal.text()] if proposal is not None else []
        sections += ["\n".join(["Written", *(f"  {path}" for path in written)])] if written else []
        sections.append(openness_summary(how_open) if form == "markdown" else openness_table(how_open))
        page = audit_markdown if form == "markdown" else audit_table
        print_text(page(result, *sections).rstrip("\n"))
    if result.violates:
        raise typer.Exit(Refused.exit_code)


def licences(
    name: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Licence id, alias, SPDX id or hub tag.", show_default=False)
    ] = None,
    licences_file: LicenseFile = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="List entries to read again: read over a year ago, in part, second-hand or never, or with unchecked "
            "repositories.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List known licences and service terms, or print one."""
    import datetime as dt

    from licensing.license_texts import doubts, license_table
    from licensing.registry import load_registry

    registry = load_registry(licences_file)
    if check:
        reasons = {one.id: doubts(one, dt.date.today()) for one in registry.entries.values()}
        rows = [{"id": name, "doubts": texts} for name, texts in reasons.items() if texts]
        if as_json:
            print_json(rows)
        else:
            for row in rows:
                print(f"{row['id']}\t{', '.join(row['doubts'])}")
        return
    if name is None:
        entries = registry.entries.values()
        if as_json:
            print_json([{"id": one.id, "name": one.name, "kind": one.kind, "spdx": one.spdx} for one in entries])
        else:
            for one in entries:
                print(f"{one.id}\t{one.name}")
        return
    entry = registry.resolve(name)
    if entry is None:
        hint = "`distill licences` lists the known ones; an unknown licence is never taken as permissive"
        raise InputError(f"unknown licence {name!r}", hint=hint)
    if as_json:
        print_json(entry.model_dump(mode="json"))
    else:
        print(license_table(entry), end="")
