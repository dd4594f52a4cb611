"""Does an output match? Decided by the judge, on decoded plain values: no method of the judged program can run.

strict   same exact types all the way down and equal values: 1 is not True, 1 is not 1.0, (1,) is not [1]; nan is nan
equal    Python's ``==`` between plain values, as the asserts of HumanEval and MBPP have it: 1 == 1.0 == True;
         an instance of a subclass counts as the plain value it holds
close    ``abs(output - expected) <= max(tolerance, relative * max(abs(output), abs(expected)))``, element by element
         inside lists and tuples
truthy, falsy   ``bool(output)``
same     ``is`` between None, True and False
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ra3core.corpora.demonstrations import Test
from ra3core.verifier.plain import Reduced
from ra3core.verifier.program import Check, View

_VIEWS: dict[View, Callable[[Any], Any]] = {
    "": lambda value: value,
    "tuple": tuple,
    "list": list,
    "set": set,
    "sorted": sorted,
    "len": len,
    "str": str,
}


def matches(test: Test, output: Any) -> bool:
    """Whether `output`, decoded from the program's answer, is what `test` expects."""
    comparison = test.comparison if isinstance(test, Check) else "strict"
    if comparison == "strict":
        return strictly_equal(output, test.expected)
    try:
        output = plain(output)
        if not isinstance(test, Check):
            return output == test.expected
        output = _VIEWS[test.view](output)
        if comparison == "equal":
            return bool(output == test.expected)
        if comparison == "close":
            return close(output, test.expected, test.tolerance, test.relative)
        if comparison == "same":
            return output is test.expected
        return bool(output) is (comparison == "truthy")
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False  # such as sorting an int, or a set of lists: the official assert would have raised


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
        if output == expected:
            return True
        return bool(abs(output - expected) <= max(tolerance, relative * max(abs(output), abs(expected))))
    return bool(output == expected)


def plain(value: Any) -> Any:
    """`value` with instances of subclasses replaced by what they hold."""
    if isinstance(value, Reduced):
        return plain(value.value)
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value
