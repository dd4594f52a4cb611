"""MLflow: a parent run a pipeline run, a child run an executed stage.

Weights and data stay where they are: models are logged by path and digest, data as MLflow dataset inputs with the
digest that DVC gives them. A stage that is reused starts no run; the parent gets a tag that names the run that made
it, which is kept beside the artifact (`.<key>.mlflow.json`, no part of it: the same artifact may be tracked elsewhere).

What is logged is said in mlflow/README.md; how it reaches a server that is away now and then, in tasks/outbox.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pwd
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  a second, while the server starts
import psutil
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from ra3core.artifacts import Artifact
from ra3core.errors import UserError
from ra3core.stage import Metrics
from tasks.outbox import Outbox, Sent, left, send_all
from tasks.writer import EXPERIMENT, Direct, Writer, ask, chosen_uri, default_uri, now, reason, shown

FLUSH_SECONDS = 3.0  # between batches; one batch costs about as much as one metric
LONGEST_PARAM = 250  # characters; longer values are shortened, config.yaml has them whole
PROCESS_TAG = "ra3.process"  # HOST:PID:START of the command, by which a killed one is found
INHERITED = ("preset", "git_commit", "data.digest", "parent", "mlflow.user", "mlflow.source.git.commit")


@event.listens_for(Engine, "connect")
def _without_waiting_for_the_disk(connection: Any, record: Any) -> None:
    """Write-ahead logging for SQLite: a commit takes a tenth of a millisecond instead of ten or more.

    A killed process loses nothing; after a power cut the last commits may be missing, the database is whole.
    """
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.DatabaseError):  # no database, or one that cannot be written: the first query says so
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")


class Tracking:
    """One pipeline run in MLflow, safe to use from several threads. Pickled, it is the same run in another process.

    root: the checkout; runs go to mlflow/mlflow.db below it unless `uri` or MLFLOW_TRACKING_URI names another store.
    Raises UserError when a database cannot be opened; a server may be away, see tasks/outbox.py.
    """

    def __init__(self, root: Path, uri: str | None = None) -> None:
        default = default_uri(root)
        (root / "mlflow").mkdir(exist_ok=True)
        self.root = root
        self.uri = uri = uri or chosen_uri(root)
        self._writer: Writer
        try:
            self.client = MlflowClient(tracking_uri=uri)
            if _is_server(uri):
                self._writer = Outbox(root / "mlflow" / "outbox", uri, self.client)
            else:
                location = (root / "mlflow" / "artifacts").as_uri() if uri == default else None
                self._writer = Direct(self.client, location)
        except (MlflowException, SQLAlchemyError) as error:
            raise UserError(f"MLflow at {shown(uri)} does not answer: {reason(error)}") from error
        self._run_id = ""
        self.interrupted = False  # stages that fail from now on were killed
        self._common: dict[str, str] = {}  # the parent's tags that its children have too
        self._links: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def attach(cls, root: Path, uri: str, run_id: str, tags: Mapping[str, str] | None = None) -> Tracking:
        """A pipeline run that another process has begun, to add stages to. Whoever attaches calls `close` at the end.

        tags: what the children inherit; read from the parent by default, for which the store has to answer.
        """
        tracking = cls(root, uri)
        tracking._run_id = run_id
        tracking._common = dict(tags) if tags is not None else tracking._inherited(run_id)
        return tracking

    def __reduce__(self) -> tuple[Any, ...]:
        return Tracking.attach, (self.root, self.uri, self.run_id, dict(self._common))

    @property
    def run_id(self) -> str:
        """The parent run; empty before `start`, and a local id as long as the server has never answered."""
        return self._writer.known(self._run_id)

    def _inherited(self, run_id: str) -> dict[str, str]:
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            raise UserError(f"MLflow at {shown(self.uri)} has no run {run_id}: {reason(error)}") from error
        tags = {**run.data.tags, "parent": run.info.run_name or ""}
        return {name: tags[name] for name in INHERITED if name in tags}

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], config: str) -> None:
        """Begin the parent run. `config`: the resolved configuration, logged as config.yaml.

        What earlier commands left behind is put in order: outboxes are sent, killed runs marked.
        """
        tags = {**tags, "mlflow.user": _user(), "mlflow.source.name": "ra3 run", "mlflow.source.type": "LOCAL"}
        if "git_commit" in tags:
            tags["mlflow.source.git.commit"] = tags["git_commit"]  # MLflow's own column "Version"
        try:
            self._run_id = self._writer.create(name, {**tags, PROCESS_TAG: _process()})
        except MlflowException as error:
            raise UserError(f"MLflow at {shown(self.uri)} refuses a run: {reason(error)}") from error
        self._common = {key: value for key, value in {**tags, "parent": name}.items() if key in INHERITED}
        self._writer.log(self._run_id, params=_params(params))
        self._writer.text(self._run_id, config, "config.yaml")
        if not isinstance(self._writer, Outbox):
            _end_killed_runs(self.client)
        elif self._writer.away is None:
            for sent in send_all(self.root / "mlflow" / "outbox", self.uri):
                for line in () if sent.busy else _say_sent(sent):  # other commands that run; this one
                    self._writer.say(line)
            self._writer.ask(_end_killed_runs)

    def dataset(self, name: str, digest: str, source: Path, context: str) -> None:
        """Name the data that the pipeline run is about, by reference."""
        self._common["data.digest"] = digest
        self._writer.inputs(self._run_id, [(name, digest, str(source), context)])
        self._writer.log(self._run_id, tags={"data.digest": digest})

    @contextmanager
    def stage(
        self, label: str, params: Mapping[str, Any], tags: Mapping[str, str], inputs: Mapping[str, tuple[Path, str]]
    ) -> Iterator[StageRun]:
        """The child run of a stage that is being executed; FAILED when the body raises, KILLED after an interrupt.

        inputs: name -> (folder, digest); data are logged as dataset inputs, models as tags.
        """
        named = {f"input.{name}": f"{digest} {path}" for name, (path, digest) in inputs.items()}
        tags = {**self._common, **tags, **named, PROCESS_TAG: _process()}
        run_id = self._writer.create(label, tags, self._run_id or None)
        self._writer.log(run_id, params=_params(params))
        data = [
            (name, digest, str(path), name) for name, (path, digest) in inputs.items() if not (path / "model").exists()
        ]
        if data:
            self._writer.inputs(run_id, data)
        stage = StageRun(self._writer, run_id)
        status = "KILLED"
        try:
            yield stage
            status = "FINISHED"
        except Exception:
            status = "KILLED" if self.interrupted else "FAILED"
            raise
        finally:
            stage.flush()
            self._writer.end(run_id, status)

    def link(self, label: str, run_id: str) -> None:
        """Say on the parent which run made a stage's artifact: this pipeline run's own or an earlier one's."""
        with self._lock:
            self._links[label] = run_id
        self._writer.log(self._run_id, tags={f"stage.{label}": run_id})

    @property
    def links(self) -> dict[str, str]:
        """Stage label such as "ntp/0" -> id of the run that made it, with what other processes have linked.

        While the server is away: this process's own, under the ids that the runs have here."""
        with self._lock:
            links = dict(self._links)
        own = {label: self._writer.known(run_id) for label, run_id in links.items()}
        tags = self._writer.tags(self._run_id)
        linked = {name.removeprefix("stage."): run for name, run in tags.items() if name.startswith("stage.")}
        return dict(sorted({**linked, **own}.items()))

    def page(self) -> str | None:
        """Where MLflow's pages show the parent run: at the tracking server, else where `ra3 serve` and `ra3 ui` do.

        None as long as the server has not answered.
        """
        experiment = self._writer.experiment
        if experiment is None or self.run_id.startswith("local-"):
            return None
        server = shown(self.uri) if _is_server(self.uri) else os.environ.get("RA3_MLFLOW_UI", "http://127.0.0.1:5000")
        return f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{self.run_id}?workflowType=machine_learning"

    def finish(self, metrics: Mapping[str, float], folder: Path | None = None) -> None:
        """End the parent run with its headline results and the files of the report, if there is one."""
        time = now()
        self._writer.log(self._run_id, [Metric(name, value, time, 0) for name, value in metrics.items()])
        for path in sorted(folder.iterdir()) if folder else ():
            if path.suffix in (".html", ".md", ".png") or path.name == "numbers.json":
                self._writer.file(self._run_id, path, "report")
        self._writer.end(self._run_id, "FINISHED")
        self.close()

    def fail(self, error: str, status: str = "FAILED") -> None:
        """End the parent run without results."""
        self._writer.log(self._run_id, tags={"error": error})
        self._writer.end(self._run_id, status)
        self.close()

    def close(self) -> None:
        """Send what waits for a server that was away, or say that it waits. `finish` and `fail` do it."""
        self._writer.close()


