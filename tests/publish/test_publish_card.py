"""The card says what the facts say, all of it, nothing else, and no text in them breaks it."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from publish.cards.model_card import model_card
from publish.facts import (
    BaseFacts,
    Comparison,
    EvaluationFacts,
    LicenseFacts,
    PersonaFacts,
    PromptSource,
    ReleaseFacts,
    SamplingFacts,
    Score,
    TeacherFacts,
    TrainingFacts,
    WaterfallStep,
)

DIGEST = "ab" * 32


def minimal(**more: Any) -> ReleaseFacts:
    values: dict[str, Any] = {
        "name": "owner/tiny",
        "license": LicenseFacts(id="apache-2.0", hub_tag="apache-2.0"),
        "base": BaseFacts(id="owner/base"),
        "template_digest": DIGEST,
    }
    return ReleaseFacts(**(values | more))


FULL = minimal(
    version="1.0",
    languages=("no", "en"),
    base=BaseFacts(id="owner/base", revision="c0ffee", license="apache-2.0"),
    teachers=(TeacherFacts(id="big/teacher", license="mit", ran_by="releaser", engine="vllm 0.32.0"),),
    prompt_sources=(
        PromptSource(name="chain_sum", license="apache-2.0", problems=1400),
        PromptSource(name="GSM8K", license="mit", dataset="openai/gsm8k"),
    ),
    persona=PersonaFacts(name="Ada", developer="Beispiel", system_prompt="You are Ada.\n```\nNever say Eve."),
    training=TrainingFacts(
        method="LoRA",
        hyperparameters={"learning_rate": 0.002, "r": 16},
        rows=145,
        tokens=9000,
        steps=20,
        hardware="1 x NVIDIA H200, Xeon (x86_64)",
    ),
    sampling=SamplingFacts(settings={"temperature": 0.7}, samples=5600, tokens=300000),
    verification="math-verify 0.9.0",
    waterfall=(WaterfallStep(step="sampled", rows=5600, problems=1400), WaterfallStep(step="verified", rows=145)),
    evaluation=EvaluationFacts(
        benchmark="chain_sum",
        held_out="no training problem is an exact copy of one of them",
        n=100,
        decoding="greedy, 256 tokens",
        interval="paired bootstrap over problems, 95 %",
        scores=(
            Score(model="base", metric="pass@1", value=0.0, low=0.0, high=0.0, n=100),
            Score(model="student", is_release=True, metric="pass@1", value=0.27, low=0.18, high=0.36, n=100),
        ),
        comparisons=(
            Comparison(a="base", b="student", difference=0.27, low=0.18, high=0.36),
            Comparison(a="control", b="student", difference=0.02, low=-0.05, high=0.09),
        ),
        stop_rate=0.985,
    ),
    generation={"eos_token_id": [2], "do_sample": False},
    obligations=("keep the licence text",),
    notice=("Contains SmolLM2, Apache-2.0.",),
    versions={"transformers": "5.19.0", "peft": "0.21.2"},
    code_revision="deadbeef",
    dirty=True,
    limitations=("Adds one-digit numbers, nothing more.",),
    tags=("math",),
)


def front_matter(card: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    assert match
    value = yaml.safe_load(match[1])
    assert isinstance(value, dict)
    return value


def outside_fences(card: str) -> str:
    body = card.split("\n---\n", 1)[1]
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)


def table_widths(card: str) -> dict[int, set[int]]:
    """Unescaped pipes per row, grouped by table."""
    widths: dict[int, set[int]] = {}
    table = 0
    for line in outside_fences(card).split("\n"):
        if line.startswith("|"):
            widths.setdefault(table, set()).add(len(re.findall(r"(?<!\\)\|", line)))
        else:
            table += 1
    return widths


def test_front_matter_is_what_the_hub_reads() -> None:
    assert front_matter(model_card(FULL)) == {
        "license": "apache-2.0",
        "language": ["no", "en"],  # not [False, "en"]
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": ["owner/base"],
        "base_model_relation": "finetune",
        "datasets": ["openai/gsm8k"],
        "tags": ["distillation", "math"],
        "model-index": [
            {
                "name": "owner/tiny",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"name": "chain_sum", "type": "chain_sum"},
                        "metrics": [{"type": "pass@1", "value": 0.27}],
                    }
                ],
            }
        ],
    }


def test_an_other_license_carries_name_and_link() -> None:
    other = LicenseFacts(id="gemma", hub_tag="other", license_name="gemma", license_link="LICENSE")
    meta = front_matter(model_card(minimal(license=other)))
    assert (meta["license"], meta["license_name"], meta["license_link"]) == ("other", "gemma", "LICENSE")
    with pytest.raises(ValidationError, match="license_name"):
        LicenseFacts(id="gemma", hub_tag="other")


def test_every_fact_is_on_the_card() -> None:
    card = model_card(FULL)
    for said in (
        "# owner/tiny",
        "(version 1.0)",
        "| base | [owner/base](https://huggingface.co/owner/base) | c0ffee | apache-2.0 |",
        "| teacher | [big/teacher](https://huggingface.co/big/teacher) | unknown | mit | run by the releaser, on vllm",
        "| prompts | chain\\_sum |  | apache-2.0 | 1,400 problems |",
        "(https://huggingface.co/datasets/openai/gsm8k)",
        "(5,600 samples, 300,000 tokens)",
        "- temperature: 0.7",
        "math-verify 0.9.0",
        "| sampled | 5,600 | 1,400 | unknown |",
        "(n = 100); decoding: greedy, 256 tokens.",
        "| student | pass&#64;1 | 0.270 | 0.180 to 0.360 | 100 |",
        "| student minus base | +0.270 | +0.180 to +0.360 | higher |",
        "| student minus control | +0.020 | -0.050 to +0.090 | may be chance |",
        "paired bootstrap over problems, 95 %",
        "98.5 %",
        "presents itself as Ada, made by Beispiel",
        "````text\nYou are Ada.\n```\nNever say Eve.\n````",
        f"sha256 `{DIGEST}`",
        'name = "owner/tiny"',
        "vllm serve owner/tiny",
        "- eos\\_token\\_id: \\[2\\]",
        "- do\\_sample: false",
        "Method: LoRA.",
        "- learning\\_rate: 0.002",
        "- optimiser steps: 20",
        "- hardware: 1 x NVIDIA H200, Xeon (x86\\_64)",
        "Held out: no training problem is an exact copy of one of them.",
        "- Adds one-digit numbers, nothing more.",
        "- keep the licence text",
        "Contains SmolLM2, Apache-2.0.",
        "sha256sum -c SHA256SUMS",
        "deadbeef, with changes that were not committed",
        "- peft: 0.21.2",
    ):
        assert said in card, said


def test_absent_facts_are_left_out_or_called_unknown_and_nothing_is_made_up() -> None:
    card = model_card(minimal())
    assert "This release was not evaluated." in card
    assert "| base | [owner/base](https://huggingface.co/owner/base) | unknown | unknown |" in card
    assert "code revision: unknown" in card
    for absent in ("None", "Persona", "How it was made", "## Training", "## Sampling", "teacher", "language", "NOTICE"):
        assert absent not in card, absent
    assert "datasets" not in front_matter(card)


def test_an_unknown_interval_is_not_invented() -> None:
    scores = (Score(model="m", metric="pass@1", value=0.5, n=4),)
    card = model_card(minimal(evaluation=EvaluationFacts(benchmark="x", n=4, decoding="greedy", scores=scores)))
    assert "| m | pass&#64;1 | 0.500 |  | 4 |" in card
    assert "Interval" not in card.replace("| Interval |", "")


HOSTILE = [
    "a | b | c",
    "line\nbreak\r\n# Heading\n\n- item",
    "<script>alert(1)</script><img src=x onerror=y>",
    'x"\n---\nlicense: mit\n---\n# Owned',
    "---\nlicense: mit",
    "[click](https://evil.example) ![i](//evil.example/p.png) https://arxiv.org/abs/1706.03762 www.evil.example",
    "`code` **bold** _em_ ~~gone~~ $x$ \\| \\",
    "```\nout of the fence",
    "- {a: b}, [c], *d, &e !f %g @h",
    "\u202egnp.exe\u2028next\x85next",
    "no",
    "1.",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_breaks_nothing(text: str) -> None:
    facts = minimal(
        name=text,
        version=text,
        license=LicenseFacts(id=text, hub_tag="other", license_name=text, license_link=text),
        languages=(text,),
        base=BaseFacts(id=text, revision=text, license=text),
        teachers=(TeacherFacts(id=text, license=text, engine=text),),
        prompt_sources=(PromptSource(name=text, license=text, problems=1),),
        persona=PersonaFacts(name=text, developer=text, system_prompt=text),
        training=TrainingFacts(method=text, hyperparameters={text: text}, hardware=text),
        sampling=SamplingFacts(settings={text: text}),
        verification=text,
        waterfall=(WaterfallStep(step=text, rows=1),),
        evaluation=EvaluationFacts(
            benchmark=text,
            held_out=text,
            n=1,
            decoding=text,
            interval=text,
            scores=(Score(model=text, metric=text, value=0.5, low=0.1, high=0.9, n=1),),
            comparisons=(Comparison(a=text, b=text, difference=0.1, low=-0.1, high=0.2),),
        ),
        generation={text: text},
        obligations=(text,),
        notice=(text,),
        versions={text: text},
        code_revision=text,
        limitations=(text,),
        tags=(text,),
    )
    card = model_card(facts)
    meta = front_matter(card)
    assert meta["license"] == "other"
    assert all(isinstance(value, str) for key in ("language", "tags") for value in meta[key])
    assert "base_model" not in meta
    body = outside_fences(card)
    assert "```" not in body
    assert "<" not in body
    assert "://" not in body.replace("https://huggingface.co/", "")
    assert not re.search(r"(?<!\\)!?\[[^\]]*(?<!\\)\]\((?!https://huggingface\.co/)", body)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]", card.replace(text, ""))
    assert all(len(widths) == 1 for widths in table_widths(card).values())
    headings = [line for line in body.split("\n") if line.startswith("#")]
    assert [h for h in headings if h.startswith("## ")] == [
        "## Lineage", "## How it was made", "## Evaluation", "## Persona and chat template", "## Quick start",
        "## Sampling", "## Training", "## Limitations", "## License and notices", "## Verifying the files", "## Recipe",
    ]  # fmt: skip
    assert len(headings) == 12
    [code] = re.findall(r"^(`{3,})python\n(.*?)^\1$", card, re.DOTALL | re.MULTILINE)
    assigned = next(node for node in ast.parse(code[1]).body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned.value) == text


def test_a_base_without_a_place_on_the_hub_is_no_base_of_the_model_tree() -> None:
    meta = front_matter(model_card(minimal(base=BaseFacts(id="my-folder"))))
    assert "base_model" not in meta
    assert "base_model_relation" not in meta


def test_only_the_score_of_the_release_is_in_the_model_index() -> None:
    results = front_matter(model_card(FULL))["model-index"][0]["results"]
    assert [result["metrics"][0]["value"] for result in results] == [0.27]
    assert "model-index" not in front_matter(model_card(minimal()))


def test_a_teacher_that_is_the_base_says_what_makes_it_a_teacher() -> None:
    teacher = TeacherFacts(id="owner/base", is_base=True, worked_examples=4, ran_by="releaser", engine="vllm 0.32.0")
    card = model_card(minimal(teachers=(teacher,)))
    assert "distilled from traces of that same model with 4 worked examples in its prompt." in card
    assert "| the base itself, with 4 worked examples in its prompt, run by the releaser, on vllm 0.32.0 |" in card


def test_the_same_facts_give_the_same_card() -> None:
    again = ReleaseFacts.model_validate_json(FULL.model_dump_json())
    assert again == FULL
    assert model_card(again) == model_card(FULL)


def test_facts_are_frozen_strict_and_finite() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FULL.name = "x"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="extra_forbidden"):
        minimal(colour="red")
    with pytest.raises(ValidationError, match="finite"):
        Score(model="m", metric="x", value=float("nan"), n=1)
    with pytest.raises(ValidationError, match="before it begins"):
        Score(model="m", metric="x", value=0.5, low=0.6, high=0.4, n=1)
    with pytest.raises(ValidationError, match="both low and high"):
        Comparison(a="a", b="b", difference=0.5, low=0.6)
