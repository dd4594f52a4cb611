"""Runs a stage in a child process of its own: its memory is its own, and it can really be killed.

    with Runner(RuntimeConfig(threads=2)) as runner:
        store.build("m_step", m_step, MStepConfig(), inputs, execute=runner.run, sink=print)

Children are forked from a server that has imported torch, transformers and the stages already (multiprocessing's
"forkserver"); it starts with the first stage, so that a run that finds every artifact in the store starts none. The
child sends the events of its log while it works, and its metrics or its error at the end; it dies with the parent,
however that dies. Several threads may run stages at the same time. A stage that shares its work out over processes is
launched by its child (tasks/launcher.py), when the runtime asks for more than one.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from ra3core.artifacts import Stage
from ra3core.config import RuntimeConfig
from ra3core.errors import UserError
from ra3core.launch import Order
from ra3core.stage import Context, Metrics, Servers, StageLog
from tasks import devices, launcher

PRELOAD = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "pyarrow.parquet",
    "matplotlib.figure",
    "ra3core.corpora.prepare",
    "ra3core.learning.pretrain",
    "ra3core.learning.e_step",
    "ra3core.learning.bootstrap",
    "ra3core.learning.m_step",
    "ra3core.learning.rlvr",
    "ra3core.evaluation.evaluate",
    "ra3core.evaluation.prepare_tasks",
    "ra3core.analysis.analysis",
    "ra3core.report.report",
)
"""What the server imports. One that fails to import is left out; the stage that needs it then says why."""

POLL_SECONDS = 0.5  # how often a waiting parent looks at its clock and for a cancellation
GRACE_SECONDS = 3.0  # between SIGTERM and SIGKILL
PROGRESS_SECONDS = 0.1  # the least time between two progress events

_multiprocessing = multiprocessing.get_context("forkserver")
_processes = threading.Lock()  # multiprocessing's start and poll read the same pipes, of all children


class StageError(RuntimeError):
    """A stage failed for another reason than the user's input; holds the child's traceback, or how it died."""


class StageKilled(StageError):
    """A stage's process died: another attempt may do better, and goes on from the last checkpoint."""


@dataclass(frozen=True)
class _Order:
    """What the child is told. The function goes by name, so that a module that fails to import is an ordinary error."""

    module: str
    function: str
    config: BaseModel
    context: dict[str, Any]  # fields of the context, its log aside
    metrics_file: Path | None
    processes: int
    accelerate: Path | None  # the launcher's configuration, for more than one process
    servers: Servers  # no stage that is launched asks them


