"""pair: what would spoil distillation on logits is seen before a GPU is spent; a teacher that cannot help is named."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from sums import FOLDER, SUMS

from distill.check.check import check_recipe
from distill.check.finding import Finding
from distill.check.memory import check_memory
from distill.check.on_policy import check_on_policy, check_routes, prompt_lengths
from distill.check.pair import check_across_tokenizers, check_pair, check_turns, teacher_base
from distill.check.problems import problems_of
from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase
from distill.models.folder import read_base
from distill.models.random_model import CHATML, write_random_base
from distill.models.vocabulary import crop_vocabulary, shared_vocabulary, tokenizer_of
from distill.runs.artefact import MANIFEST
from distill.runs.provenance import installed_versions
from distill.stages.pipeline import run
from distill.train.distillation import require_trl
from licensing.errors import InputError, MissingDependency
from synth.teachers.config import VllmServerTeacher

VOCABULARY = 259  # three special tokens and the bytes


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """Student and teacher: one configuration, other weights."""
    folders = tmp_path / "student", tmp_path / "teacher"
    for seed, folder in enumerate(folders):
        folder.mkdir()
        write_random_base(RandomBase(hidden_size=16, num_layers=1, num_heads=2, seed=seed), folder)
    return folders


@pytest.fixture
def check(models: tuple[Path, Path]) -> Callable[[], list[Finding]]:
    return lambda: list(check_pair(*map(read_base, models)))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def add_token(folder: Path, text: str, number: int) -> None:
    token = {"id": number, "content": text, "special": True} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized"), False
    )
    edit(folder / "tokenizer.json", lambda value: value["added_tokens"].append(token))


def swap(tokenizer: dict[str, Any]) -> None:
    """Two tokens change places."""
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def levels(findings: list[Finding]) -> list[str]:
    return [one.level for one in findings]


def test_one_family_is_a_pair(check) -> None:
    findings = check()
    assert levels(findings) == ["ok", "ok", "ok"]
    assert findings[0].what == "259 tokens are the same in both"
    assert findings[1].what == "both end a turn with <|im_end|>"


def test_padded_embeddings_and_tokens_of_one_side_are_masked_and_said(check, models) -> None:
    """Qwen2.5-1.5B against Qwen2.5-7B, and Qwen2.5 against Qwen3."""
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=384))
    assert check()[0].what == ("259 tokens are the same in both; masked: 125 rows of the teacher's embeddings")
    add_token(models[1], "<extra>", VOCABULARY)
    findings = check()
    assert levels(findings) == ["ok", "note", "ok", "ok"]
    assert findings[1].what == "the teacher alone has 1 tokens (<extra>); these are masked, too"
    assert shared_vocabulary(*models).size == VOCABULARY


def test_an_id_that_is_another_token_to_the_teacher_ends_the_check(check, models) -> None:
    edit(models[1] / "tokenizer.json", swap)
    [finding] = check()
    assert finding.level == "error"
    assert finding.what.startswith("2 of the first 259 ids are not the same token in both: ")
    assert "is 'a' to the student and 'b' to the teacher" in finding.what


def test_tokenizers_of_one_vocabulary_that_split_otherwise_are_refused(check, models) -> None:
    edit(models[1] / "tokenizer.json", lambda value: value.update(normalizer={"type": "Lowercase"}))
    [finding] = check()
    assert finding.level == "error"
    assert "split the same text differently: 'L' 'e' 't' by the student's, 'l' 'e' 't'" in finding.what


def test_a_think_tag_that_is_one_token_to_the_teacher_alone_is_refused(check, models) -> None:
    for tag, number in (("<think>", VOCABULARY), ("</think>", VOCABULARY + 1)):
        add_token(models[1], tag, number)
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=VOCABULARY + 2))
    [finding] = check()
    assert "split the same text differently: '<' 't' 'h' by the student's, '<think>' by the teacher's" in finding.what


def test_embeddings_for_fewer_tokens_than_are_shared_are_refused(check, models) -> None:
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=200))
    [finding] = check()
    assert finding.what == "the tokenizers share 259 tokens, and the teacher has embeddings for 200"


def test_a_stop_token_of_the_teacher_at_which_the_student_goes_on_is_refused(check, models) -> None:
    """A base model that stops at its end of text, beside an instruction-tuned teacher."""
    (models[1] / "chat_template.jinja").write_text(CHATML.replace("<|im_end|>", "<|endoftext|>"))
    edit(models[1] / "config.json", lambda value: value.update(eos_token_id=0))
    edit(models[1] / "tokenizer_config.json", lambda value: value.update(eos_token="<|endoftext|>"))
    errors = [one.what for one in check() if one.level == "error"]
    assert errors == [
        "the teacher ends a turn with <|endoftext|>, at which the student does not stop: its answers would grow to the "
        "limit",
        "the student ends a turn with <|im_end|>, at which the teacher does not stop: it would be trained not to stop",
    ]


def test_a_stop_token_of_one_side_alone_is_noted(check, models) -> None:
    (models[1] / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert [one.what for one in check() if one.level == "note"] == ["the teacher alone stops at <|endoftext|>"]


def test_another_generation_prompt_is_refused_and_another_system_prompt_noted(check, models) -> None:
    template = models[1] / "chat_template.jinja"
    template.write_text(CHATML.replace("assistant\n'", "assistant\n<think>\n'"))
    assert "the teacher's with '<|im_start|>assistant\\n<think>\\n'" in check()[-1].what
    assert check()[-1].level == "error"
    template.write_text("{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}" + CHATML)
    assert levels(check()) == ["ok", "ok", "note"]
    assert "'user\\nWhat is 1 + 1?" in check()[-1].what


def test_traces_that_the_students_template_writes_otherwise_have_no_log_probabilities(models) -> None:
    def findings() -> list[Finding]:
        return list(check_turns(*map(read_base, models)))

    [alike] = findings()
    assert alike.what == "both templates write a trace with thinking and without thinking in the same way"
    template = models[1] / "chat_template.jinja"
    closed = "assistant\n<think>\n\n</think>\n\n' }}{% endif"
    template.write_text(CHATML.replace("assistant\n' }}{% endif", closed))
    note, alike = findings()
    assert (note.level, note.where, alike.level) == ("note", "train.logits", "ok")
    assert "a trace with thinking do not fit the student" in note.what
    template.write_text(CHATML.replace("<|im_end|>", "<|endoftext|>"))
    assert [(one.level, one.exit_code) for one in findings()] == [("error", 2), ("error", 2)]


def test_turns_are_those_of_the_variables_that_the_teachers_requests_give_its_template(models) -> None:
    """Qwen3 without thinking: the prompt closes the block, which the student's template writes itself."""
    closed = "<think>\n\n</think>\n\n"
    for folder in models:
        template = CHATML.replace(
            "assistant\n' }}{% endif", f"assistant\n' ~ ('' if thinking|d(true) else '{closed}') }}}}{{% endif"
        )
        template = template.replace(
            "message['content']", f"('{closed}' if message['role'] == 'assistant' else '') ~ message['content']"
        )
        (folder / "chat_template.jinja").write_text(template)
    student = read_base(models[0])
    for kwargs, expected in (({}, ["ok"]), ({"thinking": False}, ["error", "error"])):
        teacher = VllmServerTeacher(model=str(models[1]), extra_body={"chat_template_kwargs": kwargs})
        assert levels(list(check_turns(student, teacher_base(teacher, models[1])))) == expected


