"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        help="Recipe file (YAML), or the name of a recipe that `distill recipes` lists.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="a.b=c",
        help="Override one recipe field; entries of a list by number, as in teacher.teachers.0.share=0.3. Repeatable.",
    ),
]
RunsFolder = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder that holds the run directories.")]
RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Run directory, or a folder with a single run in it.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout; errors too.")]
InputRows = Annotated[
    Path,
    typer.Argument(
        metavar="IN.jsonl",
        show_default=False,
        help="JSON lines or a JSON array; UTF-8, or UTF-16 with a byte-order mark; gzip is fine. `-`: standard input.",
    ),
]
OutputRows = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="OUT.jsonl", help="Output file; missing folders are created."),
]
LicenseFile = Annotated[
    Path | None,
    typer.Option("--licences", metavar="FILE", help="Your own licence entries (YAML), added to the built-in ones."),
]
EngineChoice = Annotated[
    Literal["auto", "vllm", "transformers"],
    typer.Option(
        "--engine", help="Inference engine for the models; auto: vLLM where it is installed, else transformers."
    ),
]
