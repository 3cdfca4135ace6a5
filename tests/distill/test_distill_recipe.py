"""Recipes: what is refused, how it is told, what identifies a run."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from distill.config.loader import REMOVED_KEYS, RENAMED_KEYS, load_persona, load_recipe, recipe_schema
from distill.config.recipe import Recipe
from distill.train.routes import require_routes
from licensing.errors import InputError
from synth.sampling.config import SAMPLING_OPTIONS
from synth.section import key_dump

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD = """\
name: t
prompts: {kind: reasoning_gym, task: chain_sum, size: 10}
teacher:
  kind: fake
sample:
  num_samples: 2
student:
  base: {kind: random}
  license: apache-2.0
evaluate:
  prompts: {kind: reasoning_gym, task: chain_sum, size: 5, seed: 9}
release:
  name: acme/tiny
  license: apache-2.0
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str = GOOD, *overrides: str) -> Recipe:
    return load_recipe(write(folder, text), overrides)


def refused(folder: Path, text: str = GOOD, *overrides: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load(folder, text, *overrides)
    return caught.value


@pytest.mark.parametrize("name", ["quickstart", "smoke"])
def test_the_recipes_that_ship_are_valid_and_named_after_their_file(name: str) -> None:
    assert load_recipe(ROOT / "recipes" / f"{name}.yaml").name == name


def test_an_unknown_key_is_refused_with_place_and_nearest_known_name(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD.replace("num_samples", "num_sample"))
    assert error.where == f"{tmp_path / 'recipe.yaml'}:6"
    assert "unknown key 'num_sample'" in error.what
    assert error.hint == "did you mean 'num_samples'?"


def test_an_unknown_key_inside_a_union_is_compared_with_that_member_only(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD, "teacher.acuracy=0.5")
    assert error.where == "--set teacher.acuracy=0.5"
    assert error.hint == "did you mean 'accuracy'?"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD.replace("num_samples: 2", "num_samples: 0"), "release.name=a/b/c", "nonsense=1")
    told = str(error)
    assert "sample.num_samples" in told
    assert "is not a hub name" in told
    assert "unknown key 'nonsense'" in told


def test_an_unknown_kind_names_the_kinds_there_are(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD.replace("kind: fake", "kind: oracle"))
    assert error.where == f"{tmp_path / 'recipe.yaml'}:3"
    assert "'vllm'" in error.what
    assert error.hint == "set teacher.kind"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["sample.temperature=0"], "num_samples"),
        (["sample.temperature=0", "sample.num_samples=1", "sample.top_k=20"], "raise temperature"),
        (["evaluate.min_p=0.1"], "raise temperature"),
        (
            ["teacher.kind=vllm_server", "teacher.model=a/b", "teacher.extra_body.top_k=9", "sample.top_k=20"],
            "teacher.extra_body",
        ),
        (["student.parallel.nodes=2"], "student.parallel.rendezvous"),
        (["student.parallel={nodes: 2, rendezvous: 'a:1'}"], "student.parallel.processes"),
        (["student.parallel.context_parallel_size=2"], "student.parallel.processes"),
        (["student.parallel={processes: 6, context_parallel_size: 4}"], "4 does not divide"),
        (["student.parallel={processes: 4, context_parallel_size: 2, strategy: zero3}"], "zero3 does not divide rows"),
        (["student.parallel.strategy=zero3", "student.optimizer=adafactor"], "set optimizer: adamw"),
        (["student.parallel.cpu_offload=true"], "cpu_offload needs strategy: zero3"),
        (["student.parallel={strategy: zero3, cpu_offload: true, processes: 1}"], "cpu_offload needs student"),
        (["student.parallel={strategy: zero3, cpu_offload: true}"], "cpu_offload needs student.parallel.processes"),
        (["prompts="], "sample.source"),
        (["sample.source=traces", "sample.path=x.jsonl"], "prompts"),
        (["teacher.kind=offline", "teacher.model=a/b"], "sample.source"),
        (["release.license=other"], "release.license_name"),
        (["teacher.kind=vllm", "teacher.model=a/b", "teacher.max_model_len=1024"], "sample.max_new_tokens"),
        (
            [
                "teacher.kind=vllm_server",
                "teacher.model=a/b",
                "teacher.max_model_len=2048",
                "sample.escalate.max_new_tokens=4096",
            ],
            "escalate",
        ),
    ],
)
def test_a_cross_field_error_names_the_fields_to_set(tmp_path: Path, overrides: list[str], named: str) -> None:
    text = GOOD.replace("sample:\n  num_samples: 2\n", "") if "sample.source=traces" in overrides else GOOD
    error = refused(tmp_path, text, *overrides)
    assert named in error.what


