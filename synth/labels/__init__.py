"""Labels: what can be read off every trace and every problem before anything is selected.

To change what a label means, edit its module: `language.py`, `repetition.py`, `refusals.py` (and names of models that a
trace leaks), `pii.py` (secrets and personal data), `code_blocks.py`, `reasoning_format.py`. To change which labels a
trace has, edit `trace.py`; the recipe's `label` section, `config.py`; how the table is cut into shards, `shards.py`; the
confidence interval of a pass rate, `pass_rate.py`; the files of the stage, `label.py`.
"""
