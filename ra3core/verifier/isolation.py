"""Walls around judged programs: namespaces, limits, privileges. Loaded by the fork server, standard library alone.

Once for a fork server: a user, mount, network, IPC and PID namespace, a root file system that holds nothing but the
system's libraries and the interpreter, read-only (`enter`); then a child that has an empty temporary folder as the only
writable place, limits, no privileges, a filter on system calls, and adopts orphans (`settle`). It forks the programs,
which so are born confined: doing all this for each of them costs several times as much as most programs.

After a program this parent kills and reaps it. When anything else is left then, a process or a file that cannot be
removed, or when a program has killed or stopped the parent, the namespace's first process, which programs cannot
signal, kills everybody, mounts a new folder and forks a new parent. So nothing outlives a program: no double fork, no
new session.

Where the machine refuses namespaces, `enter` says what is missing; every program is then confined by itself, and the
filter also keeps it from signalling other processes and from opening sockets.
"""

# ruff: noqa: PTH102, PTH103, PTH106, PTH108, PTH110, PTH112, PTH114, PTH115, PTH116, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "i686": 217, "ppc64le": 203, "s390x": 217}.get(platform.machine(), 41)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 38, 36
_PR_SET_KEEPCAPS, _PR_SET_SECCOMP, _PR_SET_DUMPABLE, _CAP_DAC_READ_SEARCH = 8, 22, 4, 2


@dataclass(frozen=True)
class _Calls:
    """Numbers of system calls on one architecture."""

    architecture: int
    own_threads: int  # tgkill
    limits: int  # prlimit64
    # What reaches into other processes or outlives the program: ptrace, process_vm_readv, process_vm_writev,
    # process_madvise, pidfd_getfd, kcmp, move_pages, migrate_pages, shmget, shmat, shmctl, msgget, semget, mq_open,
    # add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd, io_uring_setup, setpriority, ioprio_set,
    # sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr, unshare, setns; and memory that no limit
    # counts: memfd_create, memfd_secret
    refused: tuple[int, ...]
    # Without namespaces also: kill, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, socket
    outside: tuple[int, ...]


# fmt: off
_CALLS = {
    "x86_64": _Calls(0xC000003E, 234, 302, (
        101, 310, 311, 440, 438, 312, 279, 256, 29, 30, 31, 68, 64, 240, 248, 249, 250, 298, 321, 323, 425, 141, 251,
        142, 144, 203, 314, 272, 308, 319, 447,
    ), (62, 200, 129, 297, 424, 41)),
    "aarch64": _Calls(0xC00000B7, 131, 261, (
        117, 270, 271, 440, 438, 272, 239, 238, 194, 196, 195, 186, 190, 180, 217, 218, 219, 241, 280, 282, 425, 140,
        30, 118, 119, 122, 274, 97, 268, 279, 447,
    ), (129, 130, 138, 240, 424, 198)),
}
# fmt: on
_NOBODY = 65534

LEAVE = 77
"""Exit status of the programs' parent that makes its server end."""

_WALL = 0x40000000  # waits for children of every kind

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


