"""The deployments of prefect.yaml as `ra3 serve` sets them up: a real server, work pool, worker and MLflow on loopback.

Runs are started from the command line, cancelled, and killed in every way that happens to people.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ra3core.artifacts import Store, load_artifact
from ra3core.config import load

pytestmark = pytest.mark.slow

SMALL_DATA = [
    *("data.web_documents=400", "data.outlines=150", "data.demonstrations=80"),
    *("data.rlvr_tasks=12", "data.evaluation_tasks=3"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Served:
    """The services of a checkout of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = free_port(), free_port()
        self.environment = {**os.environ, "RA3_ROOT": str(root), "OMP_NUM_THREADS": "1"}
        for name in ("PREFECT_HOME", "PREFECT_API_URL"):
            self.environment.pop(name, None)
        self.url = f"http://127.0.0.1:{self.ports[0]}/api"

    def ra3(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ra3")), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600)

    def serve(self) -> subprocess.CompletedProcess[str]:
        prefect, mlflow = self.ports
        return self.ra3("serve", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow))

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `prefect` command in the folder of the checkout, where prefect.toml says which server to ask."""
        command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", *arguments]
        return subprocess.run(command, env=self.environment, cwd=self.root, capture_output=True, text=True, timeout=900)

    def run(self, deployment: str, *options: str, **parameters: object) -> subprocess.CompletedProcess[str]:
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}={json.dumps(value)}")]
        return self.prefect("deployment", "run", deployment, *given, *options)

    def start(self, deployment: str, **parameters: object) -> str:
        """Start a run, and its id."""
        done = self.run(deployment, **parameters)
        assert done.returncode == 0, done.stdout + done.stderr
        words = done.stdout.replace("\n", " ").split()
        return next(word for word in words if word.count("-") == 4 and len(word) == 36)

    def api(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def state(self, run: str) -> str:
        return self.api(f"/flow_runs/{run}")["state"]["name"]

    def log(self, name: str) -> str:
        return (self.root / ".cache" / "serve" / f"{name}.log").read_text()

    def process(self, name: str) -> psutil.Process:
        state = json.loads((self.root / ".cache" / "serve" / "state.json").read_text())
        return psutil.Process(state["processes"][name]["pid"])

    def flow_processes(self) -> list[psutil.Process]:
        """The worker's descendants: flow runs, and the stages that these run."""
        return self.process("worker").children(recursive=True)

    def digests(self) -> dict[str, str]:
        """Every artifact but the report, verified: key -> digest."""
        found = [load_artifact(artifact.path) for artifact in Store(self.root / "artifacts").artifacts()]
        return {f"{a.stage}/{a.key}": a.digest for a in found if a.stage != "report"}

    def created(self) -> dict[str, str]:
        return {a.key: a.manifest.created for a in Store(self.root / "artifacts").artifacts()}


