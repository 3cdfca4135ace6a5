"""Labels: what is measured on every trace and every problem, before anything is selected.

To add a label, edit `trace.py`; to change one, `reasoning_format.py` (answer mismatch), `../language.py`,
`../repetition.py`, `../refusals.py`, `../persona/find.py` (identity talk), `pii.py` (personal data),
`licensing/secrets.py`, `code_blocks.py`, `pass_rate.py` (the interval). The files that are written: `shards.py` (one
shard), `label.py` (all of them). Time and memory limits: `limits.py`, `workers.py`. The recipe's fields: `config.py`.
"""
