"""Functions cut out of source: prompt, steps, comments aside, and nothing that is not the author's program."""

from __future__ import annotations

import ast
import io
import textwrap
import tokenize
import warnings

import pytest
from hypothesis import given, settings
from programs import functions, module_sources

from ra3core.corpora.demonstrations import Demonstration, annotate, comment_boundaries
from ra3core.corpora.python_source import Cutter

SOURCE = '''
import os


@decorated
def first(a, b=1):  # trailing
    """Add.

    Twice.
    """
    # ahead of the step
    # on two lines

    x = a + b  # behind it
    if x:
        # deeper
        return [
            x,  # an element
        ]

    return 0


class Box:
    def method(self):
        text = """
  not indented
        kept as it is
"""
        def inner():
            """Inner."""
            return text
        return inner

    def one(self): return 1

    def documented(self):
        """Only this."""


if os:
    async def last():
        await first
'''


def cut(source: str, max_lines: int = 40) -> tuple[dict[str, Demonstration], Cutter]:
    cutter = Cutter(max_lines)
    found = {d.id.split(":")[1]: d for d in cutter.source(source, "m.py")}
    return found, cutter


def test_cuts() -> None:
    found, cutter = cut(SOURCE)
    assert list(found) == ["first", "Box.method", "last"]
    assert dict(cutter.counts) == {"one_line": 1, "no_body": 1}
    first = found["first"]
    assert first.id == "m.py:first:6"
    assert first.prompt == 'def first(a, b=1):\n    """Add.\n\n    Twice.\n    """'
    assert first.lines == (
        "    x = a + b",
        "    if x:",
        "        return [",
        "            x,",
        "        ]",
        "    return 0",
    )
    assert first.reference == {0: "ahead of the step on two lines behind it", 2: "deeper", 3: "an element"}
    method = found["Box.method"]
    assert method.prompt == "def method(self):"
    assert method.lines[:4] == ('    text = """', "  not indented", "        kept as it is", '"""')
    assert method.lines[4:] == ("    def inner():", '        """Inner."""', "        return text", "    return inner")
    assert method.boundaries == (0, 4, 5, 6, 7)
    assert found["last"].text == "async def last():\n    await first\n"


def comments(source: str) -> list[str]:
    return [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]


def row_of(demonstration: Demonstration) -> int:
    return int(demonstration.id.rsplit(":", 1)[1])


def shape(node: ast.AST) -> str:
    """The tree of a function without decorators, white space of its own docstring aside."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if ast.get_docstring(node) is not None:
        node.body[0] = ast.Expr(ast.Constant(" ".join((ast.get_docstring(node) or "").split())))
    node.decorator_list = []
    return ast.dump(node)


def functions_by_row(source: str) -> dict[int, ast.AST]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            n.lineno: n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        }


def assert_faithful(original: ast.AST, demonstration: Demonstration) -> None:
    """Same tree as the function it came from, no comment left, and its own comments fit back in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = shape(original)
        (parsed,) = ast.parse(demonstration.text).body
        assert shape(parsed) == expected
        (annotated,) = ast.parse(annotate(demonstration, demonstration.reference).text).body
        assert shape(annotated) == expected
    assert comments(demonstration.text) == []
    assert demonstration.boundaries == comment_boundaries(demonstration.prompt, demonstration.lines)
    assert demonstration.lines and demonstration.lines[0].startswith((" ", "\t"))


@settings(max_examples=80, deadline=None)
@given(functions())
def test_any_function_is_cut_faithfully(source: str) -> None:
    cutter = Cutter(200)
    found = list(cutter.source(source, "m"))
    assert len(found) == 1 or cutter.counts["not_reproducible"] or cutter.counts["no_body"]
    for demonstration in found:
        assert_faithful(functions_by_row(source)[row_of(demonstration)], demonstration)


@settings(max_examples=30, deadline=None)
@given(functions())
def test_a_method_is_the_same_function(source: str) -> None:
    # Indenting by hand changes the inside of strings: only sources that survive it are compared.
    method = "class A:\n" + textwrap.indent(source, "    ")
    for demonstration in Cutter(200).source(method, "m"):
        assert demonstration.prompt.startswith(("def f(", "async def f("))
        assert_faithful(functions_by_row(method)[row_of(demonstration)], demonstration)


def test_the_standard_library_is_cut_faithfully() -> None:
    cutter, found = Cutter(60), 0
    for name, source in module_sources().items():
        originals = functions_by_row(source)
        for demonstration in cutter.source(source, name):
            assert_faithful(originals[row_of(demonstration)], demonstration)
            found += 1
    assert found > 150
    assert cutter.counts["not_reproducible"] == 0


def test_too_long() -> None:
    source = "def f(x):\n    a = 1\n    # c\n    return a\n"
    assert cut(source, max_lines=2)[0]
    assert dict(cut(source, max_lines=1)[1].counts) == {"too_long": 1}


@pytest.mark.parametrize(
    "source", ["def f(:\n", "def f():\n  x = '''\n", "\0", "def f():\n" + "(" * 300, "x = " + "-" * 100_000 + "1\n"]
)
def test_what_is_not_python_is_counted(source: str) -> None:
    found, cutter = cut(source)
    assert not found and dict(cutter.counts) == {"not_python": 1}


def test_comment_after_a_continuation_does_not_swallow_the_next_line() -> None:
    source = "def f(x):\n    y = x \\\n    # odd but legal\n    return y\n"
    found, cutter = cut(source)
    assert not found or found["f"].lines == ("    y = x", "    return y")
    assert found or cutter.counts["not_reproducible"] == 1
