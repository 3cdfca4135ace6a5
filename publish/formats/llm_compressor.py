"""llmcompressor as a program, in an environment of its own: ``python llm_compressor.py PLAN``.

PLAN is a JSON file: ``model`` and ``out``, folders; ``scheme``, a name of compressed-tensors or "W4A16"; ``rows``,
lists of token ids for calibration, and ``max_length``. Writes config and weights, nothing else. The environment has
neither this package nor its libraries' versions, so no test runs it: recipes/LOG.md has runs with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(plan_file: str) -> None:
    """Write ``out``; ends with a message where no group size divides the widths of the model."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM

    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(plan["model"], dtype="auto")
    if plan["scheme"] == "W4A16":
        weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"}
        groups = {"group_0": {"targets": ["Linear"], "weights": weights | {"group_size": group_size(model)}}}
        oneshot(
            model=model,
            recipe=GPTQModifier(config_groups=groups, ignore=["lm_head"]),
            dataset=Dataset.from_dict({"input_ids": plan["rows"]}),
            num_calibration_samples=len(plan["rows"]),
            max_seq_length=plan["max_length"],
        )
    else:
        oneshot(
            model=model,
            recipe=QuantizationModifier(targets="Linear", scheme=plan["scheme"], ignore=["lm_head"]),
        )
    model.save_pretrained(plan["out"], save_compressed=True)


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
