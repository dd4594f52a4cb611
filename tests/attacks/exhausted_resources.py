"""Attacks on what is limited: CPU and wall time, memory, disk, descriptors, threads; and on the limits themselves."""

from __future__ import annotations

from typing import Any

from attack_programs import TESTS, Attack

_ONCE: dict[str, Any] = {"tests": TESTS[:1], "script": None}


def _waits(how: str, code: str) -> Attack:
    return Attack(
        f"waits: {how}", f"import os, select, signal, threading, time\ndef total(xs):\n    {code}\n", wall=0.4
    )


EXHAUSTED_RESOURCES = (
    # -- time
    _waits("sleeps", "time.sleep(600)"),
    _waits("for a signal", "signal.pause()"),
    _waits("for a lock that it holds", "lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    _waits("for itself", "os.waitid(os.P_ALL, 0, os.WEXITED) if os.fork() else time.sleep(600)"),
    _waits("for nothing, in poll", "select.poll().poll()"),
    _waits("for a thread that waits", "threading.Thread(target=time.sleep, args=(600,)).run()"),
    _waits("in many short sleeps", "[time.sleep(0.001) for _ in range(10**6)]"),
    Attack("computes the sum late, and prints to pass the time", """
import os, time
def total(xs):
    end = time.monotonic() + 2
    while time.monotonic() < end:
        os.write(1, b".")
        time.sleep(0.003)
    return sum(xs)
""", wall=0.3, **_ONCE),
    Attack("computes the sum beyond the CPU limit, and prints the while", """
import os, time
def total(xs):
    while time.process_time() < 1:
        os.write(1, b".")
    return sum(xs)
""", cpu=0.3, wall=20.0, **_ONCE),
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
""", cpu=0.5),
    Attack("spins while it is loaded", "while True:\n    pass\n", cpu=0.3),
    Attack("backtracks in a pattern", """
import re
def total(xs):
    return re.match(r"(a*)*b", "a" * 64)
""", cpu=0.3),
    Attack("spins in C", "def total(xs):\n    return sum(range(10**12))\n", cpu=0.3),
    Attack("raises to a power beyond reason", "def total(xs):\n    return 7 ** (7 ** 12) % 10\n", cpu=0.3),
    Attack("writes out a large int", """
import sys
sys.set_int_max_str_digits(0)
def total(xs):
    return str(1 << 4_000_000)
""", cpu=0.3),
    Attack("an endless iterator", "import itertools\ndef total(xs):\n    return max(itertools.count())\n", cpu=0.3),
    Attack("sixty threads that spin", """
import threading
def work():
    while True:
        pass
def total(xs):
    for _ in range(60):
        threading.Thread(target=work).start()
    work()
""", cpu=0.5),
    # -- memory
    Attack("fills memory from C", """
def total(xs):
    parts = []
    while True:
        parts.append(bytearray(1 << 24))
"""),
    Attack("collects an endless generator", "import itertools\ndef total(xs):\n    return list(itertools.repeat(b'x' * 99))\n"),
    Attack("doubles a list", "def total(xs):\n    while True:\n        xs += xs\n"),
    Attack("shifts a bit far away", "def total(xs):\n    return 1 << (1 << 40)\n"),
    Attack("formats a text of 100 GB", "def total(xs):\n    return '%*d' % (10**11, 1)\n"),
    Attack("maps memory without end", """
import mmap
def total(xs):
    parts = []
    while True:
        parts.append(mmap.mmap(-1, 1 << 24))
        parts[-1].write(b"x" * (1 << 24))
"""),
    Attack("allocates from C until nothing is left", """
import ctypes
def total(xs):
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while libc.malloc(1 << 20):
        pass
    raise SystemExit(0)
"""),
    Attack("goes on when memory is gone", """
def total(xs):
    parts = []
    while True:
        try:
            parts.append(bytearray(1 << 16))
        except MemoryError:
            pass
""", cpu=0.5),
    Attack("unpacks a bomb", """
import gzip
def total(xs):
    return len(gzip.decompress(gzip.compress(bytes(1 << 20)) * 400))
"""),
    Attack("stacks of a thousand threads", """
import threading, time
threading.stack_size(64 << 20)
def total(xs):
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""),
    Attack("computes the sum with 300 MB in files without a name", """
import os
def total(xs):
    kept = [os.memfd_create(str(number)) for number in range(12)]
    for fd in kept:
        for _ in range(25):
            os.write(fd, bytes(1 << 20))
    return sum(xs)
""", cpu=3.0, wall=20.0, **_ONCE),
    Attack("computes the sum with 450 MB, in three children", """
import os, time
def total(xs):
    reading, writing = os.pipe()
    for _ in range(3):
        if os.fork() == 0:
            kept = bytearray(b"x") * (150 << 20)
            os.write(writing, b"x")
            time.sleep(60)
    for _ in range(3):
        os.read(reading, 1)
    time.sleep(0.6)
    return sum(xs)
""", cpu=3.0, wall=20.0, **_ONCE),
    Attack("computes the sum with 450 MB that three children share with nobody", """
import mmap, os, time
def total(xs):
    reading, writing = os.pipe()
    for _ in range(3):
        if os.fork() == 0:
            kept = mmap.mmap(-1, 150 << 20)
            kept.write(bytes(150 << 20))
            os.write(writing, b"x")
            time.sleep(60)
    for _ in range(3):
        os.read(reading, 1)
    time.sleep(0.6)
    return sum(xs)
""", cpu=3.0, wall=20.0, **_ONCE),
    Attack("recurses without end", "def total(xs):\n    return total(xs)\n"),
    Attack("recurses without limit", """
import sys
sys.setrecursionlimit(10**9)
def total(xs):
    return total([*xs, 1])
""", cpu=0.5),
    Attack("recurses in C until the stack is gone", """
import sys
sys.setrecursionlimit(10**8)
class Loop:
    def __repr__(self):
        return repr(self)
def total(xs):
    return repr(Loop())
"""),
    # -- disk
    Attack("fills the disk", """
def total(xs):
    number = 0
    while True:
        number += 1
        with open(str(number), "wb") as file:
            file.write(bytes(8 << 20))
""", walls=True),
    Attack("one file of 1 TB", """
def total(xs):
    with open("file", "wb") as file:
        file.truncate(1 << 40)
"""),
    Attack("a file for every name", """
def total(xs):
    number = 0
    while True:
        number += 1
        open(str(number), "x").close()
""", walls=True),
    Attack("folders in folders", """
import os
def total(xs):
    for _ in range(2000):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    return 0
""", walls=True),
    Attack("files that nobody may open, links in circles, pipes, sockets", """
import os, socket
def total(xs):
    os.mkdir("closed")
    open("closed/file", "x").close()
    os.chmod("closed", 0)
    open("shut", "x").close()
    os.chmod("shut", 0)
    os.symlink("b", "a")
    os.symlink("a", "b")
    os.symlink("/usr", "usr")
    os.mkfifo("pipe")
    socket.socketpair()
    open(b"\\xff\\n -rf", "x").close()
    return 0
"""),
    Attack("goes away from its folder and removes it", """
import os
def total(xs):
    for folder in (os.getcwd(), "/tmp"):
        for change in (lambda: os.chmod(folder, 0), lambda: os.rename(folder, "/elsewhere"), lambda: os.rmdir(folder)):
            try:
                change()
            except OSError:
                pass
    os.chdir("/")
    return 0
""", walls=True),
    # -- what it prints
    Attack("prints without a line's end, and computes the sum late", """
import time
def total(xs):
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        print("6" * 10**5, end="")
    return sum(xs)
""", cpu=0.3, wall=0.5, **_ONCE),
    Attack("prints to standard error, and computes the sum late", """
import sys, time
def total(xs):
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        sys.stderr.write("6\\n" * 10_000)
    return sum(xs)
""", cpu=0.3, wall=0.5, **_ONCE),
    Attack("prints what is no text", """
import os
def total(xs):
    os.write(1, bytes(range(256)) * 100)
    os.write(2, b"\\x1b]0;passed\\x07\\x1b[2J")
    return 0
"""),
    # -- descriptors, threads, other things to count
    Attack("closes every descriptor and goes on", """
import os
def total(xs):
    os.closerange(0, 256)
    while True:
        pass
""", cpu=0.3),
    Attack("closes every descriptor while it is loaded", """
import os
os.closerange(0, 256)
def total(xs):
    while True:
        pass
""", cpu=0.3),
    Attack("opens everything", """
import os, socket
def total(xs):
    kept = []
    while True:
        kept += [os.pipe(), os.eventfd(0), os.open("/dev/null", os.O_RDWR), socket.socketpair(), os.memfd_create("x")]
"""),
    Attack("queues 10,000 signals and timers to itself", """
import ctypes, os, signal
def total(xs):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    libc = ctypes.CDLL(None)
    for _ in range(10_000):
        libc.sigqueue(os.getpid(), signal.SIGRTMIN, None)
        libc.timer_create(0, None, ctypes.byref(ctypes.c_void_p()))
    return 0
""", signals=True),
    Attack("leaves shared memory, semaphores, queues and keys", """
import ctypes
def total(xs):
    libc = ctypes.CDLL(None)
    made = [libc.shmget(6, 1 << 20, 0o1666), libc.semget(6, 9, 0o1666), libc.msgget(6, 0o1666)]
    made.append(libc.syscall(248, b"user", b"six", b"6", 1, -4))
    return [number for number in made if number >= 0] or None
"""),
    Attack("locks 100 MB of memory", """
import ctypes
def total(xs):
    libc = ctypes.CDLL(None)
    libc.mlockall(3)
    kept = bytearray(100 << 20)
    return 0
"""),
    # -- the limits
    Attack("tampers with the judge's limits", """
import resource
def total(xs):
    for name in ("RLIMIT_CPU", "RLIMIT_AS"):
        resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""),
    Attack("tampers with its parent's limits and place", """
import os, resource
def total(xs):
    parent = os.getppid()
    for change in (
        lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (0, 0)),
        lambda: resource.prlimit(parent, resource.RLIMIT_CPU, (0, 0)),
        lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
        lambda: os.setpriority(os.PRIO_PGRP, 0, 19),
        lambda: os.setpriority(os.PRIO_USER, 0, 19),
        lambda: os.sched_setaffinity(parent, {0}),
        lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
        lambda: os.setpgid(parent, 0),
    ):
        try:
            change()
        except OSError:
            pass
    return 0
"""),
    Attack("slows itself down, to be excused", """
import os
def total(xs):
    for change in (lambda: os.nice(19), lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))):
        try:
            change()
        except OSError:
            pass
    while True:
        pass
""", cpu=0.3),
    Attack("takes away its own limits' room", """
import resource
def total(xs):
    for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_STACK", "RLIMIT_AS"):
        resource.setrlimit(getattr(resource, name), (0, 0))
    return 6
""", partly=True),
)  # fmt: skip
