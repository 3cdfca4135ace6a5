"""prepare: the folder that every later stage reads; the faults of a base, named before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distill.config.recipe import RandomBase, StudentConfig
from distill.models.folder import cached
from distill.models.prepare import inspect_base, prepare
from distill.models.random_model import CHATML
from licensing.errors import InputError, MissingDependency
from publish.chat_template import template_digest
from synth.persona.config import PersonaConfig

PERSONA = PersonaConfig(name="Quill", maker="Ink Lab", system="You are Quill, made by Ink Lab.")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base on disk, like a downloaded one."""
    folder = tmp_path / "base"
    prepare(student(RandomBase(hidden_size=16, num_layers=1)), None, folder)
    (folder / "generation_config.json").unlink()
    return folder


def student(base: Any, **more: Any) -> StudentConfig:
    return StudentConfig.model_validate({"base": base if isinstance(base, RandomBase) else str(base), **more})


def edit(file: Path, **changes: Any) -> None:
    value = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({key: item for key, item in {**value, **changes}.items() if item is not None}))


def contents(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.mark.slow
def test_prepared_folder_generates_with_plain_transformers_under_the_persona(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = prepare(student(base), PERSONA, tmp_path / "out")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hé?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert tokenizer.decode(asked["input_ids"][0]).count(PERSONA.default_system) == 1
    assert model.generate(**asked, max_new_tokens=2).shape[1] > asked["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == facts["stop_token_ids"] == [2]
    assert model.generation_config.do_sample is False
    assert tokenizer.pad_token_id == model.config.pad_token_id == facts["pad_token_id"] == 0
    assert facts["persona_renders_once"] is True


def test_the_final_template_is_there_once_and_its_digest_is_a_fact(base: Path, tmp_path: Path) -> None:
    edit(base / "tokenizer_config.json", chat_template=CHATML)
    (base / "chat_template.jinja").unlink()
    facts = prepare(student(base), PERSONA, tmp_path / "out")

    template = (tmp_path / "out" / "chat_template.jinja").read_text()
    assert facts["template_digest"] == template_digest(template) != template_digest(CHATML)
    assert "chat_template" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())


def test_the_recipe_can_name_the_chat_template_of_a_base_that_has_none(base: Path, tmp_path: Path) -> None:
    (base / "chat_template.jinja").unlink()
    with pytest.raises(InputError) as caught:
        inspect_base(student(base))
    assert "chat_template: chatml" in str(caught.value.hint)
    facts = prepare(student(base, chat_template="chatml"), None, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == CHATML
    assert facts["stop_tokens"][0] == "<|im_end|>"

    own = tmp_path / "own.jinja"
    with pytest.raises(InputError, match="cannot be read"):
        inspect_base(student(base, chat_template=str(own)))
    own.write_text(CHATML.replace("assistant\n'", "assistant\n<think>\n'"))
    found = inspect_base(student(base, chat_template=str(own)))
    assert found is not None
    assert found.turn.tags == ("", "</think>")


def test_equal_inputs_give_equal_bytes_without_a_path_of_this_machine(tmp_path: Path) -> None:
    config = student(RandomBase(hidden_size=16, num_layers=1, seed=5))
    first, second = (prepare(config, PERSONA, tmp_path / name) for name in ("a", "b"))
    assert first == second
    assert contents(tmp_path / "a") == contents(tmp_path / "b")

    from_folder = prepare(student(tmp_path / "a"), None, tmp_path / "c")
    texts = [file.read_text() for file in (tmp_path / "c").iterdir() if file.suffix != ".safetensors"]
    assert str(tmp_path) not in json.dumps(from_folder) + "".join(texts)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        prepare(student(RandomBase(hidden_size=16, num_layers=1, seed=seed)), None, tmp_path / str(seed))
    assert contents(tmp_path / "0")["model.safetensors"] != contents(tmp_path / "1")["model.safetensors"]


def test_weights_are_linked_to_the_real_file_not_copied(base: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(base)
    prepare(student(tmp_path / "alias"), None, tmp_path / "out")
    link = tmp_path / "out" / "model.safetensors"
    assert link.is_symlink()
    assert link.readlink() == base / "model.safetensors"


def test_all_shards_and_their_index_are_linked_and_a_missing_shard_is_named(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
    (base / "model-00002-of-00002.safetensors").write_bytes(b"")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    edit(base / "model.safetensors.index.json", weight_map=shards)
    prepare(student(base), None, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("model*")} == {
        *shards.values(),
        "model.safetensors.index.json",
    }

    (base / shards["b"]).unlink()
    with pytest.raises(InputError, match="1 of 2 weight files are missing, the first model-00002"):
        inspect_base(student(base))


def test_a_pad_token_that_would_stop_generation_is_replaced_where_the_vocabulary_has_another(
    base: Path, tmp_path: Path
) -> None:
    edit(base / "tokenizer_config.json", pad_token="<|im_end|>")
    edit(base / "config.json", pad_token_id=2)
    edit(base / "generation_config.json", pad_token_id=2, eos_token_id=2, _from_model_config=True)
    facts = prepare(student(base), None, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert facts["pad_token"] == "<|endoftext|>"
    assert written["pad_token_id"] == 0
    assert written["eos_token_id"] == [2]
    assert "_from_model_config" not in written
    assert json.loads((tmp_path / "out" / "config.json").read_text())["pad_token_id"] == 0


def test_every_stop_token_of_the_base_is_kept_behind_the_one_that_the_template_writes(
    base: Path, tmp_path: Path
) -> None:
    edit(base / "tokenizer_config.json", eos_token="<|endoftext|>")
    edit(base / "generation_config.json", eos_token_id=[0, 2])
    facts = prepare(student(base), None, tmp_path / "out")
    assert facts["stop_token_ids"] == [2, 0]
    assert facts["stop_tokens"] == ["<|im_end|>", "<|endoftext|>"]
    # <|im_start|> begins a turn, which is no pad token; who masks padding by token still learns to end a turn.
    assert (facts["pad_token"], facts["pad_is_stop"]) == ("<|endoftext|>", True)


def test_sampling_values_of_the_base_survive(base: Path, tmp_path: Path) -> None:
    edit(base / "generation_config.json", temperature=0.6, top_p=0.95)
    prepare(student(base), None, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (written["do_sample"], written["temperature"], written["top_p"]) == (True, 0.6, 0.95)


def test_a_changed_base_changes_its_digest(base: Path, tmp_path: Path) -> None:
    before = prepare(student(base), None, tmp_path / "out")["base"]
    edit(base / "config.json", rms_norm_eps=1e-5)
    after = prepare(student(base), None, tmp_path / "out")["base"]
    assert before["files_digest"] != after["files_digest"]
    assert before["weights_bytes"] == (base / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled"),
        (lambda f: (f / "chat_template.jinja").unlink(), "no chat template"),
        (lambda f: (f / "chat_template.jinja").write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda f: (f / "chat_template.jinja").write_text("{% for %}"), "does not parse"),
        (lambda f: (f / "chat_template.jinja").write_text("{{ messages[7].content }}"), "cannot render"),
        (
            lambda f: (f / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}"),
            "end-of-turn",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda f: (f / "config.json").write_text("{"), "damaged JSON"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: edit(f / "config.json", auto_map={"AutoModel": "x.Y"}), "needs its own Python code"),
        (lambda f: edit(f / "config.json", quantization_config={"quant_method": "fp8"}), "quantised"),
    ],
)
def test_check_and_the_stage_name_the_same_fault_of_a_base(base: Path, tmp_path: Path, damage: Any, what: str) -> None:
    damage(base)
    for look in (lambda: inspect_base(student(base)), lambda: prepare(student(base), None, tmp_path / "out")):
        with pytest.raises(InputError, match=what) as caught:
            look()
        assert caught.value.where


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "not an id", "a/b/c", "owner/..x"])
def test_a_base_that_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no folder"):
        inspect_base(student(name))


@pytest.mark.slow
def test_a_hub_id_that_is_not_here_is_left_to_the_run_and_the_run_says_when_the_hub_is_out_of_reach(
    tmp_path: Path,
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom distill.models.prepare import *\n"
        "from distill.config.recipe import StudentConfig\n"
        "from licensing.errors import MissingDependency\n"
        "student = StudentConfig(base='nobody/nothing')\n"
        "assert inspect_base(student) is None\n"
        "try: prepare(student, None, Path(sys.argv[1]))\n"
        "except MissingDependency as error: print(error.what, error.hint)\n"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nobody/nothing cannot be fetched" in done.stdout, done.stderr
    assert MissingDependency.exit_code == 3


def test_a_base_in_the_hubs_cache_is_found_by_branch_and_by_commit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "c" * 40
    repository = tmp_path / "hub" / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    base.rename(repository / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert cached("owner/name", None) == cached("owner/name", commit) == repository / "snapshots" / commit
    assert inspect_base(student("owner/name")) is not None
    assert cached("owner/name", "another") is None
    assert cached("owner/other", None) is None
    assert cached("no hub id", None) is None


@pytest.mark.slow
def test_inspection_and_preparation_load_no_torch(base: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom distill.models.prepare import *\n"
        "from distill.config.recipe import StudentConfig\n"
        "assert inspect_base(StudentConfig(base=sys.argv[1])).turn_end == '<|im_end|>'\n"
        "prepare(StudentConfig(base=sys.argv[1]), None, Path(sys.argv[1]).parent / 'out')\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(base)], check=True, capture_output=True)
