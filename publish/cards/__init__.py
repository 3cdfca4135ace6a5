"""Model card and data card, from the facts in `publish/facts.py` alone.

To change:
- a section of the model card: model_card.py; of the data card: data_card.py
- the YAML metadata that the hub reads: front_matter.py
- escaping, tables, code blocks: markdown.py
"""
