"""The artifact store: what a stage made, under a key that says what it was made from.

An artifact is a folder <root>/<stage>/<first 16 digits of the key>/ with the stage's files and manifest.json, which is
written last.

    key     what determined the result: the stage's name, its configuration section, the digests of its inputs, the seed
            and the code it runs (`code_digest`). The same key is the same work, done once.
    digest  what came out: the relative path, size and sha256 of every file. Two builds with equal content have equal
            digests, so a change of code that changes no byte rebuilds one stage and none that follows it. The step-wise
            metrics (metrics.jsonl: it may hold seconds), what else is about the result (ra3core.stage.ABOUT) and names
            that start with "." are listed and verified like every other file, but are not part of the digest: a
            corpus that a further benchmark takes nothing from is the same corpus, and a model is the same whether or
            not some were kept on the way to it.

A hit is verified, every byte of it, before it is used; a damaged or incomplete artifact is removed with a warning and
counts as missing. Work is done in a hidden sibling folder and renamed, so that nothing half-written is ever visible;
the sibling outlives a SIGKILL, and the next build of the same key continues from the checkpoints in it. A file lock for
each key makes a second process wait and then use the first one's result.

    store = Store(Path("artifacts"))
    artifact, reused = store.build("m_step", m_step, MStepConfig(), {"model": base, "demonstrations": data}, seed=0)
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from ra3core.errors import UserError
from ra3core.fingerprint import changed, code_digest
from ra3core.stage import ABOUT, METRICS_FILE, Context, Metrics, StageLog

__all__ = ["MANIFEST", "Artifact", "Manifest", "Store", "code_digest", "content_digest", "load_artifact"]

MANIFEST = "manifest.json"

Stage = Callable[[Any, Context], Metrics]
Execute = Callable[[Stage, BaseModel, Context], Metrics]
"""Calls stage(config, context), here or in a child (tasks.runner.Runner.run); may set its threads and device."""

logger = logging.getLogger(__name__)


class FileEntry(BaseModel):
    """Size in bytes and sha256 of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is and where it comes from.

    inputs: name -> digest of the input's content. files: path relative to the folder -> size and sha256.
    seconds: wall time of the stage; attempts that were interrupted count up to the last file they wrote.
    created: UTC, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    seed: int
    config: dict[str, Any]
    inputs: dict[str, str]
    code: str
    files: dict[str, FileEntry]
    metrics: Metrics
    seconds: float
    created: str
    digest: str


@dataclass(frozen=True)
class Artifact:
    """A finished stage's folder; `path` is what a stage finds in its context.inputs."""

    path: Path
    manifest: Manifest

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def key(self) -> str:
        return self.manifest.key

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def metrics(self) -> Metrics:
        return self.manifest.metrics


