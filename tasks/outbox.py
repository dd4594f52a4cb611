"""Writing to MLflow: at once to a database, and to a server in a way that survives its absence.

Every write to a server goes to a journal on disk first, and from there to the server, in order. While the server
answers, each write is sent before the call returns. When it does not (no connection, no answer in time, 5xx), the
run goes on: what it logs waits in the journal with its own times, a thread asks again now and then, and `ra3 sync`,
or the next run, sends what is left. What the server refuses (4xx) is a bug or a missing right, and is raised.

A journal is a folder of mlflow/outbox/ that belongs to one process (tasks/journal.py). Runs that the server has not
seen have an id of our own, `local-...`, which every run carries as the tag `ra3.run`; by that tag a run is found that
was made in a call whose answer was lost, so that none is made twice.
"""

from __future__ import annotations

import atexit
import json
import re
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from tasks.journal import Counts, Journal, Operation, count, journals

EXPERIMENT = "ra3"
RUN_TAG = "ra3.run"  # the id that a run had before the server gave it one
LOCAL = re.compile(r"local-[0-9a-f]{32}")
BATCH_METRICS, BATCH_OTHERS = 800, 100  # what the tracking API takes at once: 1,000 things, of which 100 parameters
FIRST_PROBE, LAST_PROBE = 5.0, 60.0  # seconds between two questions whether the server is back
TEMPORARY = (408, 429)  # 4xx that mean "later"


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

    def attempt(self, operation: Operation, journal: Journal, again: bool) -> Exception | None:
        """Perform an operation of a journal; what the server refuses goes to refused.jsonl and is returned.

        again: it may have been performed before. Raises Away when it can be performed later.
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
            if (status := error.get_http_status_code()) >= 500 or status in TEMPORARY:
                raise Away(reason(error)) from error
            refusal = error
        except (requests.ConnectionError, requests.Timeout) as error:  # artifacts come without MLflow's own exceptions
            raise Away(reason(error)) from error
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code >= 500:
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


def say(text: str) -> None:
    """One line to the user; the display's bars make room for it."""
    print(text, file=sys.stderr, flush=True)


