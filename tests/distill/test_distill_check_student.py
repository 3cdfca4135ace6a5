"""check and preview: what would end or spoil a training is seen in the student's files before a token is bought."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from distill.check.finding import Finding
from distill.check.student import check_student
from distill.config.loader import load_recipe
from distill.config.recipe import RandomBase
from distill.models.positions import position_limit
from distill.models.random_model import CHATML, write_random_base
from licensing.errors import InputError

SMOKE = Path(__file__).resolve().parent.parent.parent / "recipes" / "smoke.yaml"


DIVIDED = ("student.max_length=256", "student.parallel={processes: 2, context_parallel_size: 2}")
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "original_max_position_embeddings": 256,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    write_random_base(RandomBase(hidden_size=16, num_layers=1, max_position_embeddings=1024), folder)
    return folder


@pytest.fixture
def check(base: Path) -> Callable[..., list[Finding]]:
    """The findings on the student of the smoke recipe with ``base``."""

    def call(*fields: str) -> list[Finding]:
        return list(check_student(load_recipe(SMOKE, [f"student.base={base}", "student.license=apache-2.0", *fields])))

    return call


def template(base: Path, text: str) -> None:
    (base / "chat_template.jinja").write_text(text)


def config(base: Path, **changes: Any) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_sound_student_is_told_how_its_thinking_is_written(check) -> None:
    [finding] = check()
    assert finding.level == "ok"
    assert "'<think>' opens the thinking, '</think>' closes it, <|im_end|> ends a turn" in finding.what


@pytest.mark.parametrize(("prompt", "trained"), [("", "<think>\n(thinking)"), ("<think>\n", "(thinking)")])
def test_traces_with_and_without_the_opening_tag_are_said_to_be_trained_as_the_template_writes_them(
    check, base, prompt: str, trained: str
) -> None:
    template(base, CHATML.replace("assistant\n'", f"assistant\n{prompt}'"))
    [finding] = check()
    text = f"{trained}\n</think>\n\n(answer)<|im_end|>"
    assert f"a trace with the opening tag or without it is trained as {text!r}" in finding.what


def test_padding_with_the_end_of_turn_is_noted_where_nothing_else_is_free(check, base) -> None:
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token": "<|endoftext|>", "pad_token": None}))
    assert [(one.level, "pads with <|im_end|>" in one.what) for one in check()] == [("note", True), ("ok", False)]


@pytest.mark.parametrize(
    "field", ["student.max_length", "evaluate.max_new_tokens", "evaluate.engine_args.max_model_len"]
)
def test_lengths_beyond_the_bases_positions_are_refused_by_field(check, field: str) -> None:
    finding = check(f"{field}=1025")[-1]
    assert (finding.level, finding.where) == ("error", field)
    assert "1,025 tokens, but the base has 1,024 positions" in finding.what


def test_positions_count_a_rope_scaling_that_names_its_original_length() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert position_limit({"max_position_embeddings": 32768}) == 32768
    assert position_limit({"max_position_embeddings": 32768, "rope_scaling": yarn}) == 131072
    assert position_limit({"text_config": {"max_position_embeddings": 8192}}) == 8192
    assert position_limit({}) is None


YARN = "student.rope_scaling={rope_type: yarn, factor: 4.0}"


@pytest.mark.slow
def test_a_rope_scaling_gives_positions_where_the_architecture_takes_one(check, base) -> None:
    assert check("student.max_length=4096")[-1].level == "error"
    assert [(one.level, one.where) for one in check("student.max_length=4096", YARN)][1:] == [
        ("ok", "student.rope_scaling")
    ]
    beyond = check("student.max_length=4097", YARN)[1]
    assert "4,097 tokens, but the base has 4,096 positions" in beyond.what
    assert beyond.hint == "lower it, or raise the factor of student.rope_scaling"
    config(base, model_type="gpt2")
    refused = check(YARN)[-1]
    assert (refused.level, refused.where) == ("error", "student.rope_scaling")
    assert "GPT2LMHeadModel supports no RoPE scaling" in refused.what
    # as transformers 4 wrote it: one scaling for layers whose rotary positions differ
    config(base, model_type="gemma3_text", rope_parameters=None, rope_theta=1e6, rope_local_base_freq=1e4)
    refused = check(YARN)[-1]
    assert (refused.level, refused.where) == ("error", "student.rope_scaling")
    assert "layers of Gemma3ForCausalLM have different rotary positions" in refused.what


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rope_parameters": None}, "config.json has no rotary positions"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "a RoPE scaling of its own (llama3)"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "layers of the base have different rotary"),
        ({"max_position_embeddings": None}, "config.json has no rotary positions"),
    ],
)
def test_a_rope_scaling_is_refused_where_the_base_has_nothing_to_scale(check, base, changes: Any, what: str) -> None:
    config(base, **changes)
    with pytest.raises(InputError) as caught:
        check(YARN)
    assert what in caught.value.what
    assert caught.value.where == str(base)


def test_a_rope_scaling_that_gives_no_more_positions_is_refused(check) -> None:
    with pytest.raises(InputError, match="512 positions times 2 are 1,024, and the base has 1,024"):
        check("student.rope_scaling={rope_type: yarn, factor: 2, original_max_position_embeddings: 512}")


def test_traces_longer_than_a_row_may_be_are_noted(check) -> None:
    assert any("are left out of training" in one.what for one in check("student.max_length=32"))


@pytest.mark.parametrize(
    ("modules", "what"),
    [
        ("[q_prj]", "no module of the base is called q_prj"),
        ('"model.*q_prj"', "no module of the base is called"),
        ('"("', "not a regular expression"),
        ("[q_proj, embed_tokens]", "shares its weights"),
    ],
)
def test_target_modules_that_training_or_export_would_refuse_are_refused(check, modules: str, what: str) -> None:
    finding = check(f"student.method={{kind: lora, target_modules: {modules}}}")[-1]
    assert (finding.level, finding.where) == ("error", "student.method.target_modules")
    assert what in finding.what


@pytest.mark.slow
def test_weights_that_lora_would_leave_out_in_silence_are_refused(check, recwarn: pytest.WarningsRecorder) -> None:
    for field, entry in (("modules_to_save", "lm_haed"), ("target_parameters", "experts.gate_up_proj")):
        finding = check(f"student.method={{kind: lora, {field}: [{entry}]}}")[-1]
        assert (finding.level, finding.where) == ("error", f"student.method.{field}")
        assert entry in finding.what
    assert [str(one.message) for one in recwarn if "target_parameters" in str(one.message)] == [], "said once"
    taken_twice = "{kind: lora, target_parameters: [self_attn.q_proj.weight]}"
    finding = check(f"student.method={taken_twice}")[-1]
    assert (finding.level, finding.where) == ("error", "student.method")
    assert "not a valid target" in finding.what
    passed = "{kind: lora, modules_to_save: [embed_tokens, head]}"
    assert [one.level for one in check(f"student.method={passed}")] == ["ok"]


@pytest.mark.slow
def test_target_modules_that_are_there_pass(check) -> None:
    for modules in ("[q_proj, v_proj]", "[self_attn.q_proj]", '".*[qv]_proj"'):
        assert [one.level for one in check(f"student.method={{kind: lora, target_modules: {modules}}}")] == ["ok"]


def test_a_generation_prompt_that_closes_the_block_is_noted_and_refused_for_a_thinking_teacher(check, base) -> None:
    template(base, CHATML.replace("assistant\n'", "assistant\n<think>\n\n</think>\n\n'"))
    assert [one.level for one in check()] == ["note"]
    served = "teacher={kind: vllm, model: a/b, license: mit, thinking: true}"
    assert [one.level for one in check(served)] == ["error"]


def test_a_token_without_an_embedding_is_refused(check, base) -> None:
    config(base, vocab_size=2)
    finding = check()[0]
    assert finding.level == "error"
    assert "<|im_end|> has id 2, but the model has embeddings for 2 tokens" in finding.what


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model_type": "mistral", "sliding_window": 255}, "covers 255 tokens, and rows have up to 256"),
        ({"model_type": "qwen3_next"}, "its layers carry a state along the row"),
        ({"model_type": "gpt_oss"}, "its attention is not PyTorch's"),
        ({"rope_parameters": LONGROPE | {"original_max_position_embeddings": 255}}, "(longrope) change with the"),
        ({"model_type": "lfm2", "layer_types": ["conv"]}, "it has layers of type conv"),
        ({"model_type": "llama4_text"}, "it scales queries by their place"),
    ],
)
def test_rows_of_models_that_mix_positions_otherwise_than_by_whole_attention_are_not_divided(
    check, base, changes: dict[str, Any], fault: str
) -> None:
    config(base, model_type="mistral", sliding_window=256, rope_parameters=LONGROPE)
    assert {finding.level for finding in check(*DIVIDED)} <= {"ok", "note"}
    config(base, **changes)
    assert fault not in str(check("student.max_length=256"))
    (error,) = [finding for finding in check(*DIVIDED) if finding.level == "error"]
    assert fault in error.what
    assert error.where == "student.parallel.context_parallel_size"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model_type": "stablelm"}, "Liger has no kernels for models of type stablelm"),
        ({"model_type": "mixtral"}, "models with experts (mixtral) are trained without Liger's kernels"),
    ],
)
def test_models_that_liger_has_no_kernels_for_are_refused_with_them(
    check, base, changes: dict[str, Any], fault: str
) -> None:
    assert {finding.level for finding in check("student.liger=true")} <= {"ok", "note"}
    config(base, **changes)
    assert fault not in str(check())
    (error,) = [finding for finding in check("student.liger=true") if finding.level == "error"]
    assert fault in error.what
    assert error.where == "student.liger"


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"model_type": "foo"}, {"rope_parameters": {"rope_type": "longrope"}}])
def test_a_base_that_transformers_cannot_read_is_refused_where_rows_are_divided(check, base, changes) -> None:
    config(base, **changes)
    (error,) = [finding for finding in check(*DIVIDED) if finding.level == "error"]
    assert "transformers cannot read config.json" in error.what
    assert error.where == str(base)


def test_without_torch_the_division_of_rows_is_noted_as_unchecked(check, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "not checked: that needs torch and transformers" in str(check(*DIVIDED))


def test_a_multimodal_base_is_refused(check, base) -> None:
    config(base, vision_config={})
    with pytest.raises(InputError, match="multimodal"):
        check()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_lora_on_an_end_of_turn_that_was_never_trained_is_refused_unless_its_row_is_trained(
    check, base: Path, dtype: str
) -> None:
    tensors = load_file(base / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    embedding[2] = 0
    if dtype == "BF16":  # the upper halves of float32
        half = (embedding.view(np.uint32) >> 16).astype(np.uint16)
        header = {"model.embed_tokens.weight": {"dtype": dtype, "shape": half.shape, "data_offsets": [0, half.nbytes]}}
        text = json.dumps(header).encode()
        (base / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + half.tobytes())
    else:
        kind = np.float16 if dtype == "F16" else np.float32
        save_file({"model.embed_tokens.weight": embedding.astype(kind)}, base / "model.safetensors")
    finding = check()[-1]
    assert (finding.level, finding.where) == ("error", "student.method")
    assert "the row of <|im_end|> in model.embed_tokens.weight was never trained" in finding.what
    assert [one.level for one in check("student.method={kind: lora, modules_to_save: [embed_tokens]}")] == ["ok"]
    assert [one.level for one in check("student.method={kind: full}")] == ["ok"]


@pytest.mark.slow
def test_preview_shows_prompt_and_trained_text_with_their_tokens(distill, base, tmp_path: Path) -> None:
    template(base, CHATML.replace("assistant\n'", "assistant\n<think>\n'"))
    answer = distill(
        "preview", SMOKE, "-n", 2, "--runs", tmp_path, "--set", f"student.base={base}",
        "--set", "student.license=apache-2.0", "--json",
    )  # fmt: skip
    assert answer.code == 0
    assert answer.json["source"] == "made-up traces on the recipe's problems"
    rows = answer.json["rows"]
    assert len(rows) == 2
    for row in rows:
        assert row["prompt"].endswith("<|im_start|>assistant\n<think>\n")
        assert row["completion"].startswith("(thinking)\n</think>\n\n")
        assert row["completion"].endswith("<|im_end|>")
        assert row["prompt_tokens"] > 0 < row["trained_tokens"]
        assert row["reason"] is None


def test_preview_marks_what_is_trained_and_no_control_character_reaches_the_terminal(distill, base, tmp_path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"prompt": "1 + 1? \x1b[2J", "answer": "2", "kind": "math"}) + "\n")
    answer = distill(
        "preview", SMOKE, "--runs", tmp_path, "--set", f"student.base={base}", "--set", "student.license=apache-2.0",
        "--set", f"prompts={{kind: jsonl, path: {problems}}}",
    )  # fmt: skip
    assert "\x1b" not in answer.out
    assert "\\u001b[2J" in answer.out
    assert "⟦<think>\n(thinking)\n</think>\n\n2<|im_end|>⟧" in answer.out


@pytest.mark.slow
def test_preview_says_why_a_row_is_left_out(distill, tmp_path: Path) -> None:
    answer = distill("preview", SMOKE, "-n", 1, "--runs", tmp_path, "--set", "student.max_length=16")
    assert "left out: longer than max_length 16" in answer.out


@pytest.mark.slow
def test_the_command_ends_with_the_code_of_its_findings(distill, base: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    tensors["model.embed_tokens.weight"][2] = 0
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    fields = (f"student.base={base}", "student.license=apache-2.0", "student.max_length=1025")
    method = "student.method={kind: lora, target_modules: [q_prj]}"
    answer = distill("check", SMOKE, *(option for field in (*fields, method) for option in ("--set", field)))
    assert answer.code == 2
    assert "student.max_length: 1,025 tokens, but the base has 1,024 positions" in answer.err
    assert "student.method.target_modules: no module of the base is called q_prj" in answer.err
    assert "the row of <|im_end|> in model.embed_tokens.weight was never trained" in answer.err


@pytest.mark.parametrize(("more", "positions"), [((), 1024), pytest.param((YARN,), 4096, marks=pytest.mark.slow)])
def test_a_run_refuses_its_prepared_base_before_a_token_is_sampled(
    distill, base, tmp_path: Path, more: tuple[str, ...], positions: int
) -> None:
    fields = (f"student.base={base}", "student.license=apache-2.0", f"student.max_length={positions + 1}", *more)
    answer = distill("run", SMOKE, "--runs", tmp_path / "runs", *(part for one in fields for part in ("--set", one)))
    assert (answer.code, f"the base has {positions:,} positions" in answer.err) == (2, True), answer.err
    (run,) = (tmp_path / "runs").iterdir()
    assert [stage.name for stage in (run / "stages").iterdir()] == ["prepare"]
