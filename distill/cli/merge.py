"""``distill merge``: a base and an adapter in, a model folder out."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from distill.cli.options import Json
from distill.cli.output import print_json


def merge(
    base: Annotated[
        Path, typer.Argument(metavar="BASE", show_default=False, help="Folder of the model that the adapter is for.")
    ],
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", show_default=False, help="Folder of a LoRA adapter that PEFT saved.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", show_default=False, help="Folder to write; it must not exist, or be empty.")
    ],
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"] | None,
        typer.Option(
            "--dtype",
            show_default="as stored",
            help="Type to which the base is cast before the merge, as PEFT would load it.",
        ),
    ] = None,
    shard_size: Annotated[
        str, typer.Option("--shard-size", metavar="SIZE", help="Largest size of one weight file, such as 5GB or 500MB.")
    ] = "5GB",
    as_json: Json = False,
) -> None:
    """Merge a LoRA adapter into its base, bit for bit as PEFT does, one tensor at a time.

    OUT appears when it is complete: weights, and the base's configuration, tokenizer, template and license files.
    """
    from distill.cli.progress import TransferProgress, size_text
    from licensing.files import disk_errors
    from publish.merge import merge_folder
    from publish.shards import size_in_bytes

    shard_bytes = size_in_bytes(shard_size)
    with disk_errors(out.absolute().parent), TransferProgress() as progress:
        facts = merge_folder(
            base,
            adapter,
            out,
            dtype=dtype,
            shard_bytes=shard_bytes,
            progress=partial(progress, "merge"),
        )
    if as_json:
        print_json({"out": str(out), **asdict(facts)})
        return
    size = f"{facts.tensors:,} tensors in {len(facts.files)} files, {size_text(facts.bytes)}"
    print(f"{out}: {size}; the adapter changed {facts.merged:,} parameters")
    if facts.untied:
        print("The adapter replaces one end of tied embeddings: config.json now has tie_word_embeddings: false.")
