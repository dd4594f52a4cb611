"""DVC as a user has it, in a copy of the checkout with the real stages: repro, experiments, diffs, a remote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from flows.dvc_stage import BUILT, EVALUATIONS, NAMES, place
from flows.environment import CHECKOUT
from ra3core.artifacts import load_artifact
from ra3core.config import load
from ra3core.stage import StageLog

pytestmark = pytest.mark.slow

DATA = {"web_documents": 400, "outlines": 150, "demonstrations": 80, "rlvr_tasks": 12, "evaluation_tasks": 3}
BIN = Path(sys.executable).parent


class Checkout:
    """A copy of the tracked files in a repository of its own, without .venv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        names = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        for name in filter(None, names.stdout.split("\0")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, root / name)
        self.git("init", "--quiet")
        self.git("config", "user.name", "A user")
        self.git("config", "user.email", "user@example.org")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, check=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "state")

    def dvc(self, *arguments: str) -> str:
        """A DVC command; what it printed, with what its stages printed."""
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        for name in ("RA3_ROOT", "DVC_ROOT", "PREFECT_HOME", "PREFECT_API_URL"):
            environment.pop(name, None)
        command = [str(BIN / "dvc"), *arguments]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def json(self, *arguments: str):
        return json.loads(self.dvc(*arguments, "--json"))


def ran(printed: str) -> set[str]:
    """The stages that DVC called."""
    return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A committed first `dvc repro` at small size."""
    from tasks.versioning import accept

    checkout = Checkout(tmp_path_factory.mktemp("dvc"))
    params = yaml.safe_load((checkout.root / "params.yaml").read_text())
    params["data"] |= DATA
    (checkout.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    accept(load(str(checkout.root / "params.yaml")).data, checkout.root, StageLog())
    checkout.commit()
    printed = checkout.dvc("repro")
    checkout.commit()
    return checkout, printed


def test_repro_runs_every_stage_once(first: tuple[Checkout, str]) -> None:
    checkout, printed = first
    assert ran(printed) == set(NAMES)
    folder = checkout.root / "pipeline"
    artifacts = [load_artifact(folder / place(name)) for name in (*BUILT, "report")]
    artifacts += [load_artifact(folder / place(name) / "embedded") for name in EVALUATIONS]
    assert "pass@1" in (folder / "report" / "report.html").read_text()
    figures = json.loads((folder / "metrics.json").read_text())
    assert set(figures["pass_at_1"]) == {name.removeprefix("evaluate@") for name in EVALUATIONS}
    assert (folder / "e_step" / "curves" / "reward.csv").read_text().startswith("step,reward\n1,")

    client = MlflowClient(tracking_uri=f"sqlite:///{checkout.root / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ra3")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    (parent,) = [run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED" and "pass_at_1/ra3/free/all" in parent.data.metrics
    children = {key.removeprefix("stage."): runs[run] for key, run in parent.data.tags.items() if "stage." in key}
    assert {name.removesuffix("/0") for name in children} >= {"e_step_1", "ntp_compute", "evaluate_ra3_rlvr"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    # equal results of two arms have one artifact, and one run
    assert {run.data.tags["artifact.digest"] for run in children.values()} == {one.digest for one in artifacts}

    assert "Data and pipelines are up to date." in checkout.dvc("repro")


def test_an_experiment_reruns_what_depends_on_its_parameter(first: tuple[Checkout, str]) -> None:
    checkout, _ = first
    before = json.loads((checkout.root / "pipeline" / "metrics.json").read_text())
    printed = checkout.dvc("exp", "run", "--name", "faster", "--set-param", "rlvr.learning_rate=0.01")
    # what comes after RLVR is called if its result is another one
    assert {"ntp_rlvr", "ra3_rlvr", "report"} <= ran(printed)
    assert ran(printed) <= {"ntp_rlvr", "ra3_rlvr", "evaluate@ntp_rlvr", "evaluate@ra3_rlvr", "report"}

    shown = {}
    for baseline in checkout.json("exp", "show"):
        for experiment in baseline["experiments"] or []:
            (revision,) = experiment["revs"]
            shown[experiment["name"]] = revision["data"]
    params = shown["faster"]["params"]["params.yaml"]["data"]
    assert params["rlvr"]["learning_rate"] == 0.01
    after = json.loads((checkout.root / "pipeline" / "metrics.json").read_text())
    assert shown["faster"]["metrics"]["pipeline/metrics.json"]["data"] == after

    difference = checkout.json("metrics", "diff", "--all", "HEAD", "faster")["pipeline/metrics.json"]
    for arm, value in before["pass_at_1"].items():
        found = difference[f"pass_at_1.{arm}"]
        assert (found["old"], found["new"]) == (value, after["pass_at_1"][arm])
    changed = checkout.json("params", "diff")["params.yaml"]
    assert changed == {"rlvr.learning_rate": {"old": 0.0002, "new": 0.01, "diff": 0.0098}}

    checkout.dvc("plots", "diff", "HEAD", "faster", "--out", "plots")
    page = (checkout.root / "plots" / "index.html").read_text()
    for curve in ("E-step reward", "M-step cross-entropy of code", "RLVR reward", "RLVR pass@1 on held-out tasks"):
        assert curve in page
    for revision in ("HEAD", "faster"):
        assert f'"rev": "{revision}"' in page
    for file in ("ra3_rlvr/curves/reward.csv", "ntp_rlvr/curves/reward.csv"):
        assert file in page


def test_a_remote_gives_back_data_and_models(first: tuple[Checkout, str], tmp_path: Path) -> None:
    checkout, _ = first
    before = {path: path.read_bytes() for path in (checkout.root / "pipeline").rglob("*") if path.is_file()}
    before |= {path: path.read_bytes() for path in (checkout.root / "data").rglob("*") if path.is_file()}
    checkout.dvc("remote", "add", "--local", "--default", "disk", str(tmp_path / "remote"))
    checkout.dvc("push")
    for folder in (".dvc/cache", "pipeline/base", "pipeline/ra3_rlvr", "pipeline/evaluate", "artifacts", "data"):
        shutil.rmtree(checkout.root / folder)
    checkout.dvc("pull")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert "Data and pipelines are up to date." in checkout.dvc("status")
