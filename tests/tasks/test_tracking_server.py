"""Tracking at a real MLflow server, started by mlflow/serve.sh, that goes away and comes back."""

from __future__ import annotations

import json
import os
import pickle
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from flows import cli
from flows.environment import CHECKOUT
from ra3core.errors import UserError
from tasks import outbox, tracking, writer
from tasks.journal import Journal, journals
from tasks.tracking import Tracking, read_link, sync, write_link

POSTGRES = Path("/usr/lib/postgresql")


class Server:
    """mlflow/serve.sh on a port of its own, with a store of its own; `stop` is SIGKILL for the whole of it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            "RA3_ROOT": str(folder),
            "PYTHON": sys.executable,
            "MLFLOW_PORT": str(port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as file:
            command = ["bash", str(CHECKOUT / "mlflow" / "serve.sh")]
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=file, stderr=file, start_new_session=True
            )
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=10).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is not an absent server
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setattr(outbox, "FIRST_PROBE", 3600.0)  # the tests decide when it is asked again


def pipeline(root: Path, uri: str, lose=lambda: None, steps: int = 450) -> Tracking:
    """A pipeline run of two stages; `lose` is called at the end of the first. Above 400 steps are two batches."""
    run = Tracking(root, uri)
    run.start("demo-1", {f"p.{n}": n for n in range(150)}, {"preset": "demo", "git_commit": str(root)}, "a: 1\n")
    run.dataset("steps", "d" * 32, root / "data", "suite")
    with stage(run, "base/0") as base:
        for step in range(steps):
            base.metrics(step, {"loss": 1 / (step + 1), "tokens": step})
        lose()
        base.done({"tokens": 7}, root / "base", "a" * 64, model=True)
    write_link(root / "base", uri, base.run_id)
    run.link("base/0", base.run_id)
    with stage(run, "ntp/0") as ntp:
        for step in range(steps):
            ntp.metrics(step, {"loss": 2 / (step + 1), "tokens": step})
        ntp.done({"tokens": 8}, root / "ntp", "b" * 64, model=True)
    write_link(root / "ntp", uri, ntp.run_id)
    run.link("ntp/0", ntp.run_id)
    (root / "page").mkdir()
    (root / "page" / "report.html").write_text("<p>report")
    run.finish({"pass_at_1/ra3/free/all": 0.5}, root / "page")
    return run


def stage(run: Tracking, name: str):
    return run.stage(name, {"window": 5}, {"stage": name[:-2]}, {"demonstrations": (run.root / "none", "c" * 64)})


def complete(root: Path, uri: str, steps: int = 450) -> None:
    """Everything that `pipeline` logs is at the server, once."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("ra3")
    found = client.search_runs([experiment.experiment_id], f"tags.git_commit = '{root}'")
    assert sorted(run.info.run_name for run in found) == ["base/0", "demo-1", "ntp/0"]
    runs = {run.info.run_name: run for run in found}
    assert {run.info.status for run in found} == {"FINISHED"}
    parent = runs["demo-1"]
    assert len(parent.data.params) == 150
    assert parent.data.metrics == {"pass_at_1/ra3/free/all": 0.5}
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {"config.yaml", "report"}
    report = client.download_artifacts(parent.info.run_id, "report/report.html")
    assert Path(report).read_text() == "<p>report"
    for name, tokens in (("base/0", 7), ("ntp/0", 8)):
        child = runs[name]
        for metric in ("loss", "tokens"):
            history = client.get_metric_history(child.info.run_id, metric)
            assert [point.step for point in sorted(history, key=lambda point: point.step)] == list(range(steps))
        assert child.data.metrics["final/tokens"] == tokens
        assert child.data.params == {"window": "5"}
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["data.digest"] == "d" * 32
        assert parent.data.tags[f"stage.{name}"] == child.info.run_id
        (data,) = child.inputs.dataset_inputs
        assert (data.dataset.name, data.tags[0].value) == ("demonstrations", "demonstrations")
    ends = [run.info.end_time for run in (runs["base/0"], runs["ntp/0"], parent)]
    assert ends == sorted(ends)


