"""From a trained student to a folder that can be released. Imports `licensing` only.

To change:
- which adapters may be merged: adapter.py; how a layer is merged: adapted_layers.py; which tensors store a parameter:
  base_model.py; the merge from plan to folder: merge.py; what the exported model holds: export.py
- how model folders are read and written: weights.py; how weight files are, tensor by tensor: shards.py
- which weights of FP8 or NVFP4 are merged into, and how: fp8.py, nvfp4.py
- how the persona enters the chat template, where a template is looked for: chat_template.py; into and out of a model
  folder: persona.py; the engines that render a template: template_engines.py
- what the cards can state: facts.py; how they look: cards/
- the columns and shards of the released data: training_data.py
- records of the evaluation: evaluation.py
- the files of the release folders: package.py; what may not be in them: scan.py
- SHA256SUMS: checksums.py; the SLSA statement: provenance.py; signatures: signing.py
- GGUF files and the Modelfile for Ollama: formats/
- the steps of a push, what it refuses: push.py; requests to the hub, retries, errors: hub.py
"""
