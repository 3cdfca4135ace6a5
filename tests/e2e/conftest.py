"""A finished run of the smoke recipe, made once."""

from pathlib import Path

import pytest
from smoke import run_smoke


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a run that nobody disturbed. Copy it before you change it."""
    runs = tmp_path_factory.mktemp("alone")
    run_smoke(runs)
    return runs