def test_a_server_that_stays_needs_no_outbox(server: Server, tmp_path: Path, capsys) -> None:
    run = pipeline(tmp_path, server.uri)
    assert capsys.readouterr().err == ""
    assert set(run.links) == {"base/0", "ntp/0"}
    assert journals(tmp_path / "mlflow" / "outbox") == []
    complete(tmp_path, server.uri)
    assert sync(tmp_path) == ["nothing waits to be sent"]


def test_an_outage_in_the_middle_loses_nothing(server: Server, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 3600.0)  # the metrics of `base` are sent at its end
    try:
        pipeline(tmp_path, server.uri, lose=server.stop)
        first, last = capsys.readouterr().err.splitlines()
        (waiting,) = journals(tmp_path / "mlflow" / "outbox")
        assert first.startswith(f"MLflow at {server.uri} does not answer (connection refused); what is logged waits in")
        assert last == (
            f"MLflow at {server.uri} does not answer (connection refused): 3 runs, 1803 metrics and 1 file wait in "
            f"{waiting}; `ra3 sync` sends them"
        )
        with pytest.raises(UserError, match=r"does not answer .*: 3 runs, .* `ra3 sync` sends them$"):
            sync(tmp_path)
        local = read_link(tmp_path / "ntp", server.uri)
        assert local is not None and local.startswith("local-")
    finally:
        server.start()
    assert sync(tmp_path) == [f"3 runs, 1803 metrics and 1 file sent to MLflow at {server.uri}"]
    complete(tmp_path, server.uri)
    assert journals(tmp_path / "mlflow" / "outbox") == []
    # a later run that reuses the artifact links to the run that made it, though its id was local when it was kept
    later = Tracking(tmp_path, server.uri)
    later.start("later", {}, {}, "")
    later.link("ntp/0", local)
    tags = later.client.get_run(later.run_id).data.tags
    assert later.client.get_run(tags["stage.ntp/0"]).info.run_name == "ntp/0"
    assert later.links == {"ntp/0": tags["stage.ntp/0"]}
    later.fail("stop")


class Killed(BaseException):
    """Stands for SIGKILL after an answer of the server and before it is noted: the disk is left the same."""


def test_a_sender_that_is_killed_after_every_call_sends_nothing_twice(
    server: Server, tmp_path: Path, monkeypatch
) -> None:
    away = Server(tmp_path)  # never started
    pipeline(tmp_path, away.uri, steps=20)
    (place,) = journals(tmp_path / "mlflow" / "outbox")
    head, *operations = (place / "journal.jsonl").read_text().splitlines(keepends=True)
    (place / "journal.jsonl").write_text(head.replace(away.uri, server.uri) + "".join(operations))

    def killed(self: Journal, mark: int) -> None:
        if mark not in seen:
            seen.append(mark)
            raise Killed
        done(self, mark)

    done, seen = Journal.done, []
    monkeypatch.setattr(Journal, "done", killed)
    while len(seen) < len(operations):
        with pytest.raises(Killed):
            list(outbox.send_all(tmp_path / "mlflow" / "outbox"))
    assert sync(tmp_path) == [f"1 run, 0 metrics and 0 files sent to MLflow at {server.uri}"]  # the last one
    complete(tmp_path, server.uri, steps=20)
    assert seen == sorted(seen)
    assert journals(tmp_path / "mlflow" / "outbox") == []


def test_what_the_server_refuses_is_raised_at_once(server: Server, tmp_path: Path, capsys) -> None:
    run = Tracking(tmp_path, server.uri)
    run.start("demo", {"a": 1}, {"git_commit": str(tmp_path)}, "")
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        run._writer.log(run.run_id, params={"a": "2"})
    run.link("ntp/0", "f" * 32)  # and the run goes on
    assert run.client.get_run(run.run_id).data.tags["stage.ntp/0"] == "f" * 32
    run.fail("stop")
    assert capsys.readouterr().err == ""
    (refused,) = (tmp_path / "mlflow" / "outbox" / "refused.jsonl").read_text().splitlines()
    assert json.loads(refused)["operation"]["params"] == {"a": "2"}


