"""The gate on results whose bootstrap is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ra3core.evaluation import gate
from ra3core.evaluation.gate import Measured


def measured(passed: list[int], **other: Any) -> Measured:
    """Four samples of every problem, of which so many passed."""
    values = {"benchmark": "embedded", "tasks": "t", "code": "c", "settings": {"samples": 4}}
    return Measured(**(values | other), problems={f"eval-{i:02d}": (4, c) for i, c in enumerate(passed)})


def test_the_gate_is_one_sided_at_its_level() -> None:
    """Of 30 problems the new model solves 3 more. A resample has none of them with probability 0.9^30 = 4.2 %."""
    new, old = [measured([4] * 3 + [0] * 27)], [measured([0] * 30)]
    at_95 = gate.compare(new, old, level=0.95, resamples=20_000)
    assert at_95.better and at_95.difference == pytest.approx(0.1) and at_95.bound == pytest.approx(1 / 30)
    assert not gate.compare(new, old, level=0.97, resamples=20_000).better
    assert not gate.compare(old, new, level=0.95).better
    tie = gate.compare(old, old, level=0.95)
    assert not tie.better and (tie.difference, tie.bound, tie.upper) == (0, 0, 0)


def test_the_gate_pairs_problems() -> None:
    """A small gain on every problem is certain, however different the problems are; unpaired it would drown."""
    old = [measured([0, 1, 2, 3] * 5)]
    new = [measured([1, 2, 3, 4] * 5)]
    found = gate.compare(new, old, level=0.99)
    assert (found.difference, found.bound) == (0.25, 0.25)


def test_benchmarks_are_pooled_problem_by_problem() -> None:
    many = {"benchmark": "many", "problems": {f"p{i}": (1, 1) for i in range(30)}}
    none = {"benchmark": "many", "problems": {f"p{i}": (1, 0) for i in range(30)}}
    few_new, few_old = measured([0] * 10), measured([4] * 10)
    values = {"tasks": "t", "code": "c", "settings": {}}
    found = gate.compare([few_new, Measured(**many, **values)], [few_old, Measured(**none, **values)], level=0.95)
    assert found.difference == pytest.approx((30 - 10) / 40) and found.problems == 40
    assert found.benchmarks == ("embedded", "many")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"tasks": "u"}, "the tasks of embedded"),
        ({"settings": {"samples": 8}}, "samples on embedded (4 and 8)"),
        ({"code": "d"}, "the code that samples and grades embedded"),
        ({"rates": [4, 4]}, "the problems of embedded"),
    ],
)
def test_what_keeps_results_from_being_compared_is_named(other: dict[str, Any], named: str) -> None:
    mine, theirs = measured([4]), measured(other.pop("rates", [4]), **other)
    assert mine.differs(theirs) == named
    with pytest.raises(ValueError, match="not comparable"):
        gate.compare([mine], [theirs], level=0.95)
    assert gate.parse(json.loads(json.dumps(mine.plain()))) == mine


@pytest.mark.parametrize("counts", [{}, {"a": [0, 0]}, {"a": [2, 3]}])
def test_counts_that_cannot_be(counts: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="expected samples and passed samples"):
        gate.parse(measured([1]).plain() | {"problems": counts})
