"""The judge's end of the fork servers: starting them, and talking to the processes that they fork.

Framing is the same everywhere: a 4-byte length, then JSON, or marshalled data towards a program's process, which may
trust the judge; the judge trusts nobody. Nothing here decides a verdict.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import marshal
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ra3core.config import VerifierConfig

MAX_ANSWERS = 64 << 20
"""Bytes that a program may answer in all."""

MAX_OUTPUT = 4096
"""Bytes of printed output that are kept; the rest is read and dropped."""

_PARTING = 0.5  # seconds
_MEGABYTE = 1 << 20
_LIMITS = {"disk": 32 * _MEGABYTE, "files": 256, "processes": 64}
_SERVER = Path(__file__).with_name("server.py")


class SandboxError(RuntimeError):
    """The fork server died or could not confine a program: never the program's own doing, unless it killed it."""


class Broken(Exception):
    """A process answered something that is no answer."""


def cpu_of(pid: int) -> float:
    """CPU seconds of a process that lives or waits to be reaped, all its threads; 0 where the system does not tell."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # the kernel's name for that process's CPU clock
    except OSError:
        return 0.0


def total_cpu_of(pid: int) -> float:
    """CPU seconds of a process and of its children that have been reaped."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return cpu_of(pid) + sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
    return cpu_of(pid)


