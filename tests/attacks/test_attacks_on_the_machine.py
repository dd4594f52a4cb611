"""Attacks with processes, secrets, limits and output: see test_attacks.py. And the walls that they run against."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

import pytest
from assault import LIMITS, Assailed
from attack_programs import TESTS, Attack
from contest_attacks import CONTEST_ATTACKS
from exhausted_resources import EXHAUSTED_RESOURCES
from hostile_processes import HOSTILE_PROCESSES
from stolen_secrets import STOLEN_SECRETS

from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Program, Verifier

ATTACKS = (*STOLEN_SECRETS, *HOSTILE_PROCESSES, *EXHAUSTED_RESOURCES, *CONTEST_ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.trick)
def test_attack(request: pytest.FixtureRequest, assailed: Assailed, attack: Attack) -> None:
    assailed.test(request, attack, "fail")


NEIGHBOURS = ("forks without end", "fills memory from C", "kills everybody", "prints to standard error, and computes")
THREADS = Program(
    "import threading\ndef total(xs):\n    found = []\n"
    "    threads = [threading.Thread(target=found.append, args=(x,)) for x in xs]\n"
    "    for each in threads:\n        each.start()\n    for each in threads:\n        each.join()\n    return sum(found)\n",
    "total",
    TESTS,
)


@pytest.mark.parametrize("trick", NEIGHBOURS)
def test_right_programs_pass_beside_an_attack(assailed: Assailed, trick: str) -> None:
    if not assailed.walled:
        pytest.skip("without namespaces all programs share one user's limits")
    attack = next(attack for attack in ATTACKS if attack.trick.startswith(trick))
    with Verifier(LIMITS, workers=2) as verifier:
        under_way = [verifier.submit(program) for program in attack.programs()]
        verdicts = verifier.judge([THREADS] * 5)
        while not all(future.done() for future in under_way):
            verdicts += verifier.judge([THREADS])
        assert not any(future.result().passed for future in under_way)
    assert all(verdict.passed for verdict in verdicts)


def test_nothing_that_was_started_is_left(assailed: Assailed) -> None:
    """A survivor would hold the pipe that it prints to open; the judge's end would then never see its end."""
    attack = next(attack for attack in ATTACKS if "new session that holds" in attack.trick)
    program = Program("import os\n" + attack.source, "total", TESTS, wall_seconds=3)
    assert assailed.verifier.judge([program])[0].wall_seconds < 3
    assert len(assailed.processes()) == assailed.calm


# What must be refused, by its number on x86_64.
CALLS = {
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "process_madvise": 440, "pidfd_getfd": 438,
    "kcmp": 312, "move_pages": 279, "migrate_pages": 256, "shmget": 29, "shmat": 30, "shmctl": 31, "msgget": 68,
    "semget": 64, "mq_open": 240, "add_key": 248, "request_key": 249, "keyctl": 250, "perf_event_open": 298, "bpf": 321,
    "userfaultfd": 323, "io_uring_setup": 425, "setpriority": 141, "ioprio_set": 251, "sched_setparam": 142,
    "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_setattr": 314, "unshare": 272, "setns": 308,
    "memfd_create": 319, "memfd_secret": 447, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
    "reboot": 169, "init_module": 175, "finit_module": 313, "kexec_load": 246, "swapon": 167, "sethostname": 170,
    "settimeofday": 164, "clock_settime": 227, "acct": 163, "quotactl": 179, "setuid": 105, "setgid": 106, "setgroups": 116,
    "capset": 126, "mknod": 133, "open_by_handle_at": 304, "fsopen": 430, "open_tree": 428, "move_mount": 429,
    "mount_setattr": 442, "fsconfig": 431, "fsmount": 432, "iopl": 172, "ioperm": 173, "lookup_dcookie": 212,
    "x32 getpid": 0x40000000 + 39,
}  # fmt: skip
_CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    ctypes.set_errno(0)
    argument = b"/tmp" if number in (161, 163, 165, 166) else ctypes.c_long(0)
    return [libc.syscall(number, argument, 0, 0, 0, 0, 0) >= 0]
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
@pytest.mark.parametrize("name", CALLS)
def test_system_calls_that_are_refused(assailed: Assailed, name: str) -> None:
    if name in ("setgid", "setuid", "setgroups", "capset") and not assailed.walled and os.geteuid() == 0:
        pytest.skip("changes nothing that the program has")
    found = assailed.verifier.judge([Program(_CALL, "call", (Test((CALLS[name],), [False]),))])[0]
    assert found.passed, found.detail


@pytest.mark.parametrize(
    "family",
    [
        pytest.param("AF_VSOCK", marks=pytest.mark.xfail(strict=True, reason="no network namespace bounds it")),
        "AF_ALG", "AF_PACKET", "AF_BLUETOOTH", "AF_CAN", "AF_TIPC", "AF_RDS", "AF_QIPCRTR", "AF_KEY", "AF_XDP",
    ],
)  # fmt: skip
def test_sockets_that_reach_out_of_the_network_namespace(assailed: Assailed, family: str) -> None:
    source = (
        f"import socket\ndef make():\n    found = []\n    for kind in (1, 2, 3, 5):\n        try:\n"
        f"            found.append(socket.socket(getattr(socket, '{family}', -2), kind).fileno() < 0)\n"
        "        except OSError:\n            pass\n    return found\n"
    )
    found = assailed.verifier.judge([Program(source, "make", (Test((), []),))])[0]
    if family == "AF_VSOCK" and not assailed.walled:
        pytest.xfail("refused without namespaces, by the filter")
    assert found.passed, found.detail


def test_without_namespaces_a_deep_folder_does_not_stop_the_verifier() -> None:
    attack = next(attack for attack in EXHAUSTED_RESOURCES if attack.trick == "folders in folders")
    with Verifier(LIMITS, namespaces=False) as verifier:
        base = Path(verifier._servers[0]._base)
        verifier.judge(attack.programs())
    assert not base.exists()


@pytest.mark.xfail(strict=True, reason="fcntl(F_SETOWN) is not refused, and sends what kill may not")
def test_without_namespaces_no_signal_reaches_another_process() -> None:
    """A file's owner gets a signal of the program's choice when something arrives (F_SETOWN, F_SETSIG)."""
    source = """
import fcntl, os, signal
def kill(pid):
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(reading, fcntl.F_SETOWN, pid)
        fcntl.fcntl(reading, 10, signal.SIGKILL)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
        os.write(writing, b"x")
    except OSError:
        pass
"""
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    with Verifier(LIMITS, namespaces=False) as verifier, subprocess.Popen(["sleep", "60"], cwd="/", **user) as victim:  # type: ignore[call-overload]
        verifier.judge([Program(source, "kill", (Test((victim.pid,), None),))])
        time.sleep(0.1)
        alive = victim.poll() is None
        victim.kill()
    assert alive
