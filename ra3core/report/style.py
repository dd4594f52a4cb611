"""One look for every arm, in figures and tables alike.

Colours are from the palettes of Okabe and Ito and of Tol, told apart by readers with any colour vision; models after
RLVR take a darker shade of the model they started from. Markers and line styles say the same in grey print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Arm:
    """name: the arm's name in stages' names. label: how a reader sees it; short: in narrow places.

    differs: in what from RA3, which a difference in their scores is due to. after_rl: the arm is what RLVR makes of
    the arm `start`.
    """

    name: str
    label: str
    short: str
    color: str
    marker: str
    line: Any = "-"  # a matplotlib line style
    differs: str = ""
    start: str = ""

    @property
    def after_rl(self) -> bool:
        return bool(self.start)


_DASH, _DOT, _MIX = (0, (5, 1.6)), (0, (1, 1.2)), (0, (3, 1.2, 1, 1.2))
_LONG, _TWO, _WIDE = (0, (9, 2)), (0, (5, 1, 1, 1, 1, 1)), (0, (2, 2))

MID_TRAINING = (
    Arm("base", "Base model", "Base", "#5A5A5A", "s", _DOT, "no mid-training"),
    Arm("ntp", "NTP, data-matched", "NTP", "#0072B2", "o", _DASH, "no rationales, and none of the compute for them"),
    Arm(
        "ntp_compute",
        "NTP, compute-matched",
        "NTP (compute)",
        "#56B4E9",
        "v",
        _MIX,
        "no rationales: passes instead, up to the tokens that RA3's E-step, bootstrap and M-step process",
    ),
    Arm(
        "ntp_flops",
        "NTP, FLOPs-matched",
        "NTP (FLOPs)",
        "#009E73",
        "<",
        _LONG,
        "no rationales: passes instead, up to the floating-point operations of RA3's stages",
    ),
    Arm(
        "no_thinking",
        "RA3 without thinking",
        "No thinking",
        "#44AA99",
        "d",
        _WIDE,
        "no rationales: the pipeline with c infinite, which is NTP",
    ),
    Arm(
        "shuffled",
        "Shuffled rationales",
        "Shuffled",
        "#8B5A2B",
        "p",
        _DOT,
        "RA3's own rationales, each in another's place",
    ),
    Arm(
        "distilled",
        "Distilled comments",
        "Distilled",
        "#7A3D8F",
        "h",
        _MIX,
        "comments of another author in place of RA3's rationales",
    ),
    Arm(
        "brite",
        "BRiTE (horizon 1)",
        "BRiTE",
        "#CC79A7",
        ">",
        _WIDE,
        "no temporal extension: a rationale is for the next line alone",
    ),
    Arm(
        "ra3_sampled",
        "RA3 without selection",
        "RA3 sampled",
        "#B8A100",
        "*",
        _DASH,
        "no selection: the first rationale that the policy samples",
    ),
    Arm(
        "best_of_g",
        "Best of G, no E-step",
        "Best of G",
        "#882255",
        "X",
        _DOT,
        "no E-step: rationales of the model before it, wherever the best of several pays",
    ),
    Arm(
        "ra3_no_rl",
        "RA3 without E-step RL",
        "RA3 w/o RL",
        "#E69F00",
        "D",
        _TWO,
        "no RL in the E-step: rationales of the base policy",
    ),
    Arm("ra3", "RA3", "RA3", "#D55E00", "^", "-"),
)
"""Arms in the order of tables. Another arm is one line here, and a comparison in findings.py."""


def _after_rlvr(arm: Arm) -> Arm:
    """What RLVR makes of an arm: the same look, darker."""
    shade = "#" + "".join(f"{round(0.62 * int(arm.color[i : i + 2], 16)):02X}" for i in (1, 3, 5))
    name, label = f"{arm.name}_rlvr", f"{arm.short}, then RLVR"
    return Arm(name, label, f"{arm.short} + RLVR", shade, arm.marker, arm.line, start=arm.name)


AFTER_RLVR = tuple(_after_rlvr(arm) for arm in MID_TRAINING)
ARMS = MID_TRAINING + AFTER_RLVR
BY_NAME = {arm.name: arm for arm in ARMS}

MODES = {
    "free": "free",
    "banned": "comments banned",
    "forced": "first comment forced",
}