def until(condition: Callable[[], object], seconds: float, otherwise: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> Iterator[Served]:
    root = new_checkout(tmp_path_factory.mktemp("served"), load("smoke", SMALL_DATA).data)
    served = Served(root)
    done = served.serve()
    assert done.returncode == 0, done.stdout + done.stderr
    yield served
    assert served.ra3("stop").returncode == 0


@pytest.fixture(scope="module")
def finished(served: Served) -> dict[str, str]:
    """A run to its end, as the README has it: the artifacts that every other run has to end with."""
    done = served.run("pipeline/demo", "--watch", preset="smoke", overrides=SMALL_DATA)
    assert done.returncode == 0, done.stdout + done.stderr + served.log("worker")
    assert (served.root / "reports" / "latest" / "report.html").is_file()
    return served.digests()


def test_every_flow_is_deployed_with_a_form_and_paused_schedules(served: Served) -> None:
    flows = {flow["id"]: flow["name"] for flow in served.api("/flows/filter", {})}
    deployments = {flows[d["flow_id"]]: d for d in served.api("/deployments/filter", {})}
    assert set(deployments) == {"pipeline", "mid-training", "rlvr", "evaluation", "sweep"}
    for deployment in deployments.values():
        assert deployment["name"] == "demo" and deployment["description"] and "ra3" in deployment["tags"]
        properties = deployment["parameter_openapi_schema"]["properties"]
        assert all(parameter.get("description") for parameter in properties.values()), properties
        assert not any(schedule["active"] for schedule in deployment["schedules"])
    assert [s["schedule"]["cron"] for s in deployments["pipeline"]["schedules"]] == ["0 2 * * *"]
    names = [automation["name"] for automation in served.api("/automations/filter", {})]
    assert names == ["ra3: runs without heartbeats have crashed"]


def test_serving_twice_and_bad_parameters_are_refused(served: Served, finished) -> None:
    again = served.serve()
    assert again.returncode == 2 and "run already" in again.stderr and "Traceback" not in again.stderr
    before = served.created()
    assert served.run("pipeline/demo", "--watch", preset="smoke", seeds=0).returncode != 0
    failed = served.run("pipeline/demo", "--watch", preset="smoke", overrides=["rounds=none"])
    assert failed.returncode != 0
    assert served.created() == before


def test_the_command_line_uses_the_server_too(served: Served, finished) -> None:
    overrides = [word for value in SMALL_DATA for word in ("--set", value)]
    before = len(served.api("/flow_runs/filter", {}))
    done = served.ra3("run", "--preset", "smoke", *overrides)
    assert done.returncode == 0 and "0 stages run" in done.stdout, done.stderr
    assert len(served.api("/flow_runs/filter", {})) == before + 1


def test_two_runs_at_once_do_no_stage_twice(served: Served, finished) -> None:
    """One by the worker, one by the command line, of a seed that is new to both."""
    before = served.created()
    overrides = [*SMALL_DATA, "seed=1"]
    run = served.start("mid-training/demo", preset="smoke", overrides=overrides)
    until(lambda: served.flow_processes(), 60)
    done = served.ra3("run", "--preset", "smoke", *(word for value in overrides for word in ("--set", value)))
    assert done.returncode == 0, done.stderr
    until(lambda: served.state(run) not in ("Scheduled", "Pending", "Running", "Late"), 300)
    assert served.state(run) == "Completed", served.log("worker")
    names = [
        run.info.run_name
        for run in mlflow_runs(served, "tags.seed = '1'")
        if "mlflow.parentRunId" in run.data.tags and "report" not in (run.info.run_name or "")
    ]
    assert len(names) == len(set(names)) > 10
    assert before.items() <= served.created().items()


def started(served: Served, stage: str) -> str:
    """A run that begins with nothing and is in the middle of a stage, of which there is a checkpoint; its id."""
    shutil.rmtree(served.root / "artifacts")
    run = served.start("mid-training/demo", preset="smoke", overrides=SMALL_DATA)
    until(
        lambda: any(path.is_file() for path in served.root.glob(f"artifacts/{stage}/.*.work/scratch/**/*")),
        300,
        lambda: served.log("worker"),
    )
    return run


def gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def finish(served: Served, reference: dict[str, str], kept: dict[str, str]) -> None:
    """The same run again: what was finished is kept, and it ends as a run that was never interrupted."""
    assert kept.items() <= served.created().items()
    done = served.run("mid-training/demo", "--watch", preset="smoke", overrides=SMALL_DATA)
    assert done.returncode == 0, done.stdout + done.stderr + served.log("worker")
    ends_the_same(served, reference, kept)


def ends_the_same(served: Served, reference: dict[str, str], kept: dict[str, str]) -> None:
    assert kept.items() <= served.created().items()
    found = served.digests()
    assert found.items() <= reference.items()
    assert {key.split("/")[0] for key in found} == {key.split("/")[0] for key in reference} - {"rlvr", "rlvr_tasks"}


def mlflow_runs(served: Served, filter: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{served.root}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("ra3")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], filter))


def test_cancelling_leaves_nothing_behind(served: Served, finished) -> None:
    run = started(served, "base")
    processes, kept = served.flow_processes(), served.created()
    assert len(processes) > 1
    done = served.prefect("flow-run", "cancel", run)
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: served.state(run) == "Cancelled", 90, lambda: served.state(run) + served.log("worker"))
    until(lambda: gone(processes), 20, lambda: str([process for process in processes if process.is_running()]))
    assert mlflow_runs(served, "attributes.status = 'RUNNING'") == []
    served.digests()  # every artifact is whole
    finish(served, finished, kept)


def test_a_killed_stage_is_tried_again_by_its_task(served: Served, finished) -> None:
    run = started(served, "base")
    kept = served.created()
    stages = [process for process in served.flow_processes() if "forkserver" in " ".join(process.cmdline())]
    max(stages, key=lambda process: process.cpu_times().user + process.memory_info().rss / 2**40).kill()
    until(lambda: served.state(run) not in ("Pending", "Running"), 400)
    assert served.state(run) == "Completed", served.log("worker")
    ends_the_same(served, finished, kept)


def test_a_killed_flow_is_marked_crashed_and_goes_on_in_the_next_run(served: Served, finished) -> None:
    run = started(served, "base")
    processes, kept = served.flow_processes(), served.created()
    for process in processes:
        process.kill()
    until(lambda: served.state(run) == "Crashed", 60, lambda: served.state(run))
    finish(served, finished, kept)


def test_a_killed_worker_leaves_no_run_running(served: Served, finished) -> None:
    """With everything on its machine killed nobody is left to tell: the server misses the heartbeats."""
    run = started(served, "base")
    processes, kept = [served.process("worker"), *served.flow_processes()], served.created()
    for process in processes:
        process.kill()
    until(lambda: served.state(run) == "Crashed", 300, lambda: served.state(run))
    assert served.ra3("stop").returncode == 0
    again = served.serve()
    assert again.returncode == 0, again.stderr
    finish(served, finished, kept)


def test_stopping_ends_everything_a_run_included(served: Served, finished) -> None:
    started(served, "base")
    names = ("Prefect", "MLflow", "worker")
    processes = [p for name in names for p in (served.process(name), *served.process(name).children(recursive=True))]
    done = served.ra3("stop")
    assert done.returncode == 0 and done.stdout == "Stopped: worker, MLflow, Prefect\n"
    until(lambda: gone(processes), 10)
    assert not (served.root / "prefect.toml").exists()
    assert served.ra3("stop").stdout == "Nothing runs.\n"
