"""MLflow: a parent run a pipeline run, a child run an executed stage.

Weights and data stay where they are: models are logged by path and digest, data as MLflow dataset inputs with the
digest that DVC gives them. A stage that is reused starts no run; the parent gets a tag that names the run that made
it, which is kept beside the artifact (`.<key>.mlflow.json`, no part of it: the same artifact may be tracked elsewhere).
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  a second, while the server starts
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from ra3core.errors import UserError
from ra3core.stage import Metrics

EXPERIMENT = "ra3"
FLUSH_SECONDS = 3.0  # between batches; one batch costs about as much as one metric
BATCH_METRICS, BATCH_PARAMS = 1_000, 100  # what the tracking API takes at once
LONGEST_PARAM = 250  # characters; longer values are in config.yaml, which is logged whole
PROCESS_TAG = "ra3.process"  # HOST:PID of the command, by which a killed one is found


class Tracking:
    """One pipeline run in MLflow, safe to use from several threads.

    root: the checkout; runs go to mlflow/mlflow.db below it unless MLFLOW_TRACKING_URI names another store.
    """

    def __init__(self, root: Path) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
        location = None if os.environ.get("MLFLOW_TRACKING_URI") else (root / "mlflow" / "artifacts").as_uri()
        (root / "mlflow").mkdir(exist_ok=True)
        self.uri = uri
        try:
            self.client = MlflowClient(tracking_uri=uri)
            self._experiment = _experiment(self.client, location)
        except MlflowException as error:
            raise UserError(f"MLflow at {uri} does not answer: {str(error).splitlines()[0]}") from error
        self.run_id = ""
        self.interrupted = False  # stages that fail from now on were killed
        self._links: dict[str, str] = {}
        self._lock = threading.Lock()

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], config: str) -> None:
        """Begin the parent run. `config`: the resolved configuration, logged as config.yaml."""
        self._end_killed_runs()
        run = self._create(name, {**tags, PROCESS_TAG: _process()}, params)
        self.run_id = run.info.run_id
        self.client.log_text(self.run_id, config, "config.yaml")

    def dataset(self, name: str, digest: str, source: Path, context: str) -> None:
        """Name the data that the pipeline run is about, by reference."""
        self._log_inputs(self.run_id, [_dataset(name, digest, source, context)])

    @contextmanager
    def stage(
        self, label: str, params: Mapping[str, Any], tags: Mapping[str, str], inputs: Mapping[str, tuple[Path, str]]
    ) -> Iterator[StageRun]:
        """The child run of a stage that is being executed; FAILED when the body raises, KILLED after an interrupt.

        inputs: name -> (folder, digest); data are logged as dataset inputs, models as tags.
        """
        tags = {
            **tags,
            "mlflow.parentRunId": self.run_id,
            **{f"input.{name}": f"{digest} {path}" for name, (path, digest) in inputs.items()},
        }
        run = self._create(label, {**tags, PROCESS_TAG: _process()}, params)
        data = [
            _dataset(name, digest[:36], path, name)  # 36: the longest digest that MLflow keeps
            for name, (path, digest) in inputs.items()
            if not (path / "model").exists()
        ]
        if data:
            self._log_inputs(run.info.run_id, data)
        stage = StageRun(self.client, run.info.run_id)
        status = "KILLED"
        try:
            yield stage
            status = "FINISHED"
        except Exception:
            status = "KILLED" if self.interrupted else "FAILED"
            raise
        finally:
            stage.flush()
            self.client.set_terminated(run.info.run_id, status)

    def link(self, label: str, run_id: str) -> None:
        """Say on the parent which run made a stage's artifact: this pipeline run's own or an earlier one's."""
        with self._lock:
            self._links[label] = run_id
        self.client.set_tag(self.run_id, f"stage.{label}", run_id)

    @property
    def links(self) -> dict[str, str]:
        """Stage label such as "ntp/0" -> id of the run that made it."""
        with self._lock:
            return dict(sorted(self._links.items()))

    def finish(self, metrics: Mapping[str, float], folder: Path) -> None:
        """End the parent run with its headline results and the files of the report."""
        now = _now()
        _log_metrics(self.client, self.run_id, [Metric(name, value, now, 0) for name, value in metrics.items()])
        for path in sorted(folder.iterdir()):
            if path.suffix in (".html", ".md", ".png"):
                self.client.log_artifact(self.run_id, str(path), "report")
        self.client.set_terminated(self.run_id)

    def fail(self, error: str, status: str = "FAILED") -> None:
        """End the parent run without results."""
        self.client.set_tag(self.run_id, "error", error)
        self.client.set_terminated(self.run_id, status)

    def _create(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> Run:
        run = self.client.create_run(self._experiment, run_name=name, tags=dict(tags))
        values = [Param(key, str(value)) for key, value in params.items() if len(str(value)) <= LONGEST_PARAM]
        for start in range(0, len(values), BATCH_PARAMS):
            self.client.log_batch(run.info.run_id, params=values[start : start + BATCH_PARAMS])
        return run

    def _log_inputs(self, run_id: str, inputs: Sequence[DatasetInput]) -> None:
        """MLflow fails when two writers are the first to name a dataset; at a second attempt it is there."""
        with self._lock:
            try:
                self.client.log_inputs(run_id, inputs)
            except MlflowException:
                self.client.log_inputs(run_id, inputs)

    def _end_killed_runs(self) -> None:
        """Runs that a killed command of this machine left as RUNNING are marked KILLED."""
        running = self.client.search_runs([self._experiment], "attributes.status = 'RUNNING'")
        for run in running:
            host, _, process = run.data.tags.get(PROCESS_TAG, "").rpartition(":")
            if host == socket.gethostname() and process.isdigit() and not _alive(int(process)):
                self.client.set_terminated(run.info.run_id, "KILLED")


class StageRun:
    """Step-wise metrics of one child run, sent in batches."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._waiting: list[Metric] = []
        self._sent = time.monotonic()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one step; they reach the store within a few seconds of the next call."""
        now = _now()
        self._waiting += [Metric(name, value, now, step) for name, value in values.items() if math.isfinite(value)]
        if time.monotonic() - self._sent > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        _log_metrics(self._client, self.run_id, waiting)
        self._sent = time.monotonic()

    def done(self, metrics: Metrics, path: Path, digest: str, model: bool) -> None:
        """Final figures, and where the artifact lies."""
        now = _now()
        finals = [Metric(f"final/{name}", value, now, 0) for name, value in flatten_metrics(metrics).items()]
        _log_metrics(self._client, self.run_id, finals)
        tags = {"artifact.path": str(path), "artifact.digest": digest}
        if model:
            tags |= {"model.path": str(path / "model"), "model.digest": digest}
        self._client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def write_link(artifact: Path, uri: str, run_id: str) -> None:
    """Keep, beside an artifact, the run that made it."""
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


def _experiment(client: MlflowClient, location: str | None) -> str:
    """The id of the experiment, which is made on first use."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(EXPERIMENT, artifact_location=location)
    except MlflowException:  # another run made it since
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise
        return found.experiment_id


def _log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    for start in range(0, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])


def _dataset(name: str, digest: str, source: Path, context: str) -> DatasetInput:
    dataset = Dataset(name, digest, "local", json.dumps({"uri": str(source)}))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _now() -> int:
    return int(time.time() * 1000)


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _link_file(artifact: Path) -> Path:
    return artifact.with_name(f".{artifact.name}.mlflow.json")
