"""``distill push``: a release to a hub."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from distill.cli.options import Json
from distill.cli.output import print_json
from licensing.errors import InputError, Refused

if TYPE_CHECKING:
    from publish.hub import Hub
    from publish.push import Outcome, Plan, RepoPlan, Target


def push(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|DIR", show_default=False, help="Run directory, or release folder: one with a SHA256SUMS."
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="NS/NAME", show_default=False, help="Repository of the model.")],
    data_to: Annotated[
        str | None,
        typer.Option("--data-to", metavar="NS/NAME", help="Repository of the data set.", show_default="NS/NAME-traces"),
    ] = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="Make the repositories public, as the last step; without it they stay private."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Push without asking for confirmation; required without a terminal.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and change nothing.")] = False,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="Tag of the release.", show_default="v and release.version")
    ] = None,
    gated: Annotated[
        Literal["auto", "manual"] | None,
        typer.Option(help="Require a request for access before a download, granted at once (auto) or by you (manual)."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="TITLE", help="Put the repositories into this collection of NS.")
    ] = None,
    only: Annotated[
        Literal["model", "data"] | None,
        typer.Option(help="Push the model or the data set only: a Trusted Publisher's token is for one repository."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that were changed on the hub since the last push.")
    ] = False,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of the hub.", show_default="HF_ENDPOINT")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="Seconds without an answer from the hub after which a connection counts as lost.",
        ),
    ] = 120.0,
    as_json: Json = False,
) -> None:
    """Push a release and its data set to a hub: private, verified by a download, tagged; public only with --public.

    The same push again sends nothing; after an interruption it sends what is missing.
    """
    from distill.cli.progress import TransferProgress
    from distill.release.target import release_folders
    from publish import push as publishing
    from publish.hub import Hub

    folder = release_folders(source)[0]
    if public:
        _require_go(source, folder)
    model, data = _targets(folder, to, data_to)
    publishing.check_links(model, None if only == "model" else data)
    targets = [] if only == "data" else [model]
    if only != "model":
        if data.folder.is_dir():
            targets.append(data)
        elif data_to is not None or only == "data":
            raise InputError(
                "the release has no data set",
                where=str(data.folder),
                hint="set release.data: true and run the recipe again",
            )
    settings = publishing.Settings(
        tag=_tag(folder, tag),
        public=public,
        overwrite=overwrite,
        gate=gated,
        collection=collection,
    )
    with TransferProgress() as progress:
        allow = tuple(map(str, _release_section(folder).get("scan_allow") or ()))  # of the release's own recipe
        publishing.check_folders(targets, progress, allow)
    hub = Hub(endpoint, timeout_s=timeout)
    plan = publishing.make_plan(targets, hub, settings)
    if plan.done:
        if as_json:
            print_json(_plan_json(plan, hub) | {"dry_run": False})
        else:
            for repo_plan in plan.repos:
                print(f"{hub.url(repo_plan.repo)}  {settings.tag}: nothing to do, the hub holds this release")
        return
    if dry_run and as_json:
        print_json(_plan_json(plan, hub) | {"dry_run": True})
        return
    if dry_run:
        print(_plan_text(plan, hub))
        return
    print(_plan_text(plan, hub), file=sys.stderr)
    if not yes:
        _confirm()
    with TransferProgress() as progress:
        outcomes = publishing.push(plan, hub, progress)
    if as_json:
        print_json(_plan_json(plan, hub, outcomes) | {"dry_run": False})
        return
    for one in outcomes:
        state = "private" if one.private else "public"
        print(f"{hub.url(one.repo)}  {settings.tag}  {one.commit}  {state}, verified by a download")


def _require_go(source: Path, folder: Path) -> None:
    """Raise Refused where the measurements do not show what `release.require` asks for: of a run by its newest recipe,
    of a folder by the recipe in it."""
    from distill.release.gate import gate_of_release, gate_of_run
    from distill.runs.summary import find_run

    gate = gate_of_release(folder) if folder == source else gate_of_run(find_run(source))
    if gate is not None:
        gate.raise_if_no_go("nothing is made public")


def _targets(folder: Path, to: str, data_to: str | None) -> tuple[Target, Target]:
    """The model, and the data set in the folder beside it, which may not be there; each with its repository."""
    from licensing.card import is_hub_id
    from publish.hub import Repo
    from publish.push import Target

    data_to = data_to or f"{to}-traces"
    for option, name in (("--to", to), ("--data-to", data_to)):
        if not is_hub_id(name) or "/" not in name:
            raise InputError(f"{name} is not the id of a repository", where=option, hint="give NS/NAME")
    data = folder.absolute().parent / data_to.rpartition("/")[2]
    return Target(folder, Repo(to, "model")), Target(data, Repo(data_to, "dataset"))


def _tag(folder: Path, tag: str | None) -> str:
    from publish.push import check_tag

    where, hint = "--tag", "give a name such as v1.0"
    if tag is None:
        where, hint = str(folder / "recipe.yaml"), "give --tag"
        try:
            tag = f"v{_release_section(folder)['version']}"
        except KeyError as error:
            raise InputError("the recipe states no release.version", where=where, hint=hint) from error
    try:
        return check_tag(tag)
    except ValueError as error:
        raise InputError(str(error), where=where, hint=hint) from error


def _release_section(folder: Path) -> dict[str, Any]:
    """Section `release` of the recipe of a release; empty where it has none."""
    from licensing.safe_yaml import parse_yaml

    path = folder / "recipe.yaml"
    try:
        recipe, _ = parse_yaml(path.read_text(encoding="utf-8"), str(path), "package again")
        return dict(recipe["release"])
    except (FileNotFoundError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return {}


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise InputError("no terminal to confirm the plan on", where="--yes", hint="give --yes, or --dry-run first")
    print("Push? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed: nothing was pushed")


def _plan_json(plan: Plan, hub: Hub, outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    rows = []
    for one in plan.repos:
        outcome = next((other for other in outcomes if other.repo == one.repo), None)
        remote = one.remote
        head = remote.head if remote else None
        rows.append({
            "repo_id": one.repo.id, "repo_type": one.repo.type, "url": hub.url(one.repo), "tag": plan.settings.tag,
            "exists": remote is not None, "by_pull_request": bool(one.changes) and one.by_pull_request,
            "commits": one.commits, "bytes": one.bytes_to_send,
            "unchanged": len(one.files) - sum(change.kind != "deleted" for change in one.changes),
            "changes": [{"path": change.name, "kind": change.kind, "size": change.size} for change in one.changes],
            "commit": outcome.commit if outcome else head, "pull_request": outcome.pull_request if outcome else None,
            "private": outcome.private if outcome else remote is None or remote.private,
            "verified": outcome is not None or one.is_tagged,
        })  # fmt: skip
    return {"repositories": rows, "public": plan.settings.public, "done": plan.done or bool(outcomes)}


def _plan_text(plan: Plan, hub: Hub) -> str:
    blocks = [_repo_text(one, hub, plan) for one in plan.repos]
    end = "then public, as the last step" if plan.settings.public else "nothing is made public"
    extra = [f"gated: {plan.settings.gate}"] if plan.settings.gate else []
    extra += [f"collection: {plan.settings.collection}"] if plan.settings.collection else []
    return "\n".join([*blocks, *extra, end])


def _repo_text(one: RepoPlan, hub: Hub, plan: Plan) -> str:
    from distill.cli.progress import size_text

    state = "new" if one.remote is None else "private" if one.remote.private else "public"
    way = "by a pull request" if one.by_pull_request else "into main of the private repository"
    commits = f"{one.commits} commit{'s' if one.commits > 1 else ''}"
    unchanged = len(one.files) - sum(change.kind != "deleted" for change in one.changes)
    head = f"{hub.url(one.repo)} ({one.repo.type}, {state}), tag {plan.settings.tag}"
    if not one.changes:
        return f"{head}: all {unchanged} files are there" + ("" if one.is_tagged else "; verified and tagged now")
    marks = {"new": "+", "changed": "~", "deleted": "-"}
    lines = [
        f"  {marks[change.kind]} {change.name}" + (f"  {size_text(change.size)}" if change.kind != "deleted" else "")
        for change in one.changes
    ]
    sent = size_text(one.bytes_to_send)
    return "\n".join([f"{head}: {sent} in {commits} {way}; {unchanged} files unchanged", *lines])
