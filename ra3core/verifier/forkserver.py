"""The judge's end of the fork servers: starting them, and talking to the processes that they fork.

Framing is the same everywhere: a 4-byte length, then JSON. Nothing here decides a verdict.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from ra3core.config import VerifierConfig

MAX_ANSWERS = 64 << 20
"""Bytes that a program may answer in all."""

MAX_OUTPUT = 4096
"""Bytes of printed output that are kept; the rest is read and dropped."""

_MEGABYTE = 1 << 20
_DISK, _FILES, _PROCESSES = 32 * _MEGABYTE, 256, 64
_SERVER = Path(__file__).with_name("server.py")


class SandboxError(RuntimeError):
    """The fork server died or could not confine a program: never the program's own doing, unless it killed it."""


class Broken(Exception):
    """A process answered something that is no answer."""


class Process:
    """The judge's end of one confined process: its channel and what it prints."""

    def __init__(self, channel: socket.socket, output: int) -> None:
        self.channel, self.output = channel, output
        self.printed = bytearray()
        self.total = 0  # bytes answered
        self.open = True
        self._in, self._out = bytearray(), bytearray()
        channel.setblocking(False)
        os.set_blocking(output, False)

    def send(self, message: Any) -> None:
        """Queue a frame; `frames` does the writing."""
        self._out += _frame(message)

    def frame(self) -> Any:
        """The next complete answer, or None. Raises Broken when it is not one."""
        if len(self._in) < 4:
            return None
        size = struct.unpack("!I", self._in[:4])[0]
        if size > MAX_ANSWERS:
            raise Broken(f"an answer of more than {MAX_ANSWERS >> 20} MB")
        if len(self._in) < 4 + size:
            return None
        data = bytes(self._in[4 : 4 + size])
        del self._in[: 4 + size]
        try:
            message = json.loads(data.decode("ascii"))
        except (ValueError, RecursionError):
            raise Broken("an answer that is not JSON") from None
        if not isinstance(message, list) or not message or not isinstance(message[0], str):
            raise Broken("an answer of no known form")
        return message

    def events(self) -> list[tuple[int, int]]:
        """What to poll for."""
        wanted = []
        if self.open:
            wanted.append((self.channel.fileno(), select.POLLIN | (select.POLLOUT if self._out else 0)))
        if self.output >= 0:
            wanted.append((self.output, select.POLLIN))
        return wanted

    def handle(self, fd: int, event: int) -> None:
        """Move bytes after poll said that it is possible."""
        if fd == self.output:
            self._read_output()
        elif fd == self.channel.fileno():
            try:
                if event & select.POLLOUT and self._out:
                    del self._out[: self.channel.send(self._out[: 1 << 18])]
                if event & ~select.POLLOUT:
                    data = self.channel.recv(1 << 18)
                    self._in += data
                    self.total += len(data)
                    self.open = bool(data)
                    if self.total > MAX_ANSWERS:
                        raise Broken(f"answers of more than {MAX_ANSWERS >> 20} MB")
            except BlockingIOError:
                return
            except ConnectionError:
                self.open = False

    def _read_output(self) -> None:
        try:
            data = os.read(self.output, 1 << 16)
        except BlockingIOError:
            return
        if data:
            self.printed += data[: MAX_OUTPUT - len(self.printed)]
        else:
            self._close_output()

    def _close_output(self) -> None:
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def drain(self) -> None:
        """What was printed and not yet read; the writers are dead."""
        with contextlib.suppress(BlockingIOError):
            while self.output >= 0 and len(self.printed) < MAX_OUTPUT:
                data = os.read(self.output, MAX_OUTPUT)
                if not data:
                    break
                self.printed += data[: MAX_OUTPUT - len(self.printed)]

    def close(self) -> None:
        self._close_output()
        self.channel.close()


class ForkServer:
    """One fork server; restarted when it dies."""

    def __init__(self, config: VerifierConfig, namespaces: bool) -> None:
        self.config = config
        self.missing: tuple[str, ...] = ()
        self._namespaces = namespaces
        self._popen: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._base = ""
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Start the server and wait until it is warm. Raises SandboxError when it does not come up."""
        with self._lock:
            if self._stopped:
                raise SandboxError("the verifier is closed")
            self._base = tempfile.mkdtemp(prefix="ra3-verifier-")
            Path(self._base).chmod(0o711)
            ours, theirs = socket.socketpair()
            environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin", "HOME": "/tmp", "MALLOC_ARENA_MAX": "1"}
            environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
            options = json.dumps({"namespaces": self._namespaces})
            self._control = ours
            ours.settimeout(60)
            self._popen = subprocess.Popen(
                [sys.executable, "-s", "-S", "-P", "-B", str(_SERVER), str(theirs.fileno()), self._base, options],
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            theirs.close()
        try:
            self.missing = tuple(self._receive()["missing"])
        except (OSError, EOFError) as error:
            self._popen.kill()
            stderr = self._popen.communicate()[1].decode(errors="replace").strip().splitlines()
            raise SandboxError(f"the fork server did not start: {stderr[-1] if stderr else error}") from error

    def stop(self, final: bool = True) -> None:
        """Kill the server and what it runs."""
        with self._lock:
            self._stopped = self._stopped or final
            if self._control is not None:
                with contextlib.suppress(OSError):
                    self._control.shutdown(socket.SHUT_RDWR)
                self._control.close()
            if self._popen is not None:
                if self._popen.poll() is None:
                    self._popen.kill()
                self._popen.communicate()
            if self._base:
                shutil.rmtree(self._base, ignore_errors=True)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was final."""
        return self._stopped

    def restart(self) -> None:
        """A new server in place of a dead one."""
        self.stop(final=False)
        self.start()

    def fork(self, cpu_seconds: int) -> Process:
        """A new confined process, waiting for its job."""
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        limits = {
            "cpu": cpu_seconds,
            "memory": self.config.memory_mb * _MEGABYTE,
            "disk": _DISK,
            "files": _FILES,
            "processes": _PROCESSES,
        }
        process = Process(ours, reading)
        assert self._control is not None
        try:
            socket.send_fds(self._control, [_frame({"start": limits})], [theirs.fileno(), writing])
        except OSError:
            process.close()
            raise
        finally:
            theirs.close()
            os.close(writing)
        return process

    def end(self) -> list[tuple[int, float]]:
        """Kill what was forked; (wait status, CPU seconds) of each."""
        assert self._control is not None
        self._control.sendall(_frame({"end": True}))
        return [(status, cpu) for status, cpu in self._receive()["exits"]]

    def _receive(self) -> dict[str, Any]:
        assert self._control is not None
        header = self._control.recv(4, socket.MSG_WAITALL)
        if len(header) < 4:
            raise EOFError("the fork server died")
        return json.loads(self._control.recv(struct.unpack("!I", header)[0], socket.MSG_WAITALL))


def _frame(message: Any) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    return struct.pack("!I", len(data)) + data
