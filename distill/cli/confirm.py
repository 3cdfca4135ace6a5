"""``distill sign`` and ``distill confirm``: the signature of a release folder, and the check of a release."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distill.cli.options import Json
from distill.cli.output import print_json
from licensing.errors import InputError, Refused

if TYPE_CHECKING:
    from distill.release.confirm import Check


def sign(
    target: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="A run, or a release folder.", show_default=False)],
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Private key: ECDSA (P-256, P-384, P-521), PEM, unencrypted.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of that key (PEM); it goes into the signature.")
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Certificates of the authorities above --certificate (PEM). Repeatable."),
    ] = None,
    sigstore: Annotated[
        bool, typer.Option("--sigstore", help="Sign with an identity instead of a key. Needs the network.")
    ] = False,
    edited: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Markdown file that was edited after packaging; SHA256SUMS gets its new digest. Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a release folder, or the model and the data set of a run: writes model.sig and provenance.dsse.json.

    Every file must match SHA256SUMS. Sign last: a file that changes afterwards breaks the signature.
    """
    from distill.cli.progress import StageProgress
    from distill.release.target import release_folders
    from distill.runs.stage import in_megabytes
    from publish.signing import Signer, sign_folder

    if (key is None) is not sigstore:
        raise InputError("neither or both of --key and --sigstore", where="--key", hint="give one of them")
    if (key is None and (certificate or chain)) or (chain and not certificate):
        raise InputError(
            "an option is missing", where="--certificate", hint="--certificate needs --key, --chain needs both"
        )
    signer, files = Signer(key, certificate, tuple(chain or ())), []
    with StageProgress() as progress:
        for folder in release_folders(target):
            report = in_megabytes(progress.stage_begins(f"sign {folder.name}"))
            files += [folder / name for name in sign_folder(folder, signer, tuple(edited or ()), report)]
    if as_json:
        print_json({"files": [str(file.resolve()) for file in files]})
        return
    for file in files:
        print(file)


def confirm(
    target: Annotated[
        str,
        typer.Argument(
            metavar="DIR|NS/NAME",
            show_default=False,
            help="Release folder, run, or repository of a hub (a data set: datasets/NS/NAME).",
        ),
    ],
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Branch, tag or commit of the repository.")
    ] = None,
    download: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the download in this folder.", show_default="temporary")
    ] = None,
    public_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Public key of the signer (PEM).")] = None,
    certificate_chain: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Certificates of the authorities above the signer's own (PEM). Repeatable."),
    ] = None,
    identity: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sigstore identity of the signer, such as an e-mail address.")
    ] = None,
    identity_provider: Annotated[str | None, typer.Option(metavar="URL", help="OIDC issuer of that identity.")] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Fail unless it is signed by the signer that the options name.")
    ] = False,
    evaluate: Annotated[
        int,
        typer.Option(
            "--eval",
            min=0,
            metavar="N",
            help="Also answer N of the recorded evaluation problems again and compare the verdicts.",
            show_default=False,
        ),
    ] = 0,
    engine: Annotated[
        Literal["transformers", "vllm"] | None,
        typer.Option(
            metavar="ENGINE",
            help="Engine to load with: transformers or vllm.",
            show_default="both where evaluated with vLLM",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Confirm a release: files, signature, provenance, licences, card, template, and that it loads.

    A changed, missing or extra file is named. Exit code 1 means that a check failed.
    """
    from distill.cli.progress import StageProgress
    from distill.release.confirm import confirm_folder
    from distill.release.target import release_or_download
    from publish.signing import Trust

    if (identity is None) is not (identity_provider is None):
        raise InputError(
            "one of two options is missing", where="--identity", hint="give --identity and --identity-provider"
        )
    trust = Trust(public_key, tuple(certificate_chain or ()), identity, identity_provider)
    if sum(map(bool, (trust.public_key, trust.chain, trust.identity))) > 1:
        raise InputError(
            "several kinds of signer",
            where="--public-key",
            hint="give one of --public-key, --certificate-chain, --identity",
        )
    with StageProgress() as progress, release_or_download(target, revision, download) as (folder, commit):
        checks = list(
            confirm_folder(
                folder,
                progress.stage_begins,
                trust=trust,
                require_signature=require_signature,
                evaluate=evaluate,
                engine=engine,
            )
        )
    failed = [check.name for check in checks if check.outcome == "failed"]
    if as_json:
        print_json(
            {"target": target, "commit": commit, "confirmed": not failed, "checks": [asdict(check) for check in checks]}
        )
    else:
        _print(checks)
        name = f"{target} at {commit}" if commit else str(folder)
        if failed:
            print(f"not confirmed: {name}: {', '.join(failed)} failed", file=sys.stderr)
        else:
            print(f"confirmed: {name}")
    if failed:
        raise typer.Exit(Refused.exit_code)


def _print(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.name:{width}}  {check.outcome:11}  {_shown(check.detail)}")
        for fault in check.faults:
            print(f"{'':{width}}  {'':11}  {_shown(fault)}")


def _shown(text: str) -> str:
    """Names of files are foreign text: no control characters on a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
