"""Every attack of the suite, and what it left for the programs after it (assault.py judges; attack_programs.py explains)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from assault import ATTACKS, CARRIED, HARMLESS, WEAK, Assailed, Attack


@pytest.fixture(scope="module")
def assailed() -> Iterator[Assailed]:
    under = Assailed(namespaces=True)
    yield under
    assert not under.close()


def _assault(assailed: Assailed, attack: Attack, **options: bool) -> None:
    if assailed.excuse(attack):
        pytest.skip(assailed.excuse(attack))
    found = assailed.assault(attack, **options)
    if assailed.fault(attack):
        pytest.xfail(assailed.fault(attack))
    assert not found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.trick)
def test_an_attack_achieves_nothing(assailed: Assailed, attack: Attack) -> None:
    _assault(assailed, attack)


@pytest.mark.parametrize("attack", HARMLESS + CARRIED, ids=lambda attack: attack.trick)
def test_an_odd_program_leaves_nothing(assailed: Assailed, attack: Attack) -> None:
    _assault(assailed, attack, harmless=True)


@pytest.mark.parametrize("attack", WEAK, ids=lambda attack: attack.trick)
def test_a_forgeable_verdict_is_called_weak(assailed: Assailed, attack: Attack) -> None:
    _assault(assailed, attack, weak=True)
