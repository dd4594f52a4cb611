"""Right answers by way of something odd: they may pass, but nothing of them may be left for the next program.

`CARRIED` are programs that try to leave something on purpose: a message, a changed place, a trap.
"""

from __future__ import annotations

from typing import Any

from attack_programs import FORGE, Attack
from contest_attacks import CHECKED, PLAIN

from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Check, Script

_SUM = "def total(xs):\n    return sum(xs)\n"


def _leaves(trick: str, code: str, **options: Any) -> Attack:
    return Attack(trick, f"{code}\n{_SUM}", **options)


HARMLESS = (
    Attack("answers by itself, in time", FORGE + """
def total(xs):
    forge('["ok", %d]' % sum(xs))
    while True:
        (xs,), _ = __import__("marshal").loads(os.read(3, struct.unpack("!I", os.read(3, 4))[0]))
        forge('["ok", %d]' % sum(xs))
"""),
    Attack("answers a byte at a time", FORGE + """
def total(xs):
    data = b'["ok",%d]' % sum(xs)
    for byte in struct.pack("!I", len(data)) + data:
        os.write(3, bytes([byte]))
    os.read(3, 1 << 16)
    os._exit(0)
"""),
    Attack("lets a child answer", """
import os, signal
def total(xs):
    if os.fork():
        signal.pause()
    return sum(xs)
"""),
    Attack("asks another program", """
import subprocess
def total(xs):
    return int(subprocess.run(["/bin/sh", "-c", f"echo $(({'+'.join(map(str, xs))}))"], capture_output=True).stdout)
"""),
    Attack("sums in threads and processes", """
import multiprocessing.pool, threading
def total(xs):
    with multiprocessing.pool.ThreadPool(3) as pool:
        return sum(pool.map(int, xs))
"""),
    Attack("returns a subclass that holds the sum", "class Any(int):\n    __eq__ = lambda *a: False\n    __hash__ = None\n"
           "def total(xs):\n    return Any(sum(xs))\n"),
    Attack("leaves printing to a child", "import os, time\nline = input()\nif os.fork():\n    os._exit(0)\ntime.sleep(0.1)\n"
           "print(sum(map(int, line.split())))\n", entry_point="", tests=(PLAIN, CHECKED), script=None),
    Attack("prints 20 MB", "def total(xs):\n    print('x' * 20_000_000)\n    return sum(xs)\n"),
    Attack("leaves a thread behind", "import threading, time\n"
           "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n" + _SUM),
)  # fmt: skip

RIGHT = (
    Attack("answers 6 MB over sixty calls of a script", "def total(xs):\n    return xs\n", tests=(),
           script=Script("", "xs = list(range(20_000))\nfor _ in range(60):\n    assert candidate(xs) == xs\n"),
           fault="4 MB is all that a program may answer to a script, and it is counted over all calls"),
    Attack("answers 5 MB to a question for the length", "def total(n):\n    return 'x' * n\n", script=None,
           tests=(Check((5_000_000,), 5_000_000, {}, "equal", "len"),),
           fault="what may be answered is measured by what is expected, which a view makes small"),
    Attack("answers 3 MB of digits where a few are expected", "def total(n):\n    return [1 / 3] * n\n", script=None,
           tests=(Check((160_000,), [0.3] * 160_000, {}, "close", tolerance=0.1),),
           fault="four times what is expected is less than other digits of a number may take"),
    Attack("answers a set of numbers that are far apart", "def total(n):\n    return {k << 40 for k in range(n)}\n", script=None,
           tests=(Test((20_000,), {k << 40 for k in range(20_000)}),)),
    Attack("answers a set of many equal hashes, a few each", "def total(n):\n    return {k % 7 * (2**61 - 1) + k for k in range(n)}\n",
           script=None, tests=(Test((5_000,), {k % 7 * (2**61 - 1) + k for k in range(5_000)}),)),
    Attack("uses sixteen threads", "import threading, time\ndef total(xs):\n"
           "    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(16)]\n"
           "    for each in threads:\n        each.start()\n    for each in threads:\n        each.join()\n    return sum(xs)\n"),
    Attack("leaves its own way after the last answer", "import atexit, os\natexit.register(os._exit, 3)\n" + _SUM),
    Attack("writes and reads files", "def total(xs):\n    with open('xs', 'w') as file:\n        file.write(' '.join(map(str, xs)))\n"
           "    with open('xs') as file:\n        return sum(map(int, file.read().split()))\n"),
)  # fmt: skip
"""Right answers that must pass: what is done against attacks must not reject them."""

