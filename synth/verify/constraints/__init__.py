"""Verdicts for rows of kind `constraints`: instructions that a program can check.

To change X, edit Y:

    the verdict of a row, its score, loops             verdict.py
    how an instruction is declared and looked up       registry.py
    the 25 instructions of IFEval                      ifeval.py
    further instructions on the text                   texts.py
    instructions on the whole response (refusal, end)  responses.py
    words, sentences, lines                            segments.py
"""
