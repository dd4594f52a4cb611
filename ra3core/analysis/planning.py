"""How long intents last, what the theorem makes of it, and how many iterations RLVR needed.

The paper: value iteration over options of duration tau ~ p(. | s, z) finds an eps-optimal value after

    N >= 1 / (1 - g) log( R_max / (eps (1 - g)) )           g = sup_{s, z} E[gamma^tau | s, z] <= gamma

iterations, g = gamma for primitive actions (tau = 1). Here tau is measured on annotated demonstrations: the expert
lines from a rationale to the next one or to the end of the program. The end cuts a duration short, so that tau is at
least what is measured, and g at most.

g is reported twice, for the supremum over states cannot be measured from one visit of each:
    mean   over all rationales, E[gamma^tau]
    sup    over rationales (normalised text) met at least OFTEN times, the largest mean of gamma^tau among them
and for the demonstrations as they were executed, `mixed`: lines ahead of the first rationale are primitive actions
among the options. To the letter the theorem's supremum over these is gamma: as long as a primitive action stays
allowed everywhere, it predicts no fewer iterations.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from ra3core.analysis.text import normalised
from ra3core.corpora.demonstrations import Annotated

OFTEN = 10
R_MAX = 1.0  # a task is passed or not
SMOOTHED = 5  # steps of the training reward's running mean


@dataclass(frozen=True)
class Segment:
    """Lines t .. t + lines - 1 under one rationale; cut: they end with the program, not with another rationale."""

    t: int
    text: str
    lines: int
    cut: bool


def segments(annotated: Annotated) -> list[Segment]:
    """The rationales of one demonstration with the lines that each governs."""
    starts = sorted(annotated.rationales)
    ends = [*starts[1:], len(annotated.demonstration.lines)]
    return [
        Segment(t, annotated.rationales[t], end - t, cut=t == starts[-1]) for t, end in zip(starts, ends, strict=False)
    ]


def predicted_iterations(contraction: float, epsilon: float, r_max: float = R_MAX) -> float:
    """The theorem's N for g = `contraction` in [0, 1): 1 / (1 - g) log(R_max / (eps (1 - g))), at least 0."""
    if not 0 <= contraction < 1:
        raise ValueError(f"a contraction lies in [0, 1), found {contraction}")
    return max(0.0, math.log(r_max / (epsilon * (1 - contraction))) / (1 - contraction))


def durations(demonstrations: Sequence[Annotated], gamma: float, epsilon: float) -> dict[str, Any]:
    """Durations, g and predicted iterations, as plain data; without any rationale only the primitive ones."""

    def predicted(g: float) -> dict[str, float]:
        return {"gamma_bar": g, "iterations": predicted_iterations(g, epsilon)}

    found: dict[str, Any] = {"gamma": gamma, "epsilon": epsilon, "r_max": R_MAX, "primitive": predicted(gamma)}
    governed = [segment for annotated in demonstrations for segment in segments(annotated)]
    if not governed:
        return found
    by_text: dict[str, list[float]] = defaultdict(list)
    for segment in governed:
        by_text[normalised(segment.text)].append(gamma**segment.lines)
    often = {text: fmean(powers) for text, powers in by_text.items() if len(powers) >= OFTEN}
    lines = [segment.lines for segment in governed]
    everything = sum(len(annotated.demonstration.lines) for annotated in demonstrations)
    alone = everything - sum(lines)
    powers = [gamma**count for count in lines]
    found["intents"] = {
        "count": len(lines),
        "lines": fmean(lines),
        "median_lines": median(lines),
        "cut_by_the_end": fmean(segment.cut for segment in governed),
        "governed_lines": 1 - alone / everything,
        "histogram": {str(count): lines.count(count) for count in sorted(set(lines))},
        "mean": predicted(fmean(powers)),
    }
    if often:
        longest = max(often, key=often.__getitem__)
        found["intents"]["sup"] = {**predicted(often[longest]), "text": longest}
    found["mixed"] = predicted((sum(powers) + alone * gamma) / (len(lines) + alone))
    return found


def iterations_needed(rows: Sequence[Mapping[str, float]], levels: Sequence[float]) -> dict[str, Any]:
    """The first step at which RLVR's step-wise metrics reach each level; None where they never do.

    held_out_pass: pass rate of held-out tasks, known every few steps. reward: share of training samples that pass, as
    the mean of the last SMOOTHED steps (of fewer, no level counts as reached).
    """
    held_out = [(int(row["step"]), row["held_out_pass"]) for row in rows if "held_out_pass" in row]
    rewards = [(int(row["step"]), row["reward"]) for row in rows if "reward" in row]
    running = [
        (rewards[last][0], fmean(value for _, value in rewards[last + 1 - SMOOTHED : last + 1]))
        for last in range(SMOOTHED - 1, len(rewards))
    ]
    curves = {"held_out_pass": held_out, "reward": running}
    return {
        "steps": int(rows[-1]["step"]) if rows else 0,
        **{
            name: [
                {"level": level, "step": next((step for step, value in curve if value >= level), None)}
                for level in levels
            ]
            for name, curve in curves.items()
        },
    }
