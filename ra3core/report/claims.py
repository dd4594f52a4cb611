"""The paper's three claims, each measured in the ways that it can be read, and judged by one rule (verdicts.py).

1. **The M-step's cross-entropy ends below NTP's.** On demonstrations held out from it, at the end of training, against
   data-matched NTP: nats per token over all tokens, rationales included (the loss that the M-step minimises); nats per
   code token, given the rationales; and nats per whole demonstration, the only one of the three whose unit is the same
   for both, in which a rationale has to pay for its own tokens.
2. **pass@1 is higher than compute-matched NTP's.** Averaged over the benchmarks evaluated, each weighing the same.
3. **RLVR is faster and higher.** Against the model from NTP: the final held-out pass rate and pass@1 on the benchmarks
   (higher), the area under the held-out curve and the steps to given pass rates (faster).

The first and the third but for its pass@1 have one figure a seed, so that one seed shows nothing, nor do seeds that are
all alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from ra3core.report.blocks import Statement, Verdict
from ra3core.report.findings import difference_in_words
from ra3core.report.inputs import Run
from ra3core.report.rl import Courses, Gap, gap
from ra3core.report.scores import Average, Contender, Difference
from ra3core.report.style import BY_NAME
from ra3core.report.verdicts import LABELS, NBSP, badge, interval, label, percent, seeds_in_words, signed, verdict
from ra3core.statistics import Estimate, over_seeds, standardised

TITLES = {
    "cross_entropy": "Claim 1: lower M-step cross-entropy than NTP",
    "pass_at_1": "Claim 2: higher pass@1 than compute-matched NTP",
    "rlvr": "Claim 3: faster and higher RLVR",
}
TOKENS = {
    "held_out": ("all tokens, rationales included", "nats per token"),
    "held_out_code": ("code tokens given the rationales", "nats per code token"),
    "held_out_nats": ("the whole demonstration", "nats per demonstration"),
}


@dataclass(frozen=True)
class Evidence:
    """One way of measuring a claim: first - second, which the paper expects above (direction 1) or below zero (-1).

    effect, effect_size: what the difference is in units of, and its value; nan where there is none. unit: of value.
    """

    claim: str
    name: str
    short: str
    unit: str
    first: float
    second: float
    value: float
    low: float
    high: float
    direction: int
    effect: str
    effect_size: float
    per_seed: tuple[float, ...]
    statement: Statement


H, D = "Cohen's h", "d over seeds"


def claims(run: Run, average: Average, found: Courses, rates: tuple[float, ...]) -> list[Evidence]:
    """All evidence that the run holds; rates: pass rates to reach in RLVR."""
    evidence = [one for column in TOKENS if (one := _cross_entropy(run, column)) is not None]
    for arm in ("ntp_compute", "ntp_flops"):
        difference = average.difference(Contender("ra3"), Contender(arm))
        if difference is not None:
            evidence.append(_pass("pass_at_1", arm, "ra3", arm, difference))
    for arm in ("ntp", "ntp_compute"):
        name = f"{arm}_rlvr"
        difference = average.difference(Contender("ra3_rlvr"), Contender(name))
        if difference is not None:
            evidence.append(_pass("rlvr", f"{arm}:pass_at_1", "ra3_rlvr", name, difference))
        for figure, unit in (("final", "final rate"), ("area", "mean rate")):
            one = gap(found, "ra3_rlvr", name, figure)
            if one is not None:
                evidence.append(_rate(f"{arm}:{figure}", unit, name, one))
        for rate in rates:
            one = gap(found, "ra3_rlvr", name, f"steps:{rate}")
            if one is not None and one.compares:
                evidence.append(_steps(f"{arm}:steps:{rate}", rate, name, one))
    return evidence


def summaries(evidence: list[Evidence]) -> list[Statement]:
    """One statement a claim: shown as a whole, or what is and what is not.

    The badge speaks of as many seeds as the part of the fewest, among the parts that show something.
    """
    found = []
    for claim, title in TITLES.items():
        parts = [one for one in evidence if one.claim == claim]
        if not parts:
            text = f"**{title}.** The run holds nothing to judge it by."
            found.append(Statement("not shown", "Not measured", text))
            continue
        verdicts: set[Verdict] = {one.statement.verdict for one in parts}
        overall = next(iter(verdicts)) if len(verdicts) == 1 else "not shown"
        words = LABELS[overall] if len(verdicts) == 1 else _PARTLY[frozenset(verdicts - {"not shown"})]
        seeds = min((len(one.per_seed) for one in parts if one.statement.verdict != "not shown"), default=0)
        states = "; ".join(f"{one.short}: {one.statement.label.lower()}" for one in parts)
        found.append(Statement(overall, badge(words, seeds), f"**{title}.** {states}."))
    return found


_PARTLY: dict[frozenset[Verdict], str] = {
    frozenset({"shown"}): "In part",
    frozenset({"against"}): "Against in part",
    frozenset({"shown", "against"}): "Mixed",
}


def _cross_entropy(run: Run, column: str) -> Evidence | None:
    """RA3 against data-matched NTP at the end of training, seed by seed."""
    words, unit = TOKENS[column]
    values = [
        {seed: value for seed, one in run.stages.get(stage, {}).items() if (value := one.metric(column)) is not None}
        for stage in (run.stage_of("ra3"), "ntp")
    ]
    common = sorted(values[0].keys() & values[1].keys())
    if not common:
        return None
    per_seed = tuple(values[0][seed] - values[1][seed] for seed in common)
    first, second = (sum(one[seed] for seed in common) / len(common) for one in values)
    estimate, d = over_seeds(per_seed), standardised(per_seed)
    found = verdict(estimate.low, estimate.high, -1)
    digits = 2 if column == "held_out_nats" else 4
    numbers = (
        f"{first:.{digits}f} against {second:.{digits}f} {unit}, {signed(estimate.value, digits)} "
        f"({_uncertain(estimate, per_seed, d, digits)})"
    )
    statement = _said(found, f"RA3's M-step ends {{}} NTP on {words}", ("below", "above"), numbers, len(common))
    gone = (first, second, estimate.value, estimate.low, estimate.high)
    return Evidence("cross_entropy", column, words, unit, *gone, -1, D, d, per_seed, statement)


def _pass(claim: str, name: str, arm: str, other: str, found: Difference) -> Evidence:
    said = verdict(found.low, found.high)
    sentence = f"{BY_NAME[arm].short} is {{}} {BY_NAME[other].short}"
    statement = _said(said, sentence, ("above", "below"), difference_in_words(found), found.seeds)
    gone = (found.first, found.second, found.value, found.low, found.high)
    short = f"pass@1, {BY_NAME[arm].short} − {BY_NAME[other].short}"
    return Evidence(claim, name, short, "share", *gone, 1, H, found.h, found.per_seed, statement)


def _rate(name: str, unit: str, other: str, one: Gap) -> Evidence:
    low, high = one.estimate.low, one.estimate.high
    numbers = (
        f"{unit} {percent(one.first)}{NBSP}% against {percent(one.second)}{NBSP}%, "
        f"{signed(100 * one.estimate.value, 1)} points ({_uncertain(one.estimate, one.per_seed, one.d, 1, 100)})"
    )
    when = "ends" if unit == "final rate" else "is, over all its steps,"
    sentence = f"On held-out tasks RLVR from RA3 {when} {{}} {BY_NAME[other].short}"
    statement = _said(verdict(low, high), sentence, ("above", "below"), numbers, len(one.per_seed))
    gone = (one.first, one.second, one.estimate.value, low, high)
    short = f"{unit}, RA3 − {BY_NAME[other].short}"
    return Evidence("rlvr", name, short, "share", *gone, 1, D, one.d, one.per_seed, statement)


def _steps(name: str, rate: float, other: str, one: Gap) -> Evidence:
    low, high = one.estimate.low, one.estimate.high
    goal = f"{percent(rate, 0)}{NBSP}%"
    numbers = (
        f"{one.first:.1f} steps against {one.second:.1f}, {signed(one.estimate.value, 1)} "
        f"({_uncertain(one.estimate, one.per_seed, one.d, 1)}; seeds that never arrive count with all their steps)"
    )
    sentence = f"RLVR from RA3 reaches {goal} of held-out tasks {{}} than {BY_NAME[other].short}"
    statement = _said(verdict(low, high, -1), sentence, ("sooner", "later"), numbers, len(one.per_seed))
    gone = (one.first, one.second, one.estimate.value, low, high)
    short = f"steps to {goal}, RA3 − {BY_NAME[other].short}"
    return Evidence("rlvr", name, short, "steps", *gone, -1, D, one.d, one.per_seed, statement)


def _said(found: Verdict, claim: str, words: tuple[str, str], numbers: str, seeds: int) -> Statement:
    """claim: with a gap for the first of `words`, or for the second where it is the other way round."""
    sentence = claim.format(words[found == "against"])
    head = f"That {sentence[0].lower() + sentence[1:] if sentence.startswith('On') else sentence} is not shown"
    return Statement(found, label(found, seeds), f"**{head if found == 'not shown' else sentence}:** {numbers}.")


def _uncertain(estimate: Estimate, per_seed: Sequence[float], d: float, digits: int, scale: int = 1) -> str:
    """The interval, every seed's difference, d, and the number of seeds; or why there is no interval."""
    bounds = interval(scale * estimate.low, scale * estimate.high, digits, len(per_seed))
    if isnan(estimate.low):
        return bounds
    effect = "" if isnan(d) else f"; d = {signed(d, 2)}"
    by_seed = ", ".join(signed(scale * x, digits) for x in per_seed)
    return f"{bounds}; by seed {by_seed}{effect}; {seeds_in_words(len(per_seed))}"