CARRIED = (
    _leaves("a file", "open('left', 'w').write('6')"),
    _leaves("a file elsewhere", "open('/tmp/left', 'w').write('6')", walls=True),
    _leaves("four thousand files", "for i in range(4000):\n    open(str(i), 'x').close()"),
    _leaves("a full disk", "import os\ntry:\n    with open('left', 'wb', 0) as file:\n        while True:\n"
            "            file.write(bytes(1 << 20))\nexcept OSError:\n    pass", walls=True),
    _leaves("a folder", "import os\nos.makedirs('a/b/c')"),
    _leaves("a deep folder", "import os\nfor _ in range(500):\n    os.mkdir('d' * 99)\n    os.chdir('d' * 99)"),
    _leaves("a shut folder", "import os\nos.mkdir('a')\nopen('a/b', 'x').close()\nos.chmod('a', 0)"),
    _leaves("a link to a folder", "import os\nos.symlink('/usr', 'a')\nos.symlink('.', 'b')"),
    _leaves("names that are no text", "open(b'\\xff\\xfe\\n', 'x').close()\nopen('x' * 255, 'x').close()"),
    _leaves("a file that is open and locked", "import fcntl\nfile = open('left', 'w')\nfcntl.flock(file, fcntl.LOCK_EX)"),
    _leaves("other rights of its folder", "import os\ntry:\n    os.chmod('.', 0)\nexcept OSError:\n    pass", walls=True),
    _leaves("an attribute of its folder", "import os\ntry:\n    os.setxattr('.', 'user.left', b'6')\nexcept OSError:\n    pass",
            walls=True),
    _leaves("no room for names", "import os\ntry:\n    for i in range(999):\n        os.setxattr('.', f'user.{i}', bytes(60_000))\n"
            "except OSError:\n    pass\ntry:\n    for i in range(10**4):\n        os.setxattr('.', f'user.s{i}', bytes(9))\n"
            "except OSError:\n    pass", walls=True),
    _leaves("rules for the rights of files", "import os, struct\nrules = struct.pack('<I', 2)\n"
            "for tag in (1, 4, 32):\n    rules += struct.pack('<HHI', tag, 0, 0xffffffff)\n"
            "try:\n    os.setxattr('.', 'system.posix_acl_default', rules)\nexcept OSError:\n    pass", walls=True),
    _leaves("another time of its folder", "import os\ntry:\n    os.utime('.', (6, 6))\nexcept OSError:\n    pass", walls=True),
    _leaves("a mask for files", "import os\nos.umask(0o777)\nopen('left', 'x').close()"),
    _leaves("another folder to be in", "import os\nos.chdir('/')"),
    _leaves("other limits", "import resource\nfor name in ('NOFILE', 'FSIZE', 'NPROC', 'STACK', 'CPU'):\n"
            "    which = getattr(resource, 'RLIMIT_' + name)\n    soft, hard = resource.getrlimit(which)\n"
            "    resource.setrlimit(which, (min(30, soft) if soft >= 0 else 1 << 22, hard))\n"),
    _leaves("ignored and blocked signals", "import signal\nfor number in range(1, 65):\n    try:\n"
            "        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))"),
    _leaves("another place to run", "import os\nfor change in (lambda: os.nice(9), lambda: os.sched_setaffinity(0, {0}),\n"
            "               lambda: os.setpriority(os.PRIO_USER, 0, 9), lambda: os.setpriority(os.PRIO_PGRP, 0, 9)):\n"
            "    try:\n        change()\n    except OSError:\n        pass"),
    _leaves("environment and arguments", "import os, sys\nos.environ['LEFT'] = '6'\nos.putenv('LEFT', '6')\nsys.argv[:] = ['6']"),
    _leaves("a state of random numbers", "import random, ctypes\nrandom.seed(6)\nctypes.CDLL(None).srand(6)"),
    _leaves("marks in builtins and modules", "import builtins, math, json, sys\nbuiltins.left = math.left = json.left = 6\n"
            "sys.modules['left'] = math\nsys.path.insert(0, '/tmp')\nbuiltins.len = lambda x: 6"),
    _leaves("a locale and a time zone", "import locale, os, time\nos.environ['TZ'] = 'Asia/Tokyo'\ntime.tzset()\n"
            "locale.setlocale(locale.LC_ALL, 'C')"),
    _leaves("settings of the interpreter", "import gc, sys, threading\nsys.setrecursionlimit(150)\nsys.setswitchinterval(9)\n"
            "gc.disable()\ngc.set_threshold(1)\nsys.set_int_max_str_digits(0)\nthreading.stack_size(1 << 20)"),
    _leaves("descriptors", "import os\nfor fd in range(4, 256):\n    os.dup2(2, fd)"),
    _leaves("settings of its descriptors", "import fcntl, os\nfor fd in (0, 1, 2, 3):\n    os.set_inheritable(fd, False)\n"
            "for fd in (1, 2):\n    os.set_blocking(fd, False)\n    try:\n        fcntl.fcntl(fd, 1031, 4096)\n"
            "    except OSError:\n        pass"),
    _leaves("a process in its session", "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n    os._exit(0)"),
    _leaves("a process in another session", "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
            "        time.sleep(600)\n    os._exit(0)"),
    _leaves("a process without descriptors", "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.closerange(0, 256)\n"
            "    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)"),
    _leaves("a process of another name", "import subprocess\nsubprocess.Popen(['/bin/sleep', '600'], start_new_session=True)"),
    _leaves("a timer", "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nsignal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)"),
    _leaves("a message in a socket", "import array, socket\na, b = socket.socketpair()\n"
            "a.sendmsg([b'6'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [a.fileno(), b.fileno()]))])\n"
            "one = None\ntry:\n    one = socket.socket(socket.AF_UNIX)\n    one.bind('\\0left')\nexcept OSError:\n    pass"),
    _leaves("another group of processes", "import os\nos.setpgid(0, 0)"),
    _leaves("a session of its own", "import os\ntry:\n    os.setsid()\nexcept OSError:\n    pass"),
    _leaves("processor settings", "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.prctl(4, 1, 0, 0, 0)\nlibc.personality(0x0040000)\n"
            "libc.prctl(1, 9, 0, 0, 0)\nlibc.fesetround(0x400)"),
    _leaves("a host name", "import socket\ntry:\n    socket.sethostname('left')\nexcept OSError:\n    pass"),
)  # fmt: skip

