"""Evaluation of base, student, teacher and control on the same held-out problems."""
