from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ra3core.verifier.asserts import DRIVER, arguments, convert, driven


def one(code: str) -> tuple[Any, ...] | None:
    checks = convert(code, "f")
    if checks is None:
        return None
    (check,) = checks
    return check.arguments, check.keywords, check.comparison, check.expected, check.view


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("assert f(1, [2]) == 3", ((1, [2]), {}, "equal", 3, "")),
        ("assert 3 == f(1), 'message'", ((1,), {}, "equal", 3, "")),
        ("assert f(a=-1) == (2 + 3, 2 * 3, 'a' + 'b')", ((), {"a": -1}, "equal", (5, 6, "ab"), "")),
        ("assert f(3 * 19) == [3, 19]", ((57,), {}, "equal", [3, 19], "")),
        ("assert f('x')", (("x",), {}, "truthy", None, "")),
        ("assert not f('x')", (("x",), {}, "falsy", None, "")),
        ("assert f(1) is None", ((1,), {}, "same", None, "")),
        ("assert set(f([1])) == set([1])", (([1],), {}, "equal", {1}, "set")),
        ("assert sorted(f({1: 2})) == [1]", (({1: 2},), {}, "equal", [1], "sorted")),
        ("assert abs(f(1.5) - 0.5) < 1e-6", ((1.5,), {}, "close", 0.5, "")),
        ("assert abs(0.5 - f(1.5)) <= 1e-6", ((1.5,), {}, "close", 0.5, "")),
        ("import math\nassert math.isclose(f(2), math.pi, rel_tol=0.001)", None),
    ],
)
def test_usual_asserts_become_checks(code: str, expected: tuple[Any, ...] | None) -> None:
    if expected is None:
        checks = convert(code, "f")
        assert checks is not None
        assert (checks[0].comparison, checks[0].relative, checks[0].tolerance) == ("close", 0.001, 0.0)
    else:
        assert one(code) == expected


def test_a_check_function_is_looked_into() -> None:
    code = 'METADATA = {"a": 1}\n\ndef check(candidate):\n    """doc"""\n    print\n    assert candidate(1) == 2\n'
    checks = convert(code + "    assert True\n    assert f(2) == 3\n\ncheck(f)\n", "f")
    assert [(c.arguments, c.expected) for c in checks or ()] == [((1,), 2), ((2,), 3)]


@pytest.mark.parametrize(
    "code",
    [
        "for x in range(3):\n    assert f(x) == x",
        "assert f(x) == 1",
        "assert f(1) == g(1)",
        "assert f(f(1)) == 1",
        "assert f(1) == f(2)",
        "assert f(1) != 2",
        "assert f(1) == 1 == 1",
        "x = 1",
        "assert f(*[1]) == 1",
        "assert f(**{'a': 1}) == 1",
        "assert f(9 ** 99999999) == 1",
        "assert f('a' * 10 ** 9) == 1",
        "assert f(int('9' * 99999)) == 1",
        "assert f(lambda: 1) == 1",
        "assert f(open('x')) == 1",
        "def check(a, b):\n    assert a(1) == 1",
        "assert",
        "f(1)",
    ],
)
def test_what_is_not_of_a_known_form_is_left_alone(code: str) -> None:
    assert convert(code, "f") is None


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)


@given(literals, literals)
def test_literals_are_read_as_python_reads_them(argument: Any, expected: Any) -> None:
    checks = convert(f"assert f({argument!r}) == {expected!r}", "f")
    assert checks is not None
    assert checks[0].arguments == (argument,)
    assert checks[0].expected == expected


def test_asserts_on_what_is_no_plain_data_are_driven() -> None:
    code = "assert f(Node(1)) == 2\nassert 3 == f(int, 'a')\nassert f(1)\nassert not f(2)\nassert int(f(x)) == 4\n"
    found = driven(code, "f", "x = 5")
    assert found is not None
    assert [(c.arguments, c.comparison, c.expected) for c in found.checks] == [
        ((0,), "equal", 2),
        ((1,), "equal", 3),
        ((2,), "truthy", None),
        ((3,), "falsy", None),
        ((4,), "equal", 4),
    ]
    scope: dict[str, Any] = {}
    exec("class Node(int): pass\ndef f(a, b=0): return [a, b] if isinstance(a, Node) else a\n" + found.code, scope)
    call = scope[DRIVER]
    assert [call(i) for i in range(5)] == [[1, 0], int, True, True, 5]


@pytest.mark.parametrize(
    "code",
    [
        "assert f(1) in (1, 2)",  # the program would see what is expected
        "assert math.isclose(f(1), 2)",
        "assert g(f(1)) == 1",
        "assert f(1) == g(1)",
        "assert f(1) != 2",
        "assert abs(f(1) - 2) == 0",
        "f(1)",
        "for x in y: assert f(x) == 1",
        "assert",
        "",
    ],
)
def test_what_would_tell_the_answer_is_not_driven(code: str) -> None:
    assert driven(code, "f") is None


def test_arguments_of_the_asserted_calls() -> None:
    code = "import math\n\nassert math.isclose(f((1, 2), {3}), 0.5)\nassert not f(1j)\nassert f() == 1\n"
    assert arguments(code, "f") == [((1, 2), {3}), (1j,), ()]
    assert arguments("assert f(x) == 1", "f") is None
    assert arguments("assert", "f") is None
    assert arguments("g(1)", "f") == []