def _call(name: str, *arguments: object) -> int:
    """A libc function; raises OSError when it returns -1."""
    result = getattr(_libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encode = lambda text: None if text is None else os.fsencode(text)  # noqa: E731
    _call("mount", encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(options))


class Sandbox:
    """State of one fork server: which walls stand."""

    def __init__(self) -> None:
        self.missing: list[str] = []  # protections that this machine refuses
        self.namespaces = False
        self.files = False  # a root file system of its own
        self.root = os.geteuid() == 0
        self._read_all = False
        self._others = 0
        self.settled = False  # programs are forked by a confined parent
        self._workplace, self._folder, self._count = "", "", 0
        self._folders: dict[int, str] = {}  # of the children, where they cannot mount one for themselves

    # -- once for the server ------------------------------------------------------------------------------------------

    def enter(self, base: str, namespaces: bool = True, packages: Sequence[str] = ()) -> None:
        """Put this process behind the walls; `base` is an existing empty folder of ours.

        packages: folders that programs may read beside the standard library.
        Forks: the process that returns is the first of a PID namespace, its parent waits for it and exits with it.
        """
        if not sys.platform.startswith("linux"):
            self.missing.append("namespaces (Linux only)")
        elif not namespaces:
            self.missing.append("namespaces (switched off)")
        else:
            refused = _try(self._unshare)
            self.namespaces = not refused
            if refused:
                self.missing.append(f"namespaces for users, processes, network and files ({refused})")
        if self.namespaces:
            self._unshare()
            child = os.fork()
            if child:
                _wait_for(child)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the first process gets no signal from
                signal.signal(number, signal.SIG_DFL)  # its own namespace that it has no handler for
            refused = _try(lambda: (_call("unshare", NEWNS), self._new_root(base, packages)))
            if refused:
                self.missing.append(f"a root file system of its own ({refused})")
            else:
                self._new_root(base, packages)
                self.files = True
        elif sys.platform.startswith("linux"):
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._workplace = base
        if self.root and not self.files and not _readable_by_nobody():
            self._read_all = True
            self.missing.append("secrecy of files (the standard library is readable to this user alone)")
        if platform.machine() not in _CALLS or not sys.platform.startswith("linux"):
            self.missing.append("a filter on system calls")
        if not self.root and not self.namespaces:  # the limit on processes then counts all that the user runs
            self._others = _tasks_of(os.getuid()) + 512

    def _unshare(self) -> None:
        user, group = os.geteuid(), os.getegid()
        ready, go = os.pipe()
        helper = os.fork() if self.root else 0
        if self.root and helper == 0:  # only a process that stayed outside may map more than one user
            os.close(go)
            code = 1
            try:
                if os.read(ready, 1):
                    for name in ("uid_map", "gid_map"):
                        _write(f"/proc/{os.getppid()}/{name}", f"0 0 1\n{_NOBODY} {_NOBODY} 1\n")
                    code = 0
            finally:
                os._exit(code)
        os.close(ready)
        try:
            _call("unshare", NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS)
            if self.root:
                os.write(go, b".")
            else:
                _write("/proc/self/setgroups", "deny")
                _write("/proc/self/uid_map", f"{_NOBODY} {user} 1\n")
                _write("/proc/self/gid_map", f"{_NOBODY} {group} 1\n")
        finally:
            os.close(go)
            failed = self.root and os.waitpid(helper, 0)[1]
        if failed:
            raise OSError(errno.EPERM, "users cannot be mapped")
        _write("/proc/sys/user/max_user_namespaces", "0", optional=True)  # programs make none of their own

    def _new_root(self, base: str, packages: Sequence[str]) -> None:
        """Swap the root file system for one with the system's libraries and this interpreter, all read-only."""
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
        for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"):
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{base}/{name}")
            elif os.path.isdir(f"/{name}"):
                _bind(f"/{name}", base)
        for path in {"/usr", "/etc/ld.so.cache", "/etc/localtime", sys.base_prefix, sys.base_exec_prefix, *packages}:
            if os.path.exists(path) and not (path.startswith("/usr/") and path != "/usr"):
                _bind(path, base)
        for name in ("null", "zero", "full", "random", "urandom"):
            _bind(f"/dev/{name}", base, read_only=False)
        for name in ("tmp", "proc", "old"):
            os.mkdir(f"{base}/{name}")
        os.chdir(base)
        _call("syscall", _SYS_PIVOT_ROOT, b".", b"old")
        os.chdir("/")
        _call("umount2", b"/old", _MNT_DETACH)
        os.rmdir("/old")
        _mount("none", "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)

    def settle(self, limits: dict[str, int]) -> None:
        """Become the confined parent of programs, where there are namespaces and a root of our own.

        The calling process, first of its namespace, stays behind: when the parent ends or is stopped, it kills
        everybody, empties the folder and returns once more, in a new parent; it exits when the parent does so with
        LEAVE.
        """
        if not self.files:
            return
        _mount_folder(limits["disk"])
        while True:
            parent = os.fork()
            if parent == 0:
                os.setsid()  # programs may signal their group; the server's outer process is not to be in it
                self._folder = "/tmp"
                self.settled = True
                _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
                self._drop(limits)
                return
            _, status = os.waitpid(parent, os.WUNTRACED)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == LEAVE:
                os._exit(0)
            _kill_namespace()
            _call("umount2", b"/tmp", _MNT_DETACH)
            _mount_folder(limits["disk"])

    # -- once for each program ----------------------------------------------------------------------------------------

    def fork(self) -> int:
        """Fork a program's process."""
        if self.settled:
            child = _fork()
        else:
            self._count += 1
            self._folder = f"{self._workplace}/{self._count}"
            os.mkdir(self._folder, 0o700)
            if self.root:
                os.chown(self._folder, _NOBODY, _NOBODY)
            child = os.fork()
            self._folders[child] = self._folder
        return child

    def confine(self, limits: dict[str, int]) -> None:
        """In the child: an empty writable folder, limits, no privileges. Irreversible."""
        if not self.settled:
            os.setsid()
            self._drop(limits)
        _limit("RLIMIT_CPU", limits["cpu"])
        _limit("RLIMIT_AS", limits["memory"])

    def kill(self, children: Sequence[int]) -> tuple[list[tuple[int, float]], bool]:
        """Kill a program with everything it started: (wait status, CPU seconds) of each of its first processes, and
        whether nothing is left; if something is, the caller must exit."""
        found = []
        for child in children:
            if not self.settled:
                _kill(-child)
            _kill(child)
            _, status, usage = os.wait4(child, 0)
            if not self.settled:
                _kill(-child)
            found.append((status, usage.ru_utime + usage.ru_stime))
        if self.settled:
            return found, _reap() and _emptied("/tmp")
        if self.namespaces:
            _kill_namespace()
        else:
            _kill_escaped()
        for child in children:
            _remove(self._folders.pop(child))
        return found, True

    def _drop(self, limits: dict[str, int]) -> None:
        """Everything of a program's confinement that is not a limit of its own."""
        os.chdir(self._folder)
        os.umask(0o077)
        _limit("RLIMIT_FSIZE", limits["disk"])
        _limit("RLIMIT_NOFILE", limits["files"])
        _limit("RLIMIT_CORE", 0)
        _limit("RLIMIT_NPROC", limits["processes"] + self._others)
        keep = 0
        if self.root:
            if self._read_all:
                keep = 1 << _CAP_DAC_READ_SEARCH
                _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        if sys.platform.startswith("linux"):
            _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            header, capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(keep, keep)
            _call("capset", header, capabilities)
            _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody's memory is a program's to look into
            _filter_calls(alone=self.namespaces)


def _fork() -> int:
    """fork without the interpreter's after-work (locks of other threads, new seeds), which is half of its cost.

    For a process that has one thread and seeds its generators itself.
    """
    child = _python.fork()
    if child < 0:
        raise OSError(ctypes.get_errno(), "fork")
    return child


def _kill_namespace() -> None:
    """Kill everybody in this PID namespace but its first process, which must be this one, and reap them."""
    if os.getpid() != 1:
        raise RuntimeError("not the first process of a PID namespace")
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, _WALL)


def _reap() -> bool:
    """Reap orphans that are dead; whether there is no other. All that a dead process left is a child of this one."""
    try:
        while os.waitpid(-1, os.WNOHANG | _WALL)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _kill_escaped() -> None:
    """Kill orphans without PID namespaces: they became this process's children (it is a subreaper)."""
    while not _reap():
        for child in _children(os.getpid()):
            _kill(child)


def _mount_folder(size: int) -> None:
    """An empty folder that everybody may write to, over whatever was there."""
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={size},nr_inodes=4096,mode=777")


def _emptied(folder: str) -> bool:
    """Remove the files in a folder; whether it is as it was at first."""
    try:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
    except OSError:
        return False
    return os.stat(folder).st_mode & 0o7777 == 0o777 and not os.listxattr(folder)


@functools.cache
def _filter(calls: _Calls, process: int) -> bytes:
    """A seccomp program: refused calls fail with EPERM.

    process: 0 where the PID namespace is the program's own; else the only process that it may signal, by threads.
    """
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, calls.architecture),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # the call's number
        (at_least, 0, 1, 0x40000000),  # a second numbering of the same calls
        (answer, 0, 0, refuse),
    ]
    only_for = [(calls.limits, 0)] + ([(calls.own_threads, process)] if process else [])
    for number, allowed in only_for:
        program += [
            (equal, 0, 4, number),
            (load, 0, 0, 16),  # its first argument
            (equal, 0, 1, allowed),
            (answer, 0, 0, allow),
            (answer, 0, 0, refuse),
        ]
    refused = calls.refused + (calls.outside if process else ())
    for position, number in enumerate(refused):
        program.append((equal, len(refused) - position, 0, number))
    program += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    return b"".join(struct.pack("HBBI", *line) for line in program)


