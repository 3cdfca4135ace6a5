"""``distill persona``: a model's default system prompt, and probes of what it says about itself."""

from __future__ import annotations

import itertools
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.options import EngineChoice, Json
from distill.cli.output import print_json, print_tables

if TYPE_CHECKING:
    from distill.evaluate.persona_probes import System

_TEMPERATURE = 0.8

app = typer.Typer(help="Persona of a model: put it into the chat template, take it out, probe the model for it.")


class SystemMessage(StrEnum):
    default = "default"
    own = "own"
    none = "none"


class Decoding(StrEnum):
    greedy = "greedy"
    sampled = "sampled"


ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL_DIR", show_default=False, help="Folder with a chat template; weights need not be there."
    ),
]


@app.command()
def apply(
    folder: ModelFolder,
    persona: Annotated[
        Path, typer.Option("--persona", metavar="FILE", help="Persona file (YAML), or a recipe with a persona.")
    ],
    compose: Annotated[
        bool,
        typer.Option(
            "--compose",
            help="Keep the persona's text before a caller's own system message, in place of the file's `policy`.",
        ),
    ] = False,
    language: Annotated[
        str | None,
        typer.Option(
            "--language", metavar="CODE", help="Language of the system prompt; the file's first one if absent."
        ),
    ] = None,
    ollama: Annotated[
        Path | None, typer.Option("--ollama", metavar="FILE", help="Also write a Modelfile with the persona as SYSTEM.")
    ] = None,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            "--llama-cpp", metavar="FILE", help="Also write the template for llama.cpp's --chat-template-file."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the persona's system prompt the default of a model's chat template.

    The persona is a prologue before the template, which is not changed itself. The result is rendered and checked. A
    second call with another persona replaces the first.
    """
    from distill.config.loader import load_persona
    from licensing.errors import InputError
    from licensing.files import disk_errors, write_text
    from publish.persona import apply_persona, llama_cpp_template, ollama_modelfile

    config = load_persona(persona)
    if language is not None and language not in config.systems:
        what = f"the persona has no system prompt in {language!r}; it has {', '.join(config.systems)}"
        raise InputError(what, where=str(persona), hint="add one to its map `system`")
    system = config.default_system if language is None else config.systems[language]
    with disk_errors(folder):
        applied = apply_persona(folder, system, "compose" if compose else config.policy)
        if ollama is not None:
            write_text(ollama, ollama_modelfile(folder, applied, ollama))
        if llama_cpp is not None:
            write_text(llama_cpp, llama_cpp_template(applied))
    more = {"ollama": ollama, "llama_cpp": llama_cpp}
    if as_json:
        print_json(applied.facts() | {name: str(path) for name, path in more.items() if path is not None})
        return
    done = "holds the persona" if applied.changed else "held this persona already"
    print(f"{', '.join(applied.files)} in {folder} {done} ({applied.form}, {applied.policy})")
    for path in filter(None, more.values()):
        print(path)


@app.command()
def remove(folder: ModelFolder, as_json: Json = False) -> None:
    """Take the persona out of a model's chat template: its files are byte for byte as they were before `apply`."""
    from licensing.files import disk_errors
    from publish.persona import remove_persona

    with disk_errors(folder):
        persona, changed = remove_persona(folder)
    if as_json:
        print_json({"files": list(changed), "removed": persona.text if persona else None})
    elif persona is None:
        print(f"{folder} holds no persona")
    else:
        print(f"{', '.join(changed)} in {folder} as before the persona: {persona.text}")


@app.command()
def probe(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", show_default=False, help="Model folder, or a release folder.")
    ],
    persona: Annotated[
        Path | None,
        typer.Option(
            "--persona",
            metavar="FILE",
            help="Persona file or recipe with the expected persona; a release's own recipe.yaml if absent.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="MODEL2",
            help="Folder of a second model that is probed, too, and compared with MODEL.",
        ),
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE", help="Only probes of this language; repeatable. All if absent."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            "-n",
            min=2,
            metavar="N",
            help="Number of probes, spread over all kinds of question; all probes if absent.",
        ),
    ] = None,
    systems: Annotated[
        list[SystemMessage],
        typer.Option(
            "--system",
            help="System message of the probes: the template's default, a caller's own, or none. Repeatable.",
        ),
    ] = [*SystemMessage],  # noqa: B006 - typer copies it
    decodings: Annotated[
        list[Decoding],
        typer.Option(
            "--decoding", help="How answers are decoded: greedily, or sampled at temperature 0.8. Repeatable."
        ),
    ] = [*Decoding],  # noqa: B006
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="Suite of `distill eval` on which the models are scored, too, with greedy decoding: a recipe (its "
            "held-out problems) or any other; with --against, paired. Repeatable.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most problems of each suite: the same for both models."),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", min=1, metavar="N", help="Most tokens of one answer to a problem of --suite."),
    ] = 1024,
    engine: EngineChoice = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Also write each answer with its judgement to FILE (JSON lines)."
        ),
    ] = None,
    max_leak_rate: Annotated[
        float | None,
        typer.Option(
            "--max-leak-rate",
            min=0,
            max=1,
            help="Largest upper bound of the share of leaking answers; above it the exit code is 1.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a model who it is in held-out questions, and judge its answers and its thinking.

    Every probe is asked with each system message and decoding. For the intervals, all wordings and languages of one
    question are a cluster. With --suite the models are scored on suites, too.
    """
    from distill.cli.evaluate import suite_json, suite_tables
    from distill.cli.progress import StageProgress
    from distill.config.loader import load_persona
    from distill.config.recipe import EvaluationSettings
    from distill.evaluate.persona_probes import ask_probes, probe_facts, probe_settings, rates_of
    from distill.evaluate.run import OneEngine, folder_teacher
    from distill.evaluate.suites.evaluate import SuiteQuestions
    from distill.evaluate.suites.suite import find_suites
    from distill.report import tables
    from licensing.errors import InputError
    from licensing.files import disk_errors, write_rows
    from synth.persona.probes import probes, select_probes
    from synth.verify.config import VerifyConfig

    config = load_persona(persona or model / "recipe.yaml")
    chosen = probes(config, languages) if count is None else select_probes(config, count, languages=languages)
    if len({one.family for one in chosen}) < 2:
        raise InputError("fewer than two families of probes are left", where="--language", hint="leave it out")
    if against is not None and against.resolve() == model.resolve():
        raise InputError("both models are the same", where="--against", hint="give another model")
    if limit is not None and not suite:
        raise InputError("no suite to limit", where="--limit", hint="add --suite; -n limits the probes")
    folders = {
        str(folder) if against and against.name == model.name else folder.name: folder
        for folder in (against, model)
        if folder
    }
    if out is not None:
        with disk_errors(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
    student = list(folders)[-1]
    scoring = EvaluationSettings(engine=engine, temperature=0.0, max_new_tokens=max_new_tokens)
    questions = SuiteQuestions(find_suites(suite or ()), scoring.seed, limit)
    modes: list[System] = [mode.value for mode in systems]
    rows: dict[str, list[dict[str, Any]]] = {}
    with StageProgress() as progress, OneEngine() as one:
        for name, folder in folders.items():
            for decoding in decodings:
                temperature = _TEMPERATURE if decoding is Decoding.sampled else 0.0
                settings = probe_settings(EvaluationSettings(engine=engine), temperature)
                teacher = folder_teacher(folder, settings)
                report = progress.stage_begins(f"probe {name}, {decoding.value}")
                replies = ask_probes(name, teacher, config, chosen, settings, report, systems=modes, engine=one)
                rows.setdefault(name, []).extend(row | {"decoding": decoding.value} for row in replies)
            if suite:
                report = progress.stage_begins(f"score {name}")
                questions.ask(name, folder_teacher(folder, scoring), scoring, VerifyConfig(), report, engine=one)
    if out is not None:
        write_rows(out, (row for model_rows in rows.values() for row in model_rows))
    facts, results = probe_facts(rows, student).as_json(), questions.results()
    facts["by_mode"] = [
        rates_of(mode_rows, f"{name}: {system}, {decoding.value}").as_json()
        for name, model_rows in rows.items()
        for system, decoding in itertools.product(modes, decodings)
        if (mode_rows := [row for row in model_rows if (row["system"], row["decoding"]) == (system, decoding.value)])
    ]
    if as_json:
        print_json(facts | ({"suites": [suite_json(result) for result in results]} if results else {}))
    else:
        print_tables(tables.probe_tables(facts))
        print_tables(tables.probe_tables({"rates": facts["by_mode"], "changes": ()}))
        print_tables(suite_tables(results) if results else [])
        print(f"{facts['leaks']} of {facts['n']} answers leak, at most {facts['high']:.3f} with 95 % confidence")
    if max_leak_rate is not None and facts["high"] > max_leak_rate:
        raise typer.Exit(1)
