"""``distill verify`` and ``distill decontaminate``: a file of rows in, the same rows with more columns out."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli.options import InputRows, Json, OutputRows
from distill.cli.output import json_by_default, print_json
from licensing.errors import InputError


class ResponseFormat(StrEnum):
    think = "think"
    boxed = "boxed"


def verify(
    rows: InputRows,
    out: OutputRows,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Number of worker processes.")] = 2,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            show_default=False,
            help="Time limit for each row: CPU seconds, for programs wall seconds. [default: 2; for programs 5]",
        ),
    ] = None,
    sandbox: Annotated[
        str,
        typer.Option(
            metavar="RUNTIME",
            help="Where programs run: bubblewrap, docker:IMAGE, podman:IMAGE, tcp://HOST:PORT, or none (no isolation).",
        ),
    ] = "auto",
    isolation: Annotated[
        Literal["apart", "any"],
        typer.Option(
            metavar="apart|any",
            help="Handling of tests that have to run in the program's own process, where it can fake a pass. apart: "
            "they are errors; any: they are run.",
        ),
    ] = "any",
    require_format: Annotated[
        list[ResponseFormat] | None,
        typer.Option(
            metavar="think|boxed",
            help="Format to check as well: one closed think block, or the answer in \\boxed{}. Repeatable.",
        ),
    ] = None,
    majority: Annotated[
        int | None,
        typer.Option(
            "--majority",
            min=2,
            metavar="VOTES",
            help="Least number of equal answers that replace a missing gold answer; absent: no majority vote.",
        ),
    ] = None,
    as_json: Json = False,
    former_format: Annotated[list[str] | None, typer.Option("--format", hidden=True)] = None,
) -> None:
    """Verify responses: each row comes out with a verdict.

    A row has `kind`, `response` (or, for code, `completion`) and `answer`; the order of rows is kept. Run the same
    command again after an interruption to resume.
    """
    from distill.cli.progress import StageProgress
    from distill.cli.verify_file import verify_file
    from synth.sandbox.sandbox import RUNTIME
    from synth.verify.config import CodeConfig, FormatConfig, MajorityConfig, VerifyConfig

    if former_format:
        hint = f"write --require-format {former_format[0]}" if former_format[0] in set(ResponseFormat) else "use --json"
        raise InputError("--format is now --require-format", where="--format", hint=hint)
    if not re.fullmatch(RUNTIME, sandbox):
        hint = "give auto, bubblewrap, docker:IMAGE, podman:IMAGE, tcp://HOST:PORT or none"
        raise InputError(f"no such sandbox: {sandbox}", where="--sandbox", hint=hint)
    formats = set(require_format or ())
    config = VerifyConfig(
        workers=workers,
        **({"timeout_s": timeout} if timeout else {}),
        code=CodeConfig(sandbox=sandbox, isolation=isolation, **({"timeout_s": timeout} if timeout else {})),
        format=FormatConfig(think="think" in formats, boxed="boxed" in formats) if formats else None,
        majority=MajorityConfig(min_votes=majority) if majority else None,
    )
    with StageProgress() as progress:
        counts = verify_file(rows, out, config, progress.stage_begins("verify"))
    total = sum(counts.values())
    if json_by_default(as_json):
        print_json({"rows": total, "verdicts": counts, "out": str(out.resolve())})
        return
    print(f"{out}: {total:,} rows")
    for verdict, count in counts.items():
        print(f"  {verdict:20} {count:>10,}")


def decontaminate(
    rows: InputRows,
    against: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE...", help="Files of test items, in the formats of IN.jsonl. Repeatable, or several at once."
        ),
    ],
    out: OutputRows,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    as_json: Json = False,
) -> None:
    """Mark rows that contain an item of a test set.

    Detects copies that are verbatim, edited, embedded in other text, or with other digits. Also measures recall, on
    items that are planted into these rows.
    """
    from distill.cli.decontaminate_file import decontaminate_file
    from distill.cli.progress import StageProgress

    with StageProgress() as progress:
        counts = decontaminate_file(rows, [*against, *(more or [])], out, progress.stage_begins("decontaminate"))
    if json_by_default(as_json):
        print_json(counts)
        return
    print(f"{out}: {counts['contaminated']:,} of {counts['rows']:,} rows contain one of {counts['items']:,} test items")
    for kind, share in counts["recall"].items():
        print(f"  detected of planted items, {kind}: {'not measured' if share is None else f'{share:.1%}'}")
