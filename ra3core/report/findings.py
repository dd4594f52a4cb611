"""What a run shows and what it does not, in words.

A sentence claims something only when the 95 % interval of a paired difference excludes zero. What the paper reports
and the run contradicts is said as plainly as what it confirms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ra3core.report.blocks import Statement
from ra3core.report.inputs import Run
from ra3core.report.scores import Average, Contender, Difference, Scores
from ra3core.report.style import ARMS, BY_NAME, MID_TRAINING
from ra3core.report.verdicts import (
    NBSP,
    badge,
    enumerate_in_words,
    interval,
    label,
    percent,
    points,
    seeds_in_words,
    signed,
    verdict,
)


@dataclass(frozen=True)
class Comparison:
    """`first` against `second`, a difference that the paper expects above zero if `expected`.

    The claim reads "<subject> solves more tasks than <object>"; `short` labels the row of the figure.
    """

    name: str
    first: Contender
    second: Contender
    subject: str
    object: str
    short: str
    expected: bool = True


def _controls() -> tuple[Comparison, ...]:
    """RA3 against every arm that takes something away from it; the paper expects RA3 ahead."""
    wording = {
        "ntp": ("NTP on the same demonstrations", "RA3 − NTP, data-matched"),
        "ntp_compute": ("NTP with as many tokens to process", "RA3 − NTP, compute-matched"),
        "ntp_flops": ("NTP with as many floating-point operations", "RA3 − NTP, FLOPs-matched"),
        "ra3_no_rl": ("RA3 annotated by the base policy", "RA3 − RA3 without E-step RL"),
        "best_of_g": ("search: the best of G rationales of the model itself", "RA3 − best of G"),
        "ra3_sampled": ("RA3 without selection among rationales", "RA3 − RA3 without selection"),
        "brite": ("BRiTE, whose rationales are for the next line alone", "RA3 − BRiTE"),
        "distilled": ("NTP on comments distilled from another author", "RA3 − distilled comments"),
        "shuffled": ("the same with its rationales shuffled", "RA3 − shuffled rationales"),
        "no_thinking": ("RA3 with thinking at infinite cost", "RA3 − RA3 without thinking"),
    }
    subjects = {"ra3_no_rl": "RA3 with the E-step's RL"}
    return tuple(
        Comparison(f"ra3_{name}", Contender("ra3"), Contender(name), subjects.get(name, "RA3"), other, short)
        for name, (other, short) in wording.items()
    )


def _after_rlvr() -> tuple[Comparison, ...]:
    """The model from RA3 against those from other arms, and every arm against what it started from."""
    against = [
        Comparison(
            "rlvr" if arm.name == "ntp" else f"rlvr_ra3_{arm.name}",
            Contender("ra3_rlvr"),
            Contender(f"{arm.name}_rlvr"),
            "After RLVR, the model from RA3",
            "the model from NTP" if arm.name == "ntp" else f"the model from {arm.short}",
            f"RA3 + RLVR − {arm.short} + RLVR",
        )
        for arm in MID_TRAINING
        if arm.name != "ra3"
    ]
    own = [
        Comparison(
            f"rlvr_of_{arm.name}",
            Contender(f"{arm.name}_rlvr"),
            Contender(arm.name),
            f"{arm.short} followed by RLVR",
            f"{arm.short} alone",
            f"{arm.short} + RLVR − {arm.short}",
        )
        for arm in MID_TRAINING
    ]
    return (*against, *own)


MAIN = (
    *_controls()[:3],
    Comparison(
        "ntp_base",
        Contender("ntp"),
        Contender("base"),
        "NTP mid-training",
        "the base model it starts from",
        "NTP − base",
    ),
    *_controls()[3:],
    *_after_rlvr(),
)
DECODING = (
    Comparison(
        "ra3_base_forced",
        Contender("ra3"),
        Contender("base", "forced"),
        "RA3",
        "the base model made to begin with a comment",
        "RA3 − base with first comment forced",
        expected=False,
    ),
    Comparison(
        "ra3_ntp_forced",
        Contender("ra3"),
        Contender("ntp", "forced"),
        "RA3",
        "NTP made to begin with a comment",
        "RA3 − NTP with first comment forced",
        expected=False,
    ),
    Comparison(
        "banned",
        Contender("ra3", "banned"),
        Contender("ntp", "banned"),
        "With comments banned, RA3",
        "NTP",
        "comments banned: RA3 − NTP",
        expected=False,
    ),
    Comparison(
        "no_thinking_ntp",
        Contender("no_thinking"),
        Contender("ntp"),
        "RA3 with thinking at infinite cost",
        "NTP, which it should be equal to",
        "RA3 without thinking − NTP",
        expected=False,
    ),
    Comparison(
        "ra3_own_comments",
        Contender("ra3"),
        Contender("ra3", "banned"),
        "RA3 with its comments",
        "RA3 with comments banned",
        "RA3 − RA3 with comments banned",
        expected=False,
    ),
)


@dataclass(frozen=True)
class Finding:
    """A comparison with its numbers (pass@1, shares) and the sentence that they allow."""

    comparison: Comparison
    difference: Difference
    statement: Statement


def findings(scores: Scores | Average, comparisons: Sequence[Comparison]) -> list[Finding]:
    """The comparisons for which both arms were evaluated; of an average, on every benchmark."""
    found = []
    for comparison in comparisons:
        difference = scores.difference(comparison.first, comparison.second)
        if difference is not None:
            found.append(Finding(comparison, difference, _statement(comparison, difference)))
    return found


def order(found: Sequence[Finding]) -> Statement | None:
    """Whether the run has the paper's order base < NTP < RA3; None when one of the three was not run."""
    by_name = {finding.comparison.name: finding for finding in found}
    if not {"ra3_ntp", "ntp_base"} <= by_name.keys():
        return None
    used = {"NTP above base": by_name["ntp_base"], "RA3 above NTP": by_name["ra3_ntp"]}
    parts = {name: finding.statement.verdict for name, finding in used.items()}
    states = ", ".join(f"{name}: {_STATE[verdict]}" for name, verdict in parts.items())
    seeds = min(finding.difference.seeds for finding in used.values())
    said, holds = (
        ("against", "does not hold here")
        if "against" in parts.values()
        else ("not shown", "is not shown as a whole")
        if "not shown" in parts.values()
        else ("shown", "holds")
    )
    return Statement(said, label(said, seeds), f"**The paper's order base < NTP < RA3 {holds}.** {states}.")


