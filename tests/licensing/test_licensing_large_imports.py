import gc
import subprocess
import sys
from pathlib import Path

import pytest

from licensing.large_imports import import_large


def test_no_collection_runs_while_a_library_is_imported_or_looks_at_it_later(tmp_path: Path, monkeypatch) -> None:
    text = "import gc\ncollector = gc.isenabled()\nkept = [[] for _ in range(1000)]\n"
    (tmp_path / "large_library.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    library = import_large("large_library")
    assert not library.collector
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + 1000
    assert not any(one is library.kept for one in gc.get_objects())


def test_the_collector_is_as_it_was_behind_an_import_that_fails(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_library.py").write_text("raise OSError('no such native library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match="native library"):
        import_large("broken_library")
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(OSError, match="native library"):
            import_large("broken_library")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_end_of_a_process_frees_what_was_kept(tmp_path: Path) -> None:
    (tmp_path / "native.py").write_text(
        "class Kept:\n    def __init__(self):\n        self.cycle = self\n\n"
        "    def __del__(self, print=print):\n        print('freed')\n\nkept = Kept()\n"
    )
    program = f"import sys; sys.path.append({str(tmp_path)!r})\nfrom licensing.large_imports import import_large\n"
    ended = subprocess.run(
        [sys.executable, "-c", program + "import_large('native')"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "freed\n"