def test_a_refusal_does_not_hold_up_what_follows_and_a_closed_door_loses_nothing(
    server: Server, tmp_path: Path, monkeypatch
) -> None:
    run = Tracking(tmp_path, server.uri)
    run.start("demo", {"a": 1}, {}, "")
    with monkeypatch.context() as patch:
        patch.setattr(writer.Sender, "perform", _refuses_connections)
        run._writer.log(run.run_id, params={"a": "2"})
        run.fail("stop")
    with monkeypatch.context() as patch:
        patch.setattr(writer.Sender, "perform", _denies)
        with pytest.raises(UserError, match=r"\(PERMISSION_DENIED: not you\): 1 run, .* wait in"):
            sync(tmp_path)
    with pytest.raises(UserError, match=r"^1 run, 0 metrics and 0 files sent .* refused 1 entries, kept in .*jsonl"):
        sync(tmp_path)
    assert run.client.get_run(run.run_id).info.status == "FAILED"
    assert journals(tmp_path / "mlflow" / "outbox") == []


def _denies(self: writer.Sender, operation: dict, again: bool = False) -> str:
    raise RestException({"error_code": "PERMISSION_DENIED", "message": "not you"})


def _refuses_connections(self: writer.Sender, operation: dict, again: bool = False) -> str:
    raise MlflowException("Connection refused")


def test_a_server_that_comes_back_during_the_run_gets_everything(
    server: Server, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_PROBE", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(writer.Sender, "perform", _refuses_connections)
        run = Tracking(tmp_path, server.uri)
        run.start("demo", {}, {"preset": "demo"}, "")
        assert run.run_id.startswith("local-") and run.page() is None
        with stage(run, "ntp/0") as child:
            child.metrics(1, {"loss": 1.0})
        copy = pickle.loads(pickle.dumps(run))  # a worker process that adds a stage to a run which no server knows
        with stage(copy, "ra3/0") as other:
            pass
        copy.close()
    deadline = time.monotonic() + 60
    while run.run_id.startswith("local-") or run._writer.away:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.finish({}, None)
    assert sync(tmp_path) == [f"1 run, 0 metrics and 0 files sent to MLflow at {server.uri}"]  # the worker's
    found = run.client.get_run(run._writer.known(other._run_id))
    assert found.data.tags["mlflow.parentRunId"] == run.run_id == run.client.get_run(run.run_id).info.run_id
    assert run.client.get_run(child.run_id).data.metrics == {"loss": 1.0}
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"MLflow at {server.uri} does not answer (connection refused); what is logged waits in")
    assert said[-1] == f"MLflow at {server.uri} answers again; what waited is sent"


def test_a_killed_run_loses_nothing_that_it_logged(server: Server, tmp_path: Path, capsys) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tasks.tracking import Tracking\n"
        "run = Tracking(Path(sys.argv[1]), 'http://127.0.0.1:9')\n"
        "run.start('killed', {'a': 1}, {'git_commit': sys.argv[1]}, 'text')\n"
        "stage = run.stage('base/0', {}, {}, {}).__enter__()\nstage.metrics(1, {'loss': 1.0})\nstage.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (place,) = journals(tmp_path / "mlflow" / "outbox")
    journal = (place / "journal.jsonl").read_text().replace("http://127.0.0.1:9", server.uri)
    (place / "journal.jsonl").write_text(journal + '{"do": "log", "run"')  # and a line that was cut short
    following = Tracking(tmp_path, server.uri)  # sends it at its start
    following.start("next", {}, {}, "")
    assert capsys.readouterr().err == f"2 runs, 1 metric and 1 file sent to MLflow at {server.uri}\n"
    experiment = following.client.get_experiment_by_name("ra3").experiment_id
    found = following.client.search_runs([experiment], f"tags.git_commit = '{tmp_path}'")
    assert {(run.info.run_name, run.info.status) for run in found} == {("killed", "KILLED"), ("base/0", "KILLED")}
    assert [run.data.metrics for run in found if run.data.metrics] == [{"loss": 1.0}]
    following.fail("stop")


