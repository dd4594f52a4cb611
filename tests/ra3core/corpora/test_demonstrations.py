"""Rationales go in and come out without touching a byte of the expert's, nor the meaning of the program."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import functions, module_sources

from ra3core.corpora.demonstrations import (
    Annotated,
    Demonstration,
    Task,
    Test,
    annotate,
    comment_boundaries,
    read_annotated,
    read_demonstrations,
    read_tasks,
    rows_inside_tokens,
    strip,
    write_annotated,
    write_demonstrations,
    write_tasks,
)
from ra3core.corpora.python_source import Cutter
from ra3core.errors import UserError

TEXT = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)
RATIONALES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() and len(text.splitlines()) == 1
)


@st.composite
def annotated(draw: st.DrawFn) -> Annotated:
    """Any lines at all, Python or not, with rationales ahead of any of them."""
    lines = tuple(draw(st.lists(TEXT, max_size=8)))
    rationales = draw(st.dictionaries(st.integers(0, max(len(lines) - 1, 0)), RATIONALES)) if lines else {}
    boundaries = tuple(range(len(lines)))
    return annotate(Demonstration("d", draw(TEXT), lines, boundaries), rationales)


def tree(source: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.dump(ast.parse(source))


@given(annotated())
def test_strip_undoes_annotate(a: Annotated) -> None:
    assert strip(a.body, a.rationale_lines) == a.demonstration.lines
    assert len(a.body) == len(a.demonstration.lines) + len(a.rationales)
    for position, t in zip(a.rationale_lines, sorted(a.rationales), strict=True):
        assert a.body[position].lstrip(" \t") == f"# {a.rationales[t].strip()}"


@given(annotated())
def test_no_rationale_is_the_demonstration(a: Annotated) -> None:
    assert annotate(a.demonstration, {}).text == a.demonstration.text


@settings(max_examples=10, deadline=None)
@given(st.lists(annotated(), min_size=1, max_size=4))
def test_files_give_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[Annotated]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write_annotated(rows, path)
    assert read_annotated(path) == rows
    first = path.read_bytes()
    write_annotated(rows, path)
    assert path.read_bytes() == first
    write_demonstrations([a.demonstration for a in rows], path)
    assert read_demonstrations(path) == [a.demonstration for a in rows]


def test_tasks_file(tmp_path) -> None:
    tasks = [Task("a", "def f(x):", "f", (Test(([1, 2],), {"k": None}), Test((True, 1.5), "s")), 3)]
    write_tasks(tasks, tmp_path / "tasks.parquet")
    assert read_tasks(tmp_path / "tasks.parquet") == tasks
    with pytest.raises(UserError, match="column 'lines' is missing"):
        read_demonstrations(tmp_path / "tasks.parquet")


@pytest.mark.parametrize("rationale", ["", "  ", "a\nb", "a\rb", "a\x0cb", "a\u2028b"])
def test_a_rationale_is_one_line(rationale: str) -> None:
    with pytest.raises(ValueError, match="one non-empty line"):
        annotate(Demonstration("d", "p", ("x",), (0,)), {0: rationale})


def test_a_rationale_stands_at_a_boundary() -> None:
    with pytest.raises(ValueError, match="ahead of line 1"):
        annotate(Demonstration("d", "def f():", ("    s = '''", "    '''"), (0,)), {1: "inside a string"})


def assert_boundaries_are_safe(prompt: str, lines: tuple[str, ...]) -> None:
    """A comment at each boundary, and comments at all of them, leave the tree as it was."""
    boundaries = comment_boundaries(prompt, lines)
    demonstration = Demonstration("d", prompt, lines, boundaries)
    expected = tree(demonstration.text)
    for t in boundaries:
        assert tree(annotate(demonstration, {t: 'noqa \'it\' """ \\'}).text) == expected
    assert tree(annotate(demonstration, dict.fromkeys(boundaries, "c")).text) == expected


@settings(max_examples=60, deadline=None)
@given(functions())
def test_comments_at_boundaries_change_nothing(source: str) -> None:
    prompt, *lines = source.rstrip("\n").split("\n")
    assert_boundaries_are_safe(prompt, tuple(lines))


def test_comments_at_boundaries_change_nothing_in_the_standard_library() -> None:
    cut = [d for name, source in module_sources().items() for d in Cutter(60).source(source, name)]
    assert len(cut) > 150
    for demonstration in cut[::4]:
        assert_boundaries_are_safe(demonstration.prompt, demonstration.lines)


def test_every_line_but_the_unsafe_ones_is_a_boundary() -> None:
    lines = (
        "    a = [",
        "        1,",
        "    ]",
        "",
        "    b = '''",
        "  inside",
        "    '''",
        "    c = 1 + \\",
        "        2",
    )
    assert comment_boundaries("def f():", lines) == (0, 1, 2, 4, 7)


def test_nested_format_strings() -> None:
    # From Python 3.12 on the parts of a format string are tokens of their own, the inner string's end one of them.
    lines = ('    s = f"""{f"{x}"}{', "    x=}", '    """', "    return s")
    try:
        assert comment_boundaries("def f(x):", lines) == (0, 3)
    except UserError:  # before 3.12 no such string exists
        assert_boundaries_are_safe("def f(x):", ('    s = f"""{f\'{x}\'}', "    # {x}", '    """', "    return s"))


def test_rows_of_nested_format_strings_from_later_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    # The token stream of Python 3.12 for:  f"""{f'a'}{<newline>x}""", played to the function on any version.
    names = {1001: "FSTRING_START", 1002: "FSTRING_END"}
    monkeypatch.setattr(tokenize, "tok_name", tokenize.tok_name | names)
    stream = [
        (1001, 'f"""', (1, 0), (1, 4)),
        (1001, "f'", (1, 5), (1, 7)),
        (1002, "'", (1, 8), (1, 9)),
        (tokenize.OP, "{", (1, 10), (1, 11)),
        (tokenize.NL, "\n", (1, 11), (1, 12)),
        (tokenize.NAME, "x", (2, 0), (2, 1)),
        (1002, '"""', (2, 2), (2, 5)),
    ]
    assert rows_inside_tokens(tokenize.TokenInfo(*token, "") for token in stream) == {2}


@pytest.mark.parametrize("line", ["    x = 'open", "    x = (", "    x = $", "  '''", "   x\n  y"])
def test_what_is_not_python_is_an_error(line: str) -> None:
    with pytest.raises(UserError, match="not a Python program"):
        comment_boundaries("def f():", ("    y = 1", *line.split("\n")))


def test_rows_inside_tokens() -> None:
    source = "a = '''\nb\n'''\nc = (1,\n 2)\n"
    assert rows_inside_tokens(tokenize.generate_tokens(io.StringIO(source).readline)) == {2, 3}
