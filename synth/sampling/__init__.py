"""Sampling: which requests are sent, when it ends, and where the answers are kept.

To change what identifies a request, or which teacher of a mixture draws a sample, edit `requests.py`; how many samples
a problem gets, `policy.py`; costs and limits, `budget.py`; the loop that keeps teachers busy, `sampler.py`; verdicts
during sampling, `online_verification.py`; the guard against empty thinking, `reasoning_guard.py`; the run's store of
texts, `store.py`, and how a line is committed and found, `append_log.py`; samples of other runs, `reuse.py`; one log of
several, `merge.py`; which rows of the store a stage uses, `selection.py`; the columns of its tables,
`samples_table.py`; imported traces, `imported_traces.py`; questions of a stage to a model of its own (judge, rewriter),
`auxiliary_model.py`; the start and end of a run of sampling, `sample.py`; the recipe's section `sample`, `config.py`.
"""
