"""Turns test code made of asserts into inputs and expected outputs, so that the judge can compare them itself.

Understood, with `f` the function under test and x a constant expression:

    assert f(..) == x      x == f(..)      f(..) is True / False / None      f(..)      not f(..)
    assert abs(f(..) - x) < t      math.isclose(f(..), x, rel_tol=t, abs_tol=t)
    with f(..) inside tuple, list, set, sorted, len or str

either at the top level or in the body of ``def check(candidate)``. Test code with anything else (loops, random inputs,
helpers) is not turned but run on the judge's side as a `Script`.

`driven` is for asserts on what is no plain data: arguments built from the program's own classes, types as arguments,
results such as match objects whose truth alone counts. Their calls are appended to the program, without the expected
values, and the judge asks for each call's result by its number.
"""

from __future__ import annotations

import ast
import math
import operator
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ra3core.verifier.program import Check, Comparison, View

_MAX_SIZE = 100_000
"""Longest constant that is computed: digits, characters or items."""

_VIEWS: tuple[View, ...] = ("tuple", "list", "set", "sorted", "len", "str")


class _Unknown(Exception):
    """Not of a form that is turned."""


_parsing = threading.Lock()


def parse(code: str) -> ast.Module:
    """The syntax tree of a benchmark's own code, without the interpreter's warnings about its escape sequences."""
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except SystemError:  # CPython 3.11, now and then, when another thread builds a syntax tree too
            return ast.parse(code)


def convert(code: str, entry_point: str) -> list[Check] | None:
    """The checks that `code` makes, in order, or None when some statement is not of a known form.

    code: test code, such as HumanEval's `test` or MBPP's lines of asserts.
    """
    try:
        statements = parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = {entry_point}
    checks = [s for s in statements if isinstance(s, ast.FunctionDef) and s.name == "check"]
    if checks:
        arguments = checks[0].args
        if len(checks) > 1 or len(arguments.args) != 1 or arguments.vararg or arguments.kwarg:
            return None
        names = {arguments.args[0].arg, entry_point}
        outside = [s for s in statements if s is not checks[0]]
        if not all(_harmless(s) or ast.unparse(s) == f"check({entry_point})" for s in outside):
            return None
        statements = checks[0].body
    try:
        return [_check(s, names) for s in statements if not _harmless(s)]
    except _Unknown:
        return None


@dataclass(frozen=True)
class Driven:
    """`code` goes after the program and defines the function DRIVER, which `checks` call instead of the entry point."""

    code: str
    checks: tuple[Check, ...]


DRIVER = "_the_call_of_number"


def driven(code: str, entry_point: str, setup: str = "") -> Driven | None:
    """The checks of ``assert E``, ``assert not E`` and ``assert E == x`` (x a constant), or None for anything else.

    E: a call of the entry point with any arguments, possibly inside tuple, list, set, sorted, len, str or int; it is
        evaluated in the program's process, where it means what it means in the official harness.
    setup: code that defines what the arguments use, run after the program.
    """
    try:
        statements = [s for s in parse(code).body if not _harmless(s)]
        expressions, checks = zip(*(_driven(s, i, entry_point) for i, s in enumerate(statements)), strict=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, _Unknown):
        return None
    calls = "".join(f"        lambda: {expression},\n" for expression in expressions)
    lines = f"def {DRIVER}(number):\n    return [\n{calls}    ][number]()\n"
    return Driven(f"\n{setup}\n{lines}" if setup else f"\n{lines}", checks)


def arguments(code: str, entry_point: str) -> list[tuple[Any, ...]] | None:
    """The positional arguments of each assert's call of the entry point, or None when some are no constants."""
    found = []
    try:
        for statement in parse(code).body:
            for node in ast.walk(statement) if isinstance(statement, ast.Assert) else ():
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point:
                    found.append(tuple(constant(argument) for argument in node.args))
                    break
    except (SyntaxError, ValueError, RecursionError, MemoryError, _Unknown):
        return None
    return found


def _driven(statement: ast.stmt, number: int, entry_point: str) -> tuple[str, Check]:
    """The expression to evaluate and the check of its value."""
    if not isinstance(statement, ast.Assert):
        raise _Unknown
    test, value = statement.test, None
    comparison: Comparison = "truthy"
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, comparison = test.operand, "falsy"
    elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        left, right = test.left, test.comparators[0]
        test, other = (left, right) if _mentions(left, {entry_point}) else (right, left)
        comparison, value = "equal", constant(other)
    call = test
    if isinstance(call, ast.Call) and ast.unparse(call.func) in (*_VIEWS, "int") and len(call.args) == 1:
        call = call.args[0]
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != entry_point:
        raise _Unknown
    text = ast.unparse(test)
    return (text if comparison == "equal" else f"not not {text}"), Check((number,), value, {}, comparison)


