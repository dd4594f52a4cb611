"""The journal of one process: what it has to tell a server, on disk before it is sent (tasks/outbox.py).

A folder of mlflow/outbox/: `journal.jsonl` (a line that names the server, then an operation a line), `sent` (how many
bytes of it are done) and `files/` (copies of artifacts). Its owner holds a lock on the journal as long as it lives; the
system ends the lock with the process, however that ends. What was appended survives SIGKILL: a line is one write.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Operation = dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """How much some operations are: runs they are about, metric values, files; `entries` counts the operations."""

    runs: int = 0
    metrics: int = 0
    files: int = 0
    entries: int = 0

    def __str__(self) -> str:
        """Such as "2 runs, 1 metric and 0 files"."""

        def some(number: int, word: str) -> str:
            return f"{number} {word}" if number == 1 else f"{number} {word}s"

        return f"{some(self.runs, 'run')}, {some(self.metrics, 'metric')} and {some(self.files, 'file')}"

    def __bool__(self) -> bool:
        return self.entries > 0


def count(operations: Iterable[Operation]) -> Counts:
    """What some operations are."""
    operations = list(operations)
    return Counts(
        len({operation["run"] for operation in operations}),
        sum(len(operation.get("metrics", ())) for operation in operations),
        sum(operation["do"] in ("file", "text") for operation in operations),
        len(operations),
    )


class Journal:
    """See the module's text; made by `new` and `claim`. Positions in it are called marks: bytes from its start."""

    def __init__(self, folder: Path, file: int) -> None:
        self.folder = folder
        self._file = file
        self.uri: str = ""
        self._begin = 0  # where the operations begin
        self._done = 0
        self._end = os.fstat(file).st_size

    @classmethod
    def new(cls, outbox: Path, uri: str) -> Journal:
        """A journal of this process for a server, under a name that sorts by time."""
        outbox.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        hidden = outbox / f".{name}"  # nobody else sees it before it is locked
        hidden.mkdir(mode=0o700)  # the server's address may hold a password
        file = os.open(hidden / "journal.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        hidden.rename(outbox / name)
        journal = cls(outbox / name, file)
        journal.uri = uri
        journal._begin = journal._done = journal._append({"uri": uri})
        return journal

    @classmethod
    def claim(cls, folder: Path) -> Journal | None:
        """The journal of a process that is gone, as this process's own; None while another has it, or it is gone."""
        try:
            file = os.open(folder / "journal.jsonl", os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        if os.fstat(file).st_nlink == 0:  # sent and removed since
            os.close(file)
            return None
        journal = cls(folder, file)
        journal._open()
        return journal

    def _open(self) -> None:
        head = next(self._lines(0), None)
        if head is None:  # killed before the first line was written
            self._begin = self._done = self._end
            return
        self._begin, content = head
        self.uri = content["uri"]
        try:
            self._done = max(self._begin, int((self.folder / "sent").read_text()))
        except FileNotFoundError:
            self._done = self._begin

    def append(self, operation: Operation) -> int:
        """Keep an operation, and a copy of the file it names; the mark at its end."""
        if operation["do"] == "file":
            source = Path(operation["path"])
            copy = self.folder / "files" / str(self._end) / source.name
            copy.parent.mkdir(parents=True)
            shutil.copyfile(source, copy)
            operation = {**operation, "path": str(copy.relative_to(self.folder))}
        return self._append(operation)

    def _append(self, content: dict[str, Any]) -> int:
        line = (json.dumps(content) + "\n").encode()
        written = os.write(self._file, line)
        if written != len(line):
            os.truncate(self._file, self._end)
            raise OSError(f"{self.folder} takes no more: {written} of {len(line)} bytes written")
        self._end += written
        return self._end

    def unsent(self) -> Iterator[tuple[int, Operation]]:
        """(mark at its end, operation) of what is not done, in order; a line that was cut short was never promised."""
        for mark, operation in self._lines(self._done):
            if operation["do"] == "file":
                operation["path"] = str(self.folder / operation["path"])
            yield mark, operation

    def _lines(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        content = os.pread(self._file, self._end - start, start)
        mark = start
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            mark += len(line)
            yield mark, json.loads(line)

    def began(self, run: str) -> bool:
        """Whether the beginning of a run is among what is done."""
        return any(
            mark <= self._done and operation["do"] == "create" and operation["run"] == run
            for mark, operation in self._lines(self._begin)
        )

    def done(self, mark: int) -> None:
        """Everything up to a mark is sent."""
        file = os.open(self.folder / "sent", os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(file, b"%020d\n" % mark, 0)  # one write of the same length: never half of it
        os.close(file)
        self._done = mark

    def refuse(self, operation: Operation, error: Exception) -> None:
        """Keep what the server will not have, in refused.jsonl of the outbox, and its file beside that."""
        if operation["do"] == "file":
            source = Path(operation["path"])
            copy = self.folder.parent / "refused" / self.folder.name / source.parent.name / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            operation = {**operation, "path": str(copy)}
        line = json.dumps({"uri": self.uri, "error": str(error), "operation": operation}) + "\n"
        file = os.open(self.folder.parent / "refused.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, line.encode())
        os.close(file)

    def waiting(self) -> Counts:
        """How much is not sent."""
        return count(operation for _, operation in self.unsent())

    def remove(self) -> None:
        """Delete the journal; it is of no use afterwards."""
        shutil.rmtree(self.folder)
        self.release()

    def release(self) -> None:
        """Give up the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def journals(outbox: Path) -> list[Path]:
    """The folders of all journals, oldest first."""
    if not outbox.is_dir():
        return []
    return sorted(
        path for path in outbox.iterdir() if (path / "journal.jsonl").is_file() and not path.name.startswith(".")
    )
