"""Writing to MLflow: the calls that tracking makes, as operations that can be performed at once or later.

An operation is plain data: what is done ("create", "log", "inputs", "text", "file", "end"), to which run, and the rest
of the call. A database takes it at once (`Direct`); for a server it goes through a journal (tasks/outbox.py).

Runs that the server has not seen have an id of our own, `local-...`, which every run carries as the tag `ra3.run`; by
that tag a run is found that was made in a call whose answer was lost, so that none is made twice.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from tasks.journal import Journal, Operation

EXPERIMENT = "ra3"
RUN_TAG = "ra3.run"  # the id that a run had before the server gave it one
LOCAL = re.compile(r"local-[0-9a-f]{32}")
BATCH_METRICS, BATCH_OTHERS = 800, 100  # what the tracking API takes at once: 1,000 things, of which 100 parameters
TEMPORARY = (408, 429)  # 4xx that mean "later"
CLOSED = (401, 403, 407)  # 4xx that mean "not you"

T = TypeVar("T")


class Away(Exception):
    """The server does not answer; says why, in a few words."""


class NoSuchRun(Exception):
    """The server has no run of a local id."""


class Writer(ABC):
    """The few calls that tracking makes. Times are given, in milliseconds, so that they are right when sent later."""

    def create(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Begin a run; its id, which may be a local one."""
        local = f"local-{uuid.uuid4().hex}"
        entry = {"do": "create", "run": local, "name": name, "tags": dict(tags), "parent": parent, "time": now()}
        return self._do(entry)

    def log(
        self,
        run: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics, parameters and tags, in as few calls as the API allows."""
        points = iter([[m.key, m.value, m.timestamp, m.step] for m in metrics])
        values, marks = iter((params or {}).items()), iter((tags or {}).items())
        while True:
            batch = {
                "metrics": list(islice(points, BATCH_METRICS)),
                "params": dict(islice(values, BATCH_OTHERS)),
                "tags": dict(islice(marks, BATCH_OTHERS)),
            }
            if not any(batch.values()):
                return
            self._do({"do": "log", "run": run, **batch})

    def inputs(self, run: str, data: Sequence[tuple[str, str, str, str]]) -> None:
        """Data that a run is about: (name, digest, where it lies, role)."""
        self._do({"do": "inputs", "run": run, "data": [list(entry) for entry in data]})

    def text(self, run: str, text: str, name: str) -> None:
        """A text as an artifact."""
        self._do({"do": "text", "run": run, "text": text, "name": name})

    def file(self, run: str, path: Path, folder: str) -> None:
        """A file as an artifact."""
        self._do({"do": "file", "run": run, "path": str(path), "folder": folder})

    def end(self, run: str, status: str) -> None:
        """The end of a run, now."""
        self._do({"do": "end", "run": run, "status": status, "time": now()})

    def known(self, run: str) -> str:
        """The server's id of a run, if there is one by now."""
        return run

    def close(self) -> None:  # noqa: B027  a database has nothing to close
        """Send what waits, or say what does."""

    @property
    @abstractmethod
    def experiment(self) -> str | None:
        """The experiment's id, None as long as the server has never answered."""

    @abstractmethod
    def tags(self, run: str) -> dict[str, str]:
        """The tags of a run in the store; none while the server is away."""

    @abstractmethod
    def _do(self, operation: Operation) -> str:
        """Perform an operation now or later; the id of its run."""


class Direct(Writer):
    """A store that is there, or an error: a database."""

    def __init__(self, client: MlflowClient, location: str | None) -> None:
        self._client = client
        self._sender = Sender(client, location)
        self._sender.experiment()
        self._lock = threading.Lock()

    @property
    def experiment(self) -> str | None:
        return self._sender.experiment()

    def tags(self, run: str) -> dict[str, str]:
        return self._client.get_run(run).data.tags

    def _do(self, operation: Operation) -> str:
        if operation["do"] == "inputs":  # two writers that name a dataset at the same time get in each other's way
            with self._lock:
                return self._sender.perform(operation)
        return self._sender.perform(operation)


class Sender:
    """Performs operations at a store, and knows which id it gave to which run. `location`: of a new experiment."""

    def __init__(self, client: MlflowClient, location: str | None = None) -> None:
        self._client, self._location = client, location
        self.known_experiment: str | None = None
        self.ids: dict[str, str] = {}

    def attempt(self, operation: Operation, journal: Journal, again: bool, late: bool) -> Exception | None:
        """Perform an operation of a journal; what the server refuses goes to refused.jsonl and is returned.

        again: it may have been performed before. late: nobody waits for it any more. Raises Away when it can be
        performed later; what is late and meets a closed door (401, 403) or another server (no MLflow's 404) can.
        """
        try:
            if operation["do"] == "create":
                operation = {**operation, "tags": {**operation["tags"], RUN_TAG: operation["run"]}}
            self.perform(operation, again)
            return None
        except NoSuchRun as error:
            if not journal.began(operation["run"]):
                raise Away(f"it has no run {error} yet, which is in another outbox") from error
            refusal = error  # because its beginning was refused, or it was deleted since
        except MlflowException as error:
            status = error.get_http_status_code()
            if status >= 500 or status in TEMPORARY or (late and (status in CLOSED or type(error) is MlflowException)):
                raise Away(reason(error)) from error
            refusal = error
        except (requests.ConnectionError, requests.Timeout) as error:  # artifacts come without MLflow's own exceptions
            raise Away(reason(error)) from error
        except requests.HTTPError as error:
            status = 500 if error.response is None else error.response.status_code
            if status >= 500 or status in TEMPORARY or (late and status in CLOSED):
                raise Away(reason(error)) from error
            refusal = error
        except Exception as error:  # a bug; kept and shown like a refusal, or it would hold up all that follows
            refusal = error
        journal.refuse(operation, refusal)
        return refusal

    def perform(self, operation: Operation, again: bool = False) -> str:
        """Perform an operation; the store's id of its run. Raises what MLflow does, and NoSuchRun."""
        client, run = self._client, operation["run"]
        if operation["do"] == "create":
            found = self.find(run) if again else None
            self.ids[run] = found or self._create(operation)
            return self.ids[run]
        run = self._id(run)
        match operation["do"]:
            case "log":
                metrics = [Metric(*point) for point in operation["metrics"]]
                params = [Param(name, value) for name, value in operation["params"].items()]
                # A tag may name another run. One that no server knows is left as it is: a run can be found by it.
                tags = [RunTag(name, self.find(value) or value) for name, value in operation["tags"].items()]
                client.log_batch(run, metrics, params, tags)
            case "inputs":
                data = [_dataset(*entry) for entry in operation["data"]]
                try:
                    client.log_inputs(run, data)
                except MlflowException:  # of two writers that are the first to name a dataset, one fails, once
                    client.log_inputs(run, data)
            case "text":
                client.log_text(run, operation["text"], operation["name"])
            case "file":
                client.log_artifact(run, operation["path"], operation["folder"])
            case "end":
                client.set_terminated(run, operation["status"], operation["time"])
            case other:
                raise ValueError(f"an operation {other!r} is not known to this version")
        return run

    def _create(self, operation: Operation) -> str:
        tags = dict(operation["tags"])
        if operation["parent"]:
            tags["mlflow.parentRunId"] = self._id(operation["parent"])
        return self._client.create_run(self.experiment(), operation["time"], tags, operation["name"]).info.run_id

    def _id(self, run: str) -> str:
        found = self.find(run)
        if found is None:
            raise NoSuchRun(run)
        return found

    def find(self, run: str) -> str | None:
        """The store's id of a run, None when it has no such run. Ids that are not local are taken as they are."""
        if run in self.ids or not LOCAL.fullmatch(run):
            return self.ids.get(run, run)
        found = self._client.search_runs([self.experiment()], f"tags.`{RUN_TAG}` = '{run}'", max_results=1)
        if not found:
            return None
        self.ids[run] = found[0].info.run_id
        return self.ids[run]

    def experiment(self) -> str:
        """The id of the experiment, which is made on first use."""
        if self.known_experiment is None:
            found = self._client.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                self.known_experiment = found.experiment_id
            else:
                try:
                    self.known_experiment = self._client.create_experiment(EXPERIMENT, artifact_location=self._location)
                except MlflowException:  # another run made it since
                    found = self._client.get_experiment_by_name(EXPERIMENT)
                    if found is None:
                        raise
                    self.known_experiment = found.experiment_id
        return self.known_experiment


def ask(client: MlflowClient, question: Callable[[MlflowClient], T]) -> T | None:
    """The answer of a server to a question, None when there is none in time."""
    try:
        return question(client)
    except MlflowException as error:
        if error.get_http_status_code() < 500:
            raise
        return None


def default_uri(root: Path) -> str:
    """The checkout's own database."""
    return f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"


def chosen_uri(root: Path) -> str:
    """Where runs are tracked: MLFLOW_TRACKING_URI, else the checkout's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(root)


def shown(uri: str) -> str:
    """A server's address without the password that may be in it."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def now() -> int:
    """Milliseconds, as MLflow counts."""
    return int(time.time() * 1000)


def reason(error: BaseException) -> str:
    """The first line of an error in a few words; the innermost one says what happened to a connection."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    for words, meaning in (
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("Connection refused", "connection refused"),
        ("Connection reset", "connection reset"),
        ("Connection aborted", "connection closed"),
        ("resolve", "unknown host"),
    ):
        if words in text:
            return meaning
    return text if len(text) <= 200 else f"{text[:200]}..."


def _dataset(name: str, digest: str, source: str, context: str) -> DatasetInput:
    # 36: the longest digest that MLflow keeps
    dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source}))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
