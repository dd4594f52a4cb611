"""The fork server: a warm interpreter that forks one confined child a program. Run by ra3core/verifier/judge.py as

    python -s -S -P -B server.py CONTROL_FD BASE_FOLDER OPTIONS

It imports the standard library and its two neighbours, nothing else, and never looks at what a program answers. On
the control socket (length-prefixed JSON) the judge says

    {"start": {cpu, memory, disk, files, processes}}  with two descriptors: the program's channel and its output
    {"end": true}  -> {"exits": [[wait status, CPU seconds], ..]}: kills and reaps what was started, in order

On its channel a child reads one job, then calls, and writes one answer each; see `_serve`. Whatever a hostile program
writes there is only an answer: expected values never come here.
"""

# ruff: noqa: PTH100, PTH120

from __future__ import annotations

import builtins
import gc
import json
import os
import random
import socket
import struct
import sys
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isolation
import plain

del sys.path[0]

PRELOADED = (
    "abc argparse array ast asyncio base64 bisect calendar cmath collections collections.abc contextlib copy copyreg "
    "csv dataclasses datetime decimal difflib doctest enum fractions functools glob hashlib heapq html inspect io "
    "itertools json keyword linecache locale logging math numbers operator os.path pickle pprint queue random re "
    "reprlib secrets shutil statistics string struct subprocess sys tempfile textwrap threading time timeit traceback "
    "types typing unicodedata unittest urllib.parse uuid warnings weakref zlib"
)

MODULE = "__solution__"
"""Name of the module a program runs as; not __main__, so that a main guard stays shut."""

MAX_DETAIL = 300


# -- the child --------------------------------------------------------------------------------------------------------


class Channel:
    """Frames (4-byte length, JSON) to and from the judge, on descriptors that the program can reach but not use to
    say anything but answers. Everything needed is bound here before the program's first line runs."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._read, self._write, self._pack, self._unpack = os.read, os.write, struct.pack, struct.unpack
        self._dumps, self._loads, self._exit = json.JSONEncoder(separators=(",", ":")).encode, json.loads, os._exit
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
    """
    job = channel.receive()
    kind, entry_point = job["kind"], job["entry_point"]
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    scope = module.__dict__
    random.seed(0)  # equal programs get equal verdicts
    if kind == "script":
        _script(channel, job, scope, entry_point)
        return
    error = _attempt(_execute, job["source"], scope, "program")[1]
    if error is None and kind == "inside":
        error = _attempt(_execute, job["code"], scope, "tests")[1]
        channel.send(error or ["ok", job["token"]])
        return
    function = None
    if error is None:
        function = scope.get(entry_point)
        if function is None:
            error = ["raised", "exception", f"NameError: name {entry_point!r} is not defined"]
    channel.send(error or ["ok", None])
    while error is None:
        arguments, keywords = channel.receive()
        arguments, keywords = plain.unpack(arguments), plain.unpack(keywords)
        channel.send(_attempt(_answer, function, arguments, keywords)[0])


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


def _execute(source: str, scope: dict, name: str) -> None:
    exec(compile(source, f"<{name}>", "exec", dont_inherit=True), scope)


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
    compiling = frame is not None and frame.tb_frame.f_code is _execute.__code__
    if isinstance(error, SyntaxError) or compiling:
        kind = "syntax"
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
    """The program raised something that is not a builtin exception, or died."""


class Unsendable(BaseException):
    """The test code called the program with something that is not plain data."""


def _script(channel: Channel, job: dict, scope: dict, entry_point: str) -> None:
    """Run test code against the stand-in for the program."""
    raised: list[str] = []

    def candidate(*arguments, **keywords):
        try:
            call = ["call", plain.pack(arguments), plain.pack(keywords)]
        except plain.NotPlain as error:
            raise Unsendable(str(error)) from None
        channel.send(call)
        answer = channel.receive()
        if answer[0] == "ok":
            return plain.unpack(answer[1])
        kind = getattr(builtins, answer[2].partition(":")[0], None)
        raised.append(answer[2])
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(answer[2].partition(": ")[2])
        raise CandidateError(answer[2])

    scope["candidate"] = candidate
    error = _attempt(_execute, job["setup"], scope, "setup")[1]
    if error is None:
        scope[entry_point] = candidate
        error = _attempt(_execute, job["code"], scope, "tests")[1]
    channel.send(["done", error, raised[-1] if raised else ""])


def _child(sandbox: isolation.Sandbox, data: int, output: int, limits: dict) -> None:
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(data, 3)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(4, 1024)
    sandbox.confine(limits)
    channel = Channel(3)
    channel.send(["confined"])
    _serve(channel)


# -- the server -------------------------------------------------------------------------------------------------------


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    options = json.loads(sys.argv[3])
    for name in PRELOADED.split():
        __import__(name)
    sandbox = isolation.Sandbox()
    sandbox.enter(sys.argv[2], options["namespaces"])
    _send(control, {"ready": True, "missing": sandbox.missing})
    gc.collect()
    gc.freeze()  # keeps the collector of a child from copying the server's pages
    children: list[int] = []
    while True:
        message, descriptors = _receive(control)
        if "start" in message:
            data, output = descriptors
            pid = sandbox.fork()
            if pid == 0:
                try:
                    _child(sandbox, data, output, message["start"])
                finally:
                    os._exit(0)
            os.close(data)
            os.close(output)
            children.append(pid)
        else:
            exits = []
            for pid in children:
                status, usage = sandbox.kill(pid)
                exits.append([status, usage.ru_utime + usage.ru_stime])
            children.clear()
            sandbox.kill_escaped()
            _send(control, {"exits": exits})


def _send(control: socket.socket, message: dict) -> None:
    data = json.dumps(message).encode()
    control.sendall(struct.pack("!I", len(data)) + data)


def _receive(control: socket.socket) -> tuple[dict, list[int]]:
    header, descriptors, _, _ = socket.recv_fds(control, 4, 2)
    if len(header) != 4:
        os._exit(0)  # the judge is gone
    size = struct.unpack("!I", header)[0]
    return json.loads(control.recv(size, socket.MSG_WAITALL)), descriptors


if __name__ == "__main__":
    main()
