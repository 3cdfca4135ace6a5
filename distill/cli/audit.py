"""``distill audit`` and ``distill licences``: what licences allow, and what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    from distill.cli.audit_target import allowances, audit_target

    if as_json and form not in (None, "json"):
        raise InputError("--json and --format contradict each other", where="--format", hint="leave one of them out")
    shape = "json" if as_json else form or "table"
    page, result = audit_target(
        target,
        form=shape,
        policy=policy,
        licences=licences_file,
        allow=allowances(allow or [], because or []),
        cards=cards or [],
        endpoint=endpoint,
        name=name,
        suggested=suggest,
        notice=notice,
    )
    print_text(page if shape == "json" else page.rstrip("\n"))
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
