"""Programs written to be judged right without being right, or to hurt the judge.

Each completes `def total(xs)`, whose tests expect the sum of a list of integers; none computes it. `trick` is what it
tries. All must be judged wrong, within their limits, and must leave the judge in working order.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    trick: str
    source: str
    signals: bool = False  # sends signals at random: only run where PID namespaces hold it


ATTACKS = (
    Attack("returns an int subclass that equals everything", """
class Any(int):
    __eq__ = lambda self, other: True
    __hash__ = int.__hash__
def total(xs):
    return Any(7)
"""),
    Attack("returns a plain object that equals everything", """
class Any:
    __eq__ = lambda self, other: True
def total(xs):
    return Any()
"""),
    Attack("lies about its class", """
class Any:
    __class__ = property(lambda self: int)
    __eq__ = lambda self, other: True
    __int__ = __index__ = lambda self: 0
def total(xs):
    return Any()
"""),
    Attack("walks frames and the heap for expected values", """
import gc, sys
def total(xs):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if getattr(value, "expected", None) is not None:
                return value.expected
        frame = frame.f_back
    for value in gc.get_objects():
        if type(value) is dict and "expected" in value:
            return value["expected"]
"""),
    Attack("patches the builtins that a comparison would use", """
import builtins, math
builtins.abs = math.fabs = lambda x: 0
builtins.all = builtins.any = builtins.isinstance = lambda *a: True
builtins.AssertionError = type("Never", (Exception,), {})
def total(xs):
    return None
"""),
    Attack("patches the encoder in the server's own module", """
import sys
for module in list(sys.modules.values()):
    for name in ("pack", "dumps", "_pack"):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: {"passed": True})
def total(xs):
    return object()
"""),
    Attack("forges answers on every descriptor, then leaves", """
import json, os, struct
def total(xs):
    for answer in (["ok", True], {"passed": True}, ["done", None, ""], ["passed"]):
        data = json.dumps(answer).encode()
        for fd in range(256):
            try:
                os.write(fd, struct.pack("!I", len(data)) + data)
            except OSError:
                pass
    os._exit(0)
"""),
    Attack("leaves with status 0 while it is loaded", """
import os
os._exit(0)
"""),
    Attack("replaces itself by a program that succeeds", """
import os
def total(xs):
    os.execv("/bin/true", ["true"])
"""),
    Attack("reads the tests from the disk", """
import os
def total(xs):
    walk = os.walk("/")
    found = [os.path.join(folder, name) for folder, _, names in walk for name in names if "test_attacks" in name]
    raise SystemExit(open(found[0]).read())
"""),
    Attack("looks for the judge in /proc", """
import os
def total(xs):
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with open(f"/proc/{name}/mem", "r+b") as memory:
                memory.write(b"x")
"""),
    Attack("signals its parent, its group and everything", """
import os, signal
def total(xs):
    for target in (os.getppid(), 0, -1):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            try:
                os.kill(target, number)
            except OSError:
                pass
""", signals=True),
    Attack("tampers with the judge's limits", """
import resource
def total(xs):
    for name in ("RLIMIT_CPU", "RLIMIT_AS"):
        resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""),
    Attack("swallows every signal and exception and spins", """
import signal
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
def total(xs):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""),
    Attack("leaves a process in a new session that holds everything open", """
import os, time
def total(xs):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
"""),
    Attack("forks without end", """
import os
def total(xs):
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""),
    Attack("fills memory from C", """
def total(xs):
    parts = []
    while True:
        parts.append(bytearray(1 << 24))
"""),
    Attack("recurses in C until the stack is gone", """
import sys
sys.setrecursionlimit(10**8)
class Loop:
    def __repr__(self):
        return repr(self)
def total(xs):
    return repr(Loop())
"""),
    Attack("floods standard output, error and the channel", """
import os
def total(xs):
    block = b"\\xff" * (1 << 20)
    while True:
        for fd in (1, 2, 3):
            os.write(fd, block)
"""),
    Attack("closes every descriptor and goes on", """
import os
os.closerange(0, 256)
def total(xs):
    while True:
        pass
"""),
    Attack("answers a list that holds itself", """
def total(xs):
    xs.append(xs)
    return xs
"""),
    Attack("answers a nest 100,000 deep", """
def total(xs):
    nest = []
    for _ in range(100_000):
        nest = [nest]
    return nest
"""),
    Attack("answers an int of a million digits", """
def total(xs):
    return 10 ** 1_000_000
"""),
    Attack("raises an exception that cannot be shown", """
class Hidden(BaseException):
    def __str__(self):
        raise Hidden
    __repr__ = __str__
def total(xs):
    raise Hidden
"""),
    Attack("takes over tracing and audit hooks", """
import sys, threading
def answer(*event):
    return answer
sys.settrace(answer); sys.setprofile(answer); threading.settrace(answer)
sys.addaudithook(lambda *a: None)
def total(xs):
    return 0.5
"""),
    Attack("20,000 nested operators", "def total(xs):\n    return " + "-" * 20_000 + "1\n"),
    Attack("5,000-digit literal", "def total(xs):\n    return " + "9" * 5_000 + "\n"),
    Attack("NUL byte", "def total(xs):\n    return 0\0\n"),
    Attack("lone surrogate in the source", "def total(xs):\n    return '\udc00'\n"),
)  # fmt: skip