@pytest.mark.parametrize(
    ("raw", "said", "line"),
    [
        (b"name: t\n\tx: 1\n", "malformed YAML", 2),
        (b"name: t\nx: \xff\n", "not UTF-8", 2),
        (b"- a\n- b\n", "a mapping of sections", 1),
        (b"name: t\nname: u\n", "duplicate key", 2),
    ],
)
def test_a_file_that_is_no_recipe_is_told_with_its_line(tmp_path: Path, raw: bytes, said: str, line: int) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert said in caught.value.what
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.slow
def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "expands" in refused(tmp_path, "\n".join(lines)).what


def test_an_override_is_read_as_yaml_and_wins(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, "student.method={kind: full, learning_rate: 1e-4}", "curate.max_traces=7")
    assert recipe.student.method.kind == "full"
    assert recipe.student.method.learning_rate == pytest.approx(1e-4)
    assert recipe.curate.max_traces == 7


def test_an_override_writes_into_a_list(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, "release.limitations=[a, b]", "release.limitations.1=it is small")
    assert recipe.release.limitations == ("a", "it is small")
    allow = "release.allow=[{code: V-NAME-PREFIX, because: a letter}]"
    recipe = load(tmp_path, GOOD, allow, "release.allow.0.because=a later letter")
    assert [one.because for one in recipe.release.allow] == ["a later letter"]


@pytest.mark.parametrize(
    ("override", "what", "hint"),
    [
        ("release.allow.1.because=x", "release.allow has no entry '1'; number of entries: 1", "all of release.allow"),
        ("release.allow.first.because=x", "no entry 'first'", "the number of an entry"),
        ("release.allow.0.becuase=x", "unknown key 'becuase'", "did you mean 'because'?"),
        ("release.name.0=x", "release.name holds a value", "set release.name itself"),
        ("smaple.escalate.max_new_tokens=9", "unknown key 'smaple'", "did you mean 'sample'?"),
    ],
)
def test_an_override_of_what_is_not_there_names_the_nearest(
    tmp_path: Path, override: str, what: str, hint: str
) -> None:
    error = refused(tmp_path, GOOD, "release.allow=[{code: V-NAME-PREFIX, because: a letter}]", override)
    assert error.where == f"--set {override}"
    assert what in error.what
    assert hint in (error.hint or "")


