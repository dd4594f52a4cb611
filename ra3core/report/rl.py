"""How fast and how high RLVR takes each arm, from the pass rate on held-out tasks along its steps.

Of a curve r(t), evaluated at steps t_0 = 0 < ... < t_n (all of one run and seed):

    final     mean of r over the evaluations in the last fifth of the steps, at least the last one
    area      (1 / t_n) * integral of r over the steps by the trapezoidal rule: the mean rate of the whole run
    steps(x)  min{t_i : r(t_i) >= x}, and t_n where no evaluation reaches x: the restricted time, so that seeds which
              never arrive count with the steps they had instead of being left out
    minutes   wall time of the RLVR steps up to there, without the evaluations; summed from `seconds` of every step

A figure of several seeds is their mean with Student's interval; two arms are compared seed by seed. With one seed, or
seeds that are all alike, there are no intervals, and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ra3core.report.inputs import Curve, Run, StageRun
from ra3core.report.style import AFTER_RLVR
from ra3core.statistics import Estimate, over_seeds, standardised

RATE = "held_out_pass"
LAST_SHARE = 0.2


@dataclass(frozen=True)
class Reached:
    """When a pass rate was reached. steps, minutes: restricted to the length of the run. seeds: how many reached it."""

    steps: float
    minutes: float
    reached: bool


@dataclass(frozen=True)
class Course:
    """One seed of one arm. steps, minutes: the whole run. reached: pass rate -> when."""

    start: float
    final: float
    area: float
    steps: float
    minutes: float
    reached: Mapping[float, Reached]


Courses = Mapping[str, Mapping[int, Course]]
"""Arm after RLVR -> seed -> course."""


def courses(run: Run, rates: tuple[float, ...]) -> dict[str, dict[int, Course]]:
    """Every arm after RLVR that logged held-out pass rates at two steps or more."""
    found: dict[str, dict[int, Course]] = {}
    for arm in AFTER_RLVR:
        for seed, one in sorted(run.stages.get(arm.name, {}).items()):
            curve = [(int(row["step"]), row[RATE]) for row in one.rows if RATE in row]
            if len(curve) > 1:
                found.setdefault(arm.name, {})[seed] = _course(curve, _minutes(one), rates)
    return found


def _course(curve: list[tuple[int, float]], minutes: Mapping[int, float], rates: tuple[float, ...]) -> Course:
    steps, values = (np.array(column, dtype=float) for column in zip(*curve, strict=True))
    last = steps[-1]
    late = values[(steps >= last - LAST_SHARE * (last - steps[0])) & (steps > steps[0])]
    reached = {}
    for rate in rates:
        at = next((step for step, value in curve if value >= rate - 1e-12), None)
        step = int(last) if at is None else at
        reached[rate] = Reached(float(step), minutes.get(step, 0.0), at is not None)
    area = float(np.trapezoid(values, steps) / (last - steps[0]))
    return Course(float(values[0]), float(late.mean()), area, float(last), minutes.get(int(last), 0.0), reached)


def _minutes(one: StageRun) -> dict[int, float]:
    """Wall time of the steps up to each, in minutes; empty where steps have no times."""
    total, found = 0.0, {}
    for row in one.rows:
        if "seconds" in row:
            total += row["seconds"] / 60
        if total or "seconds" in row or row["step"] == 0:
            found[int(row["step"])] = total
    return found if total else {}


def timed(run: Run, arm: str) -> Curve | None:
    """The held-out curve of an arm over minutes of RLVR (mean over seeds) in place of steps."""
    curve, stages = run.curve(arm, RATE), run.stages.get(arm, {})
    minutes = [_minutes(one) for one in stages.values()]
    if curve is None or not all(minutes):
        return None
    at = [float(np.mean([one[int(step)] for one in minutes])) for step in curve.steps]
    return Curve(np.array(at), curve.values)


@dataclass(frozen=True)
class Measured:
    """A figure of an arm over its seeds: value with interval (nan bounds where there is none). reached: seeds that did,
    of `seeds`; all, where the question is not when a rate was reached."""

    estimate: Estimate
    seeds: int
    reached: int


def measure(seeds: Mapping[int, Course], name: str) -> Measured:
    """`start`, `final`, `area`, `steps:0.5` or `minutes:0.5` of an arm."""
    values = [value(one, name) for one in seeds.values()]
    kind, _, rate = name.partition(":")
    most = max(getattr(one, kind) for one in seeds.values()) if rate else 1.0
    reached = sum(one.reached[float(rate)].reached for one in seeds.values()) if rate else len(values)
    return Measured(over_seeds(values).within(0, most), len(values), reached)


def value(course: Course, name: str) -> float:
    """A figure of one course by its name, as `measure` takes it."""
    kind, _, rate = name.partition(":")
    return float(getattr(course.reached[float(rate)] if rate else course, kind))


@dataclass(frozen=True)
class Gap:
    """first - second of a figure, seed by seed, with Student's interval. d: in units of its standard deviation.

    compares: of a time to a rate, whether it says anything of speed: some seed reached the rate, and none of either
    had it before the first step, where RLVR has done nothing yet.
    """

    first: float
    second: float
    estimate: Estimate
    d: float
    per_seed: tuple[float, ...]
    compares: bool = True


def gap(found: Courses, first: str, second: str, name: str) -> Gap | None:
    """None when the two have no seed in common."""
    mine, theirs = found.get(first, {}), found.get(second, {})
    common = sorted(mine.keys() & theirs.keys())
    if not common:
        return None
    a, b = ([value(seeds[seed], name) for seed in common] for seeds in (mine, theirs))
    per_seed = [x - y for x, y in zip(a, b, strict=True)]
    _, _, rate = name.partition(":")
    times = [s[seed].reached[float(rate)] for s in (mine, theirs) for seed in common] if rate else []
    compares = not rate or (any(one.reached for one in times) and not any(one.steps == 0 for one in times))
    return Gap(
        float(np.mean(a)), float(np.mean(b)), over_seeds(per_seed), standardised(per_seed), tuple(per_seed), compares
    )
