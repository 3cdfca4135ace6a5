"""A recipe goes in, a fully open release comes out. Read ``distill/stages/pipeline.py`` first.

To change X, edit Y:

    commands and options                                 cli/
    fields of a recipe, rules between sections           config/
    what is looked at before anything is spent           check/
    the dry run with stand-ins                           dry_run/
    the order of the stages; a stage                     stages/pipeline.py; stages/
    the run directory: keys, commits, reuse              runs/
    model folders, templates and tokens of the student   models/
    training                                             train/
    benchmarks, metrics and suites                       evaluate/
    the report                                           report/
    audit, gate and folder of a release                  release/
"""

__version__ = "0.1.0"
