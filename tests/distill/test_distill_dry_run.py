"""The dry run before it runs: descriptions, stand-ins, lengths, what is kept of a recipe. The runs: tests/e2e."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from distill.config.loader import load_recipe
from distill.config.recipe import Recipe
from distill.dry_run.models import describe, write_stand_in
from distill.dry_run.problems import _problems, stand_in_prompts, stand_in_traces
from distill.dry_run.recipe import NOTICE, dry_recipe
from distill.models.folder import read_base
from distill.release.lineage import is_on_hub
from licensing.errors import InputError
from synth.problems.config import HubPrompts, ImportedTraces
from synth.problems.problem import load_prompts
from synth.sampling.imported_traces import load_traces
from synth.teachers.config import FakeTeacher, OfflineTeacher, TeacherFields
from synth.verify.config import VerifyConfig
from synth.verify.verifier import check_golds

ROOT = Path(__file__).resolve().parents[2]
LARGE = ("deepseek-r1-to-qwen3-8b", "qwen3-235b-a22b-to-qwen3-8b", "olmo3-32b-think-to-olmo3-7b")

pytestmark = pytest.mark.usefixtures("_empty_cache")


@pytest.fixture
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model in the hub's cache, and nobody who answers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def large(name: str, *overrides: str) -> Recipe:
    return load_recipe(ROOT / "recipes" / f"{name}.yaml", overrides)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``dry_recipe`` without the weights of its student."""
    monkeypatch.setattr("distill.dry_run.models._write_random_weights", lambda config, folder: None)
    return lambda recipe, folder: dry_recipe(recipe, folder / "made" / "anew")


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("deepseek-r1-to-qwen3-8b", ""),
        ("qwen3-235b-a22b-to-qwen3-8b", "<think>"),
        ("olmo3-32b-think-to-olmo3-7b", ""),
    ],
)
def test_the_form_of_a_teachers_thinking_is_read_off_its_own_template(name: str, opening: str) -> None:
    (teacher,) = large(name).teachers
    described = describe(teacher.model, teacher.revision, teacher.public_id, "teacher.model")
    assert described.think_open(teacher.think_open) == described.think_open("<think>") == opening
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    assert described.prompt(chat).rstrip().endswith("<think>") is (opening == "")
    assert described.positions is not None
    assert described.positions > 32_768


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "architecture", "tags", "end", "positions"),
    [
        ("qwen3-235b-a22b-to-qwen3-8b", "Qwen3ForCausalLM", ("<think>", "</think>"), "<|im_end|>", 32_768),
        ("olmo3-32b-think-to-olmo3-7b", "Olmo3ForCausalLM", ("<think>", "</think>"), "<|im_end|>", 65_536),
    ],
)
def test_a_stand_in_has_the_architecture_template_tokens_and_positions_of_the_base(
    tmp_path: Path, name: str, architecture: str, tags: tuple[str, str], end: str, positions: int
) -> None:
    student = large(name).student
    described = describe(str(student.base), student.revision, student.public_id, "student.base")
    write_stand_in(described, tmp_path)
    template = None if described.template else "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    base = read_base(tmp_path, template)
    assert base.config["architectures"] == [architecture]
    assert base.config["max_position_embeddings"] == positions
    assert base.turn_end == end
    assert base.turn.tags == tags
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(base.special)
    assert "<think>" not in base.special, "a tag of reasoning is part of the text"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 << 20


def test_a_model_on_this_machine_is_read_there_and_needs_no_weights(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}{{ eos_token }}")
    described = describe(str(folder), None, "me/base", "student.base")
    assert (described.positions, described.folder) == (512, folder)
    assert described.prompt([{"role": "user", "content": "Hello."}]) == "Hello.</s>"


def test_a_model_that_nothing_is_known_of_says_how_to_fetch_its_small_files(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        dry_recipe(large(LARGE[0], "student.base=acme/Nobody-7B"), tmp_path)
    assert "acme/Nobody-7B" in caught.value.what
    assert caught.value.where == "student.base"
    assert "hf download acme/Nobody-7B --include" in str(caught.value.hint)


# --- lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["teacher.max_model_len=", "sample.max_new_tokens=40955"], "sample.max_new_tokens"),
        (["teacher.max_model_len=65536"], "teacher.max_model_len"),
        (["sample.escalate.max_new_tokens=32767"], "sample.escalate.max_new_tokens"),
        (["student.max_length=36864"], "student.max_length"),
        (["evaluate.engine_args.max_model_len=36864"], "evaluate.engine_args.max_model_len"),
        (["evaluate.max_new_tokens=32766"], "evaluate.max_new_tokens"),
    ],
)
def test_a_length_that_does_not_fit_the_real_models_positions_fails(
    tmp_path: Path, light: Callable[..., Any], overrides: list[str], field: str
) -> None:
    with pytest.raises(InputError) as caught:
        light(large("qwen3-235b-a22b-to-qwen3-8b", *overrides), tmp_path)
    assert caught.value.where == field


