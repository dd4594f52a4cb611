"""The effect of the think penalty c, from the points of a sweep (the paper's figure 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isinf

from ra3core.report.inputs import Run
from ra3core.report.scores import Average, Contender
from ra3core.statistics import Estimate, over_seeds

MEASURES = {
    "rationale_tokens": "rationale length (tokens)",
    "annotated_lines": "lines with a rationale (%)",
    "pass_at_1": "RA3, pass@1 (%)",
}
"""Of what the last bootstrap wrote, and of what RA3 scores; in the units that figures show."""


@dataclass(frozen=True)
class Point:
    """One think penalty. found: measure -> estimate over `seeds` seeds, absent where the point has none."""

    c: float
    seeds: int
    found: Mapping[str, Estimate]


def effect(run: Run, resamples: int) -> list[Point]:
    """Every point of the sweep, in the order of c; none where there is no sweep."""
    return [_point(c, point, resamples) for c, point in run.points.items()]


def penalty(c: float) -> str:
    """c on an axis and in names."""
    return "∞" if isinf(c) else f"{c:g}"


def _point(c: float, run: Run, resamples: int) -> Point:
    found: dict[str, Estimate] = {}
    written = run.stages.get(f"bootstrap_{run.rounds}", {}).values()
    for name, scale, most in (("rationale_tokens", 1.0, inf), ("annotated_lines", 100.0, 100.0)):
        values = [scale * value for one in written if (value := one.metric(name)) is not None]
        if name == "rationale_tokens":
            values = [value for value in values if value > 0]  # of no rationale there is no length
        if values:
            found[name] = over_seeds(values).within(0, most)
    score = Average.of(run, resamples).score(Contender("ra3"))
    if score is not None:
        found["pass_at_1"] = Estimate(100 * score.value, 100 * score.low, 100 * score.high)
    return Point(c, len(run.seeds), found)
