"""across_tokenizers: a teacher with other tokens, other turn tags and another end of turn is approached."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_distill_pair import add_token, edit
from test_distill_train import student
from test_distill_train_on_policy import PROMPTS, alone, on_policy, prepared, sft

from distill.models.folder import read_base
from distill.models.random_model import CHATML
from distill.models.vocabulary import same_texts, tokenizer_of, vocabulary_size
from distill.train.rollouts import ROLLOUTS
from licensing.errors import MissingDependency
from synth.parquet_files import read_parquet

ACROSS = {"across_tokenizers": True, "beta": 0.5}
MERGES = [*zip("0123456789", "1234567890", strict=True), *itertools.product("aeiou", "nrst")]
TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def retold(folder: Path, end: str, merges: Sequence[tuple[str, str]] = (), template: str = CHATML) -> Path:
    """Another tokenizer for a model folder, of ASCII alone: a student with random weights then writes no broken UTF-8.
    With ``merges`` its ids are others, too; it puts a token before each text, as Llama 3's does, and knows no end."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [bytes_.pre_tokenize_str(letter)[0][0] for letter in sorted({"\n", *map(chr, range(32, 127))})]
    special = ["<|endoftext|>", "<|im_start|>", end]
    texts = [*pieces, *map("".join, merges), *special] if merges else [*special, *pieces]
    vocabulary = {text: number for number, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer, tokenizer.decoder = bytes_, tokenizer_of(folder).decoder
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    if merges:
        first = special[1]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, vocabulary[first])]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template)
    ids = {"eos_token_id": vocabulary[end], "pad_token_id": vocabulary["<|endoftext|>"]}
    edit(folder / "config.json", lambda value: value.update(ids, vocab_size=len(vocabulary)))
    edit(folder / "tokenizer_config.json", lambda value: value.update(eos_token=None if merges else end))
    edit(folder / "generation_config.json", lambda value: value.update(ids, eos_token_id=[vocabulary[end]]))
    return folder


def weighted(folder: Path, seed: int, says: int | None = None) -> Path:
    """Random weights for the configuration of a folder; with ``says`` those of a model that writes this token alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(folder, tie_word_embeddings=False, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if says is not None:
        with torch.no_grad():
            model.model.embed_tokens.weight[:] = model.model.embed_tokens.weight[1]  # that of a pad token is 0
            hidden = model.model(torch.tensor([[0]])).last_hidden_state[0, 0]
            model.lm_head.weight[:] = 0
            model.lm_head.weight[says] = 10 * hidden / hidden.square().sum()
    (folder / "model.safetensors").unlink()
    original = (folder / "generation_config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(original)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weighted(retold(prepared(tmp_path_factory.mktemp("start") / "model", 0), "<|im_end|>"), 0)


@pytest.fixture(scope="module")
def other(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of another family."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(start, folder)
    return weighted(retold(folder, "<|end|>", MERGES, TEMPLATE), 5)


@pytest.fixture(autouse=True)
def training_environment(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slow"):
        alone(monkeypatch)


@pytest.mark.slow
def test_with_one_tokenizer_the_loss_is_that_of_a_teacher_beside(start: Path, tmp_path: Path) -> None:
    """Of answers of one token, whose weight is the same in both; and 0 where the teacher is the student."""
    config = student("full", dtype="float32", max_length=64)
    teacher = weighted(shutil.copytree(start, tmp_path / "teacher"), 7)  # type: ignore[arg-type]
    one_token = {"steps": 1, "max_new_tokens": 1, "micro_batch_size": 4}
    skewed = {"beta": 0.3, "temperature": 0.7}
    beside = on_policy(config, start, start, teacher, tmp_path / "beside", **one_token, **skewed).history[0]
    across = on_policy(config, start, start, teacher, tmp_path / "across", **one_token, **ACROSS | skewed).history[0]
    assert across["loss"] == pytest.approx(beside["loss"], rel=1e-4)
    assert across["grad_norm"] == pytest.approx(beside["grad_norm"], rel=1e-4)
    itself = on_policy(config, start, start, start, tmp_path / "itself", steps=1, **ACROSS)
    assert itself.history[0]["loss"] == pytest.approx(0, abs=1e-6)
    assert itself.history[0]["compared"] == 1
    filtered = shutil.copytree(start, tmp_path / "filtered")
    filters = {"do_sample": True, "min_p": 0.99, "repetition_penalty": 9.0}
    edit(filtered / "generation_config.json", lambda value: value.update(filters))
    for name, kind in (("beside", {}), ("across", ACROSS)):
        place = tmp_path / f"filtered-{name}"
        on_policy(config, filtered, filtered, teacher, place, **one_token, **kind | skewed)
        assert answers(place) == answers(tmp_path / name), "they are of the student's distribution, unfiltered"
    bytes_ = prepared(tmp_path / "bytes", 0)
    broken = on_policy(config, bytes_, bytes_, bytes_, tmp_path / "broken", steps=1, **ACROSS)
    assert broken.history[0]["loss"] == pytest.approx(0, abs=1e-6), "broken UTF-8 is no text that a teacher reads"
    assert broken.history[0]["compared"] < 0.5


@pytest.mark.slow
def test_an_answer_whose_bytes_are_not_those_that_the_teacher_reads_teaches_nothing(
    start: Path, tmp_path: Path
) -> None:
    """Qwen's tokenizers compose characters (NFC); of an added token TRL counts characters in place of bytes."""
    config = student("full", dtype="float32", max_length=64)
    composed, teacher = (prepared(tmp_path / name, 0) for name in ("composed", "teacher"))
    tokenizer = tokenizer_of(composed)
    piece = tokenizer.pre_tokenizer.pre_tokenize_str("e\u0301")[0][0]

    def respell(value: dict[str, Any]) -> None:
        vocabulary = value["model"]["vocab"]
        vocabulary[piece] = vocabulary.pop("z")

    edit(composed / "tokenizer.json", respell)
    edit(teacher / "tokenizer.json", lambda value: value.update(normalizer={"type": "NFC"}))
    weighted(composed, 0, says=tokenizer.token_to_id("z"))
    result = on_policy(config, composed, composed, teacher, tmp_path / "run", steps=1, **ACROSS)
    assert answers(tmp_path / "run") == ["e\u0301" * 6] * 4
    assert (result.history[0]["loss"], result.history[0]["compared"]) == (0, 0)

    added = shutil.copytree(start, tmp_path / "added")

    size = vocabulary_size(added)
    for number in range(size, size + 20):
        add_token(added, chr(0x4E00 + number), number)
    edit(added / "config.json", lambda value: value.update(vocab_size=size + 20))
    weighted(added, 0)
    itself = on_policy(config, added, added, added, tmp_path / "itself", steps=1, batch_size=16, **ACROSS)
    assert itself.history[0]["loss"] == pytest.approx(0, abs=1e-6)
    ascii_alone = [text.isascii() for text in answers(tmp_path / "itself")]
    assert 0 < itself.history[0]["compared"] == sum(ascii_alone) / 16 < 1


