"""Runs a stage in several processes by `accelerate launch`, from the child process that the runner made for it.

The processes tell their events and their end through a socket. Whatever ends this (a failing process, a cancellation,
the death of the runner's child by any signal), no process of the stage is left: the launcher is ended, the processes
that have said hello are killed, and one whose socket closes ends itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ra3core.config import RuntimeConfig
from ra3core.errors import UserError
from ra3core.launch import SOCKET, Order

SHARING = frozenset(f"ra3core.learning.{name}" for name in ("pretrain", "e_step", "m_step", "rlvr"))
"""Modules of the stages that share their work out over processes; the others run in one."""

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "accelerate"
GRACE_SECONDS = 3.0
LINES = 20  # of the launcher's output that an error shows


def config_file(runtime: RuntimeConfig) -> Path:
    """accelerate's configuration for these settings, in the checkout or absolute.

    Raises UserError when the settings do not go together.
    """
    if runtime.device not in ("cpu", "cuda"):
        raise UserError(
            f"--processes {runtime.processes}: expected --device cpu or cuda, found {runtime.device}; "
            "CUDA_VISIBLE_DEVICES chooses which GPUs"
        )
    default = CONFIGS / ("cpu.yaml" if runtime.device == "cpu" else "ddp.yaml")
    file = (runtime.root / (runtime.accelerate or default)).resolve()
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"RA3_ACCELERATE: {file}: expected a configuration of accelerate ({error})") from error
    if not isinstance(values, dict) or "distributed_type" not in values:
        raise UserError(f"RA3_ACCELERATE: {file}: expected a configuration of accelerate, found no distributed_type")
    if values.get("num_machines", 1) != 1:
        raise UserError(
            f"RA3_ACCELERATE: {file}: expected one machine, found {values['num_machines']}; "
            "docs/devices.md says how a stage is run on several"
        )
    return file


def launch(
    order: Order, processes: int, config: Path, sink: Callable[[dict[str, Any]], None]
) -> tuple[str, dict[str, Any] | str]:
    """How the stage ended: "done" and its metrics, the largest process's peak_memory_mb among them; "user_error" or
    "error" and the text; "killed" and which process died without a word.

    sink: called with each event of the first process's log. Called in the main thread: SIGTERM ends all.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through the `finally` below
    with TemporaryDirectory(prefix="ra3-") as folder, socket.socket(socket.AF_UNIX) as server:
        home = Path(folder)
        server.bind(str(home / "socket"))
        server.listen(processes)
        order.write(home / "order.json")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        command += ["--num_processes", str(processes), "--main_process_port", "0"]
        command += ["--module", "ra3core.launch", str(home / "order.json")]
        threads = str(order.threads)
        environment = os.environ | {
            SOCKET: str(home / "socket"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        with (home / "output").open("w+b") as output:
            launcher = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            listener = _Listener(server, launcher.pid, processes, sink)
            try:
                kind, content = listener.outcome()
            finally:
                listener.close()
                _end(launcher)
            if kind == "silent":
                said = (home / "output").read_text(errors="replace").strip().splitlines()[-LINES:]
                return "error", "accelerate launch ended before the stage began:\n" + "\n".join(said)
            return kind, content


class _Listener:
    """What the processes of a stage say."""

    def __init__(
        self, server: socket.socket, launcher: int, processes: int, sink: Callable[[dict[str, Any]], None]
    ) -> None:
        self._server, self._processes, self._sink = server, processes, sink
        self._launcher = os.pidfd_open(launcher)
        self._open: list[Connection] = []
        self._pids: list[int] = []  # file descriptors of the processes that said hello
        self._done: dict[int, dict[str, Any]] = {}  # metrics by the number of the process
        self._failed: dict[str, str] = {}  # kind -> what was said first

    def outcome(self) -> tuple[str, Any]:
        """Listen until the stage has ended, and say how. Of several failures the one that explains the others: what the
        user can mend, then any other error; that a process is gone without a word comes last."""
        while len(self._done) < self._processes:
            ready = wait([self._server, self._launcher, *self._open])
            over = self._launcher in ready
            while ready:
                self._hear(ready)
                ready = wait([self._server, *self._open], 0)
            for kind in ("user_error", "error", "killed"):
                if kind in self._failed:
                    return kind, self._failed[kind]
            if over and len(self._done) < self._processes:
                return ("killed", "its processes were ended from outside") if self._pids else ("silent", "")
        peak = max(metrics["peak_memory_mb"] for metrics in self._done.values())
        return "done", {**self._done[0], "peak_memory_mb": peak}

    def _hear(self, ready: list[Any]) -> None:
        for source in ready:
            if source is self._server:
                self._open.append(Connection(self._server.accept()[0].detach()))
            elif isinstance(source, Connection):
                try:
                    self._heed(*source.recv())
                except (EOFError, ConnectionResetError):
                    self._open.remove(source)
                    if len(self._open) + len(self._done) < len(self._pids):
                        self._failed.setdefault("killed", "one of its processes died without a word (out of memory?)")

    def _heed(self, kind: str, content: Any) -> None:
        if kind == "hello":
            with suppress(ProcessLookupError):  # one that has died since: its socket says so
                self._pids.append(os.pidfd_open(content))
        elif kind == "event":
            self._sink(content)
        elif kind == "done":
            rank, metrics = content
            self._done[rank] = metrics
        else:
            self._failed.setdefault(kind, content)

    def close(self) -> None:
        """Kill the processes that are left, and see them gone."""
        for connection in self._open:
            connection.close()
        for pid in self._pids:
            try:
                signal.pidfd_send_signal(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            wait([pid], GRACE_SECONDS)
        for descriptor in (*self._pids, self._launcher):
            os.close(descriptor)


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """Make the launcher end; it takes processes with it that have not said hello yet."""
    launcher.terminate()
    try:
        launcher.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