def _filter_calls(alone: bool) -> None:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return
    code = _filter(calls, 0 if alone else os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    _call("prctl", _PR_SET_SECCOMP, 2, ctypes.c_char_p(header), 0, 0)


def _bind(path: str, base: str, read_only: bool = True) -> None:
    """Show `path` at the same place below `base`."""
    target = base + path
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT, 0o644))
    _mount(path, target, None, _MS_BIND | _MS_REC)
    if read_only:
        wanted = _MountAttributes(set=_MS_RDONLY | _MS_NOSUID)
        at_fdcwd, recursive = -100, 0x8000
        _call("syscall", _SYS_MOUNT_SETATTR, at_fdcwd, os.fsencode(target), recursive, ctypes.byref(wanted), 32)


def _try(function: Callable[[], object]) -> str:
    """Call in a child that is thrown away: what went wrong, or nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
        except OSError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        refused = file.read().decode()
    _, status = os.waitpid(child, 0)
    return refused or ("" if status == 0 else f"wait status {status}")


def _remove(folder: str) -> None:
    try:
        import shutil  # with what it brings along it would make every fork dearer

        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # nested beyond what can be walked; it goes with the server's folder at the latest
        return


def _limit(name: str, value: int) -> None:
    which = getattr(resource, name, None)
    if which is None:
        return
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    try:
        resource.setrlimit(which, (value, value))
    except (ValueError, OSError):
        if sys.platform.startswith("linux"):
            raise  # elsewhere some limits exist in name only


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """Direct children of a process, from /proc (none where there is no /proc)."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == pid:
                found.append(int(name))
    return found


def _tasks_of(user: int) -> int:
    """Threads that a user runs now."""
    count = 0
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _readable_by_nobody() -> bool:
    """Whether an unprivileged user can read the standard library: every folder above it must be open to all."""
    folder = os.path.dirname(os.__file__)
    while True:
        if os.stat(folder).st_mode & 0o005 != 0o005:
            return False
        if folder == "/":
            return True
        folder = os.path.dirname(folder)


def _write(path: str, text: str, optional: bool = False) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        if not optional:
            raise


def _wait_for(child: int) -> None:
    """The server's outer half: gone when the inner one is."""
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
