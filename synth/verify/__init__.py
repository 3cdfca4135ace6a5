"""Verification of responses.

To change which words are the final answer, edit `extract.py`; when answers are equal, `equivalence.py` (by form),
`numbers.py` (plain numbers), `normalise.py` (spelling), `parse.py` and `answer_types.py` (how an answer is read),
`units.py`, `symbolic.py` (math-verify). To change the verdict on a kind, edit `math.py`, `choice.py`, `code.py` or
`reasoning_gym.py`; rows, order, look-ahead and the cache, `verifier.py`; which verdicts count, `verdict.py`; what makes
a stored verdict valid, `verdict_store.py`, and who uses it, `trace_verifier.py`; the table of a run's verdicts,
`verify_traces.py`; time and memory limits of workers, `../worker_pool.py`; the format check, `format_check.py`; the
majority gold, `majority.py`; the judge's prompt, `judge.py`, and how it is run, `judge_runner.py`; the disagreement
report, `disagreement_report.py`; the recipe's fields, `config.py`.
"""
