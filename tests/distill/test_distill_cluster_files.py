"""The Slurm and the Kubernetes example: read by bash, by a Slurm of stubs, and by Kubernetes' own schema."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from waiting import until

from distill.config.parallel import ParallelConfig
from distill.train.launch import node_command

RECIPES = Path(__file__).parents[2] / "recipes"
SBATCH = RECIPES / "slurm" / "ray.sbatch"
RAYJOB = RECIPES / "k8s" / "rayjob.yaml"

# --- Slurm -------------------------------------------------------------------------------------------------------


def directives() -> dict[str, str | None]:
    """The options that sbatch would read: `#SBATCH` lines before the first command."""
    found: dict[str, str | None] = {}
    for line in SBATCH.read_text(encoding="utf-8").splitlines():
        if line.startswith("#SBATCH"):
            (option,) = shlex.split(line.removeprefix("#SBATCH"))
            name, equals, value = option.partition("=")
            assert name not in found
            found[name] = value if equals else None
        elif line.strip() and not line.startswith("#"):
            break
    return found


def test_sbatch_reads_every_directive() -> None:
    shape = {
        "--job-name": r"\w+",
        "--nodes": r"\d+",
        "--ntasks-per-node": r"1",
        "--cpus-per-task": r"\d+",
        "--gpus-per-node": r"\d+",
        "--mem": r"0",
        "--exclusive": None,
        "--time": r"\d\d:\d\d:\d\d",
        "--signal": r"B:INT@\d+",
        "--output": r"[\w%-]+\.log",
    }
    found = directives()
    assert found.keys() == shape.keys()
    for name, value in found.items():
        pattern = shape[name]
        assert (value is None) == (pattern is None)
        assert pattern is None or re.fullmatch(pattern, value or ""), name
    assert SBATCH.read_text(encoding="utf-8").count("#SBATCH") == len(found), "none stands below a command"


STUBS = {
    "scontrol": 'printf "n1\\nn2\\nn3\\n"',
    "srun": 'echo "srun $*" >>"$CALLS"; case "$*" in *hostname*) echo "10.0.0.1 fe80::1" ;; esac',
    "ray": 'echo "ray $*" >>"$CALLS"',
    "distill": 'trap "echo interrupted >>$CALLS; exit 130" INT; echo "distill $* at $RAY_ADDRESS" >>"$CALLS"; '
    'for _ in $(seq ${DISTILL_TAKES:-0}); do sleep 0.1; done; exit "${DISTILL_EXIT:-0}"',
}


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of three nodes in which srun, scontrol, ray and distill write down what is asked."""
    place = tmp_path / ".venv" / "bin"
    place.mkdir(parents=True)
    for name, body in STUBS.items():
        (place / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    return os.environ | {
        "CALLS": str(tmp_path / "calls"),
        "HOME": str(tmp_path / "home"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_GPUS_ON_NODE": "8",
    }


def test_the_job_starts_a_head_and_workers_and_runs_the_recipe(job: dict[str, str]) -> None:
    command = ["bash", str(SBATCH), "recipes/big.yaml", "--set", "verify.workers=32"]
    done = subprocess.run(command, env=job | {"DISTILL_TAKES": "3"}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    calls = Path(job["CALLS"]).read_text(encoding="utf-8").splitlines()
    port = 20000 + 1234567 % 20000
    assert f"ray start --head --node-ip-address=10.0.0.1 --port={port} --num-gpus=8" in calls[1]
    (workers,) = [call for call in calls if f"ray start --address=10.0.0.1:{port}" in call]
    assert workers.startswith("srun --nodes=2 --ntasks=2 --exclude=n1")
    (driver,) = [call for call in calls if call.startswith("distill")]
    assert driver == (
        "distill run recipes/big.yaml --set engine.address=auto --set engine.replicas=3 --set verify.workers=32"
        f" at 10.0.0.1:{port}"
    )
    assert calls[-1] == "ray stop"
    token = Path(job["HOME"]) / ".ray" / "auth_token"
    assert re.fullmatch(r"[0-9a-f]{64}", token.read_text(encoding="utf-8"))
    assert token.stat().st_mode & 0o077 == 0


def test_the_job_ends_as_its_run_ends(job: dict[str, str]) -> None:
    done = subprocess.run(["bash", str(SBATCH), "x.yaml"], env=job | {"DISTILL_EXIT": "3"}, timeout=120)
    assert done.returncode == 3


def test_the_signal_before_the_time_limit_reaches_the_run(job: dict[str, str]) -> None:
    process = subprocess.Popen(["bash", str(SBATCH), "x.yaml"], env=job | {"DISTILL_TAKES": "2000"})
    calls = Path(job["CALLS"])
    until(lambda: calls.exists() and "distill" in calls.read_text(encoding="utf-8"), "the run's first line")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert calls.read_text(encoding="utf-8").splitlines()[-2:] == ["interrupted", "ray stop"]


def test_a_job_without_a_recipe_says_how_it_is_used(job: dict[str, str]) -> None:
    done = subprocess.run(["bash", str(SBATCH)], env=job, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "usage: sbatch" in done.stderr


def test_a_training_job_runs_the_stage_on_its_first_node_and_joins_the_others(job: dict[str, str]) -> None:
    place = Path(job["SLURM_SUBMIT_DIR"]) / ".venv" / "bin"
    # Runs the command of each node, as srun does: `srun --option bash -c SCRIPT NAME ARGUMENTS`
    nodes = 'shift; for node in 0 1 2; do SLURM_NODEID=$node SLURM_NNODES=3 "$@"; done'
    for name, body in {
        "srun": nodes,
        "distill": 'echo "distill $*" >>"$CALLS"',
        "torchrun": 'echo "torchrun $*" >>"$CALLS"',
    }.items():
        (place / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    command = ["bash", str(SBATCH.with_name("train.sbatch")), "recipes/big.yaml", "/shared/runs/big-1", "--json"]
    done = subprocess.run(command, env=job, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    port = 20000 + 1234567 % 20000
    settings = {"nodes": 3, "processes": 8, "rendezvous": f"n1:{port}"}
    parallel = ParallelConfig.model_validate(settings)
    options = " ".join(f"--set student.parallel.{name}={value}" for name, value in settings.items())
    assert Path(job["CALLS"]).read_text(encoding="utf-8").splitlines() == [
        f"distill run recipes/big.yaml --runs /shared/runs --only train {options} --json",
        *(node_command(Path("/shared/runs/big-1"), parallel, node) for node in (1, 2)),
    ]


# --- Kubernetes --------------------------------------------------------------------------------------------------

# Field names and types as in KubeRay's custom resource definition (ray.io/v1); pods are Kubernetes' own.
JOB = {
    "entrypoint": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "backoffLimit": int,
    "rayClusterSpec": dict,
}
CLUSTER = {"rayVersion": str, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict}
WORKERS = HEAD | {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}


def shaped(value: dict[str, Any], fields: dict[str, type]) -> dict[str, Any]:
    assert value.keys() == fields.keys()
    for name, kind in fields.items():
        assert isinstance(value[name], kind), name
    return value


@pytest.fixture
def cluster() -> dict[str, Any]:
    document = YAML(typ="safe", pure=True).load(RAYJOB.read_text(encoding="utf-8"))
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", "RayJob")
    assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    return shaped(shaped(document["spec"], JOB)["rayClusterSpec"], CLUSTER)


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [shaped(cluster["headGroupSpec"], HEAD), *(shaped(each, WORKERS) for each in cluster["workerGroupSpecs"])]


def test_the_rayjob_has_the_fields_of_its_definition(cluster: dict[str, Any]) -> None:
    for group in groups(cluster):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings only"
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]
    (workers,) = cluster["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == workers["rayStartParams"]["num-gpus"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


@pytest.mark.slow
def test_kubernetes_accepts_the_pods_of_the_rayjob(cluster: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for number, group in enumerate(groups(cluster)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, **group["template"]}
        kubernetes.validate(pod, kubernetes.latest_version(), strict=True)
        pod["spec"]["containers"][0]["volumeMount"] = []
        with pytest.raises(kubernetes.ValidationError):
            kubernetes.validate(pod, kubernetes.latest_version(), strict=True)