_STATE = {"shown": "shown", "not shown": "not shown", "against": "the opposite is shown"}


def uncertainty(run: Run) -> str:
    """What the intervals cover, in one or two sentences."""
    seeds = run.seeds
    if len(seeds) == 1:
        return (
            f"One seed ({seeds[0]}): the intervals cover the choice of problems only. How much the numbers would "
            "change with another base model, other demonstrations or another order of training is not measured, so "
            "that a claim below holds for these models, not yet for the method."
        )
    return (
        f"{len(seeds)} seeds, each a whole pipeline{_shared(run)}. Intervals are 95 % "
        "bootstrap intervals over seeds and problems, both resampled, and stretched as Student's distribution asks for "
        f"{len(seeds)} seeds; differences are paired by seed and by problem. h is Cohen's: 0.2 is called small, 0.5 "
        "medium, 0.8 large."
    )


def _shared(run: Run) -> str:
    """Which of the base model and the demonstrations every seed had for itself, by their digests."""
    own, common = [], []
    for stage, name in (("base", "base model"), ("demonstrations", "demonstrations")):
        digests = {one.manifest.digest for one in run.stages.get(stage, {}).values()}
        if digests:
            (common if len(digests) == 1 else own).append(name)
    parts = [f"with its own {' and '.join(own)}"] if own else []
    parts += [f"all from the same {' and '.join(common)}"] if common else []
    return ", " + ", ".join(parts) if parts else ""


def not_run(run: Run, settings: Mapping[str, Any]) -> str | None:
    """A sentence on the arms without an evaluation; None when all are there.

    settings: the run's; where they say which arms it has, the others are not missed.
    """
    evaluated = {arm for found in (run.evaluations, *run.benchmarks.values()) for arm in found}
    arms = settings.get("arms", {})
    asked = {"base", *arms.get("mid_trained", ()), *(f"{name}_rlvr" for name in arms.get("rlvr", ()))}
    missing = [arm for arm in ARMS if arm.name not in evaluated and (arm.name in asked or not arms)]
    mid = [arm.label for arm in missing if not arm.after_rl]
    after = [BY_NAME[arm.start].label for arm in missing if arm.after_rl and arm.start in evaluated]
    sentences = [f"Not run, and absent from every table and figure: {enumerate_in_words(mid)}."] if mid else []
    sentences += [f"RLVR was not run from: {enumerate_in_words(after)}."] if after else []
    return " ".join(sentences) or None


def _statement(comparison: Comparison, difference: Difference) -> Statement:
    claim = f"{comparison.subject} solves more tasks than {comparison.object}"
    reverse = f"{comparison.subject} solves fewer tasks than {comparison.object}"
    numbers = difference_in_words(difference)
    found = verdict(difference.low, difference.high)
    if found == "not shown":
        none = label(found, difference.seeds) if comparison.expected else "No difference shown"
        doubt = claim if claim.startswith(tuple(arm.short for arm in MID_TRAINING)) else claim[0].lower() + claim[1:]
        return Statement(found, none, f"**That {doubt} is not shown:** {numbers}; the interval includes zero.")
    sentence = f"**{claim if found == 'shown' else reverse}:** {numbers}."
    if comparison.expected:
        return Statement(found, label(found, difference.seeds), sentence)
    return Statement("fact", badge("More" if found == "shown" else "Fewer", difference.seeds), sentence)


def difference_in_words(difference: Difference, k: int = 1) -> str:
    """Both scores, the difference in points with its interval, Cohen's h, and over how many seeds and tasks."""
    by_seed = f"; by seed {', '.join(points(value) for value in difference.per_seed)}" if difference.seeds > 1 else ""
    bounds = interval(100 * difference.low, 100 * difference.high, 1, difference.seeds)
    return (
        f"pass@{k} {percent(difference.first)}{NBSP}% against {percent(difference.second)}{NBSP}%, "
        f"{points(difference.value)} points ({bounds}{by_seed}; "
        f"h = {signed(difference.h, 2)}; {seeds_in_words(difference.seeds)}, {difference.tasks} tasks)"
    )
