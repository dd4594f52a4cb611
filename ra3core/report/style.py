"""One look for every arm, in figures and tables alike.

Colours are from the palette of Okabe and Ito, told apart by readers with any colour vision; models after RLVR take a
darker shade of the model they started from. Markers and line styles carry the same information in grey print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arm:
    """name: the arm's name in stages' names. label: how a reader sees it. stage: the stage that trains it."""

    name: str
    label: str
    short: str
    color: str
    marker: str
    line: Any = "-"  # a matplotlib line style


MID_TRAINING = (
    Arm("base", "Base model", "Base", "#5A5A5A", "s", (0, (1, 1.2))),
    Arm("ntp", "NTP, data-matched", "NTP", "#0072B2", "o", (0, (5, 1.6))),
    Arm("ntp_compute", "NTP, compute-matched", "NTP (compute)", "#56B4E9", "v", (0, (3, 1.2, 1, 1.2))),
    Arm("ra3_no_rl", "RA3 without E-step RL", "RA3 w/o RL", "#E69F00", "D", (0, (5, 1, 1, 1, 1, 1))),
    Arm("ra3", "RA3", "RA3", "#D55E00", "^", "-"),
)
AFTER_RLVR = (
    Arm("ntp_rlvr", "NTP, then RLVR", "NTP + RLVR", "#00456B", "P", (0, (5, 1.6))),
    Arm("ra3_rlvr", "RA3, then RLVR", "RA3 + RLVR", "#8C3B00", "X", "-"),
)
ARMS = MID_TRAINING + AFTER_RLVR
BY_NAME = {arm.name: arm for arm in ARMS}

MODES = {
    "free": "free",
    "banned": "comments banned",
    "forced": "first comment forced",
}