def answers(place: Path) -> list[str]:
    return [row["text"] for row in read_parquet(place / ROLLOUTS)]


@pytest.mark.slow
def test_another_trl_is_named_before_its_loss_would_be_another(
    start: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = student("full", dtype="float32", max_length=64)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.17.0")
    with pytest.raises(MissingDependency, match=r"TRL 1\.17\.0 is installed") as caught:
        on_policy(config, start, start, other, tmp_path, steps=1, **ACROSS)
    assert caught.value.where == "train.on_policy"


def cut(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    encoded = tokenizer.encode(text, add_special_tokens=False)
    return encoded.ids, list(itertools.pairwise([0, *(end for _, end in encoded.offsets)]))


@pytest.mark.slow
def test_distributions_are_compared_behind_each_ones_own_prompt_where_both_cut_alike_and_at_the_end(
    start: Path, other: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    config = student("full", dtype="float32", max_length=64)
    result = on_policy(
        config, start, start, other, tmp_path, steps=1, batch_size=16, micro_batch_size=4, max_new_tokens=24, **ACROSS
    )
    bases = read_base(start), read_base(other)
    tokenizers = [tokenizer_of(base.folder) for base in bases]
    networks = [AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval() for base in bases]
    pairs = same_texts(*bases)
    assert pairs[bases[0].stop_ids[0]] == bases[1].stop_ids[0]
    ids = list(pairs), list(pairs.values())
    losses, compared, ended = [], [], 0
    for row in read_parquet(tmp_path / ROLLOUTS):
        places, distributions = [], []
        for base, tokenizer, network, tokens in zip(bases, tokenizers, networks, ids, strict=True):
            prompt = tokenizer.encode(base.render(PROMPTS[row["problem_id"]], True), add_special_tokens=False).ids
            answer, spans = cut(tokenizer, row["text"])
            if row["finish_reason"] == "stop":
                answer, spans = [*answer, base.stop_ids[0]], [*spans, (len(row["text"]),) * 2]
            with torch.inference_mode():
                logits = network(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            places.append(spans)
            distributions.append(logits.softmax(-1)[:, tokens])
        ended += row["finish_reason"] == "stop"
        alike = [span for span in places[0] if span in places[1]]
        ours, theirs = (
            one[[spans.index(span) for span in alike]] for one, spans in zip(distributions, places, strict=True)
        )
        middle = (ours + theirs) / 2
        divergence = (theirs * (theirs / middle).log() + ours * (ours / middle).log()).sum(-1) / 2
        losses.append(divergence.mean().item())
        compared.append(len(alike) / len(places[0]))
    assert ended
    assert sum(compared) < 16, "some places are cut otherwise"
    assert result.history[0]["compared"] == pytest.approx(sum(compared) / 16)
    assert result.history[0]["loss"] == pytest.approx(sum(losses) / 16, rel=1e-3)


@pytest.mark.slow
def test_a_teacher_that_ends_its_turn_in_its_own_way_teaches_the_student_to_end_its_own(
    start: Path, other: Path, tmp_path: Path
) -> None:
    teacher = weighted(shutil.copytree(other, tmp_path / "teacher"), 5, says=read_base(other).stop_ids[0])
    config, trained = sft("lora", start, tmp_path / "sft")
    result = on_policy(config, start, trained, teacher, tmp_path / "run", steps=20, learning_rate=0.1, **ACROSS)
    first, last = result.history[0], result.history[-1]
    assert last["loss"] < first["loss"] / 2
    assert (first["mean_length"] > 3, last["mean_length"], last["cut"]) == (True, 1, 0)
    rows = list(read_parquet(tmp_path / "run" / ROLLOUTS))
    assert [row["step"] for row in rows] == [step for step in range(1, 21) for _ in range(4)]
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert sum(row["completion_tokens"] for row in rows) == result.facts["tokens"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
