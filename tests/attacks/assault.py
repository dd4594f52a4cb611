"""Runs an attack and says what it achieved; as a program, all of them, and prints a table of what they achieved.

    python tests/attacks/assault.py [--without-namespaces] [-v] [words of the tricks to run ...]

Run by hand without namespaces, put it into a PID namespace of its own (`unshare --pid --fork --mount-proc`).
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from attack_programs import SCRIPT, TESTS, Attack
from contest_attacks import CHECKED, CONTEST_ATTACKS, PLAIN
from exhausted_resources import EXHAUSTED_RESOURCES
from fooled_comparisons import FOOLED_COMPARISONS
from fooled_scripts import FOOLED_SCRIPTS, WEAK
from forged_answers import FORGED_ANSWERS
from harmless import CARRIED, HARMLESS, LOOK, RIGHT
from hostile_processes import HOSTILE_PROCESSES
from lying_objects import LYING_OBJECTS
from odd_sources import ODD_SOURCES
from patched_interpreters import PATCHED_INTERPRETERS
from stolen_secrets import STOLEN_SECRETS

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Program, Verdict, Verifier

LIMITS = VerifierConfig(cpu_seconds=1, wall_seconds=10, memory_mb=256)
ATTACKS: Sequence[Attack] = (
    *FORGED_ANSWERS, *LYING_OBJECTS, *PATCHED_INTERPRETERS, *STOLEN_SECRETS, *HOSTILE_PROCESSES, *EXHAUSTED_RESOURCES,
    *ODD_SOURCES, *FOOLED_COMPARISONS, *FOOLED_SCRIPTS, *CONTEST_ATTACKS,
)  # fmt: skip
HONEST_CALLS = Program("def total(xs):\n    return sum(xs)\n", "total", TESTS)
HONEST_SCRIPT = Program("def total(xs):\n    return sum(xs)\n", "total", script=SCRIPT)
HONEST_CONTEST = Program(
    "import os\nprint(sum(map(int, input().split())), flush=True)\nos._exit(0)\n", tests=(PLAIN, CHECKED)
)
_LOOK = Program(LOOK, "look", (Test((), None),))

COSTLY = 5.0
"""Seconds of its own CPU time that one way to judge an attack may take the judge."""
PATIENCE = 3.0
"""Seconds beyond twice the wall limit that it may take."""

Way = Literal["fail", "be odd", "pass", "be weak"]
"""How an attack has to be judged: wrong; wrong or right; right; either way, but weakly."""
GROUPS: Sequence[tuple[Sequence[Attack], Way]] = (
    (ATTACKS, "fail"), (HARMLESS, "be odd"), (CARRIED, "be odd"), (RIGHT, "pass"), (WEAK, "be weak"),
)  # fmt: skip
KINDS = ("fooled", "crashed", "hung", "costly", "unsound", "rejected", "left")
"""What an attack may achieve: a pass; an exception in the judge; more time than its limits; seconds of the judge's CPU
time, or new servers; a verdict that is weak or that cannot be printed; a right program rejected; something left for the
next program."""


class Assailed:
    """A verifier of one worker under attack, and what there was before."""

    def __init__(self, namespaces: bool) -> None:
        if sys.platform == "linux":  # what escapes from its server then becomes a child of this process
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        self.before = set(_descendants(os.getpid()))
        self._namespaces = namespaces
        self.cpu = 0.0  # seconds of the judge's own that the last attack took, at most
        self._start()

    def _start(self) -> None:
        self.verifier = Verifier(LIMITS, 1, namespaces=self._namespaces)
        self.verifier.__enter__()
        self.calm = len(self.processes())
        self._honest(HONEST_CALLS)
        self.sight = self.look()

    def close(self) -> list[tuple[str, str]]:
        """What goes wrong at the end, and what is left then."""
        try:
            self.verifier.close()
        except Exception as error:
            return [("crashed", f"closing raised {type(error).__name__}: {error}")]
        processes = self.processes()
        return [("left", f"{len(processes)} processes")] if processes else []

    @property
    def walled(self) -> bool:
        return not self.verifier.missing

    def excuse(self, attack: Attack) -> str:
        """Why an attack is not run here, or nothing."""
        if self.walled or not (attack.signals or attack.walls):
            return ""
        return "it would reach other processes" if attack.signals else "only namespaces bound it"

    def fault(self, attack: Attack) -> str:
        """Why it succeeds here, as far as is known."""
        user = self.walled and os.geteuid() != 0
        return attack.fault if {"everywhere": True, "user": user, "without": not self.walled}[attack.where] else ""

    def test(self, request: pytest.FixtureRequest, attack: Attack, may: Way) -> None:
        """The attack as a test."""
        if excuse := self.excuse(attack):
            pytest.skip(excuse)
        if fault := self.fault(attack):
            request.applymarker(pytest.mark.xfail(strict=True, reason=fault))
        found = self.assault(attack, may)
        assert not found, found

    def assault(self, attack: Attack, may: Way = "fail") -> list[tuple[str, str]]:
        """(kind, what happened) of all that an attack achieved."""
        found = []
        for program in attack.programs():
            found += self._judge(attack, program, may)
            found += self._honest(HONEST_CALLS)
        found += self.aftermath()
        if found:  # the next attack is to find what this one has found
            found += self.close()
            self._start()
        return found

    def _judge(self, attack: Attack, program: Program, may: Way) -> list[tuple[str, str]]:
        server = self._server
        started, cpu = time.monotonic(), time.process_time()
        try:
            verdict = self.verifier.submit(program).result(timeout=90)
        except TimeoutError:
            return [("hung", "no verdict in 90 s")]
        except Exception as error:
            return [("crashed", f"the judge raised {type(error).__name__}: {error}")]
        seconds, cpu = time.monotonic() - started, time.process_time() - cpu
        self.cpu = max(self.cpu, cpu)
        found = _fooled(attack, verdict) if may == "fail" else []
        if may == "pass" and not verdict.passed:
            found.append(("rejected", f"{verdict.category} ({verdict.detail})"))
        if verdict.weak is not (may == "be weak"):
            found.append(("unsound", f"weak is {verdict.weak}"))
        if not verdict.detail.isprintable():
            found.append(("unsound", f"a detail that cannot be printed: {verdict.detail!a}"))
        if seconds > 2 * attack.wall * max(1, len(program.tests)) + PATIENCE:
            found.append(("hung", f"{seconds:.1f} s"))
        if cpu > COSTLY:
            found.append(("costly", f"{cpu:.1f} s of the judge's CPU time"))
        if server != self._server:
            found.append(("costly", "the server had to be replaced"))
        return found

    def aftermath(self) -> list[tuple[str, str]]:
        """What is wrong with right programs now, what they see, and what runs that should not."""
        found = self._honest(HONEST_SCRIPT) + self._honest(HONEST_CONTEST)
        try:
            sight = self.look()
            found += [("left", f"{k}: {self.sight[k]} became {sight[k]}") for k in sight if sight[k] != self.sight[k]]
        except ValueError as error:
            found.append(("rejected", str(error)))
        processes = self.processes()
        if len(processes) > self.calm:
            found.append(("left", f"{len(processes)} processes instead of {self.calm}"))
        return found

    def _honest(self, program: Program) -> list[tuple[str, str]]:
        verdict = self.verifier.judge([program])[0]
        right = verdict.passed and not verdict.weak
        return [] if right else [("rejected", f"{verdict.category} ({verdict.detail})")]

    def look(self) -> dict[str, Any]:
        """What a program sees."""
        return self.verifier.record(_LOOK).result().values[0]

    def processes(self) -> list[int]:
        """What was started since, by number."""
        return [pid for pid in _descendants(os.getpid()) if pid not in self.before]

    @property
    def _server(self) -> int:
        popen = self.verifier._servers[0]._popen
        return popen.pid if popen is not None else 0


def _fooled(attack: Attack, verdict: Verdict) -> list[tuple[str, str]]:
    if verdict.passed or ("passed" in verdict.outcomes and not attack.partly):
        return [("fooled", f"{verdict.category}, {verdict.outcomes}, {verdict.cpu_seconds:.2f} s of CPU")]
    return []


def _descendants(root: int) -> list[int]:
    """All that a process has started and that is not dead, and what that has started; nothing where there is no /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(folder.name))
    found, waiting = [], [root]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def main() -> None:
    under = Assailed(namespaces="--without-namespaces" not in sys.argv)
    print(f"uid {os.geteuid()}; missing: {', '.join(under.verifier.missing) or 'nothing'}")
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    tried, skipped, counts = 0, 0, dict.fromkeys(KINDS, 0)
    for group, way in GROUPS:
        for attack in group:
            if words and not any(word in attack.trick for word in words):
                continue
            if under.excuse(attack):
                skipped += 1
                continue
            tried += 1
            started, under.cpu = time.monotonic(), 0.0
            found = under.assault(attack, way)
            seconds = time.monotonic() - started
            for kind in {kind for kind, _ in found}:
                counts[kind] += 1
            known = under.fault(attack)
            if found or known or "-v" in sys.argv:
                mark = ("", "MENDED ", "NEW ", "known ")[2 * bool(found) + bool(known)]
                print(f"{mark}{attack.trick} [{seconds:.1f} s, judge {under.cpu:.2f} s]", flush=True)
                for kind, what in found:
                    print(f"    {kind}: {what[:200]}")
    counted = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    print(f"tried {tried}, skipped {skipped}: {counted}; at the end {under.close() or 'nothing left'}")


if __name__ == "__main__":
    main()