class StageRun:
    """Step-wise metrics of one child run, sent in batches."""

    def __init__(self, writer: Writer, run_id: str) -> None:
        self._run_id = run_id
        self._writer = writer
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    @property
    def run_id(self) -> str:
        """A local id as long as the server has not answered since the stage began."""
        return self._writer.known(self._run_id)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one step; they reach the store within a few seconds of the next call."""
        at = now()
        self._waiting += [Metric(name, value, at, step) for name, value in values.items() if math.isfinite(value)]
        if time.monotonic() - self._sent > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        self._writer.log(self._run_id, waiting)
        self._sent = time.monotonic()

    def done(self, metrics: Metrics, path: Path, digest: str, model: bool) -> None:
        """Final figures, and where the artifact lies."""
        at = now()
        finals = [Metric(f"final/{name}", value, at, 0) for name, value in flatten_metrics(metrics).items()]
        tags = {"artifact.path": str(path), "artifact.digest": digest}
        if model:
            tags |= {"model.path": str(path / "model"), "model.digest": digest}
        waiting, self._waiting = self._waiting, []
        self._writer.log(self._run_id, [*waiting, *finals], tags=tags)


def sync(root: Path) -> list[str]:
    """Send everything that waits in mlflow/outbox, for whatever server; a sentence an outbox.

    Raises UserError, after the others are sent, when something is left or was refused.
    """
    lines, problems, servers = [], [], set()
    for sent in send_all(root / "mlflow" / "outbox"):
        said = _say_sent(sent)
        if sent.left or sent.refused:
            problems.append(said.pop())
        lines += said
        if sent.away is None and not sent.busy:
            servers.add(sent.uri)
    for uri in sorted(servers):
        ask(MlflowClient(tracking_uri=uri), _end_killed_runs)
    if problems:
        raise UserError("; ".join([*lines, *problems]))
    return lines or ["nothing waits to be sent"]


def _say_sent(sent: Sent) -> list[str]:
    """What became of an outbox; the last sentence is about what was not sent."""
    if sent.busy:
        return [f"{sent.folder} belongs to a command that is running, which sends it itself"]
    lines = [f"{sent.sent} sent to MLflow at {shown(sent.uri)}"] if sent.sent else []
    if sent.refused:
        kept = sent.folder.parent / "refused.jsonl"
        lines.append(f"MLflow at {shown(sent.uri)} refused {sent.refused} entries, kept in {kept}")
    if sent.left:
        lines.append(left(sent.uri, sent.away or "", sent.left, sent.folder))
    return lines


def write_link(artifact: Path, uri: str, run_id: str) -> None:
    """Keep, beside an artifact, the run that made it. The id may be a local one, by which its run can be found."""
    link = _link_file(artifact)
    temporary = link.with_suffix(".tmp")
    temporary.write_text(json.dumps({"tracking_uri": uri, "run_id": run_id}))
    temporary.replace(link)


def read_link(artifact: Path, uri: str) -> str | None:
    """The run that made an artifact, if it is in the store at `uri`."""
    try:
        link = json.loads(_link_file(artifact).read_text())
    except FileNotFoundError:
        return None
    return link["run_id"] if link["tracking_uri"] == uri else None


def links(artifacts: Mapping[str, Artifact], uri: str) -> dict[str, str]:
    """The runs that made artifacts, by the artifacts' names; without those that no run in the store at `uri` made."""
    found = {name: read_link(artifact.path, uri) for name, artifact in sorted(artifacts.items())}
    return {name: run for name, run in found.items() if run is not None}


