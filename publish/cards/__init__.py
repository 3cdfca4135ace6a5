"""The cards of a model, of its data set and of its other formats, with their plots, from `publish/facts.py` alone.

To change:
- a sentence or the order of the sections: model_card.md.jinja, data_card.md.jinja, format_card.md.jinja;
  duties.md.jinja is in all of them
- what a sentence is made of: model_card.py, data_card.py, format_card.py
- the YAML metadata that the hub reads: front_matter.py
- escaping, tables, code blocks: markdown.py
- the PNG plots: plots.py; the draft for the AI Act: eu_summary.py and its template
"""
