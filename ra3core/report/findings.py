"""What a run shows and what it does not, in words.

A sentence claims something only when the 95 % interval of a paired difference excludes zero. What the paper reports
and the run contradicts is said as plainly as what it confirms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ra3core.report.blocks import Statement
from ra3core.report.inputs import Run
from ra3core.report.scores import Contender, Difference, Scores
from ra3core.report.style import ARMS, BY_NAME


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


MAIN = (
    Comparison(
        "ra3_ntp",
        Contender("ra3"),
        Contender("ntp"),
        "RA3",
        "NTP on the same demonstrations",
        "RA3 − NTP, data-matched",
    ),
    Comparison(
        "ra3_ntp_compute",
        Contender("ra3"),
        Contender("ntp_compute"),
        "RA3",
        "NTP with as many tokens to process",
        "RA3 − NTP, compute-matched",
    ),
    Comparison(
        "ntp_base",
        Contender("ntp"),
        Contender("base"),
        "NTP mid-training",
        "the base model it starts from",
        "NTP − base",
    ),
    Comparison(
        "ra3_ra3_no_rl",
        Contender("ra3"),
        Contender("ra3_no_rl"),
        "RA3 with the E-step's RL",
        "RA3 annotated by the base policy",
        "RA3 − RA3 without E-step RL",
    ),
    Comparison(
        "rlvr",
        Contender("ra3_rlvr"),
        Contender("ntp_rlvr"),
        "After RLVR, the model from RA3",
        "the model from NTP",
        "RA3 + RLVR − NTP + RLVR",
    ),
    Comparison(
        "rlvr_of_ntp",
        Contender("ntp_rlvr"),
        Contender("ntp"),
        "NTP followed by RLVR",
        "NTP alone",
        "NTP + RLVR − NTP",
    ),
    Comparison(
        "rlvr_of_ra3",
        Contender("ra3_rlvr"),
        Contender("ra3"),
        "RA3 followed by RLVR",
        "RA3 alone",
        "RA3 + RLVR − RA3",
    ),
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


def findings(scores: Scores, comparisons: Sequence[Comparison]) -> list[Finding]:
    """The comparisons for which both arms were evaluated."""
    found = []
    for comparison in comparisons:
        difference = scores.difference(comparison.first, comparison.second)
        if difference is not None:
            found.append(Finding(comparison, difference, _statement(comparison, difference)))
    return found


def order(found: Sequence[Finding]) -> Statement | None:
    """Whether the run has the paper's order base < NTP < RA3; None when one of the three was not run."""
    verdicts = {finding.comparison.name: finding.statement.verdict for finding in found}
    if not {"ra3_ntp", "ntp_base"} <= verdicts.keys():
        return None
    parts = {"NTP above base": verdicts["ntp_base"], "RA3 above NTP": verdicts["ra3_ntp"]}
    states = ", ".join(f"{name}: {_STATE[verdict]}" for name, verdict in parts.items())
    if "against" in parts.values():
        return Statement(
            "against", "Against the paper", f"**The paper's order base < NTP < RA3 does not hold here.** {states}."
        )
    if "not shown" in parts.values():
        return Statement(
            "not shown", "Not shown", f"**The paper's order base < NTP < RA3 is not shown as a whole.** {states}."
        )
    return Statement("shown", "Shown", f"**The paper's order base < NTP < RA3 holds.** {states}.")


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
        "bootstrap intervals over seeds and problems, both resampled; differences are paired by seed and by problem. "
        f"{len(seeds)} seeds say little about the spread between seeds, so the difference of each is given beside "
        "the interval."
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


def not_run(run: Run) -> str | None:
    """A sentence on the arms without an evaluation; None when all are there."""
    evaluated = {arm for found in (run.evaluations, *run.benchmarks.values()) for arm in found}
    missing = [arm.label for arm in ARMS if arm.name not in evaluated]
    if not missing:
        return None
    return f"Not run, and absent from every table and figure: {_enumerate(missing)}."


def arm_label(contender: Contender) -> str:
    return BY_NAME[contender.arm].label


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """A signed difference of shares in points of percent."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def _statement(comparison: Comparison, difference: Difference) -> Statement:
    claim = f"{comparison.subject} solves more tasks than {comparison.object}"
    reverse = f"{comparison.subject} solves fewer tasks than {comparison.object}"
    numbers = _numbers(difference)
    if difference.low > 0:
        verdict, label = ("shown", "Shown") if comparison.expected else ("fact", "More")
        return Statement(verdict, label, f"**{claim}:** {numbers}.")
    if difference.high < 0:
        if comparison.expected:
            return Statement("against", "Against the paper", f"**{reverse}:** {numbers}.")
        return Statement("fact", "Fewer", f"**{reverse}:** {numbers}.")
    label = "Not shown" if comparison.expected else "No difference shown"
    doubt = "That " + claim[0].lower() + claim[1:] if not claim.startswith(("RA3", "NTP")) else "That " + claim
    return Statement("not shown", label, f"**{doubt} is not shown:** {numbers}; the interval includes zero.")


def _numbers(difference: Difference) -> str:
    text = (
        f"pass@1 {percent(difference.first)} % against {percent(difference.second)} %, {points(difference.value)} "
        f"points (95 % interval {points(difference.low)} to {points(difference.high)}"
    )
    if len(difference.per_seed) > 1:
        text += f"; by seed {', '.join(points(value) for value in difference.per_seed)}"
    return (text + ")").replace(" %", "\N{NO-BREAK SPACE}%")


def _enumerate(parts: Sequence[str]) -> str:
    *head, last = parts
    return f"{'; '.join(head)} and {last}" if head else last
