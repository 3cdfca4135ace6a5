"""A release in other formats, each a repository of its own beside it.

To change:
- what GGUF files are made of, and what is checked in them: gguf.py
- the Modelfile for Ollama: ollama.py

The card is ``publish.cards.format_card``, the folder ``publish.package.build_format_release``.
"""
