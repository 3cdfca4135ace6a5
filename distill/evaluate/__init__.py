"""Evaluation of base, student, teacher and control on the same held-out problems.

To change X, edit Y:

    what a model is asked, and how it is verified      run.py
    answers and verdicts that are kept                 answers.py
    scores, comparisons                                metrics.py
    questions about the model's identity               persona_probes.py
    families of problems                               families.py
    intervals, tests, minimum detectable effects       statistics.py
    suites, the side-effect suite                      suites/ (its own map)
    lm-eval as a second harness                        lm_eval.py
    a GGUF file as an endpoint                         llama_cpp.py
"""
