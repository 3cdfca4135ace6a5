"""``distill run --dry-run``: every stage of a recipe with stand-ins, in about a minute, without network and GPUs.

To change:
- which models have a description that ships, and what it says: models.yaml
- where a model's template, tokens and positions are read from; the tiny model that stands in: models.py
- problems that stand in for a data set of the hub: problems.yaml, problems.py
- what of a recipe is replaced, and which lengths are compared: recipe.py
- the run itself, where it writes, what it prints: run.py
"""
