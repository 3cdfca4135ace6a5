"""``distill samples``: the sample logs of runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import Json
from distill.cli.output import print_json

app = typer.Typer(help="Sample logs of runs: merge those of job-array shards.")


@app.command()
def merge(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", show_default=False, help="Folder to write; it must not exist, or be empty.")
    ],
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|LOG...", show_default=False, help="Run directories, their samples.jsonl, or merged folders."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Merge the samples of several runs into one log, for `distill run --reuse OUT`.

    Equal answers to a request count once. Of different answers the first one counts, in the order of the arguments; the
    others go to OUT/conflicts.jsonl. An answer replaces a failed request. OUT appears when it is complete.
    """
    from synth.sampling.merge import CONFLICTS, merge_logs

    summary = merge_logs(sources, out)
    if as_json:
        print_json({"out": str(out), **asdict(summary)})
        return
    print(
        f"{out}: {summary.requests:,} requests, {summary.failed:,} of them failed; "
        f"{summary.completion_tokens:,} generated tokens"
    )
    print(
        f"{summary.rows_in:,} rows in {summary.logs:,} logs: {summary.duplicates:,} duplicates, "
        f"{summary.conflicts:,} conflicts, {summary.retried:,} further rows of failed requests; "
        f"{summary.damaged:,} damaged lines"
    )
    if summary.lost_logprobs:
        print(f"{summary.lost_logprobs:,} rows are without their log-probabilities, which are damaged")
    if summary.conflicts:
        print(
            f"the first of different answers counts; the others ({summary.conflict_tokens:,} tokens): {out / CONFLICTS}"
        )
