"""In CI a skipped test is a failed one: a missing part must not pass for a kept promise.

Under xdist the tests of a file share a worker and its fixtures, and so do the files of a group: those in which torch
trains or generates, since importing torch, transformers and peft takes as long as testing with them; those that start
vLLM, which share the machine's memory; those of the smoke run, which share a finished one. The longest go first: one
that starts last would leave the other worker without work.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Answer, call

# A shell starts background jobs with SIGINT ignored, and their children inherit that: tests that interrupt one would
# wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A core each: threads of OpenMP that wait for one another on cores that another worker uses take ten times as long.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else range(os.cpu_count() or 1)
    core = cores[int(worker.removeprefix("gw")) % len(cores)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", str(core))

GROUPS = {
    "torch": (
        "test_distill_across_tokenizers.py", "test_distill_formats.py", "test_distill_load.py",
        "test_distill_memory.py", "test_distill_pair.py",
        "test_distill_prepare.py", "test_distill_render.py", "test_distill_select.py", "test_distill_train.py",
        "test_distill_train_on_policy.py", "test_multimodal_base.py", "test_publish_merge.py",
        "test_publish_weights.py", "test_synth_verify_rewards.py",
    ),
    "vllm": (
        "test_distill_teacher_server.py", "test_quickstart.py", "test_synth_mixture.py", "test_synth_teachers.py",
        "test_synth_vllm_server.py",
    ),
    "smoke": (
        "test_release_demo.py", "test_smoke_confirm.py", "test_smoke_reruns.py", "test_smoke_run.py",
        "test_smoke_select.py",
    ),
}  # fmt: skip
LONGEST = (
    "smoke", "vllm", "torch", "test_dry_run.py", "test_smoke_sampling.py", "test_synth_verify_code.py",
)  # fmt: skip


def _group(nodeid: str) -> str:
    """The group of a test's file, or its file."""
    file = nodeid.partition("::")[0]
    return next((group for group, files in GROUPS.items() if Path(file).name in files), file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(Path(_group(item.nodeid)).name, len(ranks)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    config.option.loadscopereorder = False  # by the number of their tests
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


# Collections over what modules hold, which stays to the end, take a quarter of the time of importing them, and a second
# each later on.
gc.disable()
modules_frozen = 0


def freeze_modules() -> None:
    global modules_frozen
    gc.freeze()
    modules_frozen = len(sys.modules)


def pytest_collection_finish() -> None:
    freeze_modules()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    if len(sys.modules) > modules_frozen + 500:  # torch, vLLM
        freeze_modules()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    if worker is not None:  # it has reported everything; taking itself apart, and xdist's waiting for that, are seconds
        os._exit(0)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """No collection of all that a worker has loaded in a time that is measured. A finalizer that meets a limit inside
    ast.parse calls pytest's hook, which parses, too: CPython 3.11 fails."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def distill() -> Callable[..., Answer]:
    """The command ``distill`` in this process: ``distill("check", path)``."""
    return call
