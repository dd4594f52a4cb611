"""Attacks on how an output is held against the expected value (ra3core/verifier/compare.py): no value but a right one passes."""

from __future__ import annotations

from typing import Any

from attack_programs import FORGE, Attack

from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Check


def _against(trick: str, answer: str, test: Test, **options: Any) -> Attack:
    """Returns the value of an expression."""
    return Attack(trick, f"def total(*xs):\n    return {answer}\n", tests=(test,), script=None, **options)


def _one(expected: Any, comparison: Any = "strict", view: Any = "", **options: Any) -> Check:
    return Check(([1],), expected, {}, comparison, view, **options)


_NEAR = {"tolerance": 1e-6, "relative": 1e-9}

FOOLED_COMPARISONS = (
    _against("infinity is close to nothing", "float('inf')", _one(0.5, "close", **_NEAR)),
    _against("minus infinity is close to nothing", "-float('inf')", _one(0.5, "close", **_NEAR)),
    _against("a complex infinity", "complex('inf')", _one(0.5, "close", **_NEAR)),
    _against("infinity among others", "[0.5, float('inf')]", _one([0.5, 0.5], "close", **_NEAR)),
    _against("nothing is close to infinity", "5.0", _one(float("inf"), "close", **_NEAR)),
    _against("nothing is allclose to infinity", "5.0", _one(float("inf"), "allclose", **_NEAR)),
    _against("infinity is close, absolutely", "float('inf')", _one(0.5, "close", tolerance=1e-6)),
    _against("infinity is allclose", "float('inf')", _one(0.5, "allclose", **_NEAR)),
    _against("infinity against minus infinity", "-float('inf')", _one(float("inf"), "close", tolerance=1e-6)),
    *(
        _against(f"nan, {comparison}", "float('nan')", _one(0.5, comparison, **_NEAR))
        for comparison in ("strict", "equal", "close", "allclose", "same")
    ),
    _against("a number too large for a float", "10 ** 400", _one(0.5, "close", **_NEAR)),
    _against("a number too large for a float, allclose", "10 ** 400", _one(0.5, "allclose", **_NEAR)),
    _against("text instead of a number", "'0.5'", _one(0.5, "close", **_NEAR)),
    _against("text instead of numbers", "'aa'", _one([0.5, 0.5], "close", **_NEAR)),
    _against("numbers by their keys", "{0: 0.5}", _one([0.5], "allclose", **_NEAR)),
    _against("fewer numbers", "[]", _one([0.5], "close", **_NEAR)),
    _against("fewer numbers, allclose", "[[]]", _one([[0.5]], "allclose", **_NEAR)),
    _against("fewer numbers in a tuple", "()", _one((0.5,), "allclose", **_NEAR)),
    _against("True for 1", "True", Test(([1],), 1)),
    _against("1.0 for 1", "1.0", Test(([1],), 1)),
    _against("1 for True", "1", Test(([1],), True)),
    _against("a tuple for a list", "(1, [2])", Test(([1],), [1, [2]])),
    _against("True in a list", "[True]", Test(([1],), [1])),
    _against("True in a set", "{True}", Test(([1],), {1})),
    _against("True as a key", "{True: 1}", Test(([1],), {1: 1})),
    _against("True as a value", "{1: True}", Test(([1],), {1: 1})),
    _against("a frozenset for a set", "frozenset({1})", Test(([1],), {1})),
    _against("bytes for text", "b'a'", Test(([1],), "a")),
    _against("a subclass's value in a list", "[type('A', (int,), {})(1)]", Test(([1],), [1])),
    _against("a subclass of list", "type('A', (list,), {})([1])", Test(([1],), [1])),
    _against("nan for nothing", "float('nan')", Test(([1],), None)),
    _against("1 is not True", "1", _one(True, "same")),
    _against("0 is not False", "0", _one(False, "same")),
    _against("0 is not None", "0", _one(None, "same")),
    _against("an object that says it is true", "type('A', (), {'__bool__': lambda s: True})()", _one(None, "truthy")),
    _against("a type for a truth", "int", _one(None, "truthy")),
    _against("an empty subclass that says it is true", "type('A', (list,), {'__bool__': lambda s: True})()", _one(None, "truthy")),
    _against("a full subclass that says it is false", "type('A', (list,), {'__bool__': lambda s: False})([1])", _one(None, "falsy")),
    _against("an object with a length", "type('A', (), {'__len__': lambda s: 3})()", _one(3, "equal", "len")),
    _against("a subclass that tells another length", "type('A', (list,), {'__len__': lambda s: 3})()", _one(3, "equal", "len")),
    _against("a subclass that tells another text", "type('A', (str,), {'__str__': lambda s: 'a'})('b')", _one("a", "equal", "str")),
    _against("a subclass that sorts as it likes", "type('A', (list,), {'__iter__': lambda s: iter([1])})([2])",
             _one([1], "equal", "sorted")),
    _against("what cannot be sorted", "[1, 'a', None, []]", _one([1], "equal", "sorted")),
    _against("what cannot be in a set", "[[1]]", _one({1}, "equal", "set")),
    _against("a nest as text", "[[[[[[6]]]]]]", _one("6", "equal", "str")),
    _against("a number too long to write out, as text", "10 ** 100_000", _one("6", "equal", "str")),
    _against("ints with one hash, seen as a set", "[k * (2**61 - 1) for k in range(24_000)]", _one({1}, "equal", "set")),
    _against("ints with one hash and zeros, seen as a set", "[0] + [k * (2**61 - 1) for k in range(24_000)]",
             _one({1}, "equal", "set")),
    _against("a root of nothing: nan", "float('nan')", Check(([1.0, 2.0],), None, {}, "root", tolerance=1e-4)),
    _against("a root of nothing: infinity", "float('inf')", Check(([1.0, 2.0],), None, {}, "root", tolerance=1e-4)),
    _against("a root of nothing: a huge number", "10 ** 400", Check(([1.0, 2.0, 3.0],), None, {}, "root", tolerance=1e-4)),
    _against("a root of nothing: text", "'1'", Check(([1.0, 2.0],), None, {}, "root", tolerance=1e-4)),
    _against("one of the alternatives, nearly", "1.0", Check(([1],), 2, alternatives=(1, 3))),
    _against("all of the alternatives", "[1, 2, 3]", _one(2, "equal", alternatives=(1, 3))),
    _against("None for not None", "None", _one(True, "not_none")),
    Attack("is slow in one call, and hides its process", FORGE + """
import gc, time
if os.fork() == 0:
    forge('["ok", null]')
    os._exit(0)
os.wait()
for thing in gc.get_objects():
    if type(thing).__name__ == "Channel":
        def once(message, send=thing.send, first=[1]):
            first.pop() if first else send(message)
        thing.send = once
def total(xs):
    while time.process_time() < 0.5:
        pass
    return sum(xs)
""", cpu=3.0, tests=(Check(([1, 2, 3],), 6, cpu_seconds=0.1),), script=None),
)  # fmt: skip
