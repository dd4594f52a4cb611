"""Attacks by processes: on the parent of programs, on what comes after, and on everybody; and by leaving some behind."""

from __future__ import annotations

from attack_programs import FORGE, TESTS, Attack

_CLONE = """
import ctypes, os, time
def clone(flags):
    number = 56 if os.uname().machine == "x86_64" else 220
    if ctypes.PyDLL(None).syscall(number, flags, 0, 0, 0, 0) == 0:
        time.sleep(600)
"""
_ORPHAN = """
import os, time
def orphan(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            work()
        os._exit(0)
    os.wait()
    return 0
"""


def _kills(trick: str, target: str, *numbers: str, **options: object) -> Attack:
    return Attack(trick, f"""
import os, signal, time
def total(xs):
    for number in ({"".join(f"signal.{name}, " for name in numbers) or "*range(1, 65),"}):
        try:
            os.kill({target}, number)
        except OSError:
            pass
    time.sleep(0.3)
    return 0
""", signals=True, **options)  # type: ignore[arg-type]  # fmt: skip


HOSTILE_PROCESSES = (
    Attack("leaves with status 0 while it is loaded", "import os\nos._exit(0)\n"),
    Attack("leaves with the status of a child that could not be confined", "import os\nos._exit(70)\n",
           fault="without namespaces it is believed: three servers are replaced", where="without"),
    Attack("leaves with the status that ends its parent", "import os\nos._exit(77)\n"),
    Attack("replaces itself by a program that succeeds", """
import os
def total(xs):
    os.execv("/bin/true", ["true"])
"""),
    Attack("replaces itself by a shell that answers", """
import os
def total(xs):
    os.execv("/bin/sh", ["sh", "-c", "printf '\\\\000\\\\000\\\\000\\\\010[\\"ok\\",0]' >&3; exit 0"])
"""),
    Attack("replaces itself by another interpreter", """
import os, sys
def total(xs):
    os.execv(f"{sys.base_prefix}/bin/python3", ["python3", "-c", "import os; os.write(3, b'[0]'); os._exit(0)"])
"""),
    Attack("runs a file of its own making", """
import os
def total(xs):
    with open("run", "w") as file:
        file.write("#!/bin/sh\\necho 6 >&3\\nsleep 60 &\\n")
    os.chmod("run", 0o755)
    os.execv("./run", ["run"])
""", wall=0.4),
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
    _kills("kills its parent", "os.getppid()", "SIGKILL"),
    _kills("stops its parent", "os.getppid()", "SIGSTOP"),
    _kills("stops its parent and lets it go on", "os.getppid()", "SIGSTOP", "SIGCONT"),
    _kills("asks its parent to end", "os.getppid()", "SIGTERM"),
    _kills("interrupts its parent", "os.getppid()", "SIGINT"),
    _kills("sends its parent every harmless signal", "os.getppid()", "SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGPIPE"),
    _kills("sends its parent every signal", "os.getppid()"),
    _kills("sends the first process every signal", "1"),
    _kills("kills everybody", "-1", "SIGKILL"),
    _kills("stops everybody", "-1", "SIGSTOP"),
    _kills("kills its process group", "0", "SIGKILL"),
    _kills("stops its process group", "0", "SIGSTOP"),
    _kills("stops itself", "os.getpid()", "SIGSTOP", wall=0.5),
    _kills("kills the tester", "os.getpid() + 1", "SIGKILL"),
    _kills("stops the tester", "os.getpid() + 1", "SIGSTOP", wall=0.5),
    Attack("kills its parent by a signal for input", """
import fcntl, os, signal
def total(xs):
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, os.getppid())
    fcntl.fcntl(reading, 10, signal.SIGKILL)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writing, b"x")
    return 0
""", signals=True),
    Attack("kills the first process by a signal for input", """
import fcntl, os, signal
def total(xs):
    for number in (0, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
        reading, writing = os.pipe()
        fcntl.fcntl(reading, fcntl.F_SETOWN, 1)
        fcntl.fcntl(reading, 10, number)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
        os.write(writing, b"x")
    return 0
""", signals=True),
    Attack("kills its parent over and over from a new session", _ORPHAN + """
import signal
def work():
    while True:
        try:
            os.kill(parent, signal.SIGKILL)
        except OSError:
            pass
parent = os.getppid()
def total(xs):
    return orphan(work)
""", signals=True),
    Attack("kills whoever comes next", _ORPHAN + """
def work():
    while True:
        for pid in range(own + 1, own + 200):
            try:
                os.kill(pid, 9)
            except OSError:
                pass
own = os.getpid() + 3
def total(xs):
    return orphan(work)
""", signals=True),
    Attack("waits for the next program to tamper with it", _ORPHAN + """
import ctypes, resource
def work():
    libc = ctypes.CDLL(None)
    while True:
        for pid in range(2, own + 200):
            if pid != os.getpid():
                libc.ptrace(16, pid, 0, 0)
                libc.setpriority(0, pid, 19)
                try:
                    resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0))
                except OSError:
                    pass
                try:
                    os.sched_setaffinity(pid, {0})
                except OSError:
                    pass
own = os.getpid()
def total(xs):
    return orphan(work)
""", signals=True),
    Attack("waits for the next program to answer for it", _ORPHAN + """
def work():
    while True:
        for fd in range(64):
            try:
                os.write(fd, b'\\0\\0\\0\\x0a["ok",true]')
            except OSError:
                pass
        time.sleep(0.001)
def total(xs):
    return orphan(work)
"""),
    Attack("lets a child answer in its place", """
import os
def total(xs):
    if os.fork():
        os._exit(0)
    return 0
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
    Attack("leaves a daemon that ignores every signal", _ORPHAN + """
import signal
def work():
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    time.sleep(600)
def total(xs):
    return orphan(work)
"""),
    Attack("leaves a shell's background jobs", """
import os
def total(xs):
    return os.system("nohup sleep 600 >/dev/null 2>&1 & setsid sleep 600 & trap '' HUP TERM; sleep 600 &")
"""),
    Attack("leaves a process that forks on and on", _ORPHAN + """
def work():
    while True:
        try:
            if os.fork():
                os._exit(0)
        except OSError:
            pass
def total(xs):
    orphan(work)
    time.sleep(0.1)
    return 0
"""),
    Attack("leaves stopped processes", _ORPHAN + """
import signal
def total(xs):
    for _ in range(5):
        orphan(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    return 0
""", signals=True),
    Attack("leaves sixty dead children", """
import os
def total(xs):
    for _ in range(60):
        if os.fork() == 0:
            os._exit(0)
    return 0
"""),
    Attack("clones a sibling of itself", _CLONE + """
def total(xs):
    clone(0x8000 | 17)
    return 0
"""),
    Attack("clones children whose end nobody hears of", _CLONE + """
def total(xs):
    for flags in (0, 0x8000, 10, 0x00800000):
        clone(flags)
    return 0
"""),
    Attack("clones into namespaces of its own", _CLONE + """
def total(xs):
    for flags in (0x10000000, 0x30000000, 0x10020000, 0x3C020000):
        clone(flags | 17)
    return 0
"""),
    Attack("adopts its own orphans", """
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
def total(xs):
    for _ in range(5):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        os.wait()
    return 0
"""),
    Attack("forks from a thread that stays", """
import os, threading, time
def work():
    if os.fork() == 0:
        os.setsid()
    time.sleep(600)
def total(xs):
    threading.Thread(target=work).start()
    time.sleep(0.05)
    return 0
"""),
    Attack("ends its main thread alone", """
import ctypes, threading, time
def total(xs):
    threading.Thread(target=time.sleep, args=(600,)).start()
    ctypes.CDLL(None).pthread_exit(0)
""", wall=0.5),
    Attack("forks without end", """
import os
def total(xs):
    while True:
        try:
            os.fork()
        except OSError:
            pass
""", cpu=0.5),
    Attack("forks without end, in new sessions and groups", """
import os
def total(xs):
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            pass
""", cpu=0.5, walls=True),
    Attack("burns CPU in twenty children", """
import os
def total(xs):
    for _ in range(20):
        if os.fork() == 0:
            break
    while True:
        pass
""", cpu=0.5),
    Attack("computes the sum in children, one after the other, beyond the limit", """
import os, time
def total(xs):
    for _ in range(5):
        if os.fork() == 0:
            while time.process_time() < 0.2:
                pass
            os._exit(0)
        os.wait()
    return sum(xs)
""", cpu=0.3, tests=TESTS[:1], script=None),
    Attack("computes the sum in children that nobody waits for, beyond the limit", """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def total(xs):
    for _ in range(5):
        if os.fork() == 0:
            while time.process_time() < 0.2:
                pass
            os._exit(0)
        try:
            os.wait()
        except ChildProcessError:
            pass
    return sum(xs)
""", cpu=0.3, tests=TESTS[:1], script=None,
           fault="the CPU time of children is not counted when the program ignores SIGCHLD"),
    Attack("leaves a thread that spins", """
import threading
def work():
    while True:
        pass
def total(xs):
    threading.Thread(target=work, daemon=True).start()
    return 0
""", cpu=0.5),
    Attack("forks while it is loaded, and both go on", "import os\nos.fork()\ndef total(xs):\n    return 0\n"),
    Attack("a child that forges after the parent's end", FORGE + """
import time
def total(xs):
    if os.fork() == 0:
        time.sleep(0.02)
        while True:
            forge('["ok", 7]')
    os._exit(0)
"""),
)  # fmt: skip
