from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from licensing.errors import InputError, MissingDependency
from synth.problems.problem import Prompt
from synth.teachers.build import build_teacher
from synth.teachers.config import AutoTeacher, Example, FakeTeacher, OfflineTeacher, TransformersTeacher, VllmTeacher
from synth.teachers.fake import FakeEngine
from synth.teachers.teacher import (
    Completion,
    Request,
    Teacher,
    decode_completion,
    render_chat,
    teacher_messages,
)

REPOSITORY = Path(__file__).parents[2]


def problem(text: str = "1 + 1?", **more: Any) -> Prompt:
    return Prompt.model_validate({"prompt": text, "answer": "2", "kind": "math", "source": "s", **more})


def request(
    identity: str, prompt: Prompt, *, temperature: float = 0.0, max_new_tokens: int = 64, **options: float
) -> Request:
    seed = sum(identity.encode())
    return Request(
        identity, prompt, prompt.messages, 0, seed, temperature, 1.0, max_new_tokens, sampling_options=options
    )


def drain(teacher: Teacher, requests: Sequence[Request]) -> dict[str, Completion]:
    """All answers by request id, fed as sampling feeds a teacher."""
    waiting, found = list(requests), {}
    while len(found) < len(requests):
        while waiting and teacher.capacity > 0:
            teacher.submit(waiting.pop(0))
        for completion in teacher.poll():
            assert completion.request_id not in found
            found[completion.request_id] = completion
    assert teacher.poll() == []
    return found


# --- the chat that a teacher sees ------------------------------------------------------------------------------------


def test_system_prompt_and_examples_are_the_teachers_and_come_first() -> None:
    config = FakeTeacher(system_prompt="Think.", examples=(Example(prompt="2 + 2?", response="4"),))
    prompt = problem()
    assert teacher_messages(config, prompt) == (
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "1 + 1?"},
    )
    assert prompt.messages == ({"role": "user", "content": "1 + 1?"},)
    assert teacher_messages(FakeTeacher(), prompt) == prompt.messages


def test_a_problems_own_system_message_is_kept_below_the_teachers() -> None:
    own = [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "1 + 1?"}]
    prompt = problem(prompt=None, messages=own)
    messages = teacher_messages(FakeTeacher(system_prompt="Think."), prompt)
    assert messages[0] == {"role": "system", "content": "Think.\n\nUse tools."}
    assert len(messages) == 2
    assert teacher_messages(FakeTeacher(), prompt) == tuple(own)


