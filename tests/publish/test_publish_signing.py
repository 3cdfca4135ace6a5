"""Signatures: made with a key or a certificate, refused for any other signer and for any other byte."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from licensing.errors import InputError, MissingDependency, Refused
from publish.checksums import SIGNATURE, SIGNED_PROVENANCE, compare, file_digests, read_checksums, write_checksums
from publish.provenance import PROVENANCE, statement_faults, write_provenance
from publish.signing import Signer, Trust, check_trust, is_signed, sign_folder, signed_digests, verify_folder

PREDICATE = {"buildDefinition": {"resolvedDependencies": []}, "runDetails": {}}
Key = ec.EllipticCurvePrivateKey


def write_key(folder: Path, curve: ec.EllipticCurve | None = None, password: bytes | None = None) -> tuple[Path, Path]:
    """Files of a new private key and of its public key."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return save_key(folder, key, password)


def save_key(folder: Path, key: Key, password: bytes | None = None) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, encryption))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder / "key.pem", folder / "key.pub"


def write_chain(folder: Path) -> tuple[Signer, Path]:
    """A signer with a certificate, and the file of the certificate above it."""
    now = dt.datetime.now(dt.UTC)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, key: Key, issuer: str, ca: bool) -> x509.CertificateBuilder:
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        builder = x509.CertificateBuilder().subject_name(common(name)).issuer_name(common(issuer))
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        return builder.add_extension(usage, critical=True)

    def common(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    root = certificate("root", root_key, "root", True).sign(root_key, hashes.SHA256())
    signing = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    leaf = certificate("acme", leaf_key, "root", False).add_extension(signing, False).sign(root_key, hashes.SHA256())
    private, _ = save_key(folder, leaf_key)
    for name, one in (("root.crt", root), ("leaf.crt", leaf)):
        (folder / name).write_bytes(one.public_bytes(serialization.Encoding.PEM))
    return Signer(private, folder / "leaf.crt"), folder / "root.crt"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    (folder / "plots").mkdir(parents=True)
    (folder / "README.md").write_text("# Tiny\n")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "plots" / "scores.png").write_bytes(b"png")
    write_checksums(folder, write_provenance(folder, file_digests(folder), PREDICATE))
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_key(tmp_path / "keys")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# --- a key -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_folder_signed_with_a_key_is_verified_by_its_public_key(
    release: Path, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    private, public = write_key(tmp_path / "keys", curve)
    assert sign_folder(release, Signer(private)) == [SIGNATURE, SIGNED_PROVENANCE]
    verify_folder(release, Trust(public))
    assert signed_digests(release).keys() == {*read_checksums(release), "SHA256SUMS", SIGNED_PROVENANCE}
    assert not compare(release)


