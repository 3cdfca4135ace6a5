r"""From the tokens of an answer to one typed value, by recursive descent.

To change how lists, labels and relations are read, edit `answer.py` (the whole of an answer: `answer.Parser`);
brackets, sets, intervals, permutations, matrices and pieces, `brackets.py`; sums, products, powers, functions and
commands, `expressions.py`; units and money, `quantities.py`; one number, `numbers.py`; the position in the tokens,
`cursor.py`. Each class derives from the one that comes after it in this list.
"""