# --- building --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_only_the_engine_that_is_asked_for_is_imported() -> None:
    program = (
        "import sys; from synth.teachers.config import FakeTeacher; from synth.teachers.build import build_teacher; "
        "import synth.sampling.sample, synth.problems.problem; build_teacher(FakeTeacher()); "
        "print([m for m in ('torch', 'transformers', 'vllm', 'datasets', 'reasoning_gym', "
        "'synth.teachers.vllm', 'synth.teachers.transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_auto_takes_vllm_where_it_is_installed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    config = AutoTeacher(model=str(tiny), batch_size=3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "vllm" else find_spec(name))
    teacher = build_teacher(config)
    assert teacher.engine.startswith("transformers ")
    assert teacher.capacity == 12
    with pytest.raises(MissingDependency, match="pip install vllm"):
        build_teacher(VllmTeacher(model=str(tiny)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: find_spec("json"))
    assert build_teacher(config).engine.startswith("vllm ")


def test_a_teacher_whose_traces_are_brought_along_cannot_be_asked() -> None:
    with pytest.raises(InputError, match=r"sample\.source"):
        build_teacher(OfflineTeacher(model="a/b"))


@pytest.mark.parametrize("name", ["absent", "empty", "gpt2"])
def test_a_folder_without_a_model_is_named_before_anything_is_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    model = name if name == "gpt2" else str(tmp_path / name)
    with pytest.raises(InputError) as caught:
        build_teacher(TransformersTeacher(model=model))
    assert model in caught.value.what
    assert caught.value.hint


# --- the fake --------------------------------------------------------------------------------------------------------


def test_the_fakes_answers_depend_on_nothing_but_the_request() -> None:
    requests = [request(f"r{n}", problem(answer=str(n))) for n in range(40)]
    one = drain(FakeEngine(FakeTeacher(latency_s=0, concurrency=1)), requests)
    other = drain(FakeEngine(FakeTeacher(latency_s=0.002, concurrency=16)), requests[::-1])
    assert one == other
    assert one != drain(FakeEngine(FakeTeacher(latency_s=0, seed=1)), requests)
    assert len({c.text for c in one.values()}) == 40, "copies would all fall to de-duplication"


def test_the_fake_is_right_as_often_as_it_is_told() -> None:
    requests = [request(f"r{n}", problem(answer=str(n))) for n in range(2000)]
    found = drain(FakeEngine(FakeTeacher(latency_s=0, accuracy=0.3, concurrency=64)), requests)
    right = sum(found[f"r{n}"].text.endswith(f"\\boxed{{{n}}}") for n in range(2000))
    assert 0.26 < right / 2000 < 0.34
    assert all(c.text.startswith("<think>\n") and "\n</think>\n\n\\boxed{" in c.text for c in found.values())


def test_the_fake_thinks_between_the_tags_of_its_section() -> None:
    config = FakeTeacher(latency_s=0, accuracy=1, think_open="", think_close="</seed:think>")
    (text,) = {completion.text for completion in drain(FakeEngine(config), [request("r", problem())]).values()}
    thinking, _, answer = text.partition("\n</seed:think>\n\n")
    assert thinking.strip() == thinking != ""
    assert "<" not in thinking
    assert answer == "\\boxed{2}"


@pytest.mark.parametrize(
    "prompt",
    [
        problem(answer="-7"),
        problem(answer="\\frac{3}{4}"),
        problem(answer="x + y"),
        problem(answer="aa"),
        problem(answer=True, kind="math"),
        problem(answer=12),
        problem(answer="B", kind="choice"),
        problem(answer="b", kind="choice", choices=["x", "y"]),
        problem(answer="a\nb 1", kind="reasoning_gym", task="t", entry={"answer": "a\nb 1"}),
        problem(answer="def f():\n    return 1", kind="code", entry_point="f"),
    ],
    ids=lambda prompt: f"{prompt.kind}-{prompt.answer!r}",
)
def test_the_fake_gives_the_gold_or_something_else_for_every_kind(prompt: Prompt) -> None:
    for accuracy, holds in ((1.0, True), (0.0, False)):
        teacher = FakeEngine(FakeTeacher(latency_s=0, accuracy=accuracy))
        for completion in drain(teacher, [request(f"r{n}", prompt) for n in range(20)]).values():
            final = completion.text.partition("</think>\n\n")[2]
            gold = f"```python\n{prompt.answer}\n```" if prompt.kind == "code" else f"\\boxed{{{prompt.answer}}}"
            assert (final == gold) is holds
            assert "\\boxed{}" not in final


def test_the_fake_answers_open_questions_without_a_box() -> None:
    found = drain(FakeEngine(FakeTeacher(latency_s=0)), [request("r", problem(answer=None, kind="open"))])
    assert "boxed" not in found["r"].text
    assert found["r"].text.partition("</think>")[2].strip()


def test_the_fake_counts_words_and_cuts_at_the_limit() -> None:
    whole = drain(FakeEngine(FakeTeacher(latency_s=0)), [request("r", problem("one two three"))])["r"]
    assert (whole.finish_reason, whole.prompt_tokens, whole.completion_tokens) == ("stop", 3, len(whole.text.split()))
    cut = drain(FakeEngine(FakeTeacher(latency_s=0)), [request("r", problem(), max_new_tokens=5)])["r"]
    assert (cut.finish_reason, cut.completion_tokens, len(cut.text.split())) == ("length", 5, 5)
    assert whole.text.startswith(cut.text)


def test_the_fake_takes_its_time_and_works_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    def seconds(concurrency: int) -> float:
        monkeypatch.setattr("synth.teachers.fake.time", clock := Clock())
        requests = [request(f"r{n}", problem()) for n in range(24)]
        drain(FakeEngine(FakeTeacher(latency_s=100, concurrency=concurrency)), requests)
        return clock.now

    one, eight = seconds(1), seconds(8)
    assert 24 * 50 < one < 24 * 150, "one after the other, each 50 to 150 s"
    assert 3 * 50 < eight < one / 4


# --- a tiny model whose every answer is known ------------------------------------------------------------------------
#
# Its weights are a chain: each token is followed by one other, whatever came before. The prompt ends with the last
# letter of the question, so the question's last letter chooses the answer:
#   x -> "<think>hi</think> 4" and the end of turn       q -> the end of turn at once
#   y -> "zyzyzy..." for ever                             w -> "v" and the other stop token
#   r -> "r" or the end of turn, evenly                   e -> "é", of two tokens

CHAIN = {"x": "<think>", "<think>": "h", "h": "i", "i": "</think>", "</think>": " ", " ": "4", "4": "<|end|>"} | {
    "y": "z",
    "z": "y",
    "q": "<|end|>",
    "w": "v",
    "v": "<|text_end|>",
    "e": "\u00c3",
    "\u00c3": "\u00a9",
    "\u00a9": "<|end|>",
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.content == 'refuse' %}{{ raise_exception('no') }}"
    "{% endif %}{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ messages[-1].content[-1] }}{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama of one layer with a byte-level tokenizer; pad is the end of turn, and prompts hold it as well."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    special = ["<|start|>", "<|end|>", "<|text_end|>", "<think>", "</think>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    # As many real tokenizers do, this one adds a BOS of its own; the template writes one already.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", vocabulary["<|start|>"])]
    )
    folder = tmp_path_factory.mktemp("tiny")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|start|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|text_end|>", "<think>", "</think>"],
        chat_template=TEMPLATE,
    ).save_pretrained(folder)

    size = 320
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=256,
        bos_token_id=vocabulary["<|start|>"],
        eos_token_id=vocabulary["<|end|>"],
        tie_word_embeddings=False,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)

    def number(token: str) -> int:
        return vocabulary["\u0120" if token == " " else token]

    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        for before, after in [*CHAIN.items(), ("r", "r"), ("r", "<|end|>")]:
            model.lm_head.weight[number(after), number(before)] = 2.0
    # A model's own habits, which no recipe asked for: were they applied, nothing but the likeliest token would come.
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=[vocabulary["<|end|>"], vocabulary["<|text_end|>"]],
        pad_token_id=vocabulary["<|end|>"],
        do_sample=True,
        top_k=1,
        repetition_penalty=1.5,
    )
    model.save_pretrained(folder)
    return folder


