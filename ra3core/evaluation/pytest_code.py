"""Tests written for pytest, as KodCode's are: functions named test_* with asserts, judged outside the program.

What is nothing but asserts becomes lines of asserts (ra3core/verifier/asserts.py turns them into inputs and expected
outputs). Other test code becomes a script that calls the functions one by one, with a small stand-in for what it uses
of pytest: `raises`, `approx`, `mark.parametrize`. Test code that takes more of it fails for the reference solution too.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from ra3core.verifier.asserts import parse

PYTEST = """\
class pytest:
    class raises:
        def __init__(self, expected, match=None):
            self.expected, self.match = expected, match

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            import re

            assert kind is not None, "did not raise"
            self.type, self.value = kind, error
            return issubclass(kind, self.expected) and (self.match is None or bool(re.search(self.match, str(error))))

    class approx:
        def __init__(self, expected, rel=1e-6, abs=1e-12):
            self.expected, self.rel, self.abs = expected, rel or 1e-6, abs or 1e-12

        def __eq__(self, other):
            return self.near(self.expected, other)

        def near(self, expected, other):
            if isinstance(expected, (list, tuple)):
                return len(expected) == len(other) and all(map(self.near, expected, other))
            if isinstance(expected, dict):
                return expected.keys() == other.keys() and all(self.near(expected[key], other[key]) for key in expected)
            import math

            return expected == other or math.isclose(expected, other, rel_tol=self.rel, abs_tol=self.abs)

    class mark:
        @staticmethod
        def parametrize(names, values):
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            cases = [dict(zip(names, value if len(names) > 1 else [value])) for value in values]

            def decorate(function):
                function.cases = [{**case, **other} for case in cases for other in getattr(function, "cases", [{}])]
                return function

            return decorate

"""
_CALL = """
for _case in getattr({0}, "cases", [{{}}]):
    {0}(**_case)
"""
_LEFT_OUT = ("pytest", "solution")


@dataclass(frozen=True)
class TestCode:
    """Test code, read.

    called: names at the reference's margin that the tests use and do not define themselves, in the reference's order;
    function: the first of them is a function and the only one. asserts: all of the tests as lines of asserts; "" when
    they are more than that. script: all of the tests, to be run. signatures: of what is called, a line each.
    """

    __test__ = False

    called: tuple[str, ...]
    function: bool
    asserts: str
    script: str
    signatures: str


def read(code: str, reference: str) -> TestCode:
    """Test code beside a reference solution. Raises SyntaxError or ValueError when either is no Python."""
    statements = [s for s in parse(code).body if not _left_out(s)]
    own = {s.name for s in statements if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {
        name.id for s in statements if isinstance(s, ast.Assign) for name in s.targets if isinstance(name, ast.Name)
    }
    used = {node.id for s in statements for node in ast.walk(s) if isinstance(node, ast.Name)} - own
    defined = {s.name: s for s in parse(reference).body if isinstance(s, ast.FunctionDef | ast.ClassDef)}
    called = tuple(name for name in defined if name in used)
    tests = [s for s in statements if isinstance(s, ast.FunctionDef) and s.name.startswith("test")]
    body = "\n".join(map(ast.unparse, statements))
    calls = "".join(_CALL.format(test.name) for test in tests)
    return TestCode(
        called=called,
        function=len(called) == 1 and isinstance(defined[called[0]], ast.FunctionDef),
        asserts="\n".join(map(ast.unparse, _flat(statements, tests))),
        script=f"{PYTEST}{body}\n{calls}",
        signatures="\n".join(_signature(defined[name]) for name in called),
    )


def _left_out(statement: ast.stmt) -> bool:
    """Imports of pytest and of the solution, and what runs the tests when the file is the main program."""
    if isinstance(statement, ast.Import):
        return all(alias.name in _LEFT_OUT for alias in statement.names)
    if isinstance(statement, ast.ImportFrom):
        return statement.module in _LEFT_OUT
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)


def _flat(statements: list[ast.stmt], tests: list[ast.FunctionDef]) -> list[ast.stmt]:
    """The asserts of all tests; none when there is anything else."""
    found: list[ast.stmt] = []
    for statement in statements:
        if isinstance(statement, ast.Assert):
            found.append(statement)
        elif statement in tests:
            test = next(test for test in tests if test is statement)
            plain = not test.decorator_list and not ast.unparse(test.args)
            if not plain or not all(isinstance(s, ast.Assert) or _said(s) for s in test.body):
                return []
            found += [s for s in test.body if isinstance(s, ast.Assert)]
        elif not _said(statement) and not _calls_a_test(statement, tests):
            return []
    return found


def _said(statement: ast.stmt) -> bool:
    """A docstring, or a message that is printed."""
    if not isinstance(statement, ast.Expr):
        return isinstance(statement, ast.Pass)
    value = statement.value
    return isinstance(value, ast.Constant) or (
        isinstance(value, ast.Call)
        and ast.unparse(value.func) == "print"
        and all(isinstance(argument, ast.Constant) for argument in value.args)
    )


def _calls_a_test(statement: ast.stmt, tests: list[ast.FunctionDef]) -> bool:
    return isinstance(statement, ast.Expr) and ast.unparse(statement) in {f"{test.name}()" for test in tests}


def _signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """How a function or a class begins; of a class its methods' first lines too."""
    if isinstance(node, ast.ClassDef):
        methods = [_signature(s) for s in node.body if isinstance(s, ast.FunctionDef)]
        return "\n".join([f"class {node.name}:", *(f"    {method}" for method in methods)])
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}:"
