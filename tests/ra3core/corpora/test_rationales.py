"""Controls' annotations: the expert's bytes stay, rationales are only dealt anew, and nothing is made up."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ra3core.arms import AsIs
from ra3core.corpora.demonstrations import (
    Annotated,
    Demonstration,
    annotate,
    read_annotated,
    strip,
    write_annotated,
    write_demonstrations,
)
from ra3core.corpora.rationales import distil, permuted, shuffle
from ra3core.errors import UserError
from ra3core.stage import Context


def context(folder: Path, role: str, seed: int = 0) -> Context:
    (folder / "in").mkdir()
    (folder / "out").mkdir()
    return Context({role: folder / "in"}, folder / "out", folder / "scratch", seed)


def texts(annotated: list[Annotated]) -> Counter[str]:
    return Counter(text for one in annotated for text in one.rationales.values())


def test_distilled_are_the_authors_own_comments(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    place = context(tmp_path, "demonstrations")
    write_demonstrations(demonstrations, tmp_path / "in" / "demonstrations.parquet")
    metrics = distil(AsIs(), place)
    found = read_annotated(tmp_path / "out" / "annotated.parquet")
    assert [one.demonstration for one in found] == demonstrations
    assert [dict(one.rationales) for one in found] == [dict(d.reference) for d in demonstrations]
    assert (metrics["thinks_per_demonstration"], metrics["tokens"]) == (2.0, 0)


def test_a_corpus_without_comments_has_no_distilled_arm(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    place = context(tmp_path, "demonstrations")
    bare = [dataclasses.replace(d, reference={}) for d in demonstrations]
    write_demonstrations(bare, tmp_path / "in" / "demonstrations.parquet")
    with pytest.raises(UserError, match="no demonstration has comments of its author, which arm distilled is made of"):
        distil(AsIs(), place)


def test_shuffled_rationales_stand_where_rationales_stood(demonstrations: list[Demonstration], tmp_path: Path) -> None:
    place = context(tmp_path, "annotated", seed=3)
    before = [annotate(d, d.reference) for d in demonstrations]
    write_annotated(before, tmp_path / "in" / "annotated.parquet")
    metrics = shuffle(AsIs(), place)
    after = read_annotated(tmp_path / "out" / "annotated.parquet")
    assert [set(one.rationales) for one in after] == [set(one.rationales) for one in before]
    assert texts(after) == texts(before)
    same = sum(a.rationales[t] == b.rationales[t] for a, b in zip(before, after, strict=True) for t in a.rationales)
    assert metrics["kept"] == same / 96 < 0.3


@given(
    st.lists(st.dictionaries(st.sampled_from([0, 1, 3, 4, 6]), st.text("ab# ", min_size=1)), max_size=6), st.integers()
)
def test_the_experts_bytes_survive_any_shuffle(found: list[dict[int, str]], seed: int) -> None:
    lines = ("    a = 1", "    if a:", "        a = 2", "    b = a", "    c = b", "", "    return c")
    expert = Demonstration("d", "def f():", lines, (0, 1, 2, 3, 4, 6))
    before = [annotate(expert, {t: text for t, text in one.items() if text.strip()}) for one in found]
    after = permuted(before, seed)
    assert texts(after) == texts(before)
    for one in after:
        assert strip(one.body, one.rationale_lines) == lines
        compile(one.text, "shuffled", "exec")
    assert permuted(before, seed) == after


def test_another_seed_deals_otherwise(demonstrations: list[Demonstration]) -> None:
    before = [annotate(d, d.reference) for d in demonstrations]
    assert permuted(before, 1) != permuted(before, 2) != before