ON_POLICY = (
    "train.on_policy={teacher: {model: models/Teacher, license: mit}}", "train.stages=[sft, on_policy]",
    "curate.control_arm=false",
)  # fmt: skip
TEACHER = "train.on_policy.teacher"
EXAMPLES = "[{prompt: 1 + 1?, response: '2'}]"
LOGITS = (
    "train={stages: [sft, logits], logits: {}}", "teacher={kind: vllm, model: a/b, license: mit}", "sample.logprobs=8",
    "curate.control_arm=false",
)  # fmt: skip
SERVED = (
    "train.on_policy={teacher: {model: models/Teacher, license: mit, url: 'http://node7:8000', top_k: 8}, beta: 0}",
    *ON_POLICY[1:],
)
_TEACHER = "{model: models/Teacher, name: NAME, license: mit, url: 'http://node7:8000', top_k: 8"
ROUTED = (
    "train.on_policy={beta: 0, teachers: ["
    f"{_TEACHER.replace('NAME', 'a')}, where: {{source: [sums, proofs]}}}}, "
    f"{_TEACHER.replace('NAME', 'b').replace('node7', 'node8')}}}]}}",
    *ON_POLICY[1:],
)
TEACHERS = "train.on_policy.teachers"


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (("train.stages=[sft, on_policy]",), "train.on_policy go together"),
        (("train.on_policy={teacher: {model: m}}",), "train.on_policy go together"),
        ((*ON_POLICY, "train.stages=[on_policy]"), "stages is [sft], [sft, logits], [sft, on_policy] or"),
        ((*LOGITS, "train.stages=[logits, sft]"), "stages is [sft], [sft, logits], [sft, on_policy] or"),
        ((*LOGITS, "train.stages=[sft]"), "train.logits go together"),
        ((*LOGITS, "sample.logprobs=null"), "set sample.logprobs"),
        ((*LOGITS, "curate.control_arm=true"), "curate.control_arm compares two students of SFT alone"),
        ((*LOGITS, "train.select={problems: 2}"), "train.select chooses what SFT leaves"),
        ((*LOGITS, "student.method={kind: lora, modules_to_save: [lm_head]}"), "student.method adapts lm_head"),
        ((*ON_POLICY, "train.on_policy={examples: [{prompt: 1 + 1?, response: ' '}]}"), "an example has no text"),
        ((*ON_POLICY, "curate.control_arm=true"), "curate.control_arm compares two students of SFT alone"),
        ((*ON_POLICY, "student.max_length=512"), "train.on_policy.max_new_tokens leaves no room for a prompt"),
        ((*ON_POLICY, "student.method={kind: lora, modules_to_save: [lm_head]}"), "student.method adapts lm_head"),
        ((*ON_POLICY, "student.method={kind: lora, target_modules: [q_proj, lm_head]}"), "adapts lm_head"),
        ((*ON_POLICY, f"{TEACHER}.url=http://node7:8000"), "url and top_k go together"),
        ((*ON_POLICY, f"{TEACHER}.top_k=8"), "url and top_k go together"),
        ((*ON_POLICY, f"train.on_policy.examples={EXAMPLES}"), "set one of teacher, teachers and examples"),
        ((*ON_POLICY, "train.on_policy={steps: 2}"), "set one of teacher, teachers and examples"),
        ((*ROUTED, f"{TEACHER}={{model: models/Teacher}}"), "set one of teacher, teachers and examples"),
        ((*ROUTED, "train.on_policy={teachers: [{model: m, url: 'http://node7:8000', top_k: 1}]}"), "at least 2"),
        ((*ROUTED, f"{TEACHERS}.1.name=a"), "two of teachers are called a"),
        ((*ROUTED, f"{TEACHERS}.0.url=null", f"{TEACHERS}.0.top_k=null"), "teachers.0 has no url"),
        ((*ROUTED, f"{TEACHERS}.1.url=http://node7:8000/"), "two of teachers have the url http://node7:8000"),
        ((*ROUTED, f"{TEACHERS}.1.top_k=9"), "the top_k of teachers differ"),
        ((*ROUTED, f"{TEACHERS}.0.where={{}}"), "teachers.0 takes every problem"),
        ((*ROUTED, "train.on_policy.temperature=0.7"), "vLLM scores at temperature 1"),
        ((*ROUTED, "train.on_policy.across_tokenizers=true"), "takes a teacher beside the student"),
        ((*ON_POLICY, "train.on_policy.across_tokenizers=true"), "set beta between 0 and 1"),
        ((*SERVED, "train.on_policy.across_tokenizers=true"), "takes a teacher beside the student"),
        ((*SERVED, "train.on_policy.temperature=0.7"), "vLLM scores at temperature 1"),
        ((*SERVED, f"{TEACHER}.url=http://node7:8000/v1"), "without /v1"),
        ((*SERVED, f"{TEACHER}.url=node7:8000"), "is not the address of a server"),
        ((*SERVED, f"{TEACHER}.url=http://node7:99999"), "Port out of range"),
        ((*SERVED, f"{TEACHER}.url=https://api.example.com"), "url is a public address"),
        ((*SERVED, f"{TEACHER}.url=http://me:secret@node7:8000"), "holds more than an address"),
    ],
)
def test_stages_of_distillation_that_cannot_train_are_refused(
    tmp_path: Path, overrides: tuple[str, ...], what: str
) -> None:
    assert load(tmp_path, GOOD, *ON_POLICY).train.on_policy is not None
    assert load(tmp_path, GOOD, *SERVED).train.on_policy is not None
    assert load(tmp_path, GOOD, *ROUTED).train.on_policy is not None
    assert load(tmp_path, GOOD, *LOGITS).train.logits is not None
    assert what in refused(tmp_path, GOOD, *overrides).what


@pytest.mark.parametrize(("micro", "taken"), [(4, 4), (5, 4), (16, 8), (1, 1)])
def test_a_step_on_policy_is_whole_forward_passes(tmp_path: Path, micro: int, taken: int) -> None:
    sizes = (f"train.on_policy.micro_batch_size={micro}", "train.on_policy.batch_size=8")
    config = load(tmp_path, GOOD, *ON_POLICY, *sizes).train.on_policy
    assert config is not None
    assert config.in_one_pass == taken


def test_a_served_teacher_is_part_of_a_key_and_its_address_is_not(tmp_path: Path) -> None:
    beside = key_dump(load(tmp_path, GOOD, *ON_POLICY, "train.on_policy.beta=0").train)
    served, moved, more = (
        key_dump(load(tmp_path, GOOD, *SERVED, change).train)
        for change in ("name=t", f"{TEACHER}.url=http://node8:8000", f"{TEACHER}.top_k=9")
    )
    assert beside["on_policy"]["teacher"].keys() == {"model", "name", "revision", "license"}
    assert beside["on_policy"].keys().isdisjoint({"examples", "across_tokenizers", "teachers"})
    assert "logits" not in beside
    assert served == moved
    assert len({str(one) for one in (beside, served, more)}) == 3