class Runner:
    """Runs stages in children.

    runtime: gives each stage its threads and device.
    preload: modules of the server, of use to the first runner of a process only.
    """

    def __init__(self, runtime: RuntimeConfig, preload: Sequence[str] = PRELOAD) -> None:
        self._runtime = runtime
        self._accelerate = launcher.config_file(runtime) if runtime.processes > 1 else None
        self._preload = ["tasks.stage_server", *preload]
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel: the children of stages that still run are killed, and `run` raises StageError in their threads."""
        self._closed.set()

    def run(
        self,
        function: Stage,
        config: BaseModel,
        context: Context,
        sink: Callable[[dict[str, Any]], None] | None = None,
        timeout: float | None = None,
        device: str | None = None,
    ) -> Metrics:
        """function(config, context) in a child; its metrics, and `peak_memory_mb`, the child's largest resident size
        (MiB; it includes what the child shares with the server, mostly libraries).

        function: a module's function, found again by its name. context: with the runtime's threads and device;
        a step-wise metrics file is written by the child. sink: called with each event of the stage's log, by default
        that of the context's log. timeout: seconds. device: the runtime's by default.
        Raises UserError as the stage did, StageError for any other error and for a child that took too long,
        StageKilled for one that was killed. Whatever is raised here (Ctrl-C included), the child is gone by then.
        """
        stage = getattr(function, "__name__", repr(function))
        processes = self._runtime.processes if function.__module__ in launcher.SHARING else 1
        sink = sink or context.log.sink
        order = _Order(
            function.__module__,
            function.__qualname__,
            config,
            {
                "inputs": dict(context.inputs),
                "out": context.out,
                "scratch": context.scratch,
                "seed": context.seed,
                "threads": self._runtime.threads,
                "device": device or self._runtime.device,
            },
            context.log.path,
            processes,
            self._accelerate,
            self._runtime.http,
        )
        deadline = None if timeout is None else time.monotonic() + timeout
        reader, writer = _multiprocessing.Pipe(duplex=False)
        child = _multiprocessing.Process(target=_serve, args=(order, writer), name=stage)
        patience = 0.0
        try:
            with _processes:
                _multiprocessing.set_forkserver_preload(self._preload)
                child.start()
            writer.close()
            while True:
                if self._closed.is_set():
                    raise StageError(f"stage {stage} was cancelled")
                if deadline is not None and time.monotonic() > deadline:
                    raise StageError(f"stage {stage} took longer than {timeout:g} s")
                if not (ready := wait([reader, child.sentinel], POLL_SECONDS)):
                    continue
                try:
                    if reader not in ready and not reader.poll():
                        raise EOFError  # the child is gone, and everything it sent has been read
                    kind, content = reader.recv()
                except (EOFError, ConnectionResetError):
                    raise StageKilled(f"stage {stage} {_death(child)}") from None
                if kind == "event":
                    sink(content)
                    continue
                patience = GRACE_SECONDS
                if kind == "done":
                    return content
                if kind == "user_error":
                    raise UserError(content)
                if kind == "killed":
                    raise StageKilled(f"stage {stage}: {content}")
                raise StageError(f"stage {stage} failed: {content}")
        finally:
            writer.close()
            _end(child, patience)
            reader.close()


def _end(child: ForkServerProcess, patience: float) -> None:
    """Wait `patience` seconds for the child to end by itself, then make it; one that was never started is none."""
    if child.pid is None:
        return
    for stop, seconds in ((None, patience), (child.terminate, GRACE_SECONDS), (child.kill, None)):
        with _processes:
            if child.exitcode is not None:
                break
            if stop is not None:
                stop()
        wait([child.sentinel], seconds)
    with _processes:
        child.join()
        child.close()


def _death(child: ForkServerProcess) -> str:
    """How a child ended that sent no result."""
    wait([child.sentinel], GRACE_SECONDS)
    with _processes:
        code = child.exitcode
    if code is None or code >= 0:
        return f"ended without a result (exit code {code})"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _serve(order: _Order, writer: Connection) -> None:
    """The child's whole life."""
    gc.freeze()  # the server's modules: to look through them would also copy their memory
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        devices.check(order.context["device"])
        events = _Events(writer)
        writer.send(_launch(order, events) if order.processes > 1 else ("done", _run_here(order, events)))
    except UserError as error:
        writer.send(("user_error", str(error)))
    except BaseException as error:
        writer.send(("error", f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"))


def _run_here(order: _Order, sink: Callable[[dict[str, Any]], None]) -> Metrics:
    context = Context(**order.context, servers=order.servers, log=StageLog(order.metrics_file, sink))
    threads = context.threads
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))  # for a torch not yet imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    function: Any = importlib.import_module(order.module)
    for name in order.function.split("."):
        function = getattr(function, name)
    metrics = function(order.config, context)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {**metrics, "peak_memory_mb": round(peak, 1)}


def _launch(order: _Order, sink: Callable[[dict[str, Any]], None]) -> tuple[str, Any]:
    assert order.accelerate is not None
    work = Order(
        stage=f"{order.module}:{order.function}",
        config=order.config.model_dump(mode="json"),
        metrics=order.metrics_file,
        **order.context,
    )
    return launcher.launch(work, order.processes, order.accelerate, sink)


class _Events:
    """Sends a log's events to the parent; of progress no more than anyone can read."""

    def __init__(self, writer: Connection) -> None:
        self._writer = writer
        self._last_progress = -PROGRESS_SECONDS

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and 0 < event["done"] < event["total"]:
            now = time.monotonic()
            if now - self._last_progress < PROGRESS_SECONDS:
                return
            self._last_progress = now
        self._writer.send(("event", event))


def _die_with_parent() -> None:
    """Ends this process at once when the parent is gone, even by SIGKILL: a new run may already want its folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
