"""Model folders and tokens.

To change:
- where a base is looked for, which bases are refused, the end-of-turn token: folder.py
- what the prepared model holds (template, stop and pad tokens, generation config): prepare.py
- how many positions a model has, RoPE scaling: positions.py
- how a template writes thinking, answer and end of turn: turn_format.py
- token ids, the loss mask, which rows are refused: tokens.py
- the tokens that two models share: vocabulary.py
- the random model for trying recipes: random_model.py
"""
