"""Does an output match? Decided by the judge, on decoded plain values: no method of the judged program can run.

strict   same exact types all the way down and equal values: 1 is not True, 1 is not 1.0, (1,) is not [1]; nan is nan
equal    Python's ``==`` between plain values, as the asserts of HumanEval and MBPP have it: 1 == 1.0 == True;
         an instance of a subclass counts as the plain value it holds
close    ``abs(output - expected) <= max(tolerance, relative * max(abs(output), abs(expected)))``, element by element
         inside lists and tuples
allclose ``==``, or the same type and length and ``abs(output - expected) <= tolerance + relative * abs(expected)``
         element by element (EvalPlus, after numpy.allclose)
truthy, falsy   ``bool(output)``
same     ``is`` between None, True and False
any      the call returned
not_none a bool is compared by ``==``; of anything else it matters whether it is None (EvalPlus, Mbpp/737 and others)
root     the output is a root of the polynomial with coefficients arguments[0], to the tolerance (HumanEval/32)
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ra3core.corpora.demonstrations import Test
from ra3core.verifier.plain import NotPlain, Reduced, scattered
from ra3core.verifier.program import Check, View

_LONGEST_NUMBER = 10_000  # characters

_VIEWS: dict[View, Callable[[Any], Any]] = {
    "": lambda value: value,
    "tuple": tuple,
    "list": list,
    "set": lambda value: set(scattered(list(value))),
    "sorted": sorted,
    "len": len,
    "str": str,
}


def matches(test: Test, output: Any) -> bool:
    """Whether `output`, decoded from the program's answer, is what `test` expects."""
    if not isinstance(test, Check):
        return strictly_equal(output, test.expected)
    try:
        if test.comparison != "strict":
            output = _VIEWS[test.view](plain(output))
        return any(_holds(test, output, expected) for expected in (test.expected, *test.alternatives))
    except (TypeError, ValueError, OverflowError, RecursionError, NotPlain):
        return False  # such as sorting an int, or a set of lists: the official assert would have raised


def _holds(test: Check, output: Any, expected: Any) -> bool:
    """Whether the output is this one of the values that the test takes."""
    comparison = test.comparison
    if comparison == "strict":
        return strictly_equal(output, expected)
    if comparison == "equal":
        return bool(output == expected)
    if comparison == "close":
        return close(output, expected, test.tolerance, test.relative)
    if comparison == "allclose":
        return bool(output == expected) or _all_close(output, expected, test.tolerance, test.relative)
    if comparison == "same":
        return output is expected
    if comparison == "any":
        return True
    if comparison == "not_none":
        return output == expected if isinstance(output, bool) else expected is (output is not None)
    if comparison == "root":
        return abs(sum(c * math.pow(output, i) for i, c in enumerate(test.arguments[0]))) <= test.tolerance
    return bool(output) is (comparison == "truthy")


def strictly_equal(output: Any, expected: Any) -> bool:
    """Equal values of the same exact types throughout; dict order does not matter, nan equals nan."""
    if type(output) is not type(expected):
        return False
    if isinstance(expected, float):
        return output == expected or (math.isnan(output) and math.isnan(expected))
    if isinstance(expected, list | tuple):
        return len(output) == len(expected) and all(map(strictly_equal, output, expected))
    if isinstance(expected, dict):
        if output.keys() != expected.keys():
            return False
        originals = {key: key for key in expected}
        return all(strictly_equal(k, originals[k]) and strictly_equal(v, expected[k]) for k, v in output.items())
    if isinstance(expected, set | frozenset):
        originals = {item: item for item in expected}
        return output == expected and all(strictly_equal(item, originals[item]) for item in output)
    return output == expected


def close(output: Any, expected: Any, tolerance: float, relative: float = 0.0) -> bool:
    """Numbers within the tolerance, lists and tuples element by element, everything else equal."""
    if isinstance(expected, list | tuple):
        if not isinstance(output, list | tuple) or len(output) != len(expected):
            return False
        return all(close(o, e, tolerance, relative) for o, e in zip(output, expected, strict=True))
    if isinstance(expected, int | float | complex) and isinstance(output, int | float | complex):
        if output == expected or cmath.isinf(output) or cmath.isinf(expected):
            return bool(output == expected)
        return bool(abs(output - expected) <= max(tolerance, relative * max(abs(output), abs(expected))))
    return bool(output == expected)


def _all_close(output: Any, expected: Any, tolerance: float, relative: float) -> bool:
    if type(output) is not type(expected):
        return False
    if isinstance(expected, list | tuple):
        return len(output) == len(expected) and all(
            _near(o, e, tolerance, relative) for o, e in zip(output, expected, strict=True)
        )
    return _near(output, expected, tolerance, relative)


def _near(output: Any, expected: Any, tolerance: float, relative: float) -> bool:
    """As numpy.isclose for numbers; for lists of numbers inside lists element by element."""
    if isinstance(expected, list | tuple) or isinstance(output, list | tuple):
        return len(output) == len(expected) and all(
            _near(o, e, tolerance, relative) for o, e in zip(output, expected, strict=True)
        )
    if output == expected or cmath.isinf(output) or cmath.isinf(expected):
        return bool(output == expected)
    return bool(abs(output - expected) <= tolerance + relative * abs(expected))


def same_output(written: str, expected: str, lines: bool = True) -> tuple[bool, str]:
    """Whether a program wrote what was expected, and if not what differs.

    Lines are compared without the blanks around them, and the text without blank lines around it; lines that differ
    match when their words are the same or the same numbers (LiveCodeBench's convention). Without `lines` it does not
    matter where lines end (what Codeforces' usual checkers do).
    """
    if not lines:
        mine, theirs = " ".join(written.split()), " ".join(expected.split())
        same = _same_words(mine, theirs)
        return same, "" if same else f"expected {_short(theirs)}, found {_short(mine)}"
    found, wanted = written.strip().split("\n"), expected.strip().split("\n")
    if len(found) != len(wanted):
        return False, f"expected {len(wanted)} lines, found {len(found)}"
    for number, (mine, theirs) in enumerate(zip(found, wanted, strict=True), start=1):
        mine, theirs = mine.strip(), theirs.strip()
        if mine != theirs and not _same_words(mine, theirs):
            return False, f"line {number}: expected {_short(theirs)}, found {_short(mine)}"
    return True, ""


def _same_words(mine: str, theirs: str) -> bool:
    """Whether two lines hold the same words but for blanks between them, or the same decimal numbers."""
    found, wanted = mine.split(), theirs.split()
    if len(found) != len(wanted):
        return False
    return all(m == w or _same_number(m, w) for m, w in zip(found, wanted, strict=True))


def _same_number(mine: str, theirs: str) -> bool:
    if len(mine) > _LONGEST_NUMBER or not mine.isascii():
        return False
    try:
        return Decimal(mine) == Decimal(theirs)
    except ArithmeticError:
        return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def plain(value: Any) -> Any:
    """`value` with instances of subclasses replaced by what they hold."""
    if isinstance(value, Reduced):
        return plain(value.value)
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value
