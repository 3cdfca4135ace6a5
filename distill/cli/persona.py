"""``distill persona``: a model's default system prompt, and what it says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli.options import Json
from distill.cli.output import print_json

app = typer.Typer(help="Who a model says it is: put a persona into its chat template, take it out, probe it.")

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
        bool, typer.Option("--compose", help="A caller's system message follows the persona's, whatever the file says.")
    ] = False,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="CODE", help="Which of the file's system prompts; the first if absent."),
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

    The template itself stays as it is, behind a prologue. What was written is rendered and compared before the command
    ends. A second call with another persona replaces the first.
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
