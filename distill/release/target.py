"""What a command on releases is given: a run, a release folder, or a repository of a hub."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distill.models.folder import download_release
from distill.runs.summary import find_run, summary
from licensing.card import is_hub_id
from licensing.errors import InputError
from publish.checksums import CHECKSUMS
from publish.weights import empty_folder


def release_folders(path: Path) -> list[Path]:
    """The release folder that ``path`` is, or those of a run: the model's, then its data set's, if there is one.

    Raises InputError where there is none.
    """
    if (path / CHECKSUMS).is_file():
        return [path]
    if not path.is_dir():
        raise InputError("there is no such folder", where=str(path), hint="give a run, or the release folder in it")
    if not (path / "ledger.jsonl").is_file() and not any(path.glob("*/ledger.jsonl")):
        hint = "give a run, or a release folder: `distill run` prints its path"
        raise InputError(
            f"the folder is neither a release (it has no {CHECKSUMS}) nor a run", where=str(path), hint=hint
        )
    result = summary(find_run(path))
    folders = [Path(folder) for folder in (result["release"], result["data_release"]) if folder is not None]
    if not folders:
        raise InputError("the run has no release yet", where=str(path), hint="finish it with `distill run RECIPE`")
    return folders


@contextlib.contextmanager
def release_or_download(target: str, revision: str | None, into: Path | None) -> Iterator[tuple[Path, str | None]]:
    """The release folder, or that of a run's model, or a fresh download of NS/NAME (a data set: datasets/NS/NAME).

    Yields the folder, and the commit of a download. ``into``: an absent or empty folder for the download; a temporary
    one if absent, which is removed afterwards.
    """
    bare = target.removeprefix("datasets/")
    if Path(target).exists() or not is_hub_id(bare) or "/" not in bare:
        if revision is not None:
            raise InputError(
                "a folder has no revisions", where="--revision", hint="leave it out, or give NS/NAME as the target"
            )
        yield release_folders(Path(target))[0], None
        return
    if into is not None:
        empty_folder(into)
    with tempfile.TemporaryDirectory(prefix="distill-confirm-") as temporary:
        out = into if into is not None else Path(temporary) / "release"
        kind = "model" if bare == target else "dataset"
        yield out, download_release(bare, kind, revision, out, Path(temporary) / "cache")
