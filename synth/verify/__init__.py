"""Verdicts: answer extraction, typed equality, code, choice, reasoning-gym, format check, majority vote, judge."""
