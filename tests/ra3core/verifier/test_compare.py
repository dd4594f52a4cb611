from __future__ import annotations

import math
from typing import Any

import pytest

from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Check
from ra3core.verifier.compare import matches
from ra3core.verifier.plain import Reduced


@pytest.mark.parametrize(
    ("output", "expected", "right"),
    [
        (1, 1, True),
        (True, 1, False),
        (1.0, 1, False),
        ((1,), [1], False),
        ([1, [2.0]], [1, [2.0]], True),
        ([1, [2]], [1, [2.0]], False),
        (math.nan, math.nan, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": True}, {"a": 1}, False),
        ({1: 0}, {True: 0}, False),
        ({1, 2}, {2, 1}, True),
        ({1}, {True}, False),
        (frozenset({1}), {1}, False),
        ("1", 1, False),
        (None, False, False),
        (Reduced(1), 1, False),
    ],
)
def test_a_plain_test_is_compared_strictly(output: Any, expected: Any, right: bool) -> None:
    assert matches(Test((), expected), output) is right


@pytest.mark.parametrize(
    ("check", "output", "right"),
    [
        (Check((), 1, comparison="equal"), True, True),
        (Check((), 1, comparison="equal"), 1.0, True),
        (Check((), 1, comparison="equal"), "1", False),
        (Check((), 1, comparison="equal"), Reduced(1), True),
        (Check((), {"a": 1}, comparison="equal"), Reduced({"a": Reduced(1)}), True),
        (Check((), [1], comparison="equal"), (1,), False),
        (Check((), [1], comparison="equal", view="list"), (1,), True),
        (Check((), [1, 2], comparison="equal", view="sorted"), [2, 1], True),
        (Check((), [1, 2], comparison="equal", view="sorted"), 3, False),
        (Check((), {1}, comparison="equal", view="set"), [[1]], False),
        (Check((), 0.5, comparison="close", tolerance=1e-3), 0.5004, True),
        (Check((), 0.5, comparison="close", tolerance=1e-3), 0.502, False),
        (Check((), 0.5, comparison="close", tolerance=1e-3), math.nan, False),
        (Check((), 0.5, comparison="close", tolerance=1e-3), "0.5", False),
        (Check((), 1000.0, comparison="close", relative=1e-3), 1000.5, True),
        (Check((), 1.0, comparison="close", tolerance=1e-3), 10**400, False),
        (Check((), None, comparison="truthy"), [0], True),
        (Check((), None, comparison="truthy"), [], False),
        (Check((), None, comparison="falsy"), 0, True),
        (Check((), True, comparison="same"), 1, False),
        (Check((), True, comparison="same"), True, True),
    ],
)
def test_checks_follow_their_comparison(check: Check, output: Any, right: bool) -> None:
    assert matches(check, output) is right