@pytest.mark.slow
def test_the_program_of_model_signing_verifies_it_too(release: Path, keys: tuple[Path, Path]) -> None:
    sign_folder(release, Signer(keys[0]))
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(release), "--public_key", str(keys[1])]
    done = subprocess.run([*command, "--signature", str(release / SIGNATURE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wrong_key_is_refused(release: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign_folder(release, Signer(keys[0]))
    with pytest.raises(Refused, match="not a signature of these files by this signer"):
        verify_folder(release, Trust(write_key(tmp_path / "other")[1]))


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "SHA256SUMS", PROVENANCE, SIGNED_PROVENANCE])
def test_a_changed_byte_breaks_the_signature_and_is_named(release: Path, keys: tuple[Path, Path], name: str) -> None:
    sign_folder(release, Signer(keys[0]))
    flip(release / name)
    with pytest.raises(Refused, match=name):
        verify_folder(release, Trust(keys[1]))


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_a_missing_or_extra_file_breaks_the_signature(release: Path, keys: tuple[Path, Path], change: str) -> None:
    sign_folder(release, Signer(keys[0]))
    if change == "missing":
        (release / "plots" / "scores.png").unlink()
    else:
        (release / "plots" / "more.png").touch()
    with pytest.raises(Refused, match=r"plots/(scores|more)\.png"):
        verify_folder(release, Trust(keys[1]))


def test_forged_checksums_do_not_pass_an_honest_signature(release: Path, keys: tuple[Path, Path]) -> None:
    sign_folder(release, Signer(keys[0]))
    flip(release / "model.safetensors")
    write_checksums(release)
    assert not compare(release)
    with pytest.raises(Refused, match=r"model\.safetensors"):
        verify_folder(release, Trust(keys[1]))


def test_a_signature_of_another_folder_is_refused(release: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(release, tmp_path / "other"))
    (other / "README.md").write_text("# Another\n")
    write_checksums(other, write_provenance(other, file_digests(other), PREDICATE))
    sign_folder(other, Signer(keys[0]))
    for name in (SIGNATURE, SIGNED_PROVENANCE):
        shutil.copy(other / name, release / name)
    with pytest.raises(Refused, match=r"README\.md"):
        verify_folder(release, Trust(keys[1]))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"dsseEnvelope": {"payload": "e30="}}'])
def test_a_file_that_is_no_signature_is_refused(release: Path, keys: tuple[Path, Path], content: bytes) -> None:
    (release / SIGNATURE).write_bytes(content)
    with pytest.raises(Refused):
        verify_folder(release, Trust(keys[1]))
    with pytest.raises(Refused):
        signed_digests(release)


def test_a_download_with_the_hubs_own_files_is_verified(release: Path, keys: tuple[Path, Path]) -> None:
    sign_folder(release, Signer(keys[0]))
    (release / ".gitattributes").touch()
    (release / ".cache" / "huggingface").mkdir(parents=True)
    (release / ".cache" / "huggingface" / "README.md.metadata").touch()
    verify_folder(release, Trust(keys[1]))


def test_signing_again_with_another_key_replaces_both_signatures(
    release: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = write_key(tmp_path / "new")
    sign_folder(release, Signer(keys[0]))
    sign_folder(release, Signer(private))
    verify_folder(release, Trust(public))
    with pytest.raises(Refused):
        verify_folder(release, Trust(keys[1]))


@pytest.mark.parametrize("kind", ["encrypted", "curve", "nothing", "no file"])
def test_a_key_that_cannot_sign_is_wrong_input(release: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "keys"
    if kind == "encrypted":
        write_key(folder, password=b"secret")
    elif kind == "curve":
        write_key(folder, ec.SECP256K1())
    elif kind == "nothing":
        folder.mkdir()
        (folder / "key.pem").write_text("nothing")
    with pytest.raises(InputError, match="cannot be used") as caught:
        sign_folder(release, Signer(folder / "key.pem"))
    assert "openssl genpkey" in str(caught.value.hint)
    assert not is_signed(release)


# --- the provenance --------------------------------------------------------------------------------------------------


def test_the_subjects_are_the_files_with_their_digests(release: Path) -> None:
    statement = json.loads((release / PROVENANCE).read_bytes())
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    for subject in statement["subject"]:
        data = (release / subject["name"]).read_bytes()
        assert subject["digest"] == {"sha256": hashlib.sha256(data).hexdigest()}
    assert statement_faults(release, read_checksums(release)) == []


def test_a_provenance_of_another_folder_is_named_file_by_file(release: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(release, tmp_path / "other"))
    (other / "README.md").write_text("# Another\n")
    (other / "plots" / "scores.png").unlink()
    (other / "added.md").touch()
    write_provenance(other, file_digests(other), PREDICATE)
    shutil.copy(other / PROVENANCE, release / PROVENANCE)
    write_checksums(release)
    assert statement_faults(release, read_checksums(release)) == [
        "added.md: not a file of this release",
        "plots/scores.png: not among its subjects",
        "README.md: it names another sha256",
    ]


@pytest.mark.parametrize("text", ["[]", "{}", '{"_type": 1, "predicateType": 2, "subject": [1]}', '"text"'])
def test_a_file_that_is_no_statement_is_wrong_input(release: Path, text: str) -> None:
    (release / PROVENANCE).write_text(text)
    with pytest.raises(InputError, match="not an in-toto statement"):
        statement_faults(release, {})


def resign_model(release: Path, private: Path) -> None:
    """Sign the folder as it is with model-signing alone: a signer whose envelope is not of this statement."""
    from model_signing import hashing, signing

    config = signing.Config().use_elliptic_key_signer(private_key=private)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE, ".cache"]))
    config.sign(release, release / SIGNATURE)


def other_payload(envelope: dict[str, object], private: Path) -> str:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    key = serialization.load_pem_private_key(private.read_bytes(), None)
    made = Envelope(b'{"another": "statement"}', str(envelope["payloadType"]), {})
    made.sign(CryptoSigner(key))
    return json.dumps(made.to_dict())


def forged_payload(envelope: dict[str, object], _: Path) -> str:
    return json.dumps(envelope | {"payload": base64.b64encode(b"{}").decode()})