EXPECTED = {
    "ask x": ("<think>hi</think> 4", "stop", 7),
    "y": ("zyzyzyzyzyzy", "length", 12),
    "a much longer question than the others, and then q": ("", "stop", 1),
    "w": ("v", "stop", 2),
    "caf\u00e9 e": ("\u00e9", "stop", 3),
}


def check_expected(teacher: Teacher) -> None:
    requests = [request(text, problem(text), max_new_tokens=12) for text in EXPECTED]
    found = drain(teacher, requests)
    for text, (answer, reason, tokens) in EXPECTED.items():
        completion = found[text]
        shown = (completion.text, completion.finish_reason, completion.completion_tokens, completion.error)
        assert shown == (answer, reason, tokens, None)
        # one BOS, the question's bytes, its end of turn, the last letter again
        assert completion.prompt_tokens == 1 + len(text.encode()) + 1 + 1


def check_failures_are_rows(teacher: Teacher) -> None:
    requests = [request("a", problem("refuse")), request("b", problem("x" * 300)), request("c", problem("x"))]
    found = drain(teacher, requests)
    assert [found[name].finish_reason for name in "abc"] == ["error", "error", "stop"]
    assert "no" in (found["a"].error or "")
    assert "256" in (found["b"].error or "")
    assert found["c"].text == "<think>hi</think> 4"


def check_sampling_is_free_of_the_models_habits(teacher: Teacher) -> None:
    found = drain(teacher, [request(f"r{n}", problem("r"), temperature=1.0) for n in range(32)])
    lengths = [len(c.text) for c in found.values()]
    assert len(set(lengths)) > 2, "after r comes r or the end, evenly"
    assert 0.3 < sum(lengths) / len(lengths) < 2.5


def check_sampling_options(teacher: Teacher) -> None:
    """Each has its effect, and none on another request. Under the penalty all tokens are about as likely."""
    flat = {"repetition_penalty": 100.0}
    options = {"k": flat | {"top_k": 1}, "p": flat | {"min_p": 1.0}, "penalty": flat, "none": {}}
    requests = [
        request(name, problem("y"), temperature=1.0, max_new_tokens=12, **more) for name, more in options.items()
    ]
    found = drain(teacher, requests)
    likeliest = {name for name, completion in found.items() if completion.text == "zyzyzyzyzyzy"}
    assert likeliest == {"k", "p", "none"}