def _harmless(statement: ast.stmt) -> bool:
    """Says nothing about the program: a docstring, a bare name, METADATA, ``import math``, ``assert True``."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant | ast.Name)
    if isinstance(statement, ast.Assign):
        target = statement.targets[0]
        return isinstance(target, ast.Name) and target.id == "METADATA"
    if isinstance(statement, ast.Import):
        return all(alias.name == "math" and alias.asname is None for alias in statement.names)
    if isinstance(statement, ast.Assert):
        return isinstance(statement.test, ast.Constant) and statement.test.value is True
    return isinstance(statement, ast.Pass)


def _check(statement: ast.stmt, names: set[str]) -> Check:
    """The check that one assert statement makes."""
    if not isinstance(statement, ast.Assert):
        raise _Unknown
    test = statement.test
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _make(test.operand, names, "falsy", None)
    if isinstance(test, ast.Call):
        if ast.unparse(test.func) == "math.isclose" and len(test.args) == 2:
            tolerances = {keyword.arg: constant(keyword.value) for keyword in test.keywords}
            relative, absolute = tolerances.pop("rel_tol", 1e-9), tolerances.pop("abs_tol", 0.0)
            if not tolerances:
                return _make(test.args[0], names, "close", constant(test.args[1]), absolute, relative)
        return _make(test, names, "truthy", None)
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        raise _Unknown
    left, sign, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(sign, ast.Eq):
        if not _mentions(left, names):
            left, right = right, left
        return _make(left, names, "equal", constant(right))
    if isinstance(sign, ast.Is) and isinstance(right, ast.Constant) and right.value in (None, True, False):
        return _make(left, names, "same", right.value)
    if isinstance(sign, ast.Lt | ast.LtE) and isinstance(left, ast.Call) and len(left.args) == 1:
        difference = left.args[0]
        absolute = ast.unparse(left.func) in ("abs", "math.fabs")
        if absolute and isinstance(difference, ast.BinOp) and isinstance(difference.op, ast.Sub):
            call, value = difference.left, difference.right
            if not _mentions(call, names):
                call, value = value, call
            return _make(call, names, "close", constant(value), constant(right))
    raise _Unknown


def _mentions(node: ast.expr, names: set[str]) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id in names for inner in ast.walk(node))


def _make(
    call: ast.expr,
    names: set[str],
    comparison: Comparison,
    expected: Any,
    tolerance: float = 0.0,
    relative: float = 0.0,
) -> Check:
    """The check of one call of the function under test, with at most one view around it."""
    view: View = ""
    for name in _VIEWS:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == name and name not in names:
            if len(call.args) != 1 or call.keywords:
                raise _Unknown
            view, call = name, call.args[0]
            break
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in names:
        raise _Unknown
    if comparison == "close" and not isinstance(expected, int | float | complex):
        raise _Unknown
    keywords = {keyword.arg: constant(keyword.value) for keyword in call.keywords if keyword.arg is not None}
    if len(keywords) != len(call.keywords):
        raise _Unknown
    arguments = tuple(constant(argument) for argument in call.args)
    return Check(arguments, expected, keywords, comparison, view, float(tolerance), float(relative))


_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (tuple, list, set, frozenset, dict, float, int, bool, str, complex)
}


def constant(node: ast.expr) -> Any:
    """The value of an expression of literals, arithmetic between them, and builtin constructors around them.

    Raises _Unknown for anything else, and for values too large to be meant.
    """
    try:
        return _constant(node)
    except (TypeError, ValueError, ArithmeticError, RecursionError):
        raise _Unknown from None


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and node.value is not Ellipsis:
        return node.value
    if isinstance(node, ast.List):
        return [_constant(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_constant(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {_constant(item) for item in node.elts}
    if isinstance(node, ast.Dict):
        keys = [_constant(key) if key is not None else _unknown() for key in node.keys]
        return dict(zip(keys, map(_constant, node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_constant(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _arithmetic(node.op, _constant(node.left), _constant(node.right))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        constructor = _CONSTRUCTORS.get(node.func.id)
        if constructor is not None and len(node.args) <= 2:
            return constructor(*(_constant(argument) for argument in node.args))
    if isinstance(node, ast.Attribute) and ast.unparse(node) in ("math.pi", "math.e", "math.inf", "math.nan"):
        return getattr(math, node.attr)
    raise _Unknown


def _arithmetic(sign: ast.operator, left: Any, right: Any) -> Any:
    """One operation between constants, refused when the result would be huge."""
    numbers = isinstance(left, int | float | complex) and isinstance(right, int | float | complex)
    if isinstance(sign, ast.Pow) and not (numbers and abs(right) <= 1000 and abs(left) <= 10**6):
        _unknown()
    if not numbers:
        if isinstance(sign, ast.Mult):  # a repetition
            count, body = (left, right) if isinstance(left, int) else (right, left)
            if not isinstance(count, int) or not isinstance(body, str | bytes | list | tuple):
                return _unknown()
            if count * len(body) > _MAX_SIZE:
                return _unknown()
        elif not isinstance(sign, ast.Add | ast.Sub):  # such as formatting
            _unknown()
    value = _BINARY[type(sign)](left, right)
    size = value.bit_length() // 3 if isinstance(value, int) else 0
    if isinstance(value, str | bytes | list | tuple):
        size = len(value)
    return value if size <= _MAX_SIZE else _unknown()


def _unknown() -> Any:
    raise _Unknown
