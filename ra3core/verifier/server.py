"""The fork server: a warm interpreter that forks one confined child a program. Run by ra3core/verifier/judge.py as

    python -s -S -P -B server.py CONTROL_FD BASE_FOLDER OPTIONS

It imports the standard library and its two neighbours, nothing else, and never looks at what a program answers. On
the control socket (length-prefixed JSON) the judge says

    {"start": {cpu, memory, disk, files, processes}}  with the program's channel, its standard error, and for a program
        that is judged by its standard output also its standard input and output; else both go the way of the error
    {"end": number}  -> {"exits": [[wait status, CPU seconds], ..], "end": number, "clean": whether this process goes
        on}: kills and reaps what was started, in order

and hears {"ready": true, "missing": [..]} at first, and whenever a new process has taken over (Sandbox.settle).
On its channel a child reads one job, then calls, and writes one answer each; see `_serve`. Whatever a hostile program
writes there is only an answer: expected values never come here.
"""

# ruff: noqa: PTH100, PTH120

from __future__ import annotations

import _sitebuiltins
import builtins
import contextlib
import errno
import fcntl
import gc
import io
import json
import marshal
import os
import random
import socket
import struct
import sys
import threading
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isolation
import plain

del sys.path[0]

PRELOADED = (
    "abc array ast bisect cmath collections collections.abc contextlib copy dataclasses datetime decimal enum "
    "fractions functools heapq io itertools json math numbers operator os.path queue random re statistics string "
    "struct sys textwrap threading time traceback types typing unicodedata"
)
"""What programs import often and what they raise needs. Every module more costs every fork; the rest is imported when
a program asks for it."""

MODULE = "__solution__"
"""Name of the module a program runs as; not __main__, so that a main guard stays shut."""

_REHEARSALS = 20  # enough for the interpreter to specialise what it runs
_POOL, _POOL_START, _MOST_HOLES = 1 << 14, 64, 20_000  # of CPython's allocator; elsewhere this does nothing useful
_fillers: list[object] = []

UNCONFINED, FAILED = 70, 71
"""Exit status of a child that failed before the program's first line, or because the program left nothing to go on."""

MAX_DETAIL = 300

REFUSED = frozenset(
    getattr(errno, name)
    for name in ("EPERM", "EACCES", "EROFS", "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EAFNOSUPPORT", "EADDRNOTAVAIL")
)
"""Errors of what the sandbox refuses."""


# -- the child --------------------------------------------------------------------------------------------------------


