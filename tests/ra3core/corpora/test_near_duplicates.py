"""Copies and near copies are found, what is merely similar is not, and both are what brute force says."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ra3core.corpora.near_duplicates import (
    PERMUTATIONS,
    RECALL,
    SHINGLE,
    Digests,
    MinHash,
    Signatures,
    bands,
    near_duplicates,
)


def test_digests_are_a_set() -> None:
    rng = np.random.default_rng(0)
    known: set[int] = set()
    digests = Digests()
    for _ in range(60):
        batch = rng.integers(0, 3_000, rng.integers(0, 120)).astype(np.uint64)
        expected = []
        for value in batch.tolist():
            expected.append(value not in known)
            known.add(value)
        assert digests.add(batch).tolist() == expected
    assert len(digests._runs) <= 12  # each at least twice as long as the next


def shingles(tokens: list[str]) -> set[tuple[str, ...]]:
    padded = [*tokens, *[""] * (SHINGLE - 1)]
    return {tuple(padded[i : i + SHINGLE]) for i in range(len(tokens))}


def jaccard(one: list[str], other: list[str]) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def edited(tokens: list[str], count: int, rng: random.Random) -> list[str]:
    """A copy with `count` tokens replaced by new ones."""
    copy = list(tokens)
    for place in rng.sample(range(len(copy)), count):
        copy[place] = f"new{rng.random()}"
    return copy


def signed(path: Path, documents: list[list[str]]) -> Signatures:
    hashed = MinHash()
    half = len(documents) // 2
    with path.open("wb") as file:
        for part in (documents[:half], documents[half:]):  # batches make no difference
            hashed.signatures(part).tofile(file)
    return Signatures(path)


def test_similarity_is_estimated_to_the_precision_that_is_promised(tmp_path: Path) -> None:
    rng = random.Random(0)
    documents = []
    for i in range(300):
        document = [rng.choice("abcdefghijklmnop") * rng.randint(1, 3) for _ in range(rng.randint(1, 150))]
        documents += [document, edited(document, min(len(document), i % 12), rng)]
    found = signed(tmp_path / "signatures", documents).similarities(np.arange(0, 600, 2), np.arange(1, 600, 2))
    exact = np.array([jaccard(documents[i], documents[i + 1]) for i in range(0, 600, 2)])
    error = found - exact
    assert abs(error.mean()) < 0.01
    deviation = np.sqrt((exact * (1 - exact)).mean() / PERMUTATIONS)
    assert 0.8 * deviation < error.std() < 1.25 * deviation


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_are_the_longest_that_find_enough(threshold: float) -> None:
    count, rows = bands(threshold)
    assert count * rows <= PERMUTATIONS
    assert 1 - (1 - threshold**rows) ** count >= RECALL
    longer = PERMUTATIONS // (rows + 1)
    assert rows == PERMUTATIONS or 1 - (1 - threshold ** (rows + 1)) ** longer < RECALL


def test_near_copies_go_and_the_earliest_stays(tmp_path: Path) -> None:
    """Families of copies with few edits among documents of their own: one of each family stays, its first."""
    rng = random.Random(1)
    documents, family = [], []
    for number in range(120):
        document = [f"t{rng.randint(0, 2_000)}" for _ in range(rng.randint(150, 250))]
        for copy in range(1 + number % 4):
            documents.append(edited(document, 1, rng) if copy else document)
            family.append(number)
    order = rng.sample(range(len(documents)), len(documents))
    documents, family = [documents[i] for i in order], [family[i] for i in order]
    gone = near_duplicates(signed(tmp_path / "signatures", documents), 0.7)
    kept = [number for number, is_gone in zip(family, gone, strict=True) if not is_gone]
    assert sorted(kept) == list(range(120))
    assert kept == list(dict.fromkeys(family))


def test_what_is_less_alike_stays(tmp_path: Path) -> None:
    rng = random.Random(2)
    document = [f"t{i}" for i in range(100)]
    documents = [document, edited(document, 15, rng)]
    assert 0.2 < jaccard(*documents) < 0.6
    signatures = signed(tmp_path / "signatures", documents)
    assert not near_duplicates(signatures, 0.8).any()
    assert near_duplicates(signatures, 0.1).tolist() == [False, True]


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "signatures").touch()
    assert len(near_duplicates(Signatures(tmp_path / "signatures"), 0.8)) == 0
    assert MinHash().signatures([]).shape == (0, PERMUTATIONS)
