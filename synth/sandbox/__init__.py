"""The sandbox for programs that a model wrote.

To change how it is started, stopped and replaced, or which runtime is taken, edit `sandbox.py`; what a runtime is,
`runtime.py`; a runtime, `bubblewrap.py`, `container.py` (docker and podman), `remote.py`, `none.py`; packages for
programs, `packages.py`; what runs inside, `runner/`.
"""