@pytest.fixture
def across(models: tuple[Path, Path]) -> Callable[[], list[Finding]]:
    return lambda: list(check_across_tokenizers(*map(read_base, models)))


def test_across_tokenizers_ids_and_ends_of_turn_may_differ_and_turns_may_not(across, check, models) -> None:
    assert levels(across()) == ["ok", "note", "ok"]
    assert "the vocabulary is the same" in across()[1].what
    edit(models[1] / "tokenizer.json", swap)
    template, end = models[1] / "chat_template.jinja", CHATML.replace("<|im_end|>", "<|endoftext|>")
    template.write_text(end)
    assert levels(check()) == ["error"]
    tokens, ends = across()
    assert "258 tokens have the same text in both" in tokens.what  # <|endoftext|> is no longer one of them
    assert "100% are tokens of the teacher's, too" in tokens.what
    assert "ends a turn with <|im_end|> and the teacher with <|endoftext|>: compared as one" in ends.what
    template.write_text(end.replace("assistant\n' }}{% endif", "assistant\n<think>\n\n</think>\n\n' }}{% endif"))
    *_, note = across()
    assert note.level == "note"
    assert "writes an answer with thinking as '<think>\\nT\\n</think>\\n\\nA', and the teacher's as None" in note.what


def test_across_tokenizers_a_tokenizer_that_is_not_byte_level_is_refused(across, models) -> None:
    metaspace = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": False}
    edit(models[1] / "tokenizer.json", lambda value: value.update(pre_tokenizer=metaspace, decoder=metaspace))
    with pytest.raises(InputError, match="the tokenizer of teacher is not byte-level"):
        across()


