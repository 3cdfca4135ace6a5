"""``distill pair``: whether a teacher's distribution fits a student, and whether it would help."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import Json
from distill.cli.output import print_findings, print_json


def pair(
    student: Annotated[
        Path, typer.Argument(metavar="STUDENT", show_default=False, help="Folder of the student's model.")
    ],
    teacher: Annotated[
        Path, typer.Argument(metavar="TEACHER", show_default=False, help="Folder of the teacher's model.")
    ],
    problems: Annotated[
        Path | None,
        typer.Option(
            "--problems",
            metavar="FILE",
            help="Problems (JSON lines) for the student to answer; both models then score each token of the answers.",
        ),
    ] = None,
    rollouts: Annotated[
        int,
        typer.Option("--rollouts", min=1, metavar="N", help="Number of problems that the student answers, once each."),
    ] = 100,
    max_new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Most tokens of one answer.")] = 512,
    across_tokenizers: Annotated[
        bool,
        typer.Option(
            "--across-tokenizers", help="Allow a teacher with another tokenizer. Not together with --problems."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a student and a teacher for distillation on logits, before a GPU is spent.

    Compares vocabularies token by token, stop tokens and prompts, from files alone. With --problems it also loads both
    models, and measures whether the teacher would help.
    """
    from distill.check.pair import check_across_tokenizers, check_pair
    from distill.check.rollouts import TOP, measure_pair
    from distill.cli.progress import StageProgress
    from distill.cli.run import quiet_libraries
    from distill.models.folder import read_base
    from licensing.errors import InputError
    from synth.problems.config import JsonlPrompts
    from synth.problems.problem import load_prompts

    if across_tokenizers and problems is not None:
        raise InputError(
            "the measurement compares token ids, which differ between tokenizers",
            where="--problems",
            hint="leave out --problems or --across-tokenizers",
        )
    check = check_across_tokenizers if across_tokenizers else check_pair
    findings = list(check(read_base(student), read_base(teacher)))
    code = max((finding.exit_code for finding in findings), default=0)
    measures = None
    if problems is not None and not code:
        source = JsonlPrompts(kind="jsonl", path=str(problems), limit=rollouts)
        prompts = [problem.messages for problem in load_prompts(source, allow_missing_gold=True).prompts]
        quiet_libraries()
        with StageProgress() as progress:
            report = progress.stage_begins("rollouts")
            measures = measure_pair(student, teacher, prompts, max_new_tokens=max_new_tokens, progress=report)
        code = 0 if measures.helps else 1
    if as_json:
        values = asdict(measures) | {"helps": measures.helps, "verdict": measures.verdict} if measures else None
        print_json({"findings": [asdict(finding) for finding in findings], "rollouts": values})
    else:
        print_findings(findings)
        if measures is not None:
            print(
                f"{measures.rollouts} answers ({measures.stopped:.0%} stop at a stop token), "
                f"{measures.tokens:,} tokens: "
                f"reverse KL {measures.reverse_kl:.4f} nats a token; of the {TOP} likeliest tokens of each "
                f"{measures.overlap:.1%} are the other's, and hold {measures.student_mass:.1%} of the student's "
                f"probability and {measures.teacher_mass:.1%} of the teacher's"
            )
            print(measures.verdict)
    if code:
        raise typer.Exit(code)