class Outbox(Writer):
    """A server that may be away. Safe to use from several threads; see the module's text.

    folder: mlflow/outbox of the checkout.
    """

    def __init__(self, folder: Path, uri: str, client: MlflowClient, say: Callable[[str], None] = say) -> None:
        self.say = say
        self._folder, self._uri, self._client = folder, uri, client
        self._sender = Sender(client)
        self._journal: Journal | None = None
        self._writing = threading.Lock()  # held for a line; `_sending` is held for calls, and is taken first
        self._sending = threading.Lock()
        self._refused: dict[int, Exception] = {}
        self._tried = -1  # the operation that was begun and not finished
        self._stop = threading.Event()  # ends the thread that asks again
        self.away: str | None = None  # why it does not answer
        atexit.register(self.close)  # for what is never closed, and what an interrupted run logs at its very end

    def _do(self, operation: Operation) -> str:
        with self._writing:
            if self._journal is None:
                self._journal = Journal.new(self._folder, self._uri)
            mark = self._journal.append(operation)
            away = self.away
        if away is None:
            self._send()
        error = self._refused.pop(mark, None)
        if error is not None:
            raise error
        run: str = operation["run"]
        return self._sender.ids.get(run, run)

    def known(self, run: str) -> str:
        if self.away is not None or not LOCAL.fullmatch(run):
            return self._sender.ids.get(run, run)
        with self._sending:
            return self._asked(self._sender.find, run) or run

    @property
    def experiment(self) -> str | None:
        return self._sender.known_experiment

    def tags(self, run: str) -> dict[str, str]:
        run = self.known(run)
        if self.away is not None:
            return {}
        return self._asked(lambda run: self._client.get_run(run).data.tags, run) or {}

    def _asked(self, question: Callable[[str], T | None], run: str) -> T | None:
        """The answer to a question about a run, None when there is none in time."""
        try:
            return question(run)
        except MlflowException as error:
            if error.get_http_status_code() < 500:
                raise
            return None

    def close(self) -> None:
        """Try once more, say what waits, and leave it to whoever sends it next. What is written later goes to a new
        journal; what is sent leaves none."""
        self._send()
        with self._sending, self._writing:
            self._stop.set()
            if self._refused:
                first = reason(next(iter(self._refused.values())))
                where = self._folder / "refused.jsonl"
                self.say(f"MLflow at {shown(self._uri)} refused {len(self._refused)} entries, kept in {where}: {first}")
                self._refused.clear()
            if self._journal is None:
                return
            waiting = self._journal.waiting()
            if waiting:
                self.say(left(self._uri, self.away or "", waiting, self._journal.folder))
                self._journal.release()
            else:
                self._journal.remove()
            self._journal, self.away = None, None

    def _send(self) -> None:
        """Send all that waits, as far as the server takes it. Once it does not, a thread goes on asking."""
        with self._sending:
            started = time.monotonic()
            away = self._pass()
            if away and self.away is None and time.monotonic() - started < 1:
                away = self._pass()  # a connection that was kept open too long fails once, and at once
            if away and self.away is None:
                self._stop = threading.Event()
                threading.Thread(target=self._probe, args=(self._stop,), daemon=True, name="mlflow-outbox").start()
                place = self._journal.folder if self._journal else self._folder
                self.say(f"MLflow at {shown(self._uri)} does not answer ({away}); what is logged waits in {place}")
                self.away = away

    def _pass(self) -> str | None:
        """One attempt at all that waits; why it ended early. The caller holds `_sending`."""
        while True:
            with self._writing:  # what is appended from here on is sent by who appends it
                batch = [] if self._journal is None else list(self._journal.unsent())
                if not batch:
                    if self.away is not None:
                        self.say(f"MLflow at {shown(self._uri)} answers again; what waited is sent")
                    self.away = None
                    self._stop.set()
                    return None
            assert self._journal is not None
            for mark, operation in batch:
                again, self._tried = mark == self._tried, mark
                try:
                    refusal = self._sender.attempt(operation, self._journal, again)
                except Away as error:
                    return str(error)
                if refusal is not None:
                    self._refused[mark] = refusal
                self._journal.done(mark)

    def _probe(self, stop: threading.Event) -> None:
        pause = FIRST_PROBE
        while not stop.wait(pause):
            self._send()
            pause = min(2 * pause, LAST_PROBE)


@dataclass(frozen=True)
class Sent:
    """What became of one outbox. away: why something is left; busy: a running command sends it itself."""

    uri: str
    folder: Path
    sent: Counts
    left: Counts
    refused: int = 0
    away: str | None = None
    busy: bool = False


def send_all(folder: Path, uri: str | None = None) -> Iterator[Sent]:
    """Send every outbox of `folder`, oldest first; only those for `uri` if given. No error is raised for a server
    that does not answer, and it is asked once only."""
    away: dict[str, str] = {}
    for place in journals(folder):
        journal = Journal.claim(place)
        if journal is None:
            yield Sent("", place, Counts(), Counts(), busy=True)
            continue
        try:
            if uri is not None and journal.uri != uri:
                continue
            sender = Sender(MlflowClient(tracking_uri=journal.uri))
            done: list[Operation] = []
            refused = 0
            for mark, operation in list(journal.unsent()) if journal.uri not in away else ():
                try:
                    refusal = sender.attempt(operation, journal, again=True)
                except Away as error:
                    away[journal.uri] = str(error)
                    break
                journal.done(mark)
                if refusal is None:
                    done.append(operation)
                else:
                    refused += 1
            waiting = journal.waiting()
            yield Sent(journal.uri, place, count(done), waiting, refused, away.get(journal.uri) if waiting else None)
            if not waiting:
                journal.remove()
        finally:
            journal.release()


def left(uri: str, reason: str, waiting: Counts, folder: Path) -> str:
    """One sentence about what was not sent."""
    return f"MLflow at {shown(uri)} does not answer ({reason}): {waiting} wait in {folder}; `ra3 sync` sends them"


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
    dataset = Dataset(name, digest, "local", json.dumps({"uri": source}))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
