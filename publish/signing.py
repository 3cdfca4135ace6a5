"""Signatures of a release folder: OpenSSF model signing over every file, and the signed provenance.

    model.sig               the digests of all files, signed; `model_signing verify` reads it as well
    provenance.dsse.json    provenance.json in a DSSE envelope, signed with the same key; not with Sigstore, where
                            model.sig covers provenance.json

Keys are ECDSA on P-256, P-384 or P-521, as model-signing takes them, in unencrypted PEM files. Signing with Sigstore
needs its servers and an identity; it was never run here.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from licensing.errors import InputError, MissingDependency, Refused
from licensing.files import write_text
from publish.checksums import (
    CHECKSUMS,
    SIGNATURE,
    SIGNED_PROVENANCE,
    Progress,
    compare,
    is_blob_link,
    read_checksums,
    write_checksums,
)
from publish.provenance import PROVENANCE, read_predicate, write_provenance

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_IGNORED = (SIGNATURE, ".cache")
"""Beside what model-signing ignores by itself (`.git`, `.gitattributes` …): the signature, and where downloads put
theirs."""


@dataclass(frozen=True)
class Signer:
    """Who signs: a private key, with its certificate and the chain above it or without; or Sigstore (no key)."""

    key: Path | None = None
    certificate: Path | None = None
    chain: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Trust:
    """Whose signature counts: that of a public key, of a certificate below ``chain``, or of a Sigstore identity."""

    public_key: Path | None = None
    chain: tuple[Path, ...] = ()
    identity: str | None = None
    issuer: str | None = None

    def __bool__(self) -> bool:
        return bool(self.public_key or self.chain or self.identity)

    def text(self) -> str:
        if self.public_key is not None:
            return f"the key in {self.public_key}"
        return self.identity or f"a certificate below {', '.join(map(str, self.chain))}"


def sign_folder(
    folder: Path, signer: Signer, edited: tuple[str, ...] = (), progress: Progress | None = None
) -> list[str]:
    """Write ``model.sig``, and ``provenance.dsse.json`` where the folder has a provenance; return their names.

    Earlier ones are replaced. ``edited``: Markdown files that were edited after packaging; their new digests go into
    SHA256SUMS and provenance.json first. Raises Refused where any other file is not as SHA256SUMS lists it, InputError
    for a key that cannot be used, MissingDependency without the extra ``sign``.
    """
    _require_signing()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from model_signing import hashing, signing

    config = signing.Config()
    try:
        if signer.key is None:
            with _sigstore_errors():
                config.use_sigstore_signer(use_ambient_credentials=True)
        elif signer.certificate is None:
            config.use_elliptic_key_signer(private_key=signer.key)
        else:
            chain = signer.chain or (signer.certificate,)  # the library does not take an empty one
            config.use_certificate_signer(
                private_key=signer.key, signing_certificate=signer.certificate, certificate_chain=chain
            )
        private_key = None if signer.key is None else load_pem_private_key(signer.key.read_bytes(), None)
    except (ValueError, TypeError, OSError) as error:  # TypeError: the key is encrypted
        raise InputError(
            f"the key or certificate cannot be used: {error}",
            where=str(signer.certificate or signer.key),
            hint="an unencrypted key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem",
        ) from error
    _accept_edits(folder, edited, progress)
    if private_key is not None and (folder / PROVENANCE).is_file():
        write_text(folder / SIGNED_PROVENANCE, _envelope((folder / PROVENANCE).read_bytes(), private_key))
    else:
        (folder / SIGNED_PROVENANCE).unlink(missing_ok=True)  # of an earlier key
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=_IGNORED))
    with _sigstore_errors() if signer.key is None else contextlib.nullcontext():
        config.sign(folder, folder / SIGNATURE)
    return [name for name in (SIGNATURE, SIGNED_PROVENANCE) if (folder / name).is_file()]


def _require_signing() -> None:
    """Raise MissingDependency without the extra ``sign``."""
    try:
        import model_signing  # noqa: F401
        import securesystemslib.signer  # noqa: F401
    except ModuleNotFoundError as error:
        hint = "pip install 'distill-release[sign]'"
        raise MissingDependency(f"signatures need the extra `sign` ({error.name} is missing)", hint=hint) from error


def is_signed(folder: Path) -> bool:
    """Whether the folder has a ``model.sig``."""
    return (folder / SIGNATURE).is_file()


def check_trust(trust: Trust) -> None:
    """Raise InputError for a key or certificate that cannot be read, MissingDependency without the extra ``sign``."""
    _require_signing()
    if trust:
        _verifier(trust)


def verify_folder(folder: Path, trust: Trust) -> None:
    """Verify both signatures, and the digest of every file. Raises Refused naming what does not match.

    Also raises as ``check_trust``.
    """
    _require_signing()
    from model_signing import hashing

    files = hashing.Config().set_ignored_paths(paths=_IGNORED)
    files.set_allow_symlinks(all(is_blob_link(path, folder) for path in folder.rglob("*") if path.is_symlink()))
    config = _verifier(trust).set_hashing_config(files)
    try:
        config.verify(folder, folder / SIGNATURE)
    except Exception as error:  # the file is foreign, and the library lets the errors of its parsers pass
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Refused(f"{SIGNATURE} is not a signature of these files by this signer: {what}") from error
    if trust.identity is None and (folder / SIGNED_PROVENANCE).is_file():
        _verify_envelope(folder, trust)


def _verifier(trust: Trust) -> Any:
    from model_signing import verifying

    config = verifying.Config()
    try:
        if trust.public_key is not None:
            return config.use_elliptic_key_verifier(public_key=trust.public_key)
        if trust.chain:
            return config.use_certificate_verifier(certificate_chain=trust.chain)
        with _sigstore_errors():
            return config.use_sigstore_verifier(identity=trust.identity, oidc_issuer=trust.issuer)
    except (ValueError, OSError) as error:
        raise InputError(f"the key or certificate cannot be used: {error}", where=trust.text()) from error


def signed_digests(folder: Path) -> dict[str, str]:
    """Name -> sha256 of each file that ``model.sig`` names. Read without a check of who signed."""
    try:
        bundle = json.loads((folder / SIGNATURE).read_bytes())
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
        return {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise Refused(f"{SIGNATURE} is not a signature of a model: {type(error).__name__}") from error


@contextlib.contextmanager
def _sigstore_errors() -> Iterator[None]:
    """Sigstore's servers may be out of reach, or not accept who signs."""
    from sigstore.errors import Error

    try:
        yield
    except (Error, OSError) as error:
        hint = "it needs the network; a key needs none: --key FILE, --public-key FILE"
        raise MissingDependency(f"Sigstore cannot be used: {error}", hint=hint) from error


