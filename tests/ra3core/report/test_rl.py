"""How RLVR's courses are measured, on curves small enough to do by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path

import pytest

from ra3core.report.blocks import Table
from ra3core.report.inputs import load
from ra3core.report.rl import courses, gap, measure, timed
from ra3core.report.rl_tables import gained, gains, tables, task_set
from ra3core.report.scores import Average

Inputs = dict[str, Path]


def write(inputs: Inputs, name: str, rates: Mapping[int, float], seconds: float = 30.0) -> None:
    """An RLVR log of 10 steps with evaluations at some of them."""
    rows = [{"step": 0, "held_out_pass": rates[0]}]
    for step in range(1, 11):
        evaluated = {"held_out_pass": rates[step]} if step in rates else {}
        rows.append({"step": step, "reward": 0.5, "seconds": seconds, **evaluated})
    (inputs[name] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def two(artifacts: Callable[..., Inputs]) -> Inputs:
    """Two seeds: RA3 reaches .5 in both, NTP in one."""
    inputs = artifacts(seeds=(0, 1), rates={})
    write(inputs, "ra3_rlvr/0", {0: 0.2, 5: 0.5, 10: 0.6})
    write(inputs, "ra3_rlvr/1", {0: 0.3, 5: 0.4, 10: 0.8})
    write(inputs, "ntp_rlvr/0", {0: 0.1, 5: 0.1, 10: 0.2}, seconds=12.0)
    write(inputs, "ntp_rlvr/1", {0: 0.1, 5: 0.6, 10: 0.4}, seconds=12.0)
    return inputs


def test_a_course_by_hand(two: Inputs) -> None:
    one = courses(load(two), (0.2, 0.5, 0.9))["ra3_rlvr"][0]
    assert (one.start, one.final) == (0.2, 0.6)
    assert one.area == pytest.approx((0.35 * 5 + 0.55 * 5) / 10)
    assert (one.reached[0.2].steps, one.reached[0.2].minutes) == (0, 0)
    assert (one.reached[0.5].steps, one.reached[0.5].minutes) == (5, 2.5)
    assert (one.reached[0.9].steps, one.reached[0.9].reached) == (10, False)  # never: all the steps it had


def test_seeds_that_never_arrive_count(two: Inputs) -> None:
    found = courses(load(two), (0.5,))
    steps = measure(found["ntp_rlvr"], "steps:0.5")
    assert (steps.estimate.value, steps.reached, steps.seeds) == (7.5, 1, 2)
    one = gap(found, "ra3_rlvr", "ntp_rlvr", "steps:0.5")
    assert one is not None and one.per_seed == (-5.0, 5.0) and one.estimate.value == 0
    assert one.d == 0 and one.estimate.low < 0 < one.estimate.high


def test_a_rate_that_a_seed_starts_with_is_no_matter_of_speed(two: Inputs) -> None:
    found = courses(load(two), (0.25, 0.5, 0.9))
    compares = {
        rate: one.compares for rate in (0.25, 0.5, 0.9) if (one := gap(found, "ra3_rlvr", "ntp_rlvr", f"steps:{rate}"))
    }
    assert compares == {0.25: False, 0.5: True, 0.9: False}  # .25: one of RA3's seeds starts at .3; .9: nobody arrives
    main, differences = tables(found, (0.25, 0.5))
    assert isinstance(main, Table) and isinstance(differences, Table)
    (row,) = differences.rows
    assert [cell.text for cell in row.cells[-4:]] == ["–", "–", "+0.0", "+2.2"]


def test_gaps_are_taken_seed_by_seed(two: Inputs) -> None:
    found = courses(load(two), ())
    one = gap(found, "ra3_rlvr", "ntp_rlvr", "final")
    assert one is not None and one.per_seed == pytest.approx((0.4, 0.4))
    assert isnan(one.d) and isnan(one.estimate.low)  # equal differences have no spread
    assert gap(found, "ra3_rlvr", "brite_rlvr", "final") is None


def test_final_is_the_last_fifth(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), rates={})
    write(inputs, "ra3_rlvr/0", {0: 0.0, 2: 0.0, 8: 0.4, 9: 0.6, 10: 0.8})
    one = courses(load(inputs), ())["ra3_rlvr"][0]
    assert one.final == pytest.approx(0.6)


def test_the_curve_over_time_has_the_minutes_of_its_steps(two: Inputs) -> None:
    curve = timed(load(two), "ntp_rlvr")
    assert curve is not None
    assert curve.steps.tolist() == pytest.approx([0, 1, 2])
    assert curve.values.shape == (2, 3)


def test_tables_leave_out_what_nobody_reaches(two: Inputs) -> None:
    main, differences = tables(courses(load(two), (0.5, 0.9)), (0.5, 0.9))
    assert isinstance(main, Table) and isinstance(differences, Table)
    assert "steps to 50 %" in main.columns and "steps to 90 %" not in main.columns
    assert "No arm reaches 90 %." in main.caption
    ntp = next(row for row in main.rows if row.cells[0].text == "NTP, then RLVR")
    cell = ntp.cells[main.columns.index("steps to 50 %")]
    assert cell.text == "> 7.5" and cell.detail.endswith("in 1 of 2")
    assert [row.cells[0].text for row in differences.rows] == ["RA3, then RLVR"]


def test_what_rlvr_adds_is_compared_seed_by_seed_and_task_by_task(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1), tasks=2)
    solved = {  # of 4 samples, task by task: (0, 1) of seed 0, (0, 1) of seed 1
        "ntp": ((0, 1), (1, 1)),
        "ntp_rlvr": ((1, 1), (1, 3)),  # adds 1, 0 and 0, 2
        "ra3": ((0, 0), (1, 2)),
        "ra3_rlvr": ((2, 1), (4, 2)),  # adds 2, 1 and 3, 0
    }
    for arm, seeds in solved.items():
        for seed, passed in enumerate(seeds):
            file = inputs[f"evaluate_{arm}/{seed}"] / "results.json"
            content = json.loads(file.read_text())
            tasks = list(content["per_task"]["free"])[:2]
            content["per_task"]["free"] = {task: [4, n] for task, n in zip(tasks, passed, strict=True)}
            file.write_text(json.dumps(content))
    average = Average.of(load(inputs), 200)
    found = gains(average)
    adds, more = found["ntp_rlvr"]
    assert adds.per_seed == pytest.approx((1 / 8, 2 / 8)) and adds.value == pytest.approx(3 / 16)
    assert more is not None and more.per_seed == pytest.approx((2 / 8, 1 / 8)) and more.tasks == 2
    assert more.value == pytest.approx(found["ra3_rlvr"][0].value - adds.value)
    assert found["ra3_rlvr"][1] is None
    table = gained(average)
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells] == ["NTP, data-matched", "2", "18.8", "37.5", "+18.8", "+18.8"]
    assert table.rows[-1].cells[-1].text == "–"
    assert gained(Average.of(load(artifacts(seeds=(3,), rates={})), 50)) is None


def test_the_page_says_which_tasks_of_a_set_rlvr_learned_from(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    assert task_set(load(inputs)) is None  # the suite's
    file = inputs["rlvr_tasks/0"] / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["config"] = {"source": "file:set.jsonl", "prompt": "chat"}
    manifest["metrics"] = {"tasks": 1200, "rows": 1237, "tests": 3600, "format": "mbpp", "removed": 1}
    manifest["metrics"]["dropped"] = {"weak": 30, "cannot_fail": 6}
    file.write_text(json.dumps(manifest))
    assert task_set(load(inputs)) == (
        "RLVR's tasks: 1,200 of the 1,237 rows read of `file:set.jsonl` (format mbpp), asked as a chat, with 3,600 "
        "tests; left out: 30 weak, 6 cannot fail, 1 contaminated."
    )
