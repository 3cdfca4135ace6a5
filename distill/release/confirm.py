"""``distill confirm``: is this folder the release that it says it is? Every check stands alone and says what it saw.

    files        every byte against SHA256SUMS: changed, missing and extra files, symbolic links
    signature    model.sig, and the signed provenance, against a key, a certificate or a Sigstore identity
    provenance   the subjects of provenance.json are these files
    licenses     the audit of lineage.yaml again, against audit.json; license texts and notices are there
    card         valid metadata, which says what lineage.yaml and evaluation.json say
    template     one chat template, which renders and holds the persona exactly once
    load         in a clean process: weights load, an answer ends on a stop token; with transformers, and with vLLM
                 where that is the engine of the evaluation
    evaluation   on request: recorded items scored again

Not covered: whether the lineage tells everything, and whether the measured scores were measured on unseen problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from distill.models.folder import read_base
from distill.release.answers import EngineName, ReleaseHost, recorded_score
from distill.release.load_check import check_load, load_engines
from distill.release.rescore import rescore
from distill.runs.stage import Reporter, in_megabytes
from licensing.audit import Allowance, Audit, audit
from licensing.card import read_metadata, split_card
from licensing.errors import DistillError, MissingDependency, Refused
from licensing.license_files import LicenseFiles
from licensing.lineage import load_lineage
from licensing.provenance import resolve_lineage
from licensing.registry import same_license
from licensing.repository import read_folder
from licensing.safe_yaml import read_yaml
from publish.chat_template import TEMPLATE_FILE, other_templates, render
from publish.checksums import CHECKSUMS, SIGNED_PROVENANCE, compare, read_checksums
from publish.provenance import PROVENANCE, read_predicate, statement_faults
from publish.signing import Trust, check_trust, is_signed, signed_digests, verify_folder
from publish.weights import read_object

Outcome = Literal["ok", "failed", "not checked"]
Begin = Callable[[str], Reporter]


@dataclass(frozen=True)
class Check:
    """One check: what came of it, in one line, and what exactly is wrong, such as the names of files."""

    name: str
    outcome: Outcome
    detail: str
    faults: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


def confirm_folder(
    folder: Path,
    begin: Begin,
    *,
    trust: Trust | None = None,
    require_signature: bool = False,
    evaluate: int = 0,
    engine: EngineName | None = None,
) -> Iterator[Check]:
    """Run every check on a release folder, and yield each as it is done.

    ``begin``: takes the name of a check, returns its progress. ``evaluate``: items to score again. ``engine``: the only
    engine to load with. Raises InputError where the folder has no SHA256SUMS or a key cannot be read,
    MissingDependency where what the arguments ask for is not installed.
    """
    trust = trust or Trust()
    if trust or require_signature:
        check_trust(trust)
    digests = read_checksums(folder)
    differences = compare(folder, in_megabytes(begin("files")))
    faults, whole = tuple(differences.lines()), not differences
    if whole:
        yield Check("files", "ok", f"{len(digests)} files match {CHECKSUMS}")
    else:
        yield Check("files", "failed", f"{len(faults)} files do not match {CHECKSUMS}", faults)
    later = ["load", *(["evaluation"] if evaluate else [])]
    if differences.links:
        for name in ("signature", "provenance", "licenses", "card", "template", *later):
            yield Check(name, "not checked", "nothing is read through symbolic links")
        return
    required = require_signature or bool(trust)  # a signature that was taken away must not pass either
    yield _attempt("signature", lambda: _signature(folder, digests, trust, required))
    yield _attempt("provenance", lambda: _provenance(folder, digests))
    yield _attempt("licenses", lambda: _licenses(folder))
    yield _attempt("card", lambda: _card(folder))
    if not (folder / "config.json").is_file():
        yield Check("load", "not checked", "there is no config.json: a data set, or weights of another format")
        return
    yield _attempt("template", lambda: _template(folder))
    if not whole:
        for name in later:
            yield Check(name, "not checked", "the files are not those of the release")
        return
    with ReleaseHost() as host:
        for one in [engine] if engine else load_engines(folder):
            yield _attempt(f"load {one}", partial(_load, folder, one, host, begin), optional=engine is None)
        if evaluate:
            rescored = partial(_evaluation, folder, evaluate, engine, host, begin("evaluation"))
            yield _attempt("evaluation", rescored, optional=False)


def _attempt(name: str, check: Callable[[], Check], *, optional: bool = True) -> Check:
    """A check that raises has failed; an ``optional`` one that needs what is not installed was not made."""
    try:
        return check()
    except MissingDependency as error:
        if not optional:
            raise
        return Check(name, "not checked", error.what + (f": {error.hint}" if error.hint else ""))
    except DistillError as error:
        return Check(name, "failed", error.what)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # a foreign file of an unexpected form
        return Check(name, "failed", f"a file is malformed: {type(error).__name__}: {error}")


def _signature(folder: Path, digests: dict[str, str], trust: Trust, required: bool) -> Check:
    name = "signature"
    if not is_signed(folder):
        return Check(name, "failed" if required else "not checked", "the folder is not signed")
    signed = signed_digests(folder)
    faults = [f"{file}: not signed with these bytes" for file in sorted(digests) if signed.get(file) != digests[file]]
    absent = signed.keys() - digests.keys() - {CHECKSUMS, SIGNED_PROVENANCE}
    faults += [f"{file}: signed, and not here" for file in sorted(absent)]
    if faults:
        return Check(name, "failed", f"{len(faults)} files are not those that were signed", tuple(faults))
    if not trust:
        hint = "give --public-key, --certificate-chain or --identity"
        return Check(name, "failed" if required else "not checked", f"signed, but by whom is not known: {hint}")
    verify_folder(folder, trust)
    return Check(name, "ok", f"every file is signed by {trust.text()}")


def _provenance(folder: Path, digests: dict[str, str]) -> Check:
    if PROVENANCE not in digests:
        return Check("provenance", "not checked", f"there is no {PROVENANCE}")
    faults = statement_faults(folder, digests)
    if faults:
        return Check("provenance", "failed", f"{PROVENANCE} is not a statement on this folder", tuple(faults))
    dependencies = read_predicate(folder)["buildDefinition"]["resolvedDependencies"]
    return Check("provenance", "ok", f"a statement on these files, with {len(dependencies)} dependencies")


def _licenses(folder: Path) -> Check:
    """The audit of the lineage gives what audit.json says, and the license files that must ship are in the folder."""
    config = read_object(folder / "config.json", optional=True)
    form = (config.get("quantization_config") or {}).get("quant_method")
    if not (folder / "lineage.yaml").is_file() and (not config or form == "compressed-tensors"):
        if not (folder / "LICENSE").is_file():
            raise Refused("there is no LICENSE")
        return Check("licenses", "not checked", "there is no lineage.yaml; see that of the model that it was made from")
    lineage, recorded = load_lineage(folder / "lineage.yaml"), read_object(folder / "audit.json")
    try:
        allow = [Allowance.model_validate(one) for one in recorded["allowed"]]
        before = Audit.model_validate(recorded)
    except (KeyError, ValueError) as error:
        raise Refused(f"audit.json is not an audit: {str(error).splitlines()[0]}") from error
    noticed = {f.input for f in before.findings if f.bare == "O-NOTICE"}
    not_read = {f.input for f in before.findings if f.bare == "W-NOTICE-NOT-SEEN"}
    notice = LicenseFiles(notice=_text(folder / "NOTICE"))
    upstream = {
        item.id: notice if item.id in noticed else LicenseFiles() for item in lineage.inputs if item.id not in not_read
    }
    again = audit(lineage, before.policy, allow=allow, upstream_files=upstream)
    faults = [f"{code}: only in audit.json" for code in sorted(_codes(before) - _codes(again))]
    faults += [f"{code}: not in audit.json" for code in sorted(_codes(again) - _codes(before))]
    resolved = resolve_lineage(read_folder(folder, lineage.release, lineage.kind), ())
    folder_audit = audit(
        resolved.lineage, before.policy, license_files=resolved.license_files, upstream_files=upstream, allow=allow
    )
    faults += [f"{f.code}: {f.why}" for f in folder_audit.blocking if f.code.startswith("V-")]
    if faults:
        return Check("licenses", "failed", "a new audit differs from audit.json", tuple(faults))
    return Check("licenses", "ok", f"{again.verdict}, {len(again.obligations)} obligations, as audit.json says")


def _codes(result: Audit) -> set[str]:
    return {result.verdict, *result.obligations, *result.violations, *result.warnings}


def _card(folder: Path) -> Check:
    """License and base as in lineage.yaml, the score as in evaluation.json."""
    metadata, _ = split_card(_text(folder / "README.md") or "", "README.md")
    if not metadata:
        raise Refused("README.md has no metadata")
    card, faults = read_metadata(metadata), []
    if (folder / "lineage.yaml").is_file():
        lineage = load_lineage(folder / "lineage.yaml")
        declared = lineage.declared.license_name or lineage.declared.license
        if not same_license(card.tag, declared) and not same_license(card.license, lineage.declared.license):
            faults.append(f"license: {card.tag}, lineage.yaml says {declared}")
        bases = {one.id for one in lineage.inputs if one.role == "base"}
        others = [name for name in card.base_models if name not in bases]
        faults += [f"base_model: {name}, lineage.yaml does not name it" for name in others]
    score = recorded_score(folder)
    if score is not None and score.value not in _metric_values(metadata):
        faults.append(f"model-index: no metric of {score.value}, which evaluation.json says")
    if faults:
        return Check("card", "failed", "README.md differs from the records beside it", tuple(faults))
    agreement = "license and base" if score is None else "license, base and score"
    return Check("card", "ok", f"{agreement} as in the records beside it")


def _metric_values(metadata: dict[str, Any]) -> list[Any]:
    results = [result for model in metadata.get("model-index") or () for result in model["results"]]
    return [metric["value"] for result in results for metric in result["metrics"]]


def _template(folder: Path) -> Check:
    if not (folder / TEMPLATE_FILE).is_file():
        raise Refused(f"there is no {TEMPLATE_FILE}")
    if others := other_templates(folder):
        raise Refused(f"a second chat template in {', '.join(others)}: engines differ in which one they read")
    base = read_base(folder, quantized=True)  # renders a question and an answer
    recipe, _ = read_yaml(folder / "recipe.yaml", "a recipe", "package again")
    persona = recipe.get("persona") if isinstance(recipe, dict) else None
    if not persona:
        return Check("template", "ok", f"renders, ends a turn with {base.turn_end}")
    system = persona["system"]  # one text, or one by language: the template holds the first
    prompt = str(next(iter(system.values())) if isinstance(system, dict) else system).strip()
    question = [{"role": "user", "content": "Hello."}]
    count = render(base.template, question, add_generation_prompt=True, **base.template_values()).count(prompt)
    if count != 1:
        raise Refused(f"the template holds the persona's system prompt {count} times, not once")
    return Check("template", "ok", f"renders, ends a turn with {base.turn_end}, holds the persona once")


def _load(folder: Path, engine: EngineName, host: ReleaseHost, begin: Begin) -> Check:
    return Check(f"load {engine}", "ok", check_load(folder, engine, host, begin(f"load {engine}")))


def _evaluation(folder: Path, number: int, engine: EngineName | None, host: ReleaseHost, report: Reporter) -> Check:
    result = rescore(folder, number, engine, host, report)
    if result is None:
        return Check("evaluation", "failed", "the release ships no evaluated items to score again")
    outcome: Outcome = "ok" if result.agrees else "failed"
    return Check("evaluation", outcome, result.text(), values=asdict(result))


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