def load_artifact(path: Path) -> Artifact:
    """Open a folder by its manifest and verify the size and sha256 of every file that it lists.

    Files that it does not list are none of ours. Raises UserError that names what is missing or damaged.
    """
    file = path / MANIFEST
    try:
        manifest = Manifest.model_validate(json.loads(file.read_bytes()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: no artifact, expected a folder with a {MANIFEST}") from error
    except (ValidationError, ValueError) as error:  # ValueError: not JSON, not UTF-8
        raise UserError(f"{file}: damaged, expected the manifest of an artifact") from error
    for name, entry in manifest.files.items():
        if not (path / name).is_file():
            raise UserError(f"{path / name}: missing, the artifact's {MANIFEST} lists it")
        if _entry(path / name) != entry:
            raise UserError(f"{path / name}: damaged, its content is not what the artifact's {MANIFEST} says")
    return Artifact(path, manifest)


def content_digest(path: Path) -> str:
    """Digest of a file or of all files below a folder (its manifest, if any, aside), as in an artifact's manifest."""
    if path.is_file():
        return _digest({path.name: _entry(path)})
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    return _digest(_entries(path))


class Store:
    """Artifacts below one folder. Safe for several threads and processes at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def key(self, name: str, function: Stage, config: BaseModel, inputs: Mapping[str, Artifact], seed: int = 0) -> str:
        """sha256 over everything that determines the result of stage `name`; hexadecimal."""
        determined_by = {
            "stage": name,
            "config": config.model_dump(mode="json"),
            "inputs": _digests(inputs),
            "seed": seed,
            "code": code_digest(function),
        }
        return hashlib.sha256(json.dumps(determined_by, sort_keys=True).encode()).hexdigest()

    def find(self, name: str, key: str) -> Artifact | None:
        """The verified artifact of a key; None when it is missing or was damaged (it is removed then)."""
        path = self._path(name, key)
        try:
            return _load_if_any(path, key)
        except UserError:
            with self._lock(path):  # it may be whole again: then another process has rebuilt it meanwhile
                return _load_or_remove(path, key)

    def peek(self, name: str, key: str) -> Artifact | None:
        """What `find` would look at, by its manifest alone: no file is verified, and nothing is removed."""
        path = self._path(name, key)
        try:
            manifest = Manifest.model_validate(json.loads((path / MANIFEST).read_bytes()))
        except (OSError, ValueError):
            return None
        return Artifact(path, manifest) if manifest.key == key else None

    def holds_any(self, name: str) -> bool:
        """Whether there is any artifact of stage `name`, whatever its key."""
        return any(self.root.glob(f"{name}/[!.]*/{MANIFEST}"))

    def artifacts(self) -> list[Artifact]:
        """Every artifact of the store, oldest first, by its manifest alone: the files are not verified."""
        found = []
        for file in self.root.glob(f"*/[!.]*/{MANIFEST}"):
            try:
                found.append(Artifact(file.parent, Manifest.model_validate(json.loads(file.read_bytes()))))
            except (OSError, ValueError):  # ValidationError is a ValueError
                logger.warning("%s: not listed, its manifest cannot be read", file.parent)
        return sorted(found, key=lambda artifact: artifact.manifest.created)

    @staticmethod
    def external(name: str, path: Path, digest: str | None = None, metrics: Metrics | None = None) -> Artifact:
        """Something made outside the store as an input: data/ with its DVC digest, a user's model folder (no digest
        given: that of its content), the name of a hub model with its revision. Nothing is written."""
        digest = content_digest(path) if digest is None else digest
        manifest = Manifest(
            stage=name,
            key=digest,
            seed=0,
            config={},
            inputs={},
            code="",
            files={},
            metrics=metrics or {},
            seconds=0.0,
            created="",
            digest=digest,
        )
        return Artifact(path, manifest)

    def build(
        self,
        name: str,
        function: Stage,
        config: BaseModel,
        inputs: Mapping[str, Artifact],
        seed: int = 0,
        execute: Execute | None = None,
        sink: Callable[[dict[str, Any]], None] | None = None,
        refresh: bool = False,
        parts: Mapping[str, Artifact] | None = None,
    ) -> tuple[Artifact, bool]:
        """The artifact of stage `name`, and whether it was there already.

        execute: calls the stage; none calls it in this process. sink: receives the stage's log events.
        refresh: build it even if it is there; the old one stays until the new one is whole.
        parts: finished shards of its own work (ra3core/shards.py), further inputs that do not decide the result.
        Whatever the stage raises is raised here and leaves no artifact; its checkpoints stay for the next attempt.
        Raises UserError when the disk is full, and when sources were changed since the key was made.
        """
        key = self.key(name, function, config, inputs, seed)
        path = self._path(name, key)
        work = path.with_name(f".{path.name}.work")
        if not (refresh or work.exists()) and (artifact := self.find(name, key)) is not None:
            return artifact, True
        try:
            with self._lock(path):
                if not refresh and (artifact := _load_or_remove(path, key)) is not None:
                    shutil.rmtree(work, ignore_errors=True)  # left by a process killed right after its rename
                    return artifact, True
                _require_unchanged(name, function)
                started = _prepare(work)
                log = StageLog(work / "out" / METRICS_FILE, sink or (lambda event: None))
                folders = {role: artifact.path for role, artifact in {**inputs, **(parts or {})}.items()}
                context = Context(folders, work / "out", work / "scratch", seed, log=log)
                try:
                    metrics = execute(function, config, context) if execute else function(config, context)
                    _require_unchanged(name, function, context.scratch)
                    files = _entries(context.out)
                    manifest = Manifest(
                        stage=name,
                        key=key,
                        seed=seed,
                        config=config.model_dump(mode="json"),
                        inputs=_digests(inputs),
                        code=code_digest(function),
                        files=files,
                        metrics=metrics,
                        seconds=round(time.time() - started, 3),
                        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
                        digest=_digest(files),
                    )
                    text = json.dumps(manifest.model_dump(), indent=1)
                    _write(context.out / MANIFEST, text)
                    if path.exists():  # refreshed, and a folder cannot be renamed onto another
                        path.replace(work / "old")
                    context.out.replace(path)
                except BaseException:
                    if not _has_files(context.scratch):
                        shutil.rmtree(work, ignore_errors=True)
                    raise
                shutil.rmtree(work)
                return Artifact(path, Manifest.model_validate(json.loads(text))), False  # as it will be read
        except Exception as error:
            if not isinstance(error, UserError) and _disk_is_full(error, self.root):
                free = shutil.disk_usage(self.root).free // 2**20
                raise UserError(
                    f"{self.root}: the disk is full, stage {name} needs more than the {free} MiB that are free"
                ) from error
            raise

    def busy(self, name: str, key: str) -> bool:
        """Whether some process builds the artifact of a key right now."""
        lock = self._lock(self._path(name, key))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def _path(self, name: str, key: str) -> Path:
        return self.root / name / key[:16]

    def _lock(self, path: Path) -> FileLock:
        """Held by whoever builds or removes this artifact; the system releases it when the holder dies."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_name(f".{path.name}.lock"))


def _require_unchanged(name: str, function: Stage, scratch: Path | None = None) -> None:
    """Raises UserError when the code is another than that of the key, for modules are read when they are first needed;
    `scratch` is removed then: its checkpoints are of code that no key knows."""
    if changed(function):
        if scratch is not None:
            shutil.rmtree(scratch)
        raise UserError(f"stage {name}: its sources were changed while the run went on; start the run again")


def _load_if_any(path: Path, key: str) -> Artifact | None:
    """The artifact at `path`, None when there is none; raises UserError when it is damaged."""
    if not path.exists():
        return None
    artifact = load_artifact(path)
    if artifact.key != key:
        raise UserError(f"{path / MANIFEST}: damaged, it belongs to another artifact")
    return artifact


def _load_or_remove(path: Path, key: str) -> Artifact | None:
    """Like `_load_if_any`, but a damaged artifact is removed; only under its lock."""
    try:
        return _load_if_any(path, key)
    except UserError as error:
        logger.warning("%s; the stage is computed again", error)
        shutil.rmtree(path)
        return None


def _prepare(work: Path) -> float:
    """Make the work folder ready and return the time (epoch seconds) at which the stage would have started had it
    never been interrupted.

    Without a checkpoint the stage starts afresh, and so does its folder: what a killed run wrote is not this run's.
    """
    attempt = work / "started"
    now = time.time()
    started = now
    if _has_files(work / "scratch") and (work / "out").is_dir() and attempt.exists():
        last_write = max(file.stat().st_mtime for file in work.rglob("*") if file.is_file())
        started -= max(0.0, last_write - float(attempt.read_text()))
    elif work.exists():
        shutil.rmtree(work)
    (work / "out").mkdir(parents=True, exist_ok=True)
    (work / "scratch").mkdir(exist_ok=True)
    _write(attempt, repr(started))
    return started


def _digests(inputs: Mapping[str, Artifact]) -> dict[str, str]:
    return {role: artifact.digest for role, artifact in inputs.items()}


def _has_files(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def _entry(file: Path) -> FileEntry:
    with file.open("rb") as stream:
        return FileEntry(size=file.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def _entries(folder: Path) -> dict[str, FileEntry]:
    """Every file below a folder by its relative path, the manifest aside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {file.relative_to(folder).as_posix(): _entry(file) for file in files}


def _digest(files: Mapping[str, FileEntry]) -> str:
    """sha256 over the files that are content; hexadecimal."""
    content = [
        (name, entry.size, entry.sha256)
        for name, entry in sorted(files.items())
        if name.partition("/")[0] not in ABOUT and not any(part.startswith(".") for part in name.split("/"))
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _write(file: Path, text: str) -> None:
    """Write a file and wait until it is on the disk."""
    with file.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _disk_is_full(error: BaseException, root: Path) -> bool:
    """Whether a full disk is what lies behind an error; libraries wrap it or tell it only in words, if at all."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return True
    if any(os.strerror(errno.ENOSPC) in str(cause) for cause in causes):
        return True
    return root.exists() and shutil.disk_usage(root).free < 2**20
