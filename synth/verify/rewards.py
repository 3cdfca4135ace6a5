"""Verdicts as rewards of RL libraries: one function each for TRL (GRPO and its relatives), verl and verifiers.

Each has the signature with which its library calls a reward function (TRL 1.16, verl 0.9, verifiers 0.4) and imports
nothing of it. A problem's columns are those of a verify row: `kind` (math where there is none), `answer` or `gold`,
`choices`, `tests`, `task` and `entry`, ...; `think_open` and `think_close` name tags other than ``<think>``.

The reward is the verdict's score, in [0, 1]. With ``verify={"format": {...}}`` a response in a bad format has reward 0.
A row that is not judged (`timeout`, `error`, kind `open`, a missing completion) has no reward: a verifier that fails is
no wrong answer. An empty completion is one.

``verify`` is the recipe's section `verify`, without its majority and its judge. Workers start at the first call, once
for each process and each setting, and end with the process.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any

from synth.problems.problem import PROBLEM_COLUMNS
from synth.reasoning import THINK_CLOSE, THINK_OPEN
from synth.verify.config import VerifyConfig
from synth.verify.format_check import format_fields
from synth.verify.verdict import Verdict, judged
from synth.verify.verifier import Verifier

Settings = VerifyConfig | Mapping[str, Any] | None

_COLUMNS = (*PROBLEM_COLUMNS, "gold", "think_open", "think_close")
_LOCK = threading.Lock()  # verl calls from several threads, and a Verifier takes rows from one


class NotJudged(Exception):
    """There is no verdict on a rollout; the text says why."""


def trl_reward(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    verify: Settings = None,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """``reward_funcs=trl_reward`` of TRL's GRPOTrainer; the columns of its data set arrive as lists.

    None where a row is not judged: TRL leaves such a completion out of the loss. Their share is logged as `not_judged`.
    For settings of your own: ``functools.partial(trl_reward, verify={"timeout_s": 5})``.
    """
    config = _config(verify)
    rows = []
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        problem = {name: columns[name][number] for name in _COLUMNS if name in columns}
        response = completion if isinstance(completion, str | None) else _last_answer(completion, problem)
        rows.append(_row({**problem, "prompt": prompt}, response))
    verdicts = [_submit(row, config) for row in rows]
    rewards = [_reward(row, verdict.result(), config) for row, verdict in zip(rows, verdicts, strict=True)]
    if log_metric is not None and rewards:
        log_metric("not_judged", rewards.count(None) / len(rewards))
    return rewards


def verl_reward(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    verify: Settings = None,
    **_: Any,
) -> dict[str, float]:
    """``reward.custom_reward_function`` of verl: ``path: pkg://synth.verify.rewards``, ``name: verl_reward``.

    The problem's other columns are those of ``extra_info``; ``reward_kwargs: {verify: {...}}`` sets ``verify``. verl
    knows no missing reward: the score of a row that is not judged is 0, and its `judged` 0 where that of others is 1.
    """
    config = _config(verify)
    row = _row({**(extra_info or {}), "answer": ground_truth}, solution_str)
    verdict = _submit(row, config).result()
    reward = _reward(row, verdict, config)
    return {"score": reward or 0.0, "acc": float(verdict.verdict == "correct"), "judged": float(reward is not None)}


async def verifiers_reward(task: Any, trace: Any, *, verify: Settings = None) -> float:
    """A reward ``fn: synth.verify.rewards:verifiers_reward`` of a verifiers task whose data have a problem's columns.

    The response is the last answer of the trace, with the thinking that its client split off.

    Raises NotJudged: verifiers counts it as an error of the rollout and trains nothing on it.
    """
    config = _config(verify)
    problem = task.model_dump()
    row = _row(problem, _last_answer([turn.model_dump() for turn in trace.assistant_messages], problem))
    verdict = await asyncio.wrap_future(_submit(row, config))
    reward = _reward(row, verdict, config)
    if reward is None:
        raise NotJudged(verdict.reason or f"kind {row['kind']} has nothing to verify")
    return reward


def _config(verify: Settings) -> VerifyConfig:
    config = verify if isinstance(verify, VerifyConfig) else VerifyConfig.model_validate(verify or {})
    return config.rules(layout=True)


def _last_answer(messages: Sequence[Mapping[str, Any]], problem: Mapping[str, Any]) -> str:
    """The text of the last assistant message; thinking that a parser split off is in the problem's tags again."""
    last: Mapping[str, Any] = next((turn for turn in reversed(messages) if turn.get("role") == "assistant"), {})
    thinking = last.get("reasoning_content") or last.get("thinking")
    before, after = problem.get("think_open") or THINK_OPEN, problem.get("think_close") or THINK_CLOSE
    return (f"{before}{thinking}{after}" if thinking else "") + (last.get("content") or "")


def _row(problem: Mapping[str, Any], response: str | None) -> dict[str, Any]:
    messages = {} if isinstance(problem.get("prompt"), str | None) else {"messages": problem["prompt"]}
    return {**problem, **messages, "kind": problem.get("kind") or "math", "response": response}


def _submit(row: Mapping[str, Any], config: VerifyConfig) -> Future[Verdict]:
    with _LOCK:
        return _verifier(json.dumps(config.model_dump(mode="json"), sort_keys=True), os.getpid()).submit(row)


@cache
def _verifier(settings: str, process: int) -> Verifier:
    """One for each process, since a fork has none of its threads."""
    return Verifier(VerifyConfig.model_validate_json(settings))


def _reward(row: Mapping[str, Any], verdict: Verdict, config: VerifyConfig) -> float | None:
    """None where the row is not judged."""
    if not judged(verdict.verdict, None):
        return None
    if config.format is not None and format_fields(row, config.format)["format_verdict"] != "ok":
        return 0.0
    return float(verdict.score or 0.0)