def test_across_tokenizers_a_model_without_embeddings_for_its_tokens_is_refused(across, models) -> None:
    for folder, name in zip(models, ("student", "teacher"), strict=True):
        edit(folder / "config.json", lambda value: value.update(vocab_size=VOCABULARY - 1))
        with pytest.raises(InputError, match=f"of {name} has 259 tokens, and its model embeddings for 258"):
            across()
        edit(folder / "config.json", lambda value: value.update(vocab_size=VOCABULARY))


def test_across_tokenizers_a_form_that_neither_template_writes_is_none_that_is_alike(across, models) -> None:
    closed = "<think>\n\n</think>\n\n"
    prompt = CHATML.replace("assistant\n' }}{% endif", f"assistant\n{closed}' }}}}{{% endif")
    for folder, opening in zip(models, (closed, f"{closed}> "), strict=True):
        turn = f"('{opening}' if message['role'] == 'assistant' else '') + message['content']"
        (folder / "chat_template.jinja").write_text(prompt.replace("message['content']", turn))
    *_, error = across()
    assert (error.level, error.exit_code) == ("error", 2)
    assert "writes an answer without thinking as" in error.what


def test_the_command_says_no_with_code_2_and_as_json(distill, models) -> None:
    assert distill("pair", *models).code == 0
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=200))
    answer = distill("pair", *models, "--json")
    assert answer.code == 2
    assert json.loads(answer.out)["findings"][0]["level"] == "error"
    assert distill("pair", models[0], models[0].parent / "nowhere").code == 2
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=VOCABULARY))
    edit(models[1] / "tokenizer.json", swap)
    assert distill("pair", *models, "--across-tokenizers").code == 0
    assert "ids" in distill("pair", *models, "--across-tokenizers", "--problems", FOLDER / "sums.jsonl").err


SMOKE = Path(__file__).resolve().parents[2] / "recipes" / "smoke.yaml"
ON_POLICY = ("train.stages=[sft, on_policy]", "curate.control_arm=false")


def checked(*overrides: str, subject: str = "pair") -> list[Finding]:
    """What `distill check` says of a recipe with on-policy distillation: of its pair, or of another subject."""
    return [
        one
        for one in check_recipe(load_recipe(SMOKE, [*ON_POLICY, *overrides]), Path("runs"))
        if one.subject == subject
    ]


@pytest.mark.slow
def test_check_compares_the_pair_of_a_recipe_under_the_students_final_template(models, tmp_path: Path) -> None:
    student = (f"student.base={models[0]}", "student.license=apache-2.0")
    teacher = f"train.on_policy={{teacher: {{model: {models[1]}, license: apache-2.0}}, max_new_tokens: 64}}"
    findings = checked(*student, teacher)
    assert levels(findings) == ["ok", "ok", "note"]
    assert "Smoke" in findings[-1].what, "the persona stands in the student's prompt alone"
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=200))
    assert levels(checked(*student, teacher)) == ["error"]
    across = ("train.on_policy.across_tokenizers=true", "train.on_policy.beta=0.5")
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=VOCABULARY))
    edit(models[1] / "tokenizer.json", swap)
    assert levels(checked(*student, teacher, *across)) == ["ok", "ok"]
    refusing = "{% if '=' in messages[0].content %}{{ raise_exception('no sums') }}{% endif %}" + CHATML
    (models[1] / "chat_template.jinja").write_text(refusing)
    [refused] = checked(*student, teacher, *across, subject="on_policy")
    assert (refused.level, refused.exit_code) == ("error", 2)
    assert "refuses a problem of the student: no sums" in refused.what
    [missing] = checked(*student, teacher.replace("teacher,", "nowhere,"))
    assert (missing.level, missing.where) == ("error", "train.on_policy.teacher.model")