LOOK = """
import builtins, gc, locale, math, os, random, resource, signal, socket, stat, sys, threading, time
def look():
    place = os.stat(".")
    alone = os.getcwd() == "/tmp"
    seen = {
        "files": os.listdir("."), "mode": place.st_mode, "attributes": os.listxattr("."), "old": place.st_mtime < 1e9,
        "limits": [resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT_")],
        "signals": [str(signal.getsignal(n)) for n in range(1, 32)], "mask": sorted(signal.pthread_sigmask(0, [])),
        "place": [os.getpriority(0, 0), sorted(os.sched_getaffinity(0)), os.sched_getscheduler(0)],
        "environment": dict(os.environ), "random": random.random(), "hash": hash("six"), "path": list(sys.path),
        "modules": sorted(sys.modules), "builtins": sorted(dir(builtins)), "math": len(dir(math)), "sum": sum([1, 2, 3]),
        "interpreter": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold()],
        "threads": [threading.active_count(), threading.stack_size()], "zone": list(time.tzname), "locale": locale.setlocale(0),
        "user": [os.getresuid(), os.getresgid(), os.getgroups()], "umask": os.umask(0o77), "half": 2 / 3, "host": socket.gethostname(),
        "itimer": signal.getitimer(signal.ITIMER_REAL), "descriptors": [], "others": [],
    }
    for fd in range(256):
        try:
            seen["descriptors"].append((fd, stat.S_IFMT(os.fstat(fd).st_mode), os.get_blocking(fd)))
        except OSError:
            pass
    if alone:
        room = os.statvfs(".")
        seen["room"] = [room.f_bavail, room.f_favail]
        for pid in range(2, os.getpid() + 99):
            try:
                if pid not in (os.getpid(), os.getppid()):
                    os.kill(pid, 0)
                    seen["others"].append(pid)
            except OSError:
                pass
    with open("look", "x") as file:
        file.write("6")
    with open("look") as file:
        seen["file"] = file.read()
    seen["file's mode"] = os.stat("look").st_mode
    os.unlink("look")
    seen["blocked"] = [int(n) for n in seen.pop("mask")]
    return seen
"""
"""What a program can see of those before it."""