def test_a_server_that_never_answers_costs_a_run_two_waits_and_ra3_sync_says_so(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("RA3_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["ra3", "sync"])
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:  # takes connections and says nothing
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        pipeline(tmp_path, uri, steps=2)
        waited = time.monotonic() - started
        first, last = capsys.readouterr().err.splitlines()
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert 4 <= waited < 16  # at the first call and at the end; every other call would add two seconds
    assert first.startswith(f"MLflow at {uri} does not answer (no answer in time)")
    assert f"(no answer in time): 3 runs, {2 * 2 * 2 + 2 + 1} metrics and 2 files wait in {tmp_path}" in last
    assert (ended.value.code, capsys.readouterr()) == (2, ("", f"ra3: {last}\n"))


def test_two_processes_do_not_send_the_same_outbox(tmp_path: Path) -> None:
    mine = Journal.new(tmp_path, "http://127.0.0.1:9")
    mine.append({"do": "log", "run": "r", "metrics": [["loss", 1.0, 1, 1]], "params": {}, "tags": {}})
    assert [sent.busy for sent in outbox.send_all(tmp_path)] == [True]
    mine.release()
    (sent,) = outbox.send_all(tmp_path)
    assert (sent.busy, sent.left.metrics, sent.left.runs, sent.away) == (False, 1, 1, "connection refused")


def test_passwords_in_an_address_are_not_shown() -> None:
    assert writer.shown("https://me:secret@host:5000/path") == "https://host:5000/path"
    assert writer.shown("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


class Postgres:
    """A PostgreSQL server in a folder, on loopback, run as `nobody` when the tests are run by root."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder, self._binaries = folder, binaries
        self._as: dict[str, int] = {"user": pwd.getpwnam("nobody").pw_uid} if os.getuid() == 0 else {}
        if self._as:
            os.chown(folder, self._as["user"], -1)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.uri = f"postgresql://ra3@127.0.0.1:{self.port}/postgres"
        data = str(folder / "data")
        self._do("initdb", "--username", "ra3", "--auth", "trust", "--no-sync", "--pgdata", data)
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        self._do("pg_ctl", "start", "--wait", "--pgdata", data, "--log", str(folder / "log"), "--options", options)

    def stop(self) -> None:
        self._do("pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(self.folder / "data"))

    def _do(self, *command: str) -> None:
        done = subprocess.run(
            [str(self._binaries / command[0]), *command[1:]],
            stdout=subprocess.DEVNULL,  # pg_ctl leaves it open to the server
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **self._as,  # pyright: ignore[reportArgumentType]
        )
        assert done.returncode == 0, command


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    found = shutil.which("initdb")
    binaries = [Path(found).parent] if found else sorted(POSTGRES.glob("*/bin"))
    if not binaries:
        pytest.skip(f"no PostgreSQL: neither initdb on the PATH nor {POSTGRES}/VERSION/bin")
    with tempfile.TemporaryDirectory(prefix="ra3-postgres-") as folder:  # short: a socket's path has a limit
        server = Postgres(binaries[-1], Path(folder))
        yield server
        server.stop()


@pytest.mark.slow
def test_a_team_server_on_postgresql_goes_away_in_the_middle(postgres: Postgres, tmp_path: Path) -> None:
    server = Server(
        tmp_path,
        MLFLOW_BACKEND_STORE_URI=postgres.uri,
        MLFLOW_ARTIFACTS_DESTINATION=str(tmp_path / "objects"),
        MLFLOW_WORKERS="2",
    )
    server.start()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    try:
        pipeline(tmp_path / "one", server.uri)
        complete(tmp_path / "one", server.uri)
        pipeline(tmp_path / "two", server.uri, lose=server.stop)
        with pytest.raises(UserError, match=r"does not answer .*: 3 runs, "):
            sync(tmp_path / "two")
        server.start()
        command = [str(Path(sys.executable).with_name("ra3")), "sync"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "RA3_ROOT": str(tmp_path / "two")}
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.startswith("3 runs, ")
        complete(tmp_path / "two", server.uri)
        assert not (tmp_path / "mlflow" / "mlflow.db").exists()
        assert list((tmp_path / "objects").rglob("report.html"))
    finally:
        server.stop()