def _accept_edits(folder: Path, edited: tuple[str, ...], progress: Progress | None) -> None:
    """Take the new content of ``edited`` into SHA256SUMS and provenance.json, or refuse a folder with other changes."""
    wrong = next((name for name in edited if not name.endswith(".md")), None)
    if wrong is not None:
        hint = "package again: only the text of Markdown files may change after the evaluation"
        raise InputError(f"{wrong} is no Markdown file", where="--edited", hint=hint)
    differences = compare(folder, progress)
    others = [line for line in differences.lines() if line not in {f"{name}: changed" for name in edited}]
    if others:
        raise Refused(
            f"the folder is not what its {CHECKSUMS} lists: {'; '.join(others[:5])}",
            where=str(folder),
            hint="package again; for a card that you edited: --edited README.md",
        )
    if differences.changed:
        new = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in differences.changed}
        digests = read_checksums(folder) | new
        if PROVENANCE in digests:
            digests = write_provenance(folder, digests, read_predicate(folder))
        write_checksums(folder, digests)


# --- the envelope of the provenance ------------------------------------------------------------------------------


def _envelope(payload: bytes, private_key: Any) -> str:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    envelope = Envelope(payload, _PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(private_key))
    return json.dumps(envelope.to_dict(), indent=1) + "\n"


def _verify_envelope(folder: Path, trust: Trust) -> None:
    """``provenance.dsse.json`` holds the bytes of ``provenance.json``, signed by the key of ``model.sig``."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    pem = trust.public_key
    public_key = _certified_key(folder) if pem is None else load_pem_public_key(pem.read_bytes())
    try:
        envelope = Envelope.from_dict(json.loads((folder / SIGNED_PROVENANCE).read_bytes()))
        envelope.verify([SSlibKey.from_crypto(public_key)], threshold=1)
    except Exception as error:  # the file is foreign, and the library has no base class of its errors
        raise Refused(f"{SIGNED_PROVENANCE} is not signed by this signer: {type(error).__name__}") from error
    if envelope.payload_type != _PAYLOAD_TYPE or envelope.payload != _read(folder / PROVENANCE):
        raise Refused(f"{SIGNED_PROVENANCE} signs another statement than {PROVENANCE}")


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _certified_key(folder: Path) -> Any:
    """The public key of the certificate in ``model.sig``, which was verified against the chain before."""
    from cryptography.x509 import load_der_x509_certificate

    bundle: Mapping[str, Any] = json.loads((folder / SIGNATURE).read_bytes())
    certificates = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]
    return load_der_x509_certificate(base64.b64decode(certificates[0]["rawBytes"])).public_key()
