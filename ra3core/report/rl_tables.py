"""RLVR in numbers: a row an arm, and every arm against the one from NTP."""

from __future__ import annotations

from math import isnan

from ra3core.report.blocks import Block, Cell, Row, Table, cells
from ra3core.report.inputs import Run
from ra3core.report.rl import Courses, Gap, Measured, gap, measure
from ra3core.report.scores import Average, Contender, Difference, Gain
from ra3core.report.stages import ABSENT
from ra3core.report.style import AFTER_RLVR, BY_NAME, Arm
from ra3core.report.tables import SIGNS
from ra3core.report.verdicts import percent, points, signed

REFERENCE = "ntp_rlvr"
RATES = {"start": "start (%)", "final": "final (%)", "area": "mean over steps (%)"}


def tables(found: Courses, rates: tuple[float, ...]) -> list[Block]:
    """What the courses hold; rates that no arm reaches have no column."""
    if not found:
        return []
    reached = [rate for rate in rates if any(one.reached[rate].reached for s in found.values() for one in s.values())]
    names = {**RATES}
    for rate in reached:
        names[f"steps:{rate}"] = f"steps to {percent(rate, 0)} %"
        if any(one.reached[rate].minutes for seeds in found.values() for one in seeds.values()):
            names[f"minutes:{rate}"] = f"minutes to {percent(rate, 0)} %"
    unreached = [percent(rate, 0) for rate in rates if rate not in reached]
    nowhere = f" No arm reaches {', '.join(unreached)} %." if unreached else ""
    blocks: list[Block] = [
        Table(
            "rlvr",
            "RLVR on held-out tasks, mean over seeds with Student's 95 % interval where seeds differ. Final: over the "
            "evaluations in the last fifth of the steps. Mean over steps: the area under the curve. Steps and minutes "
            "to a pass rate: the first evaluation at or above it, 0 where the model had it before the first step; a "
            f"seed that never gets there counts with all its steps, and “in 2 of 3” says how many do.{nowhere}",
            ("From", "seeds", *names.values()),
            tuple(
                Row(
                    (
                        Cell(BY_NAME[arm].label),
                        Cell(str(len(seeds))),
                        *(_cell(measure(seeds, name), name in RATES) for name in names),
                    ),
                    color=BY_NAME[arm].color,
                )
                for arm, seeds in found.items()
            ),
        )
    ]
    gaps = {arm: {name: gap(found, arm, REFERENCE, name) for name in names} for arm in found if arm != REFERENCE}
    rows = [
        Row(
            (Cell(BY_NAME[arm].label), *(_difference(one, name in RATES) for name, one in row.items())),
            color=BY_NAME[arm].color,
        )
        for arm, row in gaps.items()
        if any(row.values())
    ]
    if rows:
        blocks.append(
            Table(
                "rlvr_differences",
                f"The same less {BY_NAME[REFERENCE].label}, seed by seed, with Student's 95 % interval and d, the "
                "difference in units of its standard deviation over seeds. No difference (–) of steps and minutes to a "
                "rate that a seed of either had before the first step: that is no speed of RLVR's.",
                ("From", *names.values()),
                tuple(rows),
            )
        )
    return blocks


def gains(average: Average) -> dict[str, tuple[Difference, Difference | None]]:
    """Arm -> what RLVR adds to its pass@1, and how much more it adds to RA3's; of arms with both evaluations."""

    def gain(arm: Arm) -> Gain:
        return Gain(Contender(arm.name), Contender(arm.start))

    found = {}
    for arm in AFTER_RLVR:
        adds = average.difference(gain(arm).after, gain(arm).before)
        if adds is not None:
            more = None if arm.start == "ra3" else average.difference(gain(BY_NAME["ra3_rlvr"]), gain(arm))
            found[arm.name] = adds, more
    return found


def gained(average: Average) -> Table | None:
    """pass@1 before and after RLVR, and whether RLVR adds more to RA3; None without an arm that has both."""
    rows = [
        Row(
            (
                *cells(BY_NAME[BY_NAME[arm].start].label, str(adds.seeds), percent(adds.second), percent(adds.first)),
                *(Cell(ABSENT) if one is None else _in_points(one) for one in (adds, more)),
            ),
            color=BY_NAME[arm].color,
        )
        for arm, (adds, more) in gains(average).items()
    ]
    if not rows:
        return None
    return Table(
        "rlvr_gains",
        "What RLVR adds to pass@1 on the evaluation's tasks, in points, and how much more than that it adds to RA3: a "
        "difference of differences. 95 % intervals, paired by seed and problem; ▲ above, ▼ below zero.",
        ("From", "seeds", "before (%)", "after (%)", "RLVR adds", "more to RA3 by"),
        tuple(rows),
    )


def _in_points(one: Difference) -> Cell:
    return Cell(points(one.value), f"[{points(one.low)}, {points(one.high)}]", SIGNS[one.sign])


def task_set(run: Run) -> str | None:
    """Which tasks RLVR trained on, where they are of a set, and what of it was left out; None for the suite's."""
    one = next(iter(run.stages.get("rlvr_tasks", {}).values()), None)
    if one is None or "rows" not in one.manifest.metrics:
        return None
    figures, settings = one.manifest.metrics, one.manifest.config
    out = {**figures["dropped"], "contaminated": figures["removed"]}
    left = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in out.items() if number)
    return (
        f"RLVR's tasks: {figures['tasks']:,} of the {figures['rows']:,} rows read of `{settings['source']}` (format "
        f"{figures['format']}), asked as a {settings['prompt']}, with {figures['tests']:,} tests; left out: "
        f"{left or 'none'}."
    )


def _cell(one: Measured, share: bool) -> Cell:
    scale = 100 if share else 1
    estimate = one.estimate
    text = f"{scale * estimate.value:.1f}"
    detail = "" if isnan(estimate.low) else f"[{scale * estimate.low:.1f}, {scale * estimate.high:.1f}]"
    if one.reached == 0:
        return Cell(ABSENT, f"in 0 of {one.seeds}")
    if one.reached < one.seeds:
        text = f"> {text}"
        detail = f"{detail} in {one.reached} of {one.seeds}".strip()
    return Cell(text, detail)


def _difference(one: Gap | None, share: bool) -> Cell:
    if one is None or not one.compares:
        return Cell(ABSENT)
    scale, estimate = 100 if share else 1, one.estimate
    detail = "" if isnan(estimate.low) else f"[{signed(scale * estimate.low, 1)}, {signed(scale * estimate.high, 1)}]"
    return Cell(signed(scale * estimate.value, 1), detail + ("" if isnan(one.d) else f" d = {signed(one.d, 2)}"))
