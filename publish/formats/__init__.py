"""A release in other formats, each a repository of its own beside it.

To change:
- what GGUF files are made of, and what is checked in them: gguf.py
- the types that llama.cpp's quantizer writes: llama_quantize.py, a program
- the Modelfile for Ollama: ollama.py
- FP8, INT8 and INT4 weights for vLLM: compressed.py, and llm_compressor.py, a program of another environment
- how such programs run: program.py

The card is ``publish.cards.format_card``, the folder ``publish.package.build_format_release``.
"""
