"""Verification of responses.

To change which words are the final answer, edit `extract.py`; what a sentence states, `statement.py`; how an answer is
read and when two are equal, `answers/` (its own map). To change the verdict on a kind, edit `math.py`, `choice.py`,
`code.py`, `reasoning_gym.py` or `constraints/` (its own map); which text is the program, `program.py`; the
shapes of its tests, `code_tests.py`; languages of programs, `languages.py`; rows, order, look-ahead and the cache,
`verifier.py`; which verdicts count, `verdict.py`; what makes a stored verdict valid, `verdict_store.py`, and who uses
it, `trace_verifier.py`; the table of a run's verdicts, `verify_traces.py`; time and memory limits of workers,
`../worker_pool.py`; the format check, `format_check.py`; the majority gold, `majority.py`;
the judge's prompt, `judge.py`, and how it is run, `judge_runner.py`; the disagreement report, `disagreement_report.py`;
rewards of RL libraries, `rewards.py`; the recipe's fields, `config.py`.
"""
