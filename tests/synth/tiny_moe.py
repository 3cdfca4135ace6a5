"""A tiny Qwen3-MoE, two layers of four experts with random weights, whose answers are known all the same.

Its output layer is a chain, and what experts and attention add is too small to leave it: each token is followed by one
other. The prompt ends with the last letter of the question, so that letter chooses the answer:
    x -> "<think>\\nhm\\t</think> 4" and the end of turn, white space on all sides of the tags
    y -> "zyzyzy..." for ever
    r -> "r" or the end of turn, evenly
"""

from __future__ import annotations

from pathlib import Path

ANSWER = "<think>\nhm\t</think> 4"
_CHAIN = {
    "x": "<think>", "<think>": "\n", "\n": "h", "h": "m", "m": "\t", "\t": "</think>", "</think>": " ", " ": "4",
    "4": "<|end|>", "y": "z", "z": "y",
}  # fmt: skip
_TEMPLATE = (
    "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ messages[-1].content[-1] }}{% endif %}"
)


def write_tiny_moe(folder: Path) -> None:
    """Weights, byte-level tokenizer and template. Needs torch and transformers."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|start|>", "<|end|>", "<think>", "</think>"]
    vocabulary = {
        token: number for number, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|start|>",
        additional_special_tokens=["<think>", "</think>"],
        chat_template=_TEMPLATE,
    ).save_pretrained(folder)
    size = 320
    config = transformers.Qwen3MoeConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=64,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=512,
        eos_token_id=vocabulary["<|end|>"],
        bos_token_id=None,
        pad_token_id=vocabulary["<|start|>"],
        tie_word_embeddings=False,
        initializer_range=0.002,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = transformers.Qwen3MoeForCausalLM(config)

    def number(token: str) -> int:
        return int(tokenizer.encode(token).ids[0])

    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(4 * torch.eye(size))
        model.lm_head.weight.zero_()
        for before, after in [*_CHAIN.items(), ("r", "r"), ("r", "<|end|>")]:
            model.lm_head.weight[number(after), number(before)] = 2.0
    model.save_pretrained(folder)
