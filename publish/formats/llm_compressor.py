"""llmcompressor as a program, in an environment of its own: ``python llm_compressor.py PLAN``.

PLAN is a JSON file: ``model`` and ``out``, folders; ``scheme``, a name of compressed-tensors, "W4A16" (by GPTQ) or
"AWQ"; ``rows``, lists of token ids for calibration, none for a scheme without, and ``max_length``. Writes config and
weights, nothing else. The environment has neither this package nor its libraries' versions, so no test runs it:
recipes/LOG.md has runs with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(plan_file: str) -> None:
    """Write ``out``; ends with a message where ``modifiers`` does."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype="auto")
    data: dict[str, Any] = {}
    if plan["rows"]:
        rows = Dataset.from_dict({"input_ids": plan["rows"]})
        data = {"dataset": rows, "num_calibration_samples": len(rows), "max_seq_length": plan["max_length"]}
    oneshot(model=model, recipe=modifiers(plan["scheme"], model), **data)
    model.save_pretrained(plan["out"], save_compressed=True)


def modifiers(scheme: str, model: Any) -> list[Any]:
    """What llmcompressor does to all linear layers but the output layer.

    Ends with a message where no group size divides the widths of the model, and where AWQ finds no layers to scale:
    its weights would be rounded to the nearest, and called AWQ all the same.
    """
    import torch
    from compressed_tensors.utils import match_modules_set
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier, get_layer_mappings_from_model
    from llmcompressor.pipelines.cache import IntermediatesCache

    if scheme not in ("W4A16", "AWQ"):
        return [QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])]
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": group_size(model)}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights | {"symmetric": scheme == "W4A16"}}}
    if scheme == "W4A16":
        return [GPTQModifier(config_groups=groups, ignore=["lm_head"])]
    mappings = get_layer_mappings_from_model(model)
    if not any(True for part in mappings for _ in match_modules_set(model, (part.smooth_layer, *part.balance_layers))):
        sys.exit(f"AWQ knows no layers of {type(model).__name__} that it could scale")
    if not torch.accelerator.is_available():  # AWQModifier pins what it keeps, which torch refuses then
        IntermediatesCache.pin_memory = lambda *_: None
    return [AWQModifier(duo_scaling="both"), QuantizationModifier(config_groups=groups, ignore=["lm_head"])]


def group_size(model: Any) -> int:
    """The largest usual size that divides the width of every linear layer."""
    import torch

    widths = {
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    for size in (128, 64, 32):
        if all(width % size == 0 for width in widths):
            return size
    sys.exit(f"no group of 128, 64 or 32 weights divides the widths {sorted(widths)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
