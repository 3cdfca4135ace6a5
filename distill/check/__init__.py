"""What `distill check` looks at before anything is spent.

To change X, edit Y:

    models, packages, template, golds, licenses, disk  check.py
    bounds and the forecast of a pilot                 pilot.py
"""