def test_a_length_that_a_rope_scaling_makes_room_for_passes(tmp_path: Path, light: Callable[..., Any]) -> None:
    scaling = "student.rope_scaling={rope_type: yarn, factor: 2.0}"
    dry = light(large("qwen3-235b-a22b-to-qwen3-8b", "student.max_length=36864", scaling), tmp_path)
    assert dry.recipe.student.rope_scaling.factor == 2.0


# --- what the recipe becomes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LARGE)
def test_names_licenses_prompts_and_rules_are_kept_and_nothing_needs_a_gpu_or_the_hub(
    tmp_path: Path, light: Callable[..., Any], name: str
) -> None:
    real = large(name)
    dry = light(real, tmp_path).recipe
    (teacher,), (real_teacher,) = dry.teachers, real.teachers
    assert isinstance(teacher, FakeTeacher)
    assert (teacher.public_id, teacher.license) == (real_teacher.public_id, real_teacher.license)
    assert teacher.prompt_template == real_teacher.prompt_template
    assert (dry.student.public_id, dry.student.license) == (real.student.public_id, real.student.license)
    assert dry.student.method == real.student.method
    assert dry.student.max_length == real.student.max_length
    assert dry.sample.max_new_tokens == real.sample.max_new_tokens
    assert dry.curate == real.curate
    assert dry.engine.kind == "local"
    assert dry.evaluate.engine == "transformers"
    for section in (dry.prompts, dry.evaluate.prompts):
        assert section.kind == "jsonl"
        assert Path(section.path).is_file()
    assert {problem.source for problem in load_prompts(dry.prompts).prompts} == {real.prompts.dataset}
    assert dry.prompts.license == real.prompts.license