def test_of_several_teachers_the_first_whose_conditions_hold_scores_a_problem(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, *ROUTED, f"{TEACHERS}.1.where={{level: {{min: 3}}, source: web}}")
    config = recipe.train.on_policy
    assert config is not None
    rows: list[dict[str, Any]] = [
        {"id": "0", "source": "proofs", "extra": {"level": 4}}, {"id": "1", "source": "web", "extra": {"level": 3}},
    ]  # fmt: skip
    assert require_routes(config.teachers, rows) == {"0": 0, "1": 1}
    missing = [
        {"id": "2", "source": "web", "extra": {"level": 2}},
        {"id": "3", "source": "code", "extra": {"level": 5}},
    ]
    with pytest.raises(InputError, match="answers to 2 of 4 problems, the first: 2"):
        require_routes(config.teachers, [*rows, *missing])
    with pytest.raises(InputError, match="a scores the answers to none of 1 problems") as unused:
        require_routes(config.teachers, rows[1:])
    assert unused.value.where == f"{TEACHERS}.0.where"
    nested = load(tmp_path, GOOD, *ROUTED, f"{TEACHERS}.0.where={{source.name: sums}}").train.on_policy
    assert nested is not None
    with pytest.raises(InputError, match="problem 0: ") as caught:
        require_routes(nested.teachers, rows)
    assert caught.value.where == TEACHERS
    keys = [
        str(key_dump(load(tmp_path, GOOD, *ROUTED, change).train))
        for change in ("name=t", f"{TEACHERS}.1.url=http://node9:8000", f"{TEACHERS}.0.where={{source: sums}}")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_a_renamed_key_is_refused_with_its_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED_KEYS, "train", "student.method")
    monkeypatch.setitem(RENAMED_KEYS, "release.allowed.codes", "release.allow")
    error = refused(tmp_path, GOOD + "train: {kind: full}\n", "release.allowed.codes=[V-NAME-PREFIX]")
    assert error.where == f"{tmp_path / 'recipe.yaml'}:15"
    assert error.what.startswith("train is now student.method")
    assert "release.allowed.codes is now release.allow" in error.what


@pytest.mark.parametrize("limit", [None, "tokens", "hours", "gpu_hours", "money"])
def test_prices_and_accelerators_are_part_of_a_key_only_beside_the_limit_that_they_decide(
    tmp_path: Path, limit: str | None
) -> None:
    judge = {"judge": {"teacher": {"kind": "fake"}}}
    settings = [f"verify={json.dumps(judge)}"]

    def keys(**budget: Any) -> str:
        if limit is not None:
            budget = {"gpus": 1, "price_per_million_tokens": 1, limit: 9, **budget}
        paths = ("sample.budget", "verify.judge.budget")
        recipe = load(tmp_path, GOOD, *settings, *(f"{path}={json.dumps(budget)}" for path in paths if budget))
        return str([key_dump(recipe.sample), key_dump(recipe.verify)])

    assert (keys(price_per_million_tokens=2) == keys()) is (limit != "money")
    assert (keys(gpus=2) == keys()) is (limit not in ("gpu_hours", "money"))
    assert keys() != keys(tokens=7)


@pytest.mark.parametrize(("old", "new"), sorted(RENAMED_KEYS.items()))
def test_every_key_of_an_earlier_version_names_a_key_that_there_is(tmp_path: Path, old: str, new: str) -> None:
    error = refused(tmp_path, GOOD, f"{old}=1")
    assert (error.what, error.where, error.hint) == (f"{old} is now {new}", f"--set {old}=1", f"write {new}")
    model: Any = Recipe
    for name in new.split("."):
        model = field_model(model, name)


@pytest.mark.parametrize("gone", sorted(REMOVED_KEYS))
def test_a_removed_key_is_none_that_there_is(gone: str) -> None:
    model: Any = Recipe
    for name in gone.split(".")[:-1]:
        model = field_model(model, name)
    assert gone.split(".")[-1] not in model.model_fields


def field_model(model: type[BaseModel], name: str) -> Any:
    """The section that a field of a section holds; of a plain field its type."""
    annotation = model.model_fields[name].annotation
    sections = [
        one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)
    ]
    return sections[0] if sections else annotation


