"""Writing to an MLflow server that may be away.

Every write to a server goes to a journal on disk first (tasks/journal.py), and from there to the server, in order.
While the server answers, each write is sent before the call returns. When it does not (no connection, no answer in
time, 5xx), the run goes on: what it logs waits in the journal with its own times, a thread asks again now and then, and
`ra3 sync`, or the next run, sends what is left. What the server refuses (4xx) is a bug or a missing right, and raised.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from tasks.journal import Counts, Journal, Operation, count, journals
from tasks.writer import LOCAL, Away, Sender, T, Writer, ask, reason, shown

FIRST_PROBE, LAST_PROBE = 5.0, 60.0  # seconds between two questions whether the server is back


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
            return self.ask(lambda _: self._sender.find(run)) or run

    @property
    def experiment(self) -> str | None:
        return self._sender.known_experiment

    def tags(self, run: str) -> dict[str, str]:
        run = self.known(run)
        if self.away is not None:
            return {}
        return self.ask(lambda client: client.get_run(run).data.tags) or {}

    def ask(self, question: Callable[[MlflowClient], T]) -> T | None:
        """The answer to a question, None when there is none in time."""
        return ask(self._client, question)

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
                    refusal = self._sender.attempt(operation, self._journal, again, late=self.away is not None)
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
                    refusal = sender.attempt(operation, journal, again=True, late=True)
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
