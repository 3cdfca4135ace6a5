"""What runs inside a sandbox. Standard library only: this folder alone is there.

To change how processes are started and cleaned up, edit `__main__.py`; limits, how a program is loaded and called,
`candidate.py`; what it may ask of the kernel, `seccomp.py`; what is sent in and comes back, `job.py`; how a job is
judged, `test_runner.py`; which tests can run apart from the program, `apart.py`, and how tests run, `test_cases.py`;
how values pass between the two, `plain_data.py`.
"""