def check_logprobs(teacher: Teacher) -> None:
    """Those of the model's own distribution: at a low temperature, too, `r` and the end are as likely after `r`."""
    asked = [request(f"r{n}", problem("r"), temperature=0.25) for n in range(8)]
    found = drain(teacher, [dataclasses.replace(one, logprobs=2) for one in asked])
    for completion in found.values():
        logprobs = completion.logprobs
        assert logprobs is not None
        assert len(logprobs.token_ids) == completion.completion_tokens
        letter, end = sorted(logprobs.top_ids[0])[::-1]
        assert logprobs.token_ids.tolist() == [letter] * len(completion.text) + [end]
        assert logprobs.top_ids.shape == (completion.completion_tokens, 2)
        assert abs(logprobs.top_logprobs - math.log(0.5)).max() < 0.02
    plain = drain(teacher, asked[:1])["r0"]
    assert plain.logprobs is None


def check_continues(teacher: Teacher) -> None:
    """Cut and continued, an answer is the uncut one to the letter, wherever the cut is: in a character, too."""
    for question, limit in (("ask x", 7), ("y", 12), ("caf\u00e9 e", 3)):
        asked = request(question, problem(question), max_new_tokens=limit)
        whole = drain(teacher, [asked])[question]
        assert whole.token_ids == () if whole.finish_reason == "stop" else len(whole.token_ids) == limit
        for cut in range(1, limit):
            first = drain(teacher, [dataclasses.replace(asked, max_new_tokens=cut)])[question]
            assert (first.finish_reason, len(first.token_ids)) == ("length", cut)
            more = {"prefix": first.text, "prefix_ids": first.token_ids, "max_new_tokens": limit - cut}
            second = drain(teacher, [dataclasses.replace(asked, **more)])[question]
            joined = dataclasses.replace(second, completion_tokens=cut + (second.completion_tokens or 0))
            assert joined == whole


def transformers_teacher(tiny: Path, **more: Any) -> Teacher:
    return build_teacher(TransformersTeacher(model=str(tiny), name="me/tiny", batch_size=4, **more))


@pytest.mark.slow
def test_transformers_gives_raw_text_stop_reasons_and_exact_counts(tiny: Path) -> None:
    teacher = transformers_teacher(tiny)
    assert teacher.model == "me/tiny"
    check_expected(teacher)
    check_failures_are_rows(teacher)
    teacher.close()


@pytest.mark.slow
def test_where_memory_ends_the_hint_names_the_fields_of_teacher_and_student(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import GenerationMixin

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(GenerationMixin, "generate", full)
    with pytest.raises(MissingDependency, match="memory does not hold 1 requests") as caught:
        drain(transformers_teacher(tiny), [request("r", problem("r"))])
    assert caught.value.where == "model me/tiny", "the engine answers for teachers, judges and students"
    assert "(it is 4): evaluate.batch_size for a student" in (caught.value.hint or "")


@pytest.mark.slow
def test_transformers_continues_a_cut_trace_from_its_own_tokens(tiny: Path) -> None:
    teacher = transformers_teacher(tiny)
    check_continues(teacher)
    assert teacher.engine_info == [
        {
            "model": "me/tiny",
            "engine": teacher.engine,
            "revision": None,
            "config": {"dtype": "float32", "device": "cpu", "batch_size": 4},
        }
    ]
    teacher.close()


@pytest.mark.slow
def test_transformers_draws_from_the_whole_distribution_and_again_the_same(tiny: Path) -> None:
    def drawn() -> dict[str, Completion]:
        return drain(transformers_teacher(tiny), [request(f"r{n}", problem("r"), temperature=1.0) for n in range(8)])

    check_sampling_is_free_of_the_models_habits(transformers_teacher(tiny))
    check_sampling_options(transformers_teacher(tiny))
    assert drawn() == drawn()
    penalised = request("y", problem("y"), max_new_tokens=12, presence_penalty=100.0)
    text = drain(transformers_teacher(tiny), [penalised])["y"].text
    assert text.startswith("zy")
    assert text.count("z") == text.count("y") == 1, "a token of the prompt is free, one of the answer is not"


@pytest.mark.slow
def test_a_batch_never_mixes_settings(tiny: Path) -> None:
    limits = {"y": 3, "yy": 9, "yyy": 3, "yyyy": 9}
    requests = [request(text, problem(text), max_new_tokens=limit) for text, limit in limits.items()]
    found = drain(transformers_teacher(tiny), requests)
    assert {text: c.completion_tokens for text, c in found.items()} == limits


@pytest.mark.slow
def test_an_answer_ends_where_the_models_positions_end(tiny: Path) -> None:
    text = "y" * 200
    found = drain(transformers_teacher(tiny), [request("a", problem(text), max_new_tokens=500)])["a"]
    assert (found.finish_reason, found.completion_tokens) == ("length", 256 - 203)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["weights", "template"])
