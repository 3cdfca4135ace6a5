"""Model card, data card and their plots, from the facts in `publish/facts.py` alone.

To change:
- a sentence or the order of the sections: model_card.md.jinja, data_card.md.jinja; duties.md.jinja is in both
- what a sentence is made of: model_card.py, data_card.py
- the YAML metadata that the hub reads: front_matter.py
- escaping, tables, code blocks: markdown.py
- the PNG plots: plots.py; the draft for the AI Act: eu_summary.py and its template
"""