class Channel:
    """Frames from (marshalled) and to the judge (JSON), on descriptors that the program can reach but not use to
    say anything but answers. Everything needed is bound here before the program's first line runs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._read, self._write, self._pack, self._unpack = os.read, os.write, struct.pack, struct.unpack
        self._dumps, self._loads, self._exit = json.JSONEncoder(separators=(",", ":")).encode, marshal.loads, os._exit
        self._len = len

    def receive(self):
        size = self._unpack("!I", self._exactly(4))[0]
        return self._loads(self._exactly(size))

    def send(self, message) -> None:
        data = self._dumps(message).encode("ascii")
        data = self._pack("!I", self._len(data)) + data
        while data:
            data = data[self._write(self.fd, data) :]

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._read(self.fd, min(size, 1 << 20))
            if not part:
                self._exit(0)  # the judge has all it wants
            parts.append(part)
            size -= self._len(part)
        return b"".join(parts)


def _serve(channel: Channel) -> None:
    """Run one job: {"kind", "source", "entry_point", ..}; answers are

    ["ok", packed value]    ["opaque", type name]    ["raised", kind, last line]

    kind "calls": the first answer says that the source has run, then one a call [packed arguments, packed keywords].
    kind "script": runs the judge's test code; entry-point calls go out as ["call", arguments, keywords].
    kind "inside": source, then test code, then the token.
    kind "stdio": the source as a script; the answer says that it has ended. "files" are written first.
    """
    job = channel.receive()
    kind, entry_point = job["kind"], job["entry_point"]
    module = types.ModuleType("__main__" if kind == "stdio" else MODULE)
    sys.modules[module.__name__] = module
    scope = module.__dict__
    if kind == "script":
        _script(channel, job, scope, entry_point)
        return
    if kind == "stdio":
        channel.send(_attempt(_main, job, scope)[1] or ["ok", None])
        return
    error = _attempt(_execute, job["sources"], scope, "program")[1]
    if error is None and kind == "inside":
        error = _attempt(_execute, [job["code"]], scope, "tests")[1]
        channel.send(error or ["ok", job["token"]])
        return
    function = None
    if error is None:
        function, error = _attempt(_entry, scope, entry_point)
    channel.send(error or ["ok", None])
    while error is None:
        arguments, keywords = channel.receive()
        channel.send(_attempt(_answer, function, arguments, keywords)[0])


def _entry(scope: dict, name: str):
    """The function of that name, or the method of a new instance for Class.method."""
    owner, _, method = name.rpartition(".")
    if not owner:
        if name not in scope:
            raise NameError(f"name {name!r} is not defined")
        return scope[name]
    if owner not in scope:
        raise NameError(f"name {owner!r} is not defined")
    return getattr(scope[owner](), method)


def _main(job: dict, scope: dict) -> None:
    """Run a program as a script, to the end of its threads and with what it printed written out."""
    for name, text in job["files"].items():
        with open(name, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123
            file.write(text)
    sys.argv = job["arguments"]
    sys.stdin = io.TextIOWrapper(open(0, "rb"), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb"), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.__stdin__, sys.__stdout__ = sys.stdin, sys.stdout
    join_threads, stdout = threading._shutdown, sys.stdout  # pyright: ignore[reportAttributeAccessIssue]
    try:
        _execute(job["sources"], scope, "program")
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
    finally:
        join_threads()
        stdout.flush()
        if sys.stdout is not stdout:
            sys.stdout.flush()


def _answer(function, arguments, keywords) -> list:
    value = function(*arguments, **keywords)
    try:
        return ["ok", plain.pack(value, reduce=True)]
    except Exception:  # the value's own methods may raise anything
        return ["opaque", type(value).__name__]
    finally:
        _flush()


def _flush(stdout=sys.stdout) -> None:
    try:
        stdout.flush()
    except Exception:
        return


def _execute(sources: list, scope: dict, name: str) -> None:
    """Run the first of the sources that compiles; when none does, what is raised is the first one's error."""
    exec(_compile(sources, name), scope)