def test_a_model_that_cannot_be_used_is_the_users_error(tiny: Path, tmp_path: Path, broken: str) -> None:
    for file in tiny.iterdir():
        if file.name != {"weights": "model.safetensors", "template": "chat_template.jinja"}[broken]:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    teacher = transformers_teacher(tmp_path)
    with pytest.raises(InputError, match={"weights": "does not load", "template": "no chat template"}[broken]):
        teacher.submit(request("a", problem("x")))


def test_a_leading_space_of_the_completion_is_not_swallowed() -> None:
    class Strips:
        """As SentencePiece tokenizers do: the blank before the first word of a text goes."""

        def decode(self, ids: Sequence[int], **_: object) -> str:
            return "".join([":", " four", " five"][number] for number in ids).removeprefix(" ")

    assert decode_completion(Strips(), [0], [1, 2]) == " four five"


@pytest.mark.slow
def test_the_template_alone_writes_the_first_token(tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert tokenizer.encode("x")[0] == tokenizer.bos_token_id, "this tokenizer would add one"
    ids = render_chat(tokenizer, [{"role": "user", "content": "x"}])
    assert ids.count(tokenizer.bos_token_id) == 1


VLLM_PROGRAM = """
import json, sys
from licensing.errors import InputError
from synth.teachers.config import VllmTeacher
from synth.teachers.build import build_teacher
from tests_of_teachers import (
    check_continues, check_expected, check_failures_are_rows, check_logprobs,
    check_sampling_is_free_of_the_models_habits, check_sampling_options, drain, problem, request,
)
import torch
threads = torch.set_num_threads
config = VllmTeacher(
    model=sys.argv[1], name="me/tiny", revision="content-1", max_num_seqs=4, reasoning_parser="qwen3",
    engine_args={"enforce_eager": True},
)
facts = []
for _ in range(2):
    teacher = build_teacher(config)
    assert teacher.capacity == 1 and teacher.engine_info == []
    if facts:
        check_continues(teacher)
    check_expected(teacher)
    assert teacher.capacity == 8
    check_failures_are_rows(teacher)
    check_sampling_is_free_of_the_models_habits(teacher)
    check_sampling_options(teacher)
    check_logprobs(teacher)
    thinking = drain(teacher, [request(name, problem(name)) for name in ("x", "q")])
    assert [thinking[name].reasoning_tokens for name in ("x", "q")] == [2, 0]
    facts += teacher.engine_info
    teacher.close()
assert facts[0] == facts[1]
assert torch.set_num_threads is threads
assert torch.is_grad_enabled()
try:
    build_teacher(config.model_copy(update={"reasoning_parser": "qwen_3"})).submit(request("x", problem("x")))
except InputError as error:
    assert "qwen3" in error.hint, error.hint
else:
    raise AssertionError("an unknown reasoning parser was taken")
print(json.dumps(facts[0]))
"""


@pytest.mark.slow
def test_vllm_gives_the_same_and_keeps_stdout_for_results(tiny: Path, tmp_path: Path) -> None:
    """In a process of its own: vLLM changes torch for good, and what it prints is part of the promise."""
    pytest.importorskip("vllm")
    (tmp_path / "tests_of_teachers.py").write_bytes(Path(__file__).read_bytes())
    (tmp_path / "program.py").write_text(VLLM_PROGRAM)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tiny)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["revision"]) == ("me/tiny", "content-1")
    assert facts["engine"].startswith("vllm ")
    settled = facts["config"]
    assert (settled["dtype"], settled["max_model_len"], settled["max_num_seqs"]) == ("bfloat16", 256, 4)
    assert settled["enforce_eager"] is True
    assert not [value for value in settled.values() if str(tiny) in str(value)], "a path of this host"