@pytest.mark.slow
def test_check_counts_what_student_and_teacher_will_take(models) -> None:
    """The random student reads bytes: prompts of different problems have different lengths."""
    config = f"train.on_policy={{teacher: {{model: {models[1]}}}, steps: 5, batch_size: 4, max_new_tokens: 100}}"
    [work] = checked(config, subject="on_policy")
    assert (work.level, work.exit_code) == ("ok", 0)
    assert "20 answers of the student, at most 2,000 tokens" in work.what
    recipe = load_recipe(SMOKE, [*ON_POLICY, config])
    lengths = prompt_lengths(recipe, problems_of(recipe).prompts)
    assert lengths is not None
    assert min(lengths) < max(lengths)
    assert f"reads at most {2000 + 20 * sum(lengths) / len(lengths):,.0f}," in work.what


@pytest.mark.parametrize("version", ["1.15.3", "1.17.0.dev0", "2.16.0", None])
def test_another_minor_version_of_trl_is_refused(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    with pytest.raises(MissingDependency) as caught:
        require_trl("train.stages")
    assert (caught.value.where, caught.value.hint) == ("train.stages", "pip install 'distill-release[train]'")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.16.2")
    require_trl("train.stages")
    project = tomllib.loads((SMOKE.parents[1] / "pyproject.toml").read_text())["project"]
    [pinned] = (one for one in map(Requirement, project["optional-dependencies"]["train"]) if one.name == "trl")
    assert pinned.specifier.contains("1.16.2")
    assert not pinned.specifier.contains(version or "0", prereleases=True), "the hint would bring what is refused"


@pytest.mark.slow
def test_check_and_run_refuse_another_minor_version_of_trl(
    models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    installed_versions()  # whose cache would keep what this test alone has
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.17.0" if name == "trl" else version(name))
    config = f"train.on_policy={{teacher: {{model: {models[1]}, license: mit}}, max_new_tokens: 100}}"
    [error] = checked(config, subject="packages")
    assert (error.level, error.where, error.exit_code) == ("error", "train.stages", MissingDependency.exit_code)
    assert "TRL 1.17.0 is installed" in error.what
    recipe = load_recipe(SMOKE, [*ON_POLICY, config])
    with pytest.raises(MissingDependency, match=r"TRL 1\.17\.0 is installed"):
        run(recipe, tmp_path / "runs")
    assert not (tmp_path / "runs").exists(), "no token is bought"
    assert run(recipe, tmp_path / "runs", until="prepare").facts, "nor is TRL asked for what it does not do"
    (root := tmp_path / "runs" / recipe.run_name() / "stages" / "on_policy" / "0").mkdir(parents=True)
    (root / MANIFEST).touch()
    with pytest.raises(InputError, match="is not finished"):
        run(recipe, tmp_path / "runs", only="on_policy")


@pytest.mark.slow
def test_the_memory_forecast_has_a_finding_for_each_stage_of_training(models) -> None:
    config = f"train.on_policy={{teacher: {{model: {models[1]}}}, max_new_tokens: 100}}"
    recipe = load_recipe(SMOKE, [*ON_POLICY, config])
    assert [one.level for one in check_memory(recipe, 80.0)] == ["ok", "ok"]
    _, error = check_memory(recipe, 0.001)
    assert (error.level, error.where) == ("error", "train.on_policy")
    assert "on_policy, in one process" in error.what
    assert "train.on_policy.teacher.url" in (error.hint or "")
    assert "leave on_policy out of train.stages" in (error.hint or "")


@pytest.mark.slow
def test_check_refuses_worked_examples_that_are_held_out_problems() -> None:
    def findings(prompt: str, *more: str) -> list[Finding]:
        examples = json.dumps(
            [{"prompt": "Name a colour of the sky.", "response": "Blue."}, {"prompt": prompt, "response": "2"}]
        )
        return checked(
            *SUMS, f"train.on_policy={{examples: {examples}, max_new_tokens: 64}}", *more, subject="on_policy"
        )

    held_out = json.loads((FOLDER / "sums_held_out.jsonl").read_text().splitlines()[0])["prompt"]
    [error] = findings(held_out)
    assert (error.level, error.where, error.exit_code) == ("error", "train.on_policy.examples.1", 2)
    assert "a test item" in error.what
    assert levels(findings(held_out, "curate.filters.contaminated=false")) == ["ok"]
    assert levels(findings("Which animal barks?")) == ["ok"]


@pytest.mark.slow
def test_check_refuses_prompts_that_leave_no_room_for_an_answer(models) -> None:
    config = f"train.on_policy={{teacher: {{model: {models[1]}}}, max_new_tokens: 100}}"
    recipe = load_recipe(SMOKE, [*ON_POLICY, config])
    lengths = prompt_lengths(recipe, problems_of(recipe).prompts)
    assert lengths is not None

    def looked_at(longest: int) -> list[Finding]:
        shorter = load_recipe(SMOKE, [*ON_POLICY, config, f"student.max_length={longest}"])
        return [*check_on_policy(shorter, partial(problems_of, shorter))]

    [left_out, _] = looked_at(100 + max(lengths) - 1)
    assert left_out.level == "note"
    assert f"{lengths.count(max(lengths))} of {len(lengths)} prompts are left out: no room" in left_out.what
    [error] = looked_at(100 + min(lengths) - 1)
    assert (error.level, error.where, error.exit_code) == ("error", "train.on_policy.max_new_tokens", 2)
    assert f"the shortest has {min(lengths)} tokens" in error.what


def test_check_counts_the_teachers_own_prompts_in_its_positions_across_tokenizers(models) -> None:
    config = f"train.on_policy={{teacher: {{model: {models[1]}}}, max_new_tokens: 100}}"
    recipe = load_recipe(
        SMOKE, [*ON_POLICY, config, "train.on_policy.across_tokenizers=true", "train.on_policy.beta=0.5"]
    )
    teacher, encode = read_base(models[1]), tokenizer_of(models[1]).encode
    lengths = [len(encode(teacher.render(one.messages, True)).ids) for one in problems_of(recipe).prompts]
    assert min(lengths) < max(lengths)

    def looked_at(positions: int) -> list[Finding]:
        edit(models[1] / "config.json", lambda value: value.update(max_position_embeddings=positions))
        return [*check_on_policy(recipe, partial(problems_of, recipe))]

    assert levels(looked_at(100 + max(lengths))) == ["ok"]
    note, _ = looked_at(100 + max(lengths) - 1)
    assert (note.level, note.exit_code) == ("note", 0)
    assert f"{lengths.count(max(lengths))} of {len(lengths)} prompts in the teacher's tokens" in note.what
    error, _ = looked_at(100 + min(lengths) - 1)
    assert (error.level, error.where, error.exit_code) == ("error", "train.on_policy.max_new_tokens", 2)


def routed(models: tuple[Path, Path], first: str, second: str) -> str:
    """A change that makes a recipe one with two served teachers, each with its condition on the answer."""
    teachers = [
        f"{{model: {models[1]}, name: {name}, license: mit, url: 'http://127.0.0.1:{port}', top_k: 1, "
        f"where: {{answer: {answer}}}}}"
        for name, port, answer in (("large", 9, first), ("small", 11, second))
    ]
    return f"train.on_policy={{teachers: [{', '.join(teachers)}], max_new_tokens: 64}}"


def test_check_counts_the_problems_of_each_of_several_teachers_and_refuses_those_of_none(models) -> None:
    def findings(first: str, second: str) -> list[Finding]:
        recipe = load_recipe(SMOKE, [*ON_POLICY, routed(models, first, second)])
        return [*check_routes(recipe, partial(problems_of, recipe))]

    answers = [float(one.answer) for one in problems_of(load_recipe(SMOKE)).prompts]
    large = sum(answer >= 60 for answer in answers)
    assert [one.what for one in findings("{min: 60}", "{max: 59}")] == [
        f"large scores the answers to {large} of 24 problems",
        f"small scores the answers to {24 - large} of 24 problems",
    ]
    with pytest.raises(InputError, match="small scores the answers to none of 24 problems") as caught:
        findings("{present: true}", "{max: 59}")
    assert caught.value.where == "train.on_policy.teachers.1.where"
    with pytest.raises(InputError, match=f"no teacher scores the answers to {24 - large} of 24 problems"):
        findings("{min: 60}", "{min: 60}")


@pytest.mark.slow
def test_check_looks_at_each_of_several_teachers(models) -> None:
    edit(models[1] / "config.json", lambda value: value.update(vocab_size=200))
    findings = check_recipe(load_recipe(SMOKE, [*ON_POLICY, routed(models, "{min: 60}", "{max: 59}")]), Path("runs"))
    errors = {one.subject: one for one in findings if one.level == "error"}
    assert {"pair large", "pair small", "teacher server large", "teacher server small"} <= errors.keys()
    assert errors["teacher server small"].where == "train.on_policy.teachers.1.url"
    assert "large scores the answers to" in next(one.what for one in findings if one.subject == "routes")


@pytest.mark.slow
def test_a_run_with_problems_that_no_teacher_of_logits_takes_ends_before_it_samples(
    distill, models, tmp_path: Path
) -> None:
    changes = ["train.stages=[sft, on_policy]", "curate.control_arm=false", routed(models, "{min: 60}", "{min: 60}")]
    sets = [part for change in changes for part in ("--set", change)]
    answer = distill("run", "smoke", "--runs", tmp_path / "runs", "--until", "sample", *sets)
    assert answer.code == 2
    assert "no teacher scores the answers to" in answer.err
    assert not list((tmp_path / "runs").glob("*/stages/sample/*/manifest.json"))
    assert not list((tmp_path / "runs").glob("*/store/*"))


def test_a_run_whose_teacher_of_logits_does_not_fit_ends_before_it_samples(distill, models, tmp_path: Path) -> None:
    edit(models[1] / "tokenizer.json", swap)
    on_policy = f"train.on_policy={{teacher: {{model: {models[1]}, license: apache-2.0}}, max_new_tokens: 64}}"
    changes = ["train.stages=[sft, on_policy]", "curate.control_arm=false", on_policy]
    sets = [part for change in changes for part in ("--set", change)]
    answer = distill("run", "smoke", "--runs", tmp_path / "runs", "--until", "sample", *sets)
    assert answer.code == 2
    assert "train.on_policy.teacher.model: student and teacher share no vocabulary" in answer.err
    assert not list((tmp_path / "runs").glob("*/stages/sample"))


# --- with torch ------------------------------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def rewrite(source: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a model folder with changed weights."""
    shutil.copytree(source, folder)
    model = load(source)
    change(model)
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary_cropped_gives_the_logits_cropped_by_hand(tied: bool, models, tmp_path: Path) -> None:
    import torch

    edit(models[0] / "config.json", lambda value: value.update(tie_word_embeddings=tied))

    def pad(model: Any) -> None:
        model.resize_token_embeddings(384, mean_resizing=False)
        model.get_output_embeddings().weight.data[VOCABULARY:] = 7.0  # padding that would be likely

    model = load(rewrite(models[0], tmp_path / "padded", pad))
    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        whole = model(ids).logits
        crop_vocabulary(model, VOCABULARY)
        cropped = model(ids).logits
    assert whole.shape[-1] == 384
    assert torch.equal(cropped, whole[..., :VOCABULARY])


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    file = tmp_path / "problems.jsonl"
    rows = ({"prompt": f"{n}?", "answer": "1", "kind": "math", "source": "s"} for n in range(6))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def sharpened(model: Any) -> None:
    model.get_output_embeddings().weight.data *= 60


def shaken(model: Any) -> None:
    import torch

    torch.manual_seed(0)
    weight = model.get_output_embeddings().weight.data
    weight += 0.05 * weight.std() * torch.randn_like(weight)


@pytest.mark.slow
def test_a_teacher_that_says_the_same_or_something_else_altogether_will_not_help(
    distill, models, problems: Path, tmp_path: Path
) -> None:
    for one in models:
        edit(one / "config.json", lambda value: value.update(tie_word_embeddings=False))
    student = rewrite(models[0], tmp_path / "sharp", sharpened)
    near = rewrite(student, tmp_path / "near", shaken)
    far = rewrite(models[1], tmp_path / "far", sharpened)

    def measured(teacher: Path) -> tuple[int, dict[str, Any]]:
        answer = distill("pair", student, teacher, "--problems", problems, "--max-new-tokens", 8, "--json")
        return answer.code, json.loads(answer.out)["rollouts"]

    code, same = measured(student)
    assert code == 1
    assert same["reverse_kl"] == pytest.approx(0, abs=1e-6)
    assert same["overlap"] == 1
    assert same["rollouts"] == 6
    assert "says what the student says" in same["verdict"]

    code, other = measured(far)
    assert code == 1
    assert other["overlap"] < 0.5
    assert "tokens that are likely to both hold" in other["verdict"]

    code, helpful = measured(near)
    assert code == 0
    assert helpful["reverse_kl"] > 0.01
    assert "has something to say" in helpful["verdict"]

    filters = {"do_sample": True, "min_p": 0.99, "repetition_penalty": 9.0}
    edit(student / "generation_config.json", lambda value: value.update(filters))
    assert measured(near) == (code, helpful), "answers are of the student's distribution, unfiltered"
