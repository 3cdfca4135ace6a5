"""Evaluation of base, student, teacher and control on the same held-out problems.

To change X, edit Y:

    what a model is asked, and how it is verified      run.py
    scores, intervals, paired comparisons              statistics.py
"""
