"""Wheels for pip without a network."""

import zipfile
from pathlib import Path

import pytest


def make_wheel(folder: Path, name: str, version: str, source: str, needs: str = "") -> None:
    """A wheel with one module; ``needs``: the name of a distribution."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": source,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def use_wheels(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Pip finds the wheels of this folder alone, and nothing is installed yet: a machine of its own."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
