"""MLflow in a real SQLite store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ra3core.errors import UserError
from tasks import tracking
from tasks.tracking import Tracking, flatten_metrics, flatten_params, read_link, write_link


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkout")


@pytest.fixture
def run(root: Path) -> Tracking:
    run = Tracking(root)
    run.start("demo", {"a.b": 1, "long": "x" * 1000}, {"preset": "demo"}, "a: 1\n")
    return run


def child(run: Tracking, **inputs: tuple[Path, str]):
    return run.stage("e_step_1/0", {"window": 5}, {"stage": "e_step"}, inputs)


def test_long_parameters_are_left_to_config_yaml(run: Tracking, root: Path) -> None:
    stored = run.client.get_run(run.run_id)
    assert stored.data.params == {"a.b": "1"}
    assert stored.info.artifact_uri.startswith((root / "mlflow" / "artifacts").as_uri())
    run.fail("stop")


def test_more_metrics_than_one_batch_takes_arrive_in_order(run: Tracking) -> None:
    with child(run) as stage:
        for step in range(1500):
            stage.metrics(step, {"loss": float(step), "bad": float("nan")})
    history = run.client.get_metric_history(stage.run_id, "loss")
    assert [point.step for point in history] == list(range(1500))
    assert "bad" not in run.client.get_run(stage.run_id).data.metrics
    run.fail("stop")


def test_metrics_are_sent_while_the_stage_runs(run: Tracking, monkeypatch) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.0)
    with child(run) as stage:
        stage.metrics(1, {"loss": 1.0})
        assert run.client.get_run(stage.run_id).data.metrics == {"loss": 1.0}
        assert run.client.get_run(stage.run_id).info.status == "RUNNING"
    run.fail("stop")


def test_how_a_stage_ended(run: Tracking) -> None:
    def status(stage) -> str:
        return run.client.get_run(stage.run_id).info.status

    with child(run) as good:
        pass
    with pytest.raises(ZeroDivisionError), child(run) as bad:
        bad.metrics(1, {"loss": 1.0})
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), child(run) as stopped:
        raise KeyboardInterrupt
    assert [status(stage) for stage in (good, bad, stopped)] == ["FINISHED", "FAILED", "KILLED"]
    assert run.client.get_run(bad.run_id).data.metrics == {"loss": 1.0}  # what was logged before is there
    run.fail("stop")


def test_data_are_inputs_and_models_are_references(run: Tracking, tmp_path: Path) -> None:
    (tmp_path / "base" / "model").mkdir(parents=True)
    with child(run, model=(tmp_path / "base", "a" * 64), demonstrations=(tmp_path / "d", "b" * 64)) as stage:
        pass
    stage.done({"tokens": 7, "name": "x", "by": {"pass@1": 0.5}}, tmp_path / "made", "c" * 64, model=True)
    stored = run.client.get_run(stage.run_id)
    assert [entry.dataset.name for entry in stored.inputs.dataset_inputs] == ["demonstrations"]
    assert stored.data.metrics == {"final/tokens": 7.0, "final/by/pass_at_1": 0.5}
    assert stored.data.tags["model.path"] == str(tmp_path / "made" / "model")
    assert stored.data.tags["input.model"] == f"{'a' * 64} {tmp_path / 'base'}"
    run.fail("stop")


def test_runs_of_a_killed_command_are_marked(root: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tasks.tracking import Tracking\n"
        "run = Tracking(Path(sys.argv[1]))\nrun.start('killed', {}, {}, '')\n"
        "context = run.stage('base/0', {}, {}, {})\nstage = context.__enter__()\n"
        "print(run.run_id, stage.run_id, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    ids = done.stdout.split()
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}")
    assert [client.get_run(id).info.status for id in ids] == ["RUNNING", "RUNNING"]
    living = Tracking(root)
    living.start("living", {}, {}, "")
    again = Tracking(root)
    again.start("next", {}, {}, "")
    assert [client.get_run(id).info.status for id in ids] == ["KILLED", "KILLED"]
    assert client.get_run(living.run_id).info.status == "RUNNING"
    living.fail("stop")
    again.fail("stop")


def test_links_belong_to_one_store(tmp_path: Path) -> None:
    artifact = tmp_path / "m_step" / "abc"
    artifact.mkdir(parents=True)
    assert read_link(artifact, "sqlite:///a") is None
    write_link(artifact, "sqlite:///a", "run")
    assert read_link(artifact, "sqlite:///a") == "run"
    assert read_link(artifact, "http://elsewhere") is None
    assert list(artifact.iterdir()) == []  # beside the artifact, not in it


def test_flatten() -> None:
    assert flatten_params({"a": {"b": 1, "c": [2]}, "d": None}) == {"a.b": 1, "a.c": [2], "d": None}
    nested = {"tokens": 3, "pass@1": 0.5, "name": "x", "done": True, "bad": float("inf"), "inner": {"y": 1.5}}
    assert flatten_metrics(json.loads(json.dumps(nested))) == {"tokens": 3.0, "pass_at_1": 0.5, "inner/y": 1.5}


def test_a_store_that_does_not_answer_is_a_user_error(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"^MLflow at http://127\.0\.0\.1:9 does not answer") as error:
        Tracking(tmp_path)
    assert "\n" not in str(error.value)
