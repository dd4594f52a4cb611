from __future__ import annotations

import collections
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3core.verifier.compare import strictly_equal
from ra3core.verifier.plain import MAX_DEPTH, NotPlain, Reduced, dumps, loads

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**5000)
    | st.floats(allow_nan=True)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]))
    | st.binary()
)
keys = st.none() | st.booleans() | st.integers() | st.text() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner) | st.sets(keys) | st.frozensets(keys)
    ),
    max_leaves=10,
)


@given(values)
@settings(deadline=None)
def test_plain_values_come_back_with_their_types(value: Any) -> None:
    assert strictly_equal(loads(dumps(value)), value)


def test_surrogates_are_not_joined() -> None:
    pair = "\ud83d" + "\ude00"
    assert loads(dumps(pair)) == pair
    assert len(loads(dumps(pair))) == 2


def test_the_sign_of_zero_survives() -> None:
    assert math.copysign(1, loads(dumps(-0.0))) == -1


class Everything(int):
    __eq__ = lambda self, other: True  # noqa: E731
    __hash__ = int.__hash__


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("value", [object(), Everything(3), Point(1, 2), range(3), iter([1]), len, {1: object()}])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(NotPlain):
        dumps(value)


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (Everything(3), 3),
        (Point(1, 2), (1, 2)),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aa"), {"a": 2}),
    ],
)
def test_subclasses_can_be_reduced_to_what_they_hold(value: Any, held: Any) -> None:
    reduced = loads(dumps(value, reduce=True))
    assert type(reduced) is Reduced
    assert strictly_equal(reduced.value, held)


def test_depth_is_bounded_both_ways() -> None:
    nest: list[Any] = []
    for _ in range(MAX_DEPTH + 5):
        nest = [nest]
    with pytest.raises(NotPlain):
        dumps(nest)
    with pytest.raises(NotPlain):
        loads(b"[" * 300 + b"]" * 300)
    with pytest.raises(NotPlain):
        loads(b"[" * 1_000_000)


@given(st.binary(max_size=40) | st.sampled_from(list("dtsfbicuwx")).map(lambda tag: f'{{"{tag}":'.encode() + b"[[1]]}"))
def test_malformed_text_never_gets_through_as_another_error(data: bytes) -> None:
    try:
        loads(data)
    except NotPlain:
        return
    json.loads(data)  # what was accepted is at least JSON