def memory_of(pid: int) -> int:
    """Bytes of memory that a process has in use; 0 where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_bytes().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    return 0


class Flood(Exception):
    """A program printed more than anybody wants to know."""


class Process:
    """The judge's end of one confined process: its channel and what it prints.

    output: where its standard error arrives, and its standard output unless that is judged; of what comes, `printed`
    holds the start. answer: where the standard output arrives that is judged, into `written`, or -1.
    """

    def __init__(
        self, channel: socket.socket, output: int, answer: int, most: int, find_pid: Callable[[], int]
    ) -> None:
        self.channel, self.output, self.answer = channel, output, answer
        self._find_pid = find_pid
        self.printed, self.written = bytearray(), bytearray()
        self.total = 0  # bytes answered
        self.open = True
        self._most = most
        self.most_answered = MAX_ANSWERS  # bytes
        self._in, self._out = bytearray(), bytearray()
        channel.setblocking(False)
        for fd in (output, answer):
            if fd >= 0:
                os.set_blocking(fd, False)

    def send(self, message: Any, more: bytes = b"") -> None:
        """Write plain data as a frame, and `more` frames, as far as they go at once; `handle` does the rest."""
        self._out += packed(message) + more
        self._write()

    def _write(self) -> None:
        try:
            del self._out[: self.channel.send(self._out[: 1 << 18])]
        except BlockingIOError:
            return
        except ConnectionError:  # it ended without reading everything; what it answered may still wait here
            self._out.clear()

    @functools.cached_property
    def pid(self) -> int:
        """Its number here; 0 where the system does not tell."""
        return self._find_pid()

    def cpu(self) -> float:
        """CPU seconds that the process has used, all its threads; 0 where the system does not tell."""
        return cpu_of(self.pid) if self.pid else 0.0

    def starved(self) -> float:
        """Seconds that the process was ready to run and got no CPU; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_bytes().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    def next(self) -> Any:
        """The next complete answer, or None. Raises Broken when it is not one."""
        if len(self._in) < 4:
            return None
        size = struct.unpack("!I", self._in[:4])[0]
        if size > self.most_answered:
            raise Broken(f"an answer of more than {self.most_answered >> 20} MB")
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

    def wants(self, poll: select.poll) -> None:
        """Register what to poll for."""
        if self.open:
            poll.register(self.channel, select.POLLIN | select.POLLOUT if self._out else select.POLLIN)
        if self.output >= 0:
            poll.register(self.output, select.POLLIN)
        if self.answer >= 0:
            poll.register(self.answer, select.POLLIN)

    def handle(self, fd: int, event: int) -> None:
        """Move bytes after poll said that it is possible."""
        if fd == self.output:
            self._read_output()
        elif fd == self.answer:
            self._read_answer()
        elif fd == self.channel.fileno():
            try:
                if event & select.POLLOUT and self._out:
                    self._write()
                if event & ~select.POLLOUT:
                    data = self.channel.recv(1 << 18)
                    self._in += data
                    self.total += len(data)
                    self.open = bool(data)
                    if self.total > self.most_answered:
                        raise Broken(f"answers of more than {self.most_answered >> 20} MB")
            except BlockingIOError:
                return
            except ConnectionError:
                self.open = False

    def _read_output(self) -> bool:
        """Whether there was something."""
        try:
            data = os.read(self.output, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            os.close(self.output)
            self.output = -1
        self.printed += data[: MAX_OUTPUT - len(self.printed)]
        return bool(data)

    def _read_answer(self) -> bool:
        try:
            data = os.read(self.answer, 1 << 18)
        except BlockingIOError:
            return False
        if not data:
            os.close(self.answer)
            self.answer = -1
        self.written += data
        if len(self.written) > self._most:
            raise Flood(f"printed more than {self._most} bytes")
        return bool(data)

    def drain(self) -> None:
        """What was printed and not yet read; the writers are dead."""
        while self.output >= 0 and len(self.printed) < MAX_OUTPUT and self._read_output():
            pass
        while self.answer >= 0 and self._read_answer():
            pass

    def close(self) -> None:
        for fd in (self.output, self.answer):
            if fd >= 0:
                os.close(fd)
        self.output = self.answer = -1
        self.channel.close()


class ForkServer:
    """One fork server; restarted when it dies."""

    def __init__(self, config: VerifierConfig, namespaces: bool, packages: Sequence[str] = ()) -> None:
        self.config = config
        self._packages = packages
        self.missing: tuple[str, ...] = ()
        self.settled = False  # programs are confined before they are forked
        self.pid = 0  # of the process that forks programs
        self._ends = self._forked = 0
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
            environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"} if self._packages else {}
            environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
            packages = {name: _folder_of(name) for name in self._packages}
            libraries = [f"{folder}.libs" for folder in packages.values()]
            options = json.dumps(
                {
                    "namespaces": self._namespaces,
                    "packages": packages,
                    "folders": [*packages.values(), *filter(os.path.isdir, libraries)],
                    "limits": _LIMITS,
                }
            )
            self._control = ours
            ours.settimeout(60)
            if sys.platform == "linux":
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
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
            ready = self._receive()
            self.missing, self.settled = tuple(ready["missing"]), ready["settled"]
        except (OSError, EOFError) as error:
            self._popen.kill()
            assert self._popen.stderr is not None
            stderr = self._popen.stderr.read().decode(errors="replace").strip().splitlines()
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
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._popen.wait(_PARTING)  # an idle server leaves by itself
                self._popen.kill()
                self._popen.wait()
                assert self._popen.stderr is not None
                self._popen.stderr.close()
            if self._base:
                _remove(self._base)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was final."""
        return self._stopped

    def restart(self) -> None:
        """A new server in place of a dead one."""
        self.stop(final=False)
        self.start()

    def fork(self, cpu_seconds: int, memory_mb: int, stdin: bytes | None = None, most: int = 0) -> Process:
        """A new confined process, waiting for its job.

        stdin: its standard input, when its standard output is to be judged; of that at most `most` bytes.
        """
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        passed = [theirs.fileno(), writing]
        answer = -1
        if stdin is not None:
            with tempfile.TemporaryFile() as file:
                file.write(stdin)
                file.seek(0)
                passed.append(os.dup(file.fileno()))
            answer, answering = os.pipe()
            passed.append(answering)
        limits = {"cpu": cpu_seconds, "memory": memory_mb * _MEGABYTE, **_LIMITS}
        process = Process(ours, reading, answer, most, functools.partial(self._child, self._forked))
        self._forked += 1
        assert self._control is not None
        try:
            socket.send_fds(self._control, [frame({"start": limits})], passed)
        except OSError:
            process.close()
            raise
        finally:
            theirs.close()
            for fd in passed[1:]:
                os.close(fd)
        return process

    def end(self) -> list[tuple[int, float]]:
        """Kill what was forked; (wait status, CPU seconds) of each, as far as the programs let it be known."""
        assert self._control is not None
        self._forked = 0
        self._ends += 1
        message = frame({"end": self._ends})
        self._control.sendall(message)
        exits: list[tuple[int, float]] | None = None
        while True:
            answer = self._receive()
            if "ready" in answer:  # a program killed or spoiled the process that forked it
                if exits is not None:
                    return exits
                self._control.sendall(message)
            elif answer["end"] == self._ends and exits is None:
                exits = [(status, cpu) for status, cpu in answer["exits"]]
                if answer["clean"]:
                    return exits

    def _child(self, number: int) -> int:
        """The process that was forked as that number of this round. Orphans stand behind them, the dead stay."""
        try:
            return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[number])
        except (OSError, ValueError, IndexError):
            return 0

    def family(self) -> list[int]:
        """Every process that the server has forked and what they have started, as numbered here; empty where the
        system does not tell."""
        found: list[int] = []
        waiting = [self.pid] if self.pid else []
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    children = (task / "children").read_text().split()
                    waiting += map(int, children)
                    found += map(int, children)
        return found

    def _receive(self) -> dict[str, Any]:
        assert self._control is not None
        if sys.platform == "linux":
            data, self.pid = _receive_with_sender(self._control, 4)
        else:
            data = self._control.recv(4, socket.MSG_WAITALL)
        if len(data) < 4:
            raise EOFError("the fork server died")
        return json.loads(self._control.recv(struct.unpack("!I", data)[0], socket.MSG_WAITALL))


def _receive_with_sender(channel: socket.socket, size: int) -> tuple[bytes, int]:
    """The next bytes, and the number that the process which sent them has here, as the kernel says it (SO_PASSCRED)."""
    data, extra, _, _ = channel.recvmsg(size, socket.CMSG_SPACE(12))
    for level, kind, content in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return data, struct.unpack("i", content[:4])[0]
    return data, 0


_to_json = json.JSONEncoder(separators=(",", ":")).encode


def _folder_of(package: str) -> str:
    """Where a package is installed. Raises SandboxError when it is not."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SandboxError(f"the package {package} is not installed")
    return os.path.realpath(next(iter(found.submodule_search_locations)))


def packed(message: Any) -> bytes:
    """Plain data as it travels to a program; what comes back is another matter, see ra3core.verifier.plain."""
    data = marshal.dumps(message)
    return struct.pack("!I", len(data)) + data


def frame(message: Any) -> bytes:
    """A message as it travels."""
    data = _to_json(message).encode("ascii")
    return struct.pack("!I", len(data)) + data


def _remove(folder: str) -> None:
    """Remove a folder, however deep a program has nested others in it."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # Python 3.11 walks it by calling itself
        subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)
