"""Curation: which traces the student is trained on, as SQL over tables keyed by request id.

To add or change a filter, edit `config.py` (its switch) and `select.py` (its condition); how traces of a problem are
ranked, `select.py` and `diverse.py`; what happens to identity talk, `identity.py`; the control arm, `control.py`; the
ablation, `ablate.py`; what is counted, `statistics.py`; the joined table that all of them read, `tables.py`; the files
of the stage, `curate.py`; the fields of a training row, `training_rows.py`.
"""
