"""The smoke preset from data to report with the real stages, through the command line: run, reuse, kill and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ra3core.artifacts import Store, load_artifact
from ra3core.config import load

SMALL_DATA = (
    *("data.web_documents=400", "data.outlines=150", "data.demonstrations=80"),
    *("data.rlvr_tasks=12", "data.evaluation_tasks=3"),
)
OPTIONS = ["--preset", "smoke", *(word for value in SMALL_DATA for word in ("--set", value))]
DATA = load("smoke", SMALL_DATA).data
STAGES = 22  # data and report included


def command(root: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The ra3 command and its environment."""
    environment = {**os.environ, "RA3_ROOT": str(root), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    environment.pop("PREFECT_HOME", None)  # the checkout's own
    return [str(Path(sys.executable).with_name("ra3")), *arguments, *OPTIONS], environment


def ra3(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(root, *arguments)
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1200)


def digests(root: Path) -> dict[str, str]:
    """Key -> digest of every artifact but the report, which tells wall times. The files of all are verified."""
    found = [load_artifact(artifact.path) for artifact in Store(root / "artifacts").artifacts()]
    return {f"{artifact.stage}/{artifact.key}": artifact.digest for artifact in found if artifact.stage != "report"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> tuple[Path, subprocess.CompletedProcess[str]]:
    root = new_checkout(tmp_path_factory.mktemp("finished"), DATA)
    return root, ra3(root, "run")


def test_from_data_to_report(finished) -> None:
    root, done = finished
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    page = root / "reports" / "latest" / "report.html"
    assert str(page.resolve()) in done.stdout
    assert "pass@1" in page.read_text()
    assert {artifact.stage for artifact in Store(root / "artifacts").artifacts()} == {
        *(
            "corpus",
            "demonstrations",
            "rlvr_tasks",
            "base",
            "e_step",
            "bootstrap",
            "m_step",
            "rlvr",
            "evaluate",
            "report",
        )
    }


def test_second_run_reuses_everything_and_says_nothing_else(finished) -> None:
    root, _ = finished
    before = digests(root)
    again = ra3(root, "run")
    assert again.returncode == 0, again.stderr
    assert f"0 stages run, {STAGES} reused" in again.stdout
    lines = again.stderr.splitlines()
    assert len(lines) == STAGES and all(line.endswith(": reused") for line in lines), again.stderr
    assert digests(root) == before


def test_the_plan_of_a_finished_run_has_nothing_left_to_do_and_was_about_right(finished) -> None:
    """Stages of the plan, cached, beside what the plan says of them when they have to be run again."""
    root, _ = finished

    def plan(*arguments: str) -> dict[str, dict]:
        done = ra3(root, "run", "--dry-run", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}

    ran, planned = plan(), plan("--refresh", "base")
    assert {stage["state"] for stage in ran.values()} == {"cached"}
    assert len(ran) == STAGES - 2  # data and report

    def ratio(stage: str, tokens: str) -> float:
        return planned[f"{stage}/0"]["tokens"][tokens] / ran[f"{stage}/0"]["tokens"][tokens]

    assert 0.9 < ratio("base", "trained") < 1.1
    assert 0.85 < ratio("ntp", "trained") < 1.15
    assert 0.8 < ratio("e_step_1", "trained") < 1.5
    for stage in ("e_step_1", "bootstrap_1", "ntp_rlvr", "evaluate_base"):  # bounds from above
        assert ratio(stage, "tokens") > 1, stage


@pytest.mark.slow
def test_shards_on_a_dask_cluster_make_the_same_artifacts(
    finished, new_checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_dask")
    root = new_checkout(tmp_path / "dask", DATA)
    monkeypatch.setenv("RA3_SHARDS", "2")
    done = ra3(root, "run", "--task-runner", "dask")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = digests(root)
    shards = {key for key in found if key.split("/")[0] in ("annotate_shard", "evaluate_shard")}
    assert {key.split("/")[0] for key in shards} == {"annotate_shard", "evaluate_shard"}  # equal arms share some
    assert {key: digest for key, digest in found.items() if key not in shards} == digests(finished[0])
    again = ra3(root, "run")  # on threads, unsharded
    assert again.returncode == 0 and f"0 stages run, {STAGES} reused" in again.stdout, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["base", "m_step", "e_step", "rlvr"])
def test_killed_in_a_training_stage_it_resumes_and_ends_the_same(
    finished, new_checkout, stage: str, tmp_path: Path
) -> None:
    reference = digests(finished[0])
    root = new_checkout(tmp_path / "killed", DATA)
    line, environment = command(root, "run")
    run = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not any(path.is_file() for path in root.glob(f"artifacts/{stage}/.*.work/scratch/**/*")):
        assert run.poll() is None and time.monotonic() < deadline, "the stage made no checkpoint to be killed after"
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    survivors = digests(root)
    assert survivors.items() <= reference.items()  # what is there is whole and right
    done = ra3(root, "run")
    assert done.returncode == 0, done.stderr
    assert digests(root) == reference