def _compile(sources: list, name: str):
    first = None
    for source in sources:
        try:
            return compile(source, f"<{name}>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
            first = first or error
    raise first  # pyright: ignore[reportGeneralTypeIssues]


def _attempt(function, *arguments):
    """(result, None), or (error, error) with error = ["raised", kind, last line]."""
    try:
        return function(*arguments), None
    except BaseException as error:
        answer = ["raised", *_describe(error)]
        return answer, answer


def _describe(error: BaseException) -> tuple[str, str]:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    compiling = frame is not None and frame.tb_frame.f_code is _compile.__code__
    if compiling:
        kind = "syntax"
    elif isinstance(error, OSError) and error.errno in REFUSED:
        kind = "forbidden"
    elif isinstance(error, MemoryError):
        kind = "memory"
    elif isinstance(error, AssertionError):
        kind = "assertion"
    else:
        kind = "exception"
    try:
        text = str(error)
    except BaseException:
        text = "<unprintable>"
    name = type(error).__name__
    line = f"{name}: {text}" if text else name
    return kind, " ".join(line[: 4 * MAX_DETAIL].split())[:MAX_DETAIL]


class CandidateError(Exception):
    """The program raised something that is not a builtin exception, or one that would end a loop of the tests."""


class Unsendable(BaseException):
    """The test code called the program with something that is not plain data."""


def _script(channel: Channel, job: dict, scope: dict, entry_point: str) -> None:
    """Run test code against the stand-in for the program."""
    raised: list[str] = []

    def candidate(*arguments, **keywords):
        try:
            call = ["call", plain.pack(arguments), plain.pack(keywords)]
        except plain.TooDeep as error:  # what the program returned before, not the tests' own
            raise CandidateError(str(error)) from None
        except plain.NotPlain as error:
            raise Unsendable(str(error)) from None
        channel.send(call)
        answer = channel.receive()
        if answer[0] == "ok":
            return answer[1]
        kind = getattr(builtins, answer[2].partition(":")[0], None)
        raised.append(answer[2])
        if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (StopIteration, StopAsyncIteration):
            raise kind(answer[2].partition(": ")[2])
        raise CandidateError(answer[2])

    scope["candidate"] = candidate
    error = _attempt(_execute, [job["setup"]], scope, "setup")[1]
    if error is None:
        scope[entry_point] = candidate
        error = _attempt(_execute, [job["code"]], scope, "tests")[1]
    channel.send(["done", error, raised[-1] if raised else ""])


def _confine(sandbox: isolation.Sandbox, descriptors: list[int], limits: dict) -> None:
    data, error, *standard = [fcntl.fcntl(fd, fcntl.F_DUPFD, 16) for fd in descriptors]
    for number, fd in enumerate(standard or (os.open("/dev/null", os.O_RDONLY), error)):
        os.dup2(fd, number)
    os.dup2(error, 2)
    os.dup2(data, 3)
    os.closerange(4, 1024)
    sandbox.confine(limits)
    random.seed(0)  # equal programs get equal verdicts


# -- the server -------------------------------------------------------------------------------------------------------


def main() -> None:
    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D")  # as an interpreter with `site` has them
    control = socket.socket(fileno=int(sys.argv[1]))
    options = json.loads(sys.argv[3])
    for name in PRELOADED.split():
        __import__(name)
    sandbox = isolation.Sandbox()
    for name, folder in options["packages"].items():
        sys.path.append(os.path.dirname(folder))
        __import__(name)
        del sys.path[-1]
    sandbox.enter(sys.argv[2], options["namespaces"], options["folders"])
    _warm_up()
    sandbox.settle(options["limits"])
    children: list[int] = []
    try:
        _obey(control, sandbox, children)
    finally:  # the judge is gone, or this process cannot go on: a new one would fare no better
        sandbox.kill(children)
        os._exit(isolation.LEAVE)


def _obey(control: socket.socket, sandbox: isolation.Sandbox, children: list[int]) -> None:
    """Do what the judge says, until it is gone."""
    _send(control, {"ready": True, "missing": sandbox.missing, "settled": sandbox.settled})
    while True:
        message, descriptors = _receive(control)
        if "start" in message:
            pid = sandbox.fork()
            if pid == 0:
                code, leave = UNCONFINED, os._exit
                try:
                    _confine(sandbox, descriptors, message["start"])
                    code = FAILED
                    _serve(Channel(3))
                    code = 0
                finally:
                    leave(code)
            for descriptor in descriptors:
                os.close(descriptor)
            children.append(pid)
        else:
            exits, clean = sandbox.kill(children)
            children.clear()
            _send(control, {"exits": exits, "end": message["end"], "clean": clean})
            if not clean:
                os._exit(0)


class _Rehearsal(Channel):
    """A channel that says what a judge would say, and forgets the answers."""

    def __init__(self) -> None:
        super().__init__(-1)
        source = "import math\n\n\ndef f(xs):\n    return sorted([str(x) for x in xs if x > 1.0], key=len)\n"
        self.messages = [{"kind": "calls", "sources": [source], "entry_point": "f"}]
        self.messages += [(([1, 2.5, 3],), {})] * 3

    def receive(self):
        if not self.messages:
            raise _Over
        return self._loads(marshal.dumps(self.messages.pop(0)))

    def send(self, message) -> None:
        self._dumps(message).encode("ascii")


class _Over(BaseException):
    """The rehearsal has ended."""


def _warm_up() -> None:
    """Do in advance what every child would do to its copy of the memory: each page that it changes is copied first.

    Code that has run before is specialised already; new objects lie together when no old page has room for one; the
    collector leaves frozen objects alone.
    """
    for _ in range(_REHEARSALS):
        with contextlib.suppress(_Over):
            _serve(_Rehearsal())
    sys.modules.pop(MODULE, None)
    gc.collect()
    for size in range(16, 513, 16):
        for _ in range(_MOST_HOLES):
            filler = object() if size == 16 else float(len(_fillers)) if size == 32 else bytes(size - 33)
            _fillers.append(filler)
            if id(filler) & (_POOL - 1) < _POOL_START:
                break  # the first of a new pool: no old one has room
    gc.freeze()


def _send(control: socket.socket, message: dict) -> None:
    data = json.dumps(message).encode()
    control.sendall(struct.pack("!I", len(data)) + data)


def _receive(control: socket.socket) -> tuple[dict, list[int]]:
    header, descriptors, _, _ = socket.recv_fds(control, 4, 4)
    if len(header) != 4:
        raise EOFError("the judge is gone")
    size = struct.unpack("!I", header)[0]
    return json.loads(control.recv(size, socket.MSG_WAITALL)), descriptors


if __name__ == "__main__":
    main()
