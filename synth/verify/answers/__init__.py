r"""Answers as typed values: in `read.py`, `read` reads a text whole, `equal` compares two texts.

This package imports nothing else of the project. To change which signs are the same, edit `tokens.py`; how a text is
read, `parser/` (its own map) and `words.py` (prose, dates, numbers in words); which words are units, `units.py`; the
types, `values.py`; when two values are equal, `equality.py` (each pair of types), `evaluate.py` (expressions) and
`regions.py` (intervals and inequalities).
"""
