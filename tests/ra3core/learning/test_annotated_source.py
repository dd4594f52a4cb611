"""A whole file with rationales: what is put in, and that nothing else changes."""

from __future__ import annotations

import ast

import pytest
from transformers import PreTrainedTokenizerFast

from ra3core.errors import UserError
from ra3core.learning.annotated_source import AnnotatedSource, Annotating, Found, annotate_source, functions_of, insert

SOURCE = (
    '''\
#!/usr/bin/env python
import os  # kept


@decorated
def f(xs):
    """Steps: A) keep the positive numbers. Run A."""

    # a human's comment
    out = []   # and another
    for x in xs:
\tif x > 0:
\t    out.append(
\t        x
\t    )
    text = """
    # no comment
    """
    return (out,
            text)

class C:
    @property
    def g(self):
        def inner(ys):
            return ys
        total = 1 + \\
            2
        return inner(total)

def one(): return 1
'''.replace("\tif", "        if")
    .replace("\t    ", "            ")
    .replace("\t    )", "            )")
)
HOT = Annotating(temperature=6.0, rationale_tokens=6, scores=True)  # so hot that a random model thinks often


@pytest.fixture
def annotated(make_model, tokenizer: PreTrainedTokenizerFast):
    def make(source: str = SOURCE, how: Annotating = HOT, seed: int = 0, context: int = 100_000) -> AnnotatedSource:
        model = make_model()
        model.config.max_position_embeddings = context
        return annotate_source(source, functions_of(source, "x.py"), model, tokenizer, how, seed=seed)

    return make


def without_rationales(found: AnnotatedSource) -> str:
    """The text without the lines that were put in."""
    lines = found.text.splitlines(keepends=True)
    for one in reversed(found.rationales):
        ahead = sum(other.line < one.line for other in found.rationales)
        assert lines[one.line - 1 + ahead].strip() == f"# {one.rationale}"
        del lines[one.line - 1 + ahead]
    return "".join(lines)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_everything_else_stays_byte_for_byte(annotated, end: str) -> None:
    source = SOURCE.replace("\n", end)
    found = annotated(source)
    assert found.functions == 2 and {one.function for one in found.rationales} == {"f", "C.g"}
    assert without_rationales(found) == source
    assert ast.dump(ast.parse(found.text)) == ast.dump(ast.parse(source))
    assert found.text.count(end) == source.count(end) + len(found.rationales)


def test_rationales_have_the_indentation_of_their_line() -> None:
    source = "def f(x):\n    if x:\n        return 1\n    return 2"
    text = insert(source, [Found("f", 3, "one", None), Found("f", 4, "two", None)])
    assert text == "def f(x):\n    if x:\n        # one\n        return 1\n    # two\n    return 2"


def test_only_what_gains_more_than_the_penalty_is_kept(annotated) -> None:
    everything = annotated()
    gains = sorted(one.gain for one in everything.rationales)
    assert len(gains) > 3 and gains[0] < gains[-1]
    kept = annotated(how=Annotating(temperature=6.0, rationale_tokens=6, penalty=0.0))
    assert all(one.gain > 0 for one in kept.rationales)
    nothing = annotated(how=Annotating(temperature=6.0, rationale_tokens=6, penalty=100.0))
    assert nothing.rationales == () and nothing.text == SOURCE


def test_the_likeliest_of_several_gains_more(annotated) -> None:
    def mean(samples: int) -> float:
        how = Annotating(samples, None, 6.0, rationale_tokens=6, scores=True)
        gains = [one.gain for seed in range(3) for one in annotated(how=how, seed=seed).rationales]
        assert len(gains) > 3
        return sum(gains) / len(gains)

    assert mean(8) > mean(1)


def test_seeds_decide(annotated) -> None:
    assert annotated(seed=1) == annotated(seed=1) != annotated(seed=2)


def test_gains_are_measured_only_where_they_are_needed(annotated) -> None:
    found = annotated(how=Annotating(temperature=6.0, rationale_tokens=6))
    assert found.rationales and {one.gain for one in found.rationales} == {None}


def test_functions_that_the_model_cannot_read_stay_as_they_are(annotated) -> None:
    found = annotated(context=8)
    assert found.text == SOURCE and found.skipped == ("f", "C.g") and found.functions == 0


@pytest.mark.parametrize("source", ["def f(:\n", "x = '\0'\n", "print 1\n"])
def test_what_is_no_python_is_one_sentence(source: str) -> None:
    with pytest.raises(UserError, match=r"^x\.py: not Python \([^\n]+\)$"):
        functions_of(source, "x.py")
