"""The scan of a release: each thing that must not leave the machine is named with its file and line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from publish import scan as scan_module
from publish.cards.markdown import md
from publish.scan import scan

TOKEN = "hf_" + "abcdefghij" * 3 + "abcd"


def found(folder: Path, name: str, content: str | bytes) -> list[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [str(leak) for leak in scan(folder)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("read from /home/ann/model", "a path of a machine: /home/ann/model"),
        ('{"path": "/mnt/nfs/run-3/x.json"}', "a path of a machine: /mnt/nfs/run-3/x.json"),
        ("(/tmp/out)", "a path of a machine: /tmp/out"),
        ("see ~/notes.txt", "a path of a machine: ~/notes.txt"),
        (r"at C:\Users\ann\model", r"a path of a machine: C:\Users\ann\model"),
        ("served at http://10.1.2.3:8000/v1", "an address of a private network: 10.1.2.3"),
        ("at 10.1.2.3:8000,", "an address of a private network: 10.1.2.3"),
        ("host 192.168.0.7 said", "an address of a private network: 192.168.0.7"),
        ("http://node17:8000/v1", "an address of a private network: node17"),
        ("http://0.0.0.0:8000/v1", "an address of a private network: 0.0.0.0"),
        ("http://user@localhost/x", "an address of a private network: localhost"),
        ("ssh gpu4.cluster.internal now", "an address of a private network: gpu4.cluster.internal"),
        ("https://[fd00::1]/v1", "an address of a private network: fd00::1"),
        (f"token: {TOKEN}", "a secret: Hugging Face Token (1)"),
    ],
)
@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "config.json"])
def test_a_private_text_is_named_with_file_and_line(tmp_path: Path, name: str, line: str, what: str) -> None:
    leaks = found(tmp_path, name, f"first\n{line}\nlast\n")
    assert f"{name}:2: {what}" in leaks
    assert TOKEN not in "".join(leaks)


@pytest.mark.parametrize(
    "line",
    [
        "https://huggingface.co/data/home/x and https://arxiv.org/abs/2001.08361",
        "and/or, 1/2, application/json, /no_think, /v1/chat",
        "transformers 5.23.0.1, llmcompressor 0.14.0.1, torch 2.13.0, 8.8.8.8",
        "path/to/data/train, data/home/x, ./tmp/x",
        "local variables, the internal state, internal.",
        "Local.AI is a company; state.dict()",
    ],
)
def test_what_is_public_passes(tmp_path: Path, line: str) -> None:
    assert found(tmp_path, "README.md", line) == []


def test_a_card_that_escapes_a_text_does_not_hide_it(tmp_path: Path) -> None:
    text = "At http://gpu_4.local/v1, in /home/ann/my_run."
    assert found(tmp_path, "README.md", md(text)) == [
        "README.md:1: a path of a machine: /home/ann/my_run",
        "README.md:1: an address of a private network: gpu_4.local",
    ]


def test_the_home_folder_of_this_machine_is_named_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/fancy/place")
    assert found(tmp_path, "notes.txt", "x\nin /fancy/place/here") == ["notes.txt:2: a path of a machine: /fancy/place"]


def test_text_of_a_model_is_searched_for_secrets_alone(tmp_path: Path) -> None:
    row = '{"output": "cd /home/user && curl http://127.0.0.1"}\n'
    assert found(tmp_path, "evaluation/x_samples.jsonl", row * 2) == []
    assert found(tmp_path, "evaluation/x_samples.jsonl", f"{row}{TOKEN}") == [
        "evaluation/x_samples.jsonl:2: a secret: Hugging Face Token (1)"
    ]


def test_the_vocabulary_of_a_tokenizer_is_no_leak(tmp_path: Path) -> None:
    assert found(tmp_path, "tokenizer.json", '{"/home/user": 1, "http://localhost": 2}') == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("optimizer.pt", b"x", "a pickle"),
        ("notes.txt", pickle.dumps({}), "a pickle"),
        ("run.sh", b"ls", "no kind of file that a release holds"),
        ("modeling_x.py", b"", "no kind of file that a release holds"),
        ("core", b"", "no kind of file that a release holds"),
        (".env", b"A=1", "no kind of file that a release holds"),
        ("plot.png", b"GIF89a", "not what .png says"),
        ("train.parquet", b"MZ", "not what .parquet says"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (leak,) = found(tmp_path, name, content)
    assert leak.startswith(f"{name}: {what}")


def test_links_executable_bits_and_sizes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("config.json")
    (tmp_path / "LICENSE").write_text("long enough")
    (tmp_path / "NOTICE").write_text("x")
    (tmp_path / "NOTICE").chmod(0o755)
    monkeypatch.setattr(scan_module, "MOST_BYTES", 10)
    assert [str(leak) for leak in scan(tmp_path)] == [
        "LICENSE: larger than 0 GB, the hub's limit of one file", "NOTICE: executable", "link.json: a link",
    ]  # fmt: skip


def test_a_text_that_the_releaser_allows_passes_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("cd /opt/tools/bin\ncd /opt/secret\n")
    leaks = [str(leak) for leak in scan(tmp_path, allow=("/opt/tools/bin",))]
    assert leaks == ["README.md:2: a path of a machine: /opt/secret"]
    (tmp_path / "x_samples.jsonl").write_text(f"{TOKEN}\n{TOKEN}\n")
    (tmp_path / "run.sh").write_text("")
    leaks = [leak.place for leak in scan(tmp_path, allow=("README.md:1", "README.md:2", "x_samples.jsonl:1", "run.sh"))]
    assert leaks == ["run.sh", "x_samples.jsonl:2"]