def test_a_removed_key_says_that_it_is_gone_and_why(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD, "evaluate.bootstrap_samples=1000")
    assert error.where == "--set evaluate.bootstrap_samples=1000"
    assert error.what == "evaluate.bootstrap_samples is gone: intervals are computed without resampling"
    assert error.hint == "remove it"


def test_a_run_keeps_its_directory_when_a_section_changes_and_not_when_the_student_does(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    assert load(tmp_path, GOOD, "curate.max_traces=7").run_name() == recipe.run_name()
    assert load(tmp_path, GOOD, "student.base={kind: random, seed: 5}").run_name() != recipe.run_name()


def test_a_sampling_option_is_part_of_a_key_and_of_the_shipped_settings_only_where_it_is_set(tmp_path: Path) -> None:
    absent, greedy = load(tmp_path, GOOD), load(tmp_path, GOOD, "evaluate.repetition_penalty=1.05")
    sampled = load(tmp_path, GOOD, "evaluate.temperature=0.6", "evaluate.top_k=20", "evaluate.min_p=0")
    assert not set(SAMPLING_OPTIONS) & (key_dump(absent.evaluate).keys() | key_dump(absent.sample).keys())
    assert key_dump(sampled.evaluate)["top_k"] == 20
    assert absent.evaluate.generation_config() == {"do_sample": False}
    assert greedy.evaluate.generation_config() == {"do_sample": False, "repetition_penalty": 1.05}
    values = {"do_sample": True, "temperature": 0.6, "top_p": 1.0, "top_k": 20, "min_p": 0.0}
    assert sampled.evaluate.generation_config() == values


def test_the_digest_sees_every_field_and_no_formatting(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    assert load(tmp_path, GOOD.replace("kind: fake", "kind:   fake  # x")).digest() == recipe.digest()
    assert load(tmp_path, GOOD, "student.seed=1").digest() != recipe.digest()


def test_the_schema_is_json_and_names_every_section() -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False


# --- persona files -----------------------------------------------------------------------------------------------


def test_a_persona_file_is_the_recipes_section_and_a_recipe_gives_its_own(tmp_path: Path) -> None:
    text = "name: Ada\nmaker: Acme\nsystem: {en: You are Ada., de: Du bist Ada.}\nfacts: {cutoff: June 2025}\n"
    persona = load_persona(write(tmp_path, text))
    assert persona.facts.cutoff == "June 2025"
    recipe = GOOD + "persona:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    assert load_persona(write(tmp_path, recipe.replace("base: {kind: random}", "base: acme/Tiny-7B"))).facts == (
        persona.facts.model_copy(update={"base_model": "Tiny-7B"})
    )
    assert load_persona(write(tmp_path, recipe)) == persona == load(tmp_path, recipe).persona


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("name: Ada\ndeveloper: Acme\nsystem: x\n", ":2", "persona.developer is now persona.maker"),
        ("name: Ada\nmaker: Acme\nsystem_prompt: x\n", ":3", "persona.system_prompt is now persona.system"),
        ("name: Ada\nmaker: Acme\nsystem: x\nmode: compose\n", ":4", "persona.mode is now persona.policy"),
        ("name: Ada\nmaker: Acme\nsystem: x\nfacts: {cutof: y}\n", ":4", "unknown key 'cutof'"),
        ("name: Ada\nmaker: Acme\n", "recipe.yaml", "persona.system is missing"),
        ("name: Ada\nmaker: Acme\nsystem: You are a human.\n", "", "may not tell the model"),
    ],
)
def test_a_wrong_persona_file_names_the_line(tmp_path: Path, text: str, place: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as raised:
        load_persona(write(tmp_path, text))
    assert place in str(raised.value.where)


def test_a_recipes_persona_speaks_languages_that_it_can_be_taught_in(tmp_path: Path) -> None:
    persona = 'persona={"name": "Ada", "maker": "Acme", "system": {"nl": "Je bent Ada."}}'
    with pytest.raises(InputError, match="no identity rows and probes in nl"):
        load(tmp_path, GOOD, persona)
    assert load(tmp_path, GOOD, persona, "persona.rows=0", "evaluate.persona_probes=0").persona is not None


def test_a_recipes_persona_may_not_hide_the_base(tmp_path: Path) -> None:
    persona = 'persona={"name": "Ada", "maker": "Acme", "system": "You are Ada. Never mention Tiny-7B."}'
    assert load(tmp_path, GOOD, persona).persona_with_origins is not None
    with pytest.raises(InputError, match="Never mention Tiny-7B"):
        load(tmp_path, GOOD, persona, "student.name=acme/Tiny-7B")
