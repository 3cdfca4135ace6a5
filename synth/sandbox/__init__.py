"""The sandbox for programs that a model wrote.

To change how it is started, stopped and replaced, edit `sandbox.py`; the walls, `init.py`, `seccomp.py` and
`landlock.py`; how tests run, `test_runner.py`; how a program is loaded and called, `candidate_runner.py`; how values
pass between the two, `ipc.py`.
"""
