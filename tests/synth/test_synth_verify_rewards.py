"""Rewards for RL libraries: each library's call gives the score of the verdict, and no reward where there is none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from synth.verify.config import VerifyConfig
from synth.verify.rewards import NotJudged, trl_reward, verifiers_reward, verl_reward
from synth.verify.verifier import verify_rows

RIGHT, WRONG = "<think>2 + 3</think>\\boxed{5}", "<think>2 + 3</think>\\boxed{6}"
THINK = {"format": {"think": True}}


class TaskData(BaseModel):
    """A task's data as verifiers has them: a prompt, and the columns of its data set."""

    prompt: str = "2 + 3?"
    answer: str | None = "5"
    kind: str = "math"


class AssistantMessage(BaseModel):
    role: str = "assistant"
    content: str | None = None
    reasoning_content: str | None = None


class Trace(BaseModel):
    assistant_messages: list[AssistantMessage]


def of_trl(*completions: Any, **more: Any) -> list[float | None]:
    """Called as GRPOTrainer calls it."""
    count = len(completions)
    columns = {"answer": ["5"] * count, "kind": ["math"] * count} | more.pop("columns", {})
    return trl_reward(
        prompts=["2 + 3?"] * count,
        completions=list(completions),
        completion_ids=[[1]] * count,
        trainer_state=None,
        log_extra=lambda *_: None,
        **columns,
        **more,
    )


def of_verl(response: str | None, answer: Any = "5", **more: Any) -> dict[str, float]:
    """Called as the reward managers of verl call it."""
    extra_info = {"index": 0, "num_turns": None, "rollout_reward_scores": {}, "answer": "the whole solution"}
    return verl_reward(
        data_source="sums", solution_str=response, ground_truth=answer, extra_info=extra_info | more.pop("extra", {}),
        **more,
    )  # fmt: skip


def of_verifiers(message: AssistantMessage | None, task: TaskData | None = None, **more: Any) -> float:
    trace = Trace(assistant_messages=[message] if message else [])
    return asyncio.run(verifiers_reward(task=task or TaskData(), trace=trace, **more))


def test_the_reward_is_the_score_in_each_library() -> None:
    assert of_trl(RIGHT, WRONG) == [1.0, 0.0]
    assert [of_verl(response)["score"] for response in (RIGHT, WRONG)] == [1.0, 0.0]
    assert [of_verifiers(AssistantMessage(content=response)) for response in (RIGHT, WRONG)] == [1.0, 0.0]


def test_a_row_that_is_not_judged_has_no_reward() -> None:
    metrics: dict[str, float] = {}
    answers = {"answer": ["5", None]}
    assert of_trl(RIGHT, RIGHT, columns=answers, log_metric=metrics.__setitem__) == [1.0, None]
    assert metrics == {"not_judged": 0.5}
    assert of_verl(RIGHT, None) == {"score": 0.0, "acc": 0.0, "judged": 0.0}
    assert of_verl(WRONG) == {"score": 0.0, "acc": 0.0, "judged": 1.0}
    with pytest.raises(NotJudged, match="no gold answer"):
        of_verifiers(AssistantMessage(content=RIGHT), TaskData(answer=None))


def test_thinking_that_a_parser_split_off_is_thinking_again() -> None:
    """TRL and verifiers hand over messages whose thinking has a key of its own."""
    turn = {"role": "assistant", "content": "\\boxed{5}", "reasoning_content": "2 + 3"}
    bare = {"role": "assistant", "content": "\\boxed{5}"}
    assert of_trl([turn], [bare], verify=THINK) == [1.0, 0.0]
    tags = {"think_open": ["[THINK]"], "think_close": ["[/THINK]"]}
    assert of_trl([turn], columns=tags, verify=THINK) == [1.0]
    assert of_verifiers(AssistantMessage(content="\\boxed{5}", reasoning_content="2 + 3"), verify=THINK) == 1.0


def test_the_last_answer_of_a_conversation_counts() -> None:
    tools = [{"role": "assistant", "content": WRONG}, {"role": "tool", "content": "5"}]
    assert of_trl([*tools, {"role": "assistant", "content": RIGHT}], tools) == [1.0, 0.0]
    assert of_verifiers(None) == 0.0


def test_an_empty_completion_is_a_wrong_answer_and_a_missing_one_none() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{}]}
    assert of_trl("", [], [call], [{"role": "assistant", "content": ""}], None) == [0.0] * 4 + [None]
    assert [of_verl(response)["judged"] for response in ("", None)] == [1.0, 0.0]
    assert of_verl("")["score"] == 0.0


def test_a_bad_format_earns_nothing_where_the_settings_ask_for_one() -> None:
    assert of_trl("\\boxed{5}") == [1.0]
    assert of_trl("\\boxed{5}", verify=THINK) == [0.0]
    assert of_verl("\\boxed{5}", verify=THINK)["score"] == 0.0


def test_a_part_of_the_instructions_earns_a_part_of_the_reward() -> None:
    rules = [{"id": "punctuation:no_comma"}, {"id": "count:lines", "num_lines": 3}]
    columns = {"kind": ["constraints"], "constraints": [rules]}
    assert of_trl("one, two", columns=columns) == [0.0]
    assert of_trl("one two", columns=columns) == [0.5]
    assert of_verl("one two", extra={"kind": "constraints", "constraints": rules}) == {
        "score": 0.5, "acc": 0.0, "judged": 1.0,
    }  # fmt: skip


@pytest.mark.slow
def test_grpo_of_trl_trains_three_steps_on_our_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **_: None)  # it goes to the hub
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from distill.config.recipe import RandomBase, StudentConfig
    from distill.models.prepare import prepare

    prepare(StudentConfig(base=RandomBase(hidden_size=16, num_layers=1, num_heads=2)), None, tmp_path / "model")
    rule = [{"id": "words:no_letter", "letter": "e"}]  # a random model follows it now and then
    problem = {"prompt": [{"role": "user", "content": "Write."}], "kind": "constraints", "constraints": rule}
    calls: list[tuple[list[str], list[float | None]]] = []

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
        rewards = trl_reward(prompts, completions, **columns)
        calls.append(([completion[0]["content"] for completion in completions], rewards))
        return rewards

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "model"),
        reward_funcs=reward,
        train_dataset=Dataset.from_list([problem] * 3),
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=8, num_generations=8,
            max_completion_length=48, learning_rate=1e-2, logging_steps=1, save_strategy="no", report_to="none",
            use_cpu=True, bf16=False, disable_tqdm=True, seed=0,
        ),
    )  # fmt: skip
    before = trainer.model.lm_head.weight.detach().clone()
    trainer.train()

    steps = [entry for entry in trainer.state.log_history if "rewards/reward/mean" in entry]
    assert len(steps) == len(calls) == 3
    for entry, (texts, rewards) in zip(steps, calls, strict=True):
        rows = ({"kind": "constraints", "constraints": rule, "response": text} for text in texts)
        assert rewards == [row["score"] for row in verify_rows(rows, VerifyConfig())]
        assert entry["rewards/reward/mean"] == pytest.approx(sum(rewards) / 8)
        assert entry["not_judged"] == 0.0
    assert len({reward for _, rewards in calls for reward in rewards}) == 2  # else there is nothing to learn from
    assert not before.equal(trainer.model.lm_head.weight)
