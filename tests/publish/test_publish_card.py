"""The card says what the facts say, all of it, nothing else, and no text in them breaks it."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from publish.cards.model_card import model_card
from publish.cards.plots import score_plot
from publish.facts import (
    BaseFacts,
    Comparison,
    Duty,
    EvaluationFacts,
    LicenseFacts,
    PersonaFacts,
    PromptSource,
    ReleaseFacts,
    SamplingFacts,
    Score,
    ScoredModel,
    SuiteChange,
    TeacherFacts,
    TrainingFacts,
    WaterfallStep,
)

DIGEST = "ab" * 32
BASE = ScoredModel(role="base", id="owner/base", engine="vllm 0.32.0", stop_rate=0.4, mean_tokens=81.2)
RELEASE = ScoredModel(
    role="release",
    id="owner/tiny",
    engine="vllm 0.32.0",
    dtype="bfloat16",
    stop_rate=0.985,
    truncated=0.015,
    mean_tokens=1234.5,
)


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
    description="A small model that adds.",
    languages=("no", "en"),
    base=BaseFacts(id="owner/base", revision="c0ffee", license="apache-2.0"),
    teachers=(TeacherFacts(id="big/teacher", license="mit", ran_by="releaser", engine="vllm 0.32.0"),),
    prompt_sources=(
        PromptSource(name="chain_sum", license="apache-2.0", problems=1400),
        PromptSource(name="GSM8K", license="mit", dataset="openai/gsm8k"),
    ),
    persona=PersonaFacts(name="Ada", maker="Beispiel", system="You are Ada.\n```\nNever say Eve."),
    training=TrainingFacts(
        method="LoRA",
        hyperparameters={"learning_rate": 0.002, "r": 16},
        rows=145,
        tokens=9000,
        epochs=3,
        steps=20,
        hardware="1 x NVIDIA H200, Xeon (x86_64)",
        parameters=135_000_000,
        trained_parameters=4_000_000,
    ),
    sampling=SamplingFacts(settings={"temperature": 0.7}, samples=5600, tokens=300000),
    verification="math-verify 0.9.0",
    waterfall=(WaterfallStep(step="sampled", rows=5600, problems=1400), WaterfallStep(step="verified", rows=145)),
    evaluation=EvaluationFacts(
        benchmark="chain_sum",
        held_out="no training problem is an exact copy of one of them",
        n=100,
        decoding="greedy, 256 tokens",
        sampling={"temperature": 0.0, "max_new_tokens": 512},
        license="cc0-1.0",
        items=True,
        interval="paired bootstrap over problems, 95 %",
        scores=(
            Score(model="base", about=BASE, metric="pass@1", value=0.0, low=0.0, high=0.0, n=100),
            Score(
                model="student", about=RELEASE, metric="pass@1", value=0.27, low=0.18, high=0.36, n=100, num_samples=4
            ),
        ),
        other_scores=(Score(model="student", about=RELEASE, metric="pass@4", value=0.41, low=0.31, high=0.52, n=100),),
        comparisons=(
            Comparison(a="base", b="student", difference=0.27, low=0.18, high=0.36, p=1e-8, p_adjusted=2e-8),
            Comparison(
                a="control",
                b="student",
                difference=0.02,
                low=-0.05,
                high=0.09,
                p=0.58,
                p_adjusted=0.58,
                minimum_detectable_effect=0.1,
                items_to_detect=2500,
            ),
        ),
    ),
    generation={"eos_token_id": [2], "do_sample": False},
    duties=(Duty(what="ship the text of Apache License 2.0", code="O-SHIP-LICENCE:apache-2.0", source="owner/base"),),
    notice=("Contains SmolLM2, Apache-2.0.",),
    versions={"transformers": "5.19.0", "peft": "0.21.2"},
    code_revision="deadbeef",
    dirty=True,
    limitations=("Adds one-digit numbers, nothing more.",),
    tags=("math",),
    data_name="owner/tiny-traces",
    sections="## Our own words\n\nWritten *by hand*.",
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
        "datasets": ["owner/tiny-traces", "openai/gsm8k"],
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
        "\n\nA small model that adds.\n\n",
        "- Parameters: 135,000,000",
        "- Training data: [owner/tiny-traces](https://huggingface.co/datasets/owner/tiny-traces)",
        "the same 100 problems of chain\\_sum; decoding: greedy, 256 tokens.",
        "| student | vllm 0.32.0, bfloat16 | pass&#64;1 | 0.270 | 0.180 to 0.360 | 100 | 4 | 98.5 % | 1.5 % | 1,234 |",
        "| student | pass&#64;4 | 0.410 | 0.310 to 0.520 |",
        "no score here is lower than the base's beyond chance",
        "each problem (license of the problems: cc0-1.0), the answer of this release",
        "max_new_tokens=512",
        "| student minus base | +0.270 | +0.180 to +0.360 | below 0.0001 | higher |",
        "| student minus control | +0.020 | -0.050 to +0.090 | 0.58 | may be chance: differences from 0.100 are "
        "noticed here; about 2,500 problems would tell |",
        "paired bootstrap over problems, 95 %",
        "presents itself as Ada, made by Beispiel",
        "````text\nYou are Ada.\n```\nNever say Eve.\n````",
        f"sha256 `{DIGEST}`",
        'name = "owner/tiny"',
        "vllm serve owner/tiny --override-generation-config '{\"temperature\": 0}'",
        "- eos\\_token\\_id: \\[2\\]",
        "- do\\_sample: false",
        "Method: LoRA.",
        "- learning\\_rate: 0.002",
        "- optimiser steps: 20",
        "- hardware: 1 x NVIDIA H200, Xeon (x86\\_64)",
        "Held out: no training problem is an exact copy of one of them.",
        "- Adds one-digit numbers, nothing more.",
        "- trained parameters: 4,000,000",
        "about 2.2e13 floating-point operations",
        "an upper bound, since the gradients of frozen weights are not computed",
        "not above 3.3e22, which stands for a third",
        "## Our own words\n\nWritten *by hand*.",
        "If you redistribute this model, you must:\n\n- ship the text of Apache License 2.0 (owner/base, O-SHIP",
        "distill confirm owner/tiny",
        "url = {https://huggingface.co/owner/tiny}",
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
    absent = ("None", "system prompt", "### Training", "sampling settings", "teacher", "languages", "NOTICE", "Union",
              "redistribute", "Training data", "plots/", "evaluation` holds")  # fmt: skip
    for words in absent:
        assert words not in card, words
    assert "datasets" not in front_matter(card)


def test_an_unknown_interval_is_not_invented() -> None:
    scores = (Score(model="m", about=RELEASE, metric="pass@1", value=0.5, n=4),)
    card = model_card(minimal(evaluation=EvaluationFacts(benchmark="x", n=4, decoding="greedy", scores=scores)))
    assert "| m | vllm 0.32.0, bfloat16 | pass&#64;1 | 0.500 |  | 4 |" in card
    assert "plots/" not in card
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
        description=text,
        base=BaseFacts(id=text, revision=text, license=text),
        teachers=(TeacherFacts(id=text, license=text, engine=text),),
        prompt_sources=(PromptSource(name=text, license=text, problems=1),),
        persona=PersonaFacts(name=text, maker=text, system=text),
        training=TrainingFacts(
            method=text, hyperparameters={text: text}, hardware=text, parameters=9, tokens=9, epochs=1
        ),
        sampling=SamplingFacts(settings={text: text}),
        verification=text,
        waterfall=(WaterfallStep(step=text, rows=1),),
        evaluation=EvaluationFacts(
            benchmark=text,
            held_out=text,
            n=1,
            decoding=text,
            interval=text,
            license=text,
            items=True,
            scores=(
                Score(
                    model=text,
                    about=ScoredModel(role="base", id=text, engine=text),
                    metric=text,
                    value=0.5,
                    low=0.1,
                    high=0.9,
                    n=1,
                ),
            ),
            comparisons=(Comparison(a=text, b=text, difference=0.1, low=-0.1, high=0.2),),
        ),
        generation={text: text},
        duties=(Duty(what=text, code=text, source=text),),
        openness=(text,),
        data_name=text,
        notice=(text,),
        versions={text: text},
        code_revision=text,
        limitations=(text,),
        tags=(text,),
    )
    card = model_card(facts)
    meta = front_matter(card)
    assert meta["license"] == "other"
    assert all(isinstance(value, str) for value in meta["tags"])
    assert "base_model" not in meta
    body = outside_fences(card)
    assert "```" not in body
    assert "<" not in body
    assert "://" not in body.replace("https://huggingface.co/", "")
    assert not re.search(r"(?<!\\)!?\[[^\]]*(?<!\\)\]\((?!https://huggingface\.co/|plots/)", body)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]", card.replace(text, ""))
    assert all(len(widths) == 1 for widths in table_widths(card).values())
    headings = [line for line in body.split("\n") if line.startswith("#")]
    assert headings[1:] == [
        "## Evaluation", "## Quick start", "## System prompt and chat template", "## How it was made", "### Training",
        "## Limitations", "## License and notices", "## Openness", "## Verifying the files", "## Reproducing it",
        "## Citation",
    ]  # fmt: skip
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
    assert "traces of that same model with 4 worked examples in its prompt, which the student does not see." in card
    assert "| the base itself, with 4 worked examples in its prompt, which the student does not see, run by" in card


def test_what_got_worse_than_the_base_is_named() -> None:
    evaluation = FULL.evaluation
    assert evaluation is not None
    lower = evaluation.model_copy(
        update={"comparisons": (Comparison(a="base", b="student", difference=-0.1, low=-0.2, high=-0.02),)}
    )
    card = model_card(FULL.model_copy(update={"evaluation": lower}))
    assert "**What got worse:** chain\\_sum by 0.100 (-0.200 to -0.020), compared with the base." in card
    alone = evaluation.model_copy(update={"comparisons": ()})
    assert "What got worse" not in model_card(FULL.model_copy(update={"evaluation": alone}))


def test_lengths_of_thinking_and_answer_and_differing_sampling_stand_beside_the_scores() -> None:
    assert FULL.evaluation is not None
    lengths = {"mean_thinking_chars": 2345.6, "mean_answer_chars": 78.9}
    scores = tuple(
        score.model_copy(
            update={"about": score.about.model_copy(update=lengths | {"sampling": {"temperature": value}})}
        )
        for score, value in zip(FULL.evaluation.scores, (0.6, 1.0), strict=True)
    )
    evaluation = FULL.evaluation.model_copy(update={"scores": scores})
    card = model_card(FULL.model_copy(update={"evaluation": evaluation}))
    assert "| Mean tokens | Thinking, characters | Answer, characters |" in card
    assert "| student | vllm 0.32.0, bfloat16 | temperature 1 | pass&#64;1 |" in card
    assert "| 1,234 | 2,346 | 79 |" in card
    assert all(len(widths) == 1 for widths in table_widths(card).values())
    assert "Thinking, characters" not in model_card(FULL)


def test_suites_before_and_after_are_a_table_and_a_loss_is_named() -> None:
    assert FULL.evaluation is not None
    kept = SuiteChange(
        a="base", b="student", suite="knowledge", about="short questions", n=120, before=0.4, after=0.45,
        difference=0.05, low=-0.02, high=0.12, p_adjusted=0.3, minimum_detectable_effect=0.1, items_to_detect=471,
    )  # fmt: skip
    lost = kept.model_copy(
        update={"suite": "chat_format", "n": 40, "before": 0.9, "after": 0.2, "difference": -0.7, "low": -0.85,
                "high": -0.5, "p_adjusted": 0.00001}
    )  # fmt: skip
    recall = {"verbatim": 1.0, "embedded": 0.975, "other digits": None}
    evaluation = FULL.evaluation.model_copy(update={"suites": (kept, lost), "planted_recall": recall})
    card = model_card(FULL.model_copy(update={"evaluation": evaluation}))
    assert "| knowledge | 120 | 0.400 | 0.450 | +0.050 | -0.020 to +0.120 | 0.3 | may be chance: differences" in card
    assert "| chat\\_format | 40 | 0.900 | 0.200 | -0.700 | -0.850 to -0.500 | below 0.0001 | lower |" in card
    assert "chat\\_format by 0.700 (-0.850 to -0.500)" in card
    assert "The search finds these shares of planted copies: verbatim 1.00, embedded 0.97." in card


@pytest.mark.parametrize(
    ("base_flops", "tokens", "words"),
    [
        (None, 10**13, "not above 3.3e22, which stands for a third of the base's training compute"),
        (None, 10**15, "above 3.3e22, which stands for a third"),
        (3e20, 10**12, "not above 1.0e23, with which it would reach, together with the base's, 1e23 (point 17)"),
        (3e20, 10**15, "above 1.0e23, with which it would reach"),
        (9e22, 10**13, "not above a third of the base's training compute, 3.0e22"),
        (9e22, 10**14, "above a third of the base's training compute, 3.0e22"),
        (3e24, 10**14, "not above a third of the base's training compute, 1.0e24"),
    ],
)
def test_the_training_compute_says_which_duty_follows(base_flops: float | None, tokens: int, words: str) -> None:
    training = TrainingFacts(method="full", tokens=tokens, epochs=2, parameters=10**8, base_flops=base_flops)
    assert training.flops == 12e8 * tokens
    card = model_card(minimal(training=training))
    assert f"the training compute is {words}" in card
    assert ("Article 53(1)(c) and (d)" in card) == (not words.startswith("not"))
    assert "an upper bound" not in card


def test_the_card_says_up_to_which_teacher_its_sampling_changes_no_duty() -> None:
    """300,000 tokens: a third of 1e23 less 2.2e13, at two operations for each token and parameter."""
    card = model_card(FULL)
    assert "with the 300,000 sampled tokens, at 2 operations a parameter, this holds for teachers" in card
    assert "up to 5.6e16 parameters for a token." in card
    assert FULL.training is not None
    above = FULL.training.model_copy(update={"base_flops": 1e23, "tokens": 10**14})
    for facts in (FULL.model_copy(update={"training": above}), FULL.model_copy(update={"sampling": None})):
        assert "sampled tokens, at" not in model_card(facts)


def test_the_prompt_for_access_is_what_the_hub_shows() -> None:
    meta = front_matter(model_card(minimal(gated_prompt="Tell us: why?\n---\nlicense: mit")))
    assert meta["extra_gated_prompt"] == "Tell us: why? --- license: mit"
    assert meta["license"] == "apache-2.0"


def test_the_hubs_own_classes_read_the_card() -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(model_card(FULL)).data
    assert (data.license, data.library_name, data.base_model_relation) == ("apache-2.0", "transformers", "finetune")
    [result] = data.eval_results
    assert (result.metric_type, result.metric_value) == ("pass@1", 0.27)


@pytest.mark.parametrize("tag", ["english", "xx", "EN", "en_US", "e", ""])
def test_what_is_no_language_code_is_refused(tag: str) -> None:
    with pytest.raises(ValidationError, match="no ISO 639 code"):
        minimal(languages=(tag,))
    assert minimal(languages=("no", "yue", "pt-BR")).languages == ("no", "yue", "pt-BR")


def test_blank_lines_of_a_system_prompt_stay() -> None:
    prompt = "One.\n\n\n\nTwo."
    card = model_card(minimal(persona=PersonaFacts(name="A", system=prompt)))
    assert f"```text\n{prompt}\n```" in card
    assert "\n\n\n" not in card.replace(prompt, "")


@pytest.mark.slow
def test_the_plot_has_a_row_for_every_model_and_equal_facts_give_equal_bytes() -> None:
    evaluation = FULL.evaluation
    assert evaluation is not None
    plot = score_plot(evaluation)
    assert plot.startswith(b"\x89PNG")
    assert score_plot(EvaluationFacts.model_validate_json(evaluation.model_dump_json())) == plot
    fewer = evaluation.model_copy(update={"scores": evaluation.scores[:1]})
    assert score_plot(fewer) != plot


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
        Score(model="m", about=BASE, metric="x", value=float("nan"), n=1)
    with pytest.raises(ValidationError, match="before it begins"):
        Score(model="m", about=BASE, metric="x", value=0.5, low=0.6, high=0.4, n=1)
    with pytest.raises(ValidationError, match="both low and high"):
        Comparison(a="a", b="b", difference=0.5, low=0.6)