def flatten_params(sections: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key` -> value."""
    flat: dict[str, Any] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            flat |= flatten_params(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def flatten_metrics(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of nested metrics as `name/inner`, in characters that MLflow takes ("@" becomes "_at_")."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= flatten_metrics(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            flat[f"{prefix}{name}".replace("@", "_at_")] = float(value)
    return flat


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    """As MLflow takes them. A long value keeps its beginning, and a digest by which two of them differ."""
    texts = {name: str(value) for name, value in values.items()}
    for name, text in texts.items():
        if len(text) > LONGEST_PARAM:
            end = f"... sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}"
            texts[name] = text[: LONGEST_PARAM - len(end)] + end
    return texts


def _end_killed_runs(client: MlflowClient) -> None:
    """Runs that a killed command of this machine left as RUNNING are marked KILLED."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'") if experiment else []
    for run in running:
        host, _, process = run.data.tags.get(PROCESS_TAG, "").partition(":")
        pid, _, started = process.partition(":")
        if host == _machine() and pid.isdigit() and started.isdigit() and not _alive(int(pid), int(started)):
            client.set_terminated(run.info.run_id, "KILLED")


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _user() -> str:
    """Who started the run, as the operating system says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _machine() -> str:
    """A name that no other machine has: hosts of a team may share one."""
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        if Path(path).is_file() and (text := Path(path).read_text().strip()):
            return f"{socket.gethostname()}/{text[:8]}"
    return socket.gethostname()


def _process() -> str:
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def _started(process: int) -> int:
    """When a process began, in seconds since 1970: process ids are used again."""
    return round(psutil.Process(process).create_time())


def _alive(process: int, started: int) -> bool:
    try:
        return abs(_started(process) - started) <= 1  # the clock may have been set since
    except psutil.NoSuchProcess:
        return False


def _link_file(artifact: Path) -> Path:
    return artifact.with_name(f".{artifact.name}.mlflow.json")
