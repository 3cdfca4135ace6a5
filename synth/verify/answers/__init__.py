r"""Answers as typed values: `read` reads a text whole, `equal` compares two texts.

This package imports nothing else of the project. To change which signs are the same, edit `tokens.py`; how a text is
read, `parser.py` and `words.py` (prose, dates, numbers in words); which words are units, `units.py`; the types,
`values.py`; when two values are equal, `equality.py` (each pair of types), `evaluate.py` (expressions) and `regions.py`
(intervals and inequalities).
"""

from synth.verify.answers.read import equal, is_plain_number, is_prose, letters, plainly_equal, read
from synth.verify.answers.values import Unreadable

__all__ = ["Unreadable", "equal", "is_plain_number", "is_prose", "letters", "plainly_equal", "read"]