def sections(value: Any) -> Iterator[Any]:
    """Every section of a recipe, with those inside it."""
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from sections(getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from sections(item)


def test_no_section_of_the_dry_recipe_needs_the_hub_or_a_server(tmp_path: Path, light: Callable[..., Any]) -> None:
    real = large(
        LARGE[1],
        "label.decontaminate.against=[HuggingFaceH4/aime_2024]",
        "verify.judge={teacher: {kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1', license: mit}}",
        "persona={name: Ada, maker: Acme, system: You are Ada., identity_talk: rewrite, "
        "rewriter: {teacher: {kind: openai, model: r, base_url: 'http://127.0.0.1:9/v1', license: mit}}}",
        "replay={rows: 10, prompts: {kind: hub, dataset: a/b, row_kind: open, license: mit}}",
        "curate.filters.min_tokens=500",
    )
    assert any(isinstance(one, HubPrompts) for one in sections(real.replay))
    dry = light(real, tmp_path).recipe
    assert [one for one in sections(dry) if isinstance(one, HubPrompts) and is_on_hub(one)] == []
    assert {type(one) for one in sections(dry) if isinstance(one, TeacherFields)} == {FakeTeacher}
    assert dry.label.decontaminate.against == ()
    assert dry.verify.judge.when == real.verify.judge.when
    assert dry.curate.filters.min_tokens is None


def test_checkpoints_are_selected_in_a_dry_run_too_few_of_them_on_few_problems(
    tmp_path: Path, light: Callable[..., Any]
) -> None:
    select = "train.select={problems: 500, checkpoints: 8, rule: last}"
    dry = light(large(LARGE[0], select, "curate.control_arm=false"), tmp_path)
    section = dry.recipe.train.select
    assert (section.problems, section.checkpoints, section.rule) == (2, 2, "last")
    assert any(line.startswith("train.select") for line in dry.replaced)


def test_a_dry_run_asks_no_server_for_scores(tmp_path: Path, light: Callable[..., Any]) -> None:
    teacher = "{model: models/Qwen3-235B-A22B, license: apache-2.0, url: 'http://node7:8000', top_k: 64}"
    on_policy = ("train.stages=[sft, on_policy]", f"train.on_policy={{teacher: {teacher}, beta: 0}}")
    dry = light(large("qwen3-235b-a22b-to-qwen3-8b", *on_policy, "curate.control_arm=false"), tmp_path)
    beside = dry.recipe.train.on_policy.teacher
    assert (beside.url, beside.top_k) == (None, None)
    assert beside.public_id == "models/Qwen3-235B-A22B"
    assert dry.recipe == type(dry.recipe).model_validate(dry.recipe.model_dump())
    second = teacher.replace("{", "{name: b, ").replace("node7", "node8")
    teachers = f"[{teacher.replace('{', '{where: {kind: math}, ')}, {second}]"
    several = (on_policy[0], f"train.on_policy={{teachers: {teachers}, beta: 0}}", "curate.control_arm=false")
    dry = light(large(LARGE[1], *several), tmp_path / "several")
    assert (dry.recipe.train.on_policy.teachers, dry.recipe.train.on_policy.teacher.url) == ((), None)
    assert any("models/Qwen3-235B-A22B and b: the student's stand-in" in line for line in dry.replaced)
    assert dry.recipe == type(dry.recipe).model_validate(dry.recipe.model_dump())


def test_a_dry_run_whose_teacher_has_no_log_probabilities_trains_on_none(
    tmp_path: Path, light: Callable[..., Any]
) -> None:
    logits = ("sample.logprobs=8", "train={stages: [sft, logits], logits: {}}", "curate.control_arm=false")
    dry = light(large("qwen3-235b-a22b-to-qwen3-8b", *logits), tmp_path)
    assert (dry.recipe.train.stages, dry.recipe.train.logits) == (("sft",), None)
    assert any(line.startswith("train.logits: none") for line in dry.replaced)


def test_the_student_of_a_first_round_answers_little_in_a_dry_run(tmp_path: Path, light: Callable[..., Any]) -> None:
    dry = light(large(LARGE[0], "train.rounds=2", "sample.policy={kind: adaptive}"), tmp_path)
    sampling = dry.recipe.student_sampling
    assert (sampling.num_samples, sampling.policy.kind, sampling.max_new_tokens) == (1, "fixed", 24)
    assert any(line.startswith("train.student_sample") for line in dry.replaced)


def test_whatever_it_writes_says_that_it_is_a_dry_run(tmp_path: Path, light: Callable[..., Any]) -> None:
    dry = light(large(LARGE[0]), tmp_path).recipe
    assert dry.name.startswith("dry-run-")
    assert dry.release.name == "Qwen3-8B-Base-R1-Math-dry-run"
    assert dry.release.data_set == "Qwen3-8B-Base-R1-Math-traces-dry-run"
    assert str(dry.release.description).startswith("DRY RUN")
    assert dry.release.limitations[0] == NOTICE


def test_a_template_that_writes_the_tag_which_the_recipe_expects_is_noted(
    tmp_path: Path, light: Callable[..., Any]
) -> None:
    assert light(large(LARGE[0]), tmp_path).notes == ()
    (note,) = light(large(LARGE[0], "teacher.think_open=<think>"), tmp_path).notes
    assert "deepseek-ai/DeepSeek-R1" in note
    assert "teacher.think_open" in note


# --- problems and traces ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_gold_answer_of_the_stand_ins_verifies(tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    for kind in _problems():
        for part in ("train", "held_out"):
            config = stand_in_prompts(HubPrompts(dataset="a/b", row_kind=kind), part, file, "mit")  # type: ignore[arg-type]
            problems = load_prompts(config).prompts
            assert len(problems) >= 2
            assert dict(check_golds(problems, VerifyConfig())) == {}


def test_a_preset_gives_the_kinds_and_its_licenses(tmp_path: Path) -> None:
    config = HubPrompts.model_validate({"preset": "openr1-math-220k"})
    made = stand_in_prompts(config, "train", tmp_path / "rows.jsonl", "mit")
    problems = load_prompts(made).prompts
    assert {problem.kind for problem in problems} == {"math", "choice"}
    assert {problem.license for problem in problems} == {"apache-2.0"}


def test_traces_of_the_hub_and_of_a_file_are_read_as_imported_traces(tmp_path: Path) -> None:
    teacher = OfflineTeacher(model="deepseek-ai/DeepSeek-R1")
    hub = stand_in_traces(ImportedTraces.model_validate({"preset": "openr1-math-220k"}), tmp_path / "a.jsonl", "mit")
    assert len(load_traces(hub, teacher).index) > 10
    rows = [{"question": f"{n} + 1?", "answer": f"{n + 1}", "kind": "math", "response": f"{n + 1}"} for n in range(99)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "question", "answer": "answer", "kind": "kind"}
    own = ImportedTraces.model_validate(
        {"path": str(tmp_path / "own.jsonl"), "columns": columns, "traces": [{"response": "response"}]}
    )
    few = load_traces(stand_in_traces(own, tmp_path / "b.jsonl", "mit"), teacher)
    assert 0 < len(few.index) < 50
