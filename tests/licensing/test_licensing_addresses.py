"""One notion of a private address: the audit of endpoints and the teacher's configuration agree on every address."""

from __future__ import annotations

import pytest

from licensing.addresses import endpoint_host, is_loopback, is_private_address
from licensing.audit import audit
from licensing.lineage import Lineage
from synth.teachers.config import OpenAITeacher

PRIVATE = [
    "http://localhost:8000/v1", "http://127.0.0.1", "http://[::1]:8000/v1", "http://10.1.2.3:8000", "http://192.168.0.7/v1",
    "http://100.64.3.4:8000/v1", "http://vllm:8000/v1", "http://gpu1.local/v1", "http://llm.internal/v1",
    "http://llm.intranet", "http://nas.lan:8000", "http://box.home.arpa/v1", "http://vllm.team.svc:8000/v1",
    "http://vllm.team.svc.cluster.local:8000/v1", "http://[fd00::7]/v1", "http://169.254.1.1/v1", "http://x.localhost/v1",
]  # fmt: skip
PUBLIC = [
    "https://api.example.com/v1", "https://8.8.8.8/v1", "http://[2001:4860:4860::8888]:8000/v1", "https://local.example.org",
    "https://svc.example.org/v1", "https://example.lan.org", "https://internal.example.com/v1",
]  # fmt: skip


def warned(endpoint: str) -> bool:
    teacher = {"id": "some/model", "role": "generator", "licence": "mit", "endpoint": endpoint}
    raw = {"release": "me/Tiny", "kind": "model", "declared": {"license": "mit"}, "inputs": [teacher]}
    return any(code.startswith("W-TOS-ENDPOINT") for code in audit(Lineage.model_validate(raw)).warnings)


@pytest.mark.parametrize("endpoint", [*PRIVATE, *PUBLIC])
def test_audit_and_teacher_agree_on_whose_address_it_is(endpoint: str) -> None:
    private = endpoint in PRIVATE
    assert is_private_address(endpoint) == private
    assert OpenAITeacher(model="m", base_url=endpoint).is_public != private
    assert warned(endpoint) != private


@pytest.mark.parametrize(
    ("address", "host"),
    [("https://API.Example.com:8443/v1", "api.example.com"), ("api.example.com/v1", "api.example.com"), ("::1", "::1"),
     ("http://me@h.example/v1", "h.example"), ("[::1]:80", "::1"), ("localhost:8000", "localhost"), ("http://[", "")],
)  # fmt: skip
def test_the_host_of_an_address_is_read_with_and_without_a_scheme(address: str, host: str) -> None:
    assert endpoint_host(address) == host


def test_only_this_machine_is_loopback() -> None:
    here = {"http://localhost:8000/v1", "http://127.0.0.1", "http://[::1]:8000/v1"}
    assert {endpoint for endpoint in (*PRIVATE, *PUBLIC) if is_loopback(endpoint)} == here
