"""A tiny random Llama with a byte-level tokenizer, generated locally, to try a recipe without a model.

The vocabulary is three special tokens and the 256 bytes, the template plain ChatML without a default system prompt.
Equal configurations give equal bytes: weights come from numpy's PCG64 by seed, and no file holds a date or a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.config.recipe import RandomBase
from licensing.errors import InputError
from publish.chat_template import TEMPLATE_FILE
from publish.weights import write_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level_tokenizer(special: Sequence[str], text: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer whose vocabulary is these added tokens, ``special`` ones first, and the 256 bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: number for number, token in enumerate((*special, *text))}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in text])
    return tokenizer


def write_random_base(base: RandomBase, folder: Path) -> None:
    """Write config.json, model.safetensors (float32), tokenizer files and chat_template.jinja into ``folder``.

    Raises InputError where the sizes do not fit together.
    """
    if base.hidden_size % (2 * base.num_heads):
        raise InputError(
            f"hidden_size {base.hidden_size} is no multiple of twice num_heads {base.num_heads}",
            where="student.base",
            hint="rotary positions need heads of an even size: change one of the two",
        )
    import numpy as np
    from safetensors.numpy import save

    tokenizer = byte_level_tokenizer((END_OF_TEXT, TURN_START, TURN_END))
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()

    hidden, inner = base.hidden_size, 2 * base.hidden_size
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": vocabulary[TURN_END],
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "max_position_embeddings": base.max_position_embeddings,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": base.num_heads,
        "num_hidden_layers": base.num_layers,
        "num_key_value_heads": base.num_heads,
        "pad_token_id": vocabulary[END_OF_TEXT],
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
        "vocab_size": len(vocabulary),
    }
    draw = np.random.default_rng(base.seed)
    shapes = {"model.embed_tokens.weight": (len(vocabulary), hidden)}
    for layer in range(base.num_layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.self_attn.{part}_proj.weight": (hidden, hidden) for part in "qkvo"}
        shapes |= {f"{name}.mlp.{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
        shapes |= {f"{name}.mlp.down_proj.weight": (hidden, inner)}
    tensors = {name: (draw.standard_normal(shape) * 0.02).astype(np.float32) for name, shape in shapes.items()}
    norms = ["model.norm"]
    for layer in range(base.num_layers):
        norms += [f"model.layers.{layer}.{part}_layernorm" for part in ("input", "post_attention")]
    tensors |= {f"{name}.weight": np.ones(hidden, np.float32) for name in norms}
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))

    tokenizer_config = {
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "model_max_length": base.max_position_embeddings,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for file, value in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        write_object(folder / file, value)
    (folder / TEMPLATE_FILE).write_bytes(CHATML.encode())
