"""Every attack is judged wrong, within its limits, and leaves nothing (attack_programs.py says how to add one).

Two modules, because what tests side by side is a module: this one has those attacks that need little time.
"""

from __future__ import annotations

import pytest
from assault import Assailed, Way
from attack_programs import Attack
from fooled_comparisons import FOOLED_COMPARISONS
from fooled_scripts import FOOLED_SCRIPTS, WEAK
from forged_answers import FORGED_ANSWERS
from harmless import CARRIED, HARMLESS, RIGHT
from lying_objects import LYING_OBJECTS
from odd_sources import ODD_SOURCES
from patched_interpreters import PATCHED_INTERPRETERS

GROUPS: tuple[tuple[Way, tuple[Attack, ...]], ...] = (
    ("fail", FORGED_ANSWERS),
    ("fail", LYING_OBJECTS),
    ("fail", PATCHED_INTERPRETERS),
    ("fail", ODD_SOURCES),
    ("fail", FOOLED_COMPARISONS),
    ("fail", FOOLED_SCRIPTS),
    ("be odd", HARMLESS),
    ("be odd", CARRIED),
    ("pass", RIGHT),
    ("be weak", WEAK),
)


@pytest.mark.parametrize(
    ("attack", "way"), [pytest.param(attack, way, id=attack.trick) for way, group in GROUPS for attack in group]
)
def test_attack(request: pytest.FixtureRequest, assailed: Assailed, attack: Attack, way: Way) -> None:
    assailed.test(request, attack, way)
