"""MLflow in a real SQLite store."""

from __future__ import annotations

import json
import pickle
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


def test_long_parameters_are_shortened_and_still_differ(run: Tracking, root: Path) -> None:
    stored = run.client.get_run(run.run_id)
    assert stored.data.params["a.b"] == "1"
    assert len(stored.data.params["long"]) == 250
    assert stored.info.artifact_uri.startswith((root / "mlflow" / "artifacts").as_uri())
    with run.stage("ntp/0", {"long": "x" * 1001}, {}, {}) as other:
        pass
    longer = run.client.get_run(other.run_id).data.params["long"]
    assert longer[:200] == stored.data.params["long"][:200] == "x" * 200
    assert longer != stored.data.params["long"]
    run.fail("stop")


def test_a_child_has_the_tags_that_runs_are_filtered_by(root: Path, tmp_path: Path) -> None:
    run = Tracking(root)
    run.start("demo-1", {}, {"preset": "demo", "seed": "3", "seeds": "2", "git_commit": "abc"}, "")
    run.dataset("steps", "d" * 32, tmp_path, "suite")
    attached = pickle.loads(pickle.dumps(run))  # as a worker process gets it
    by_address = Tracking.attach(root, run.uri, run.run_id)
    for each in (run, attached, by_address):
        tags = {"stage": "m_step", "arm": "ntp", "seed": "4", "preset": "demo"}
        with each.stage("ntp/4", {}, tags, {}) as stage:
            pass
        each.link("ntp/4", stage.run_id)
        found = run.client.get_run(stage.run_id).data.tags
        assert found.items() >= {**tags, "git_commit": "abc", "data.digest": "d" * 32, "parent": "demo-1"}.items()
        assert found["mlflow.parentRunId"] == run.run_id
        assert found["mlflow.user"] == run.client.get_run(run.run_id).data.tags["mlflow.user"] != ""
    attached.link("ra3/4", "f" * 32)
    assert set(run.links) == {"ntp/4", "ra3/4"}
    assert run.links["ra3/4"] == "f" * 32
    parent = run.client.get_run(run.run_id).data.tags
    assert (parent["data.digest"], parent["seeds"]) == ("d" * 32, "2")
    run.fail("stop")


def test_a_reused_process_id_is_another_process(root: Path) -> None:
    run = Tracking(root)
    run.start("demo", {}, {}, "")
    host, pid, started = run.client.get_run(run.run_id).data.tags[tracking.PROCESS_TAG].split(":")
    run.client.set_tag(run.run_id, tracking.PROCESS_TAG, f"{host}:{pid}:{int(started) - 60}")
    elsewhere = Tracking(root)
    elsewhere.start("other", {}, {}, "")
    elsewhere.client.set_tag(elsewhere.run_id, tracking.PROCESS_TAG, f"another/{host}:{2**22 + 1}:{started}")
    again = Tracking(root)
    again.start("next", {}, {}, "")
    assert run.client.get_run(run.run_id).info.status == "KILLED"
    assert run.client.get_run(elsewhere.run_id).info.status == "RUNNING"
    elsewhere.fail("stop")
    again.fail("stop")


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


def test_a_database_that_does_not_open_is_a_user_error(monkeypatch, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'text.db'}"
    (tmp_path / "text.db").write_text("no database" * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=f"^MLflow at {uri} does not answer") as error:
        Tracking(tmp_path)
    assert "\n" not in str(error.value)
