"""Imports of libraries that stay to the end of the process, without the garbage collector.

torch and vLLM load hundreds of thousands of objects. Python looks through them again and again while they are loaded,
a quarter of the time that it takes, and at each later collection, of which an engine's start makes several.
"""

from __future__ import annotations

import atexit
import gc
import importlib
from types import ModuleType

atexit.register(gc.unfreeze)  # the end of a process frees all: nanobind prints what it does not


def import_large(name: str) -> ModuleType:
    """Import a module; no later collection looks at anything that is alive then (``gc.freeze``).

    Call it before there is something large to free. Raises what importing the module raises.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
