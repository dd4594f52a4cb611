from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from attack_programs import ATTACKS, Attack

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Program, Script, Verifier

TESTS = (Test(([1, 2, 3],), 6), Test(([4, 5],), 9))
SCRIPT = Script("", "for xs in ([1, 2, 3], [4, 5]):\n    assert candidate(xs) == sum(xs)\n")
LIMITS = VerifierConfig(cpu_seconds=1, wall_seconds=6, memory_mb=256)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(LIMITS, workers=2) as verifier:
        yield verifier


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.trick)
def test_an_attack_is_judged_wrong_and_the_judge_goes_on(verifier: Verifier, attack: Attack) -> None:
    if attack.signals and verifier.missing:
        pytest.skip("without PID namespaces it would reach other processes")
    started = time.monotonic()
    by_tests, by_script, honest = verifier.judge(
        [
            Program(attack.source, "total", TESTS, exhaustive=True),
            Program(attack.source, "total", script=SCRIPT),
            Program("def total(xs):\n    return sum(xs)\n", "total", TESTS, SCRIPT),
        ]
    )
    assert not by_tests.passed
    assert "passed" not in by_tests.outcomes
    assert not by_script.passed
    assert not by_script.weak
    assert honest.passed
    assert time.monotonic() - started < 3 * LIMITS.wall_seconds


def test_nothing_that_was_started_is_left(verifier: Verifier) -> None:
    """A survivor would hold the pipe that it prints to open; the judge's end would then never see its end."""
    attack = next(a for a in ATTACKS if "new session" in a.trick)
    program = Program("import os\n" + attack.source, "total", TESTS, wall_seconds=3)
    assert verifier.judge([program])[0].wall_seconds < 3
    if not verifier.missing:
        processes = "import os\ndef total(xs):\n    os.kill(2, 0)\n"  # the next program's own namespace is empty
        assert "ProcessLookupError" in verifier.judge([Program(processes, "total", TESTS)])[0].detail
