"""Suites: named sets of problems that models are scored on. Every answer is judged by ``synth.verify``.

To change X, edit Y:

    names, what each suite measures, a subset          suite.py
    the models of `distill eval`                       models.py
    all suites of several models, one engine start     evaluate.py
    instructions, refusals, knowledge, plain chat      data/*.jsonl (problem rows)
    a fact in a long text                              long_context.py
    results as files, Every Eval Ever                  records.py
    results as logs of inspect-ai                      inspect_log.py
"""
