"""``distill preview``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.cli.options import Json, Overrides, RecipeFile, RunsFolder
from distill.cli.output import print_json

if TYPE_CHECKING:
    from distill.check.preview import PreviewRow


def preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: RunsFolder = Path("runs"),
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Number of rows.")] = 3,
    as_json: Json = False,
) -> None:
    """Show training rows as the student will see them, with what is trained in colour.

    Rows are those that the recipe's run has selected, or made-up traces on its first problems. Loads no weights.
    """
    from distill.check.preview import preview as preview_rows
    from distill.config.loader import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    source, rows = preview_rows(loaded, runs / loaded.run_name(), count)
    if as_json:
        print_json({"source": source, "rows": [asdict(row) for row in rows]})
    else:
        _print_rows(source, rows)


def _print_rows(source: str, rows: list[PreviewRow]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(
        f"{source}; trained text is green, or between \u27e6 and \u27e7 where there is no colour", markup=False
    )
    marks = ("", "") if console.is_terminal and not console.no_color else ("\u27e6", "\u27e7")
    for row in rows:
        tokens = f"{row.prompt_tokens:,} tokens of prompt, {row.trained_tokens:,} trained"
        console.rule(Text(row.id), align="left")
        if row.prompt is not None and row.completion is not None:
            # Texts of models are foreign: control characters are escaped, so that none reaches the terminal.
            console.print(
                Text.assemble((_visible(row.prompt), "dim"), marks[0], (_visible(row.completion), "green"), marks[1]),
                soft_wrap=True,
            )
            console.print(tokens, markup=False)
        if row.reason:
            console.print(f"left out: {row.reason}", markup=False)


def _visible(text: str) -> str:
    return "".join(char if char in "\n\t" or char.isprintable() else f"\\u{ord(char):04x}" for char in text)