@pytest.mark.parametrize(
    ("change", "message"), [(other_payload, "signs another statement"), (forged_payload, "is not signed by this")]
)
def test_an_envelope_of_another_statement_is_refused(
    release: Path, keys: tuple[Path, Path], change: Callable[[dict[str, object], Path], str], message: str
) -> None:
    sign_folder(release, Signer(keys[0]))
    envelope = json.loads((release / SIGNED_PROVENANCE).read_bytes())
    (release / SIGNED_PROVENANCE).write_text(change(envelope, keys[0]))
    resign_model(release, keys[0])
    with pytest.raises(Refused, match=message):
        verify_folder(release, Trust(keys[1]))


# --- a certificate ---------------------------------------------------------------------------------------------------


def test_a_folder_signed_with_a_certificate_is_verified_by_the_one_above_it(release: Path, tmp_path: Path) -> None:
    signer, root = write_chain(tmp_path / "acme")
    sign_folder(release, signer)
    verify_folder(release, Trust(chain=(root,)))
    _, other = write_chain(tmp_path / "other")
    with pytest.raises(Refused, match="by this signer"):
        verify_folder(release, Trust(chain=(other,)))


def test_a_certificate_of_another_key_is_wrong_input(release: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signer, _ = write_chain(tmp_path / "acme")
    with pytest.raises(InputError, match="cannot be used"):
        sign_folder(release, Signer(keys[0], signer.certificate))


# --- Sigstore, whose servers are not here -----------------------------------------------------------------------------


def test_sigstore_out_of_reach_is_named_and_nothing_is_signed(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model_signing import signing, verifying
    from sigstore.errors import NetworkError

    def fail(*_: object, **__: object) -> None:
        raise NetworkError("no route")

    monkeypatch.setattr(signing.Config, "use_sigstore_signer", fail)
    monkeypatch.setattr(verifying.Config, "use_sigstore_verifier", fail)
    with pytest.raises(MissingDependency, match="Sigstore cannot be used") as caught:
        sign_folder(release, Signer())
    assert "--key FILE" in str(caught.value.hint)
    assert not is_signed(release)
    with pytest.raises(MissingDependency, match="Sigstore cannot be used"):
        check_trust(Trust(identity="ann@acme.example", issuer="https://accounts.acme.example"))


def test_sigstore_signs_the_folder_and_takes_an_earlier_keys_envelope_away(
    release: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from model_signing import signing, verifying

    sign_folder(release, Signer(keys[0]))
    trust = Trust(identity="ann@acme.example", issuer="https://accounts.acme.example")
    signers: list[dict[str, Any]] = []

    def sign(config: Any, **_: object) -> Any:
        return config.use_elliptic_key_signer(private_key=keys[0])

    def verify(config: Any, **signer: object) -> Any:
        signers.append(signer)
        return config.use_elliptic_key_verifier(public_key=keys[1])

    monkeypatch.setattr(signing.Config, "use_sigstore_signer", sign)
    monkeypatch.setattr(verifying.Config, "use_sigstore_verifier", verify)
    assert sign_folder(release, Signer()) == [SIGNATURE]
    assert PROVENANCE in signed_digests(release)
    verify_folder(release, trust)
    assert signers == [{"identity": trust.identity, "oidc_issuer": trust.issuer}]
    flip(release / "model.safetensors")
    with pytest.raises(Refused, match=r"model\.safetensors"):
        verify_folder(release, trust)


# --- edits -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_as_its_checksums_say_is_not_signed(release: Path, keys: tuple[Path, Path]) -> None:
    flip(release / "model.safetensors")
    with pytest.raises(Refused, match=r"model\.safetensors: changed"):
        sign_folder(release, Signer(keys[0]))
    assert not is_signed(release)


def test_an_edited_card_that_is_named_is_signed_as_it_is(release: Path, keys: tuple[Path, Path]) -> None:
    (release / "README.md").write_text("# Tiny, with thanks\n")
    sign_folder(release, Signer(keys[0]), edited=("README.md",))
    assert not compare(release)
    assert statement_faults(release, read_checksums(release)) == []
    verify_folder(release, Trust(keys[1]))


def test_only_markdown_counts_as_edited(release: Path, keys: tuple[Path, Path]) -> None:
    flip(release / "model.safetensors")
    with pytest.raises(InputError, match="no Markdown file"):
        sign_folder(release, Signer(keys[0]), edited=("model.safetensors",))
    with pytest.raises(Refused, match=r"model\.safetensors: changed"):
        sign_folder(release, Signer(keys[0]), edited=("README.md",))
