"""Random Python functions whose layout is hard to cut and to annotate, and functions of the standard library."""

from __future__ import annotations

import argparse
import difflib
import heapq
import inspect
import json.decoder
import textwrap
from types import ModuleType

from hypothesis import strategies as st

NAMES = st.sampled_from(("x", "y", "total", "items", "_z"))
NUMBERS = st.integers(0, 99).map(str)
STRINGS = st.sampled_from(
    (
        "'# no comment'",
        '"a # b"',
        "'''one\n  # two\n\n three'''",
        '"""a\n\tb \\\n# c\n"""',
        "f'{x}#'",
        'f"""{x!r}\n # {y:>3}\n"""',
        "'a\\\n# b'",
        "rb'\\x'",
    )
)
EXPRESSIONS = st.recursive(
    NAMES | NUMBERS | STRINGS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: f"({p[0]},\n{p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"[{p[0]},  # first\n\n      # second\n  {p[1]}\n]"),
        st.tuples(inner, inner).map(lambda p: f"{p[0]} == \\\n  {p[1]}"),
    ),
    max_leaves=4,
)
COMMENTS = st.sampled_from(("", "  # why", "  #", "  ## so: 'quoted'"))


def _indent(block: str) -> str:
    """Indent the rows of a block that start no string's inside: only the first row of each statement is safe."""
    return "\n".join("    " + row for row in block.split("\n"))


SIMPLE = st.one_of(
    st.tuples(NAMES, EXPRESSIONS, COMMENTS).map(lambda p: f"{p[0]} = {p[1]}{p[2]}"),
    EXPRESSIONS.map(lambda e: f"return {e}"),
    st.tuples(NAMES, NAMES).map(lambda p: f"{p[0]} = 1; {p[1]} = 2"),
    st.just("pass"),
)
LAYOUT = st.sampled_from(("", "# a comment\n", "\n", "   \n", "# one\n\n# two\n", "#\n"))
STATEMENTS = st.recursive(
    st.tuples(LAYOUT, SIMPLE).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda b: "if x:  # if\n" + _indent("\n".join(b))),
        st.lists(inner, min_size=1, max_size=2).map(
            lambda b: "for y in x:\n" + _indent("\n".join(b)) + "\n# else\nelse:\n    pass"
        ),
        st.lists(inner, min_size=1, max_size=2).map(lambda b: "def inner(x):\n" + _indent("\n".join(b))),
    ),
    max_leaves=6,
)
DOCSTRINGS = st.sampled_from(("", '"""One."""', '"""Two\n\n      # lines\n    of it.\n    """', "'# x'"))
SIGNATURES = st.sampled_from(
    ("def f(x, y=1):", "def f(\n    x,  # first\n    y=')',\n) -> int:", "async def f(x): # f")
)


@st.composite
def functions(draw: st.DrawFn) -> str:
    """The source of one function at indentation 0."""
    body = "\n".join(draw(st.lists(STATEMENTS, min_size=1, max_size=4)))
    docstring = draw(DOCSTRINGS)
    return draw(SIGNATURES) + "\n" + _indent(f"{docstring}\n{body}" if docstring else body) + "\n"


MODULES: tuple[ModuleType, ...] = (argparse, difflib, heapq, json.decoder, textwrap, inspect)


def module_sources() -> dict[str, str]:
    """Name -> source of some modules of the standard library."""
    return {module.__name__: inspect.getsource(module) for module in MODULES}
