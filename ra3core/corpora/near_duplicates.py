"""Copies and near copies in a corpus that does not fit into memory.

Exact copies are found by 64-bit digests, 8 bytes a document (`Digests`). Near copies by MinHash (Broder 1997): the
shingles of a document are its runs of SHINGLE tokens; of each of PERMUTATIONS random orders of all shingles the
document's smallest is kept, 16 bits of it. Two documents agree in a share of these that estimates the Jaccard
similarity of their shingles, to 0.035 (one standard deviation) at 0.8. Pairs to compare are found by locality-sensitive
hashing (Indyk and Motwani 1998): documents that agree in all of a band's rows meet in a bucket.

Signatures lie on the disk, 256 bytes a document; a band is looked at after the other, with some 40 bytes a document in
memory at a time and no more, whatever the documents' lengths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ra3core.corpora.decontamination import rolling

SHINGLE = 5  # tokens
PERMUTATIONS = 128
RECALL = 0.98  # of pairs at the threshold that bands are chosen to find
LEADERS = 100  # documents of a bucket that the others are compared with
ROWS = 8_192  # signatures in memory at a time
ROW_BYTES = 2 * PERMUTATIONS  # of a signature
VOCABULARY = 200_000  # tokens whose codes are remembered

_SHIFT = np.uint64(24)  # of the 16 bits that are kept: those above are alike in all small values
_RANDOM = np.random.Generator(np.random.PCG64(0x5A3))
_FACTORS = _RANDOM.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)


class Digests:
    """A set of 64-bit digests in sorted runs, each at least twice as long as the next: 8 bytes a member."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def add(self, digests: np.ndarray) -> np.ndarray:
        """Add (n,) uint64; returns (n,) bool: which were not in the set, nor earlier among these."""
        new = np.zeros(len(digests), bool)
        new[np.unique(digests, return_index=True)[1]] = True
        for run in self._runs:
            place = np.searchsorted(run, digests).clip(max=len(run) - 1)
            new &= run[place] != digests
        if new.any():
            self._runs.append(np.sort(digests[new]))
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]), kind="stable")
        return new


class MinHash:
    """Signatures of tokenised documents."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def signatures(self, documents: Sequence[Sequence[str]]) -> np.ndarray:
        """(documents, PERMUTATIONS) uint16, of documents of at least one token."""
        if not documents:
            return np.zeros((0, PERMUTATIONS), np.uint16)
        if len(self._codes) > VOCABULARY:
            self._codes.clear()
        # A document ends in empty tokens, so that a short one has a shingle, too.
        lengths = np.array([len(tokens) for tokens in documents])
        starts = np.concatenate([[0], np.cumsum(lengths + SHINGLE - 1)])
        codes = np.zeros(starts[-1], np.uint64)
        for tokens, start in zip(documents, starts.tolist(), strict=False):
            codes[start : start + len(tokens)] = [self._code(token) for token in tokens]
        shingles = _mixed(rolling(codes, SHINGLE))
        # Those that begin among a document's empty tokens reach into the next; they are left out below.
        own = np.repeat(starts[:-1] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(
            lengths.sum()
        )
        shingles, firsts = shingles[own], np.concatenate([[0], np.cumsum(lengths)[:-1]])
        found = np.empty((len(documents), PERMUTATIONS), np.uint16)
        for column in range(PERMUTATIONS):
            least = np.minimum.reduceat(shingles * _FACTORS[column] + _OFFSETS[column], firsts)
            found[:, column] = (least >> _SHIFT).astype(np.uint16)
        return found

    def _code(self, token: str) -> int:
        code = self._codes.get(token)
        if code is None:
            digest = blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            code = self._codes[token] = int.from_bytes(digest, "big") | 1
        return code


class Signatures:
    """The signatures of all documents in a file, one row behind the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = path.stat().st_size // ROW_BYTES

    def bucket_keys(self, first: int, rows: int) -> np.ndarray:
        """(documents,) uint64: equal for documents that agree in the columns from `first` on; read in blocks."""
        keys = np.empty(self.count, np.uint64)
        for start, block in self._blocks():
            band = block[:, first : first + rows].astype(np.uint64)
            key = np.zeros(len(block), np.uint64)
            for column in range(rows):
                key = _mixed(key ^ band[:, column])
            keys[start : start + len(block)] = key
        return keys

    def similarities(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(pairs,): the estimated Jaccard similarities of documents one[i] and other[i]."""
        found = np.empty(len(one))
        with self.path.open("rb") as file:
            for start in range(0, len(one), ROWS):
                part = slice(start, start + ROWS)
                found[part] = (self._gather(file.fileno(), one[part]) == self._gather(file.fileno(), other[part])).mean(
                    1
                )
        return found

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        with self.path.open("rb") as file:
            for start in range(0, self.count, ROWS):
                block = np.fromfile(file, np.uint16, min(ROWS, self.count - start) * PERMUTATIONS)
                yield start, block.reshape(-1, PERMUTATIONS)

    @staticmethod
    def _gather(file: int, documents: np.ndarray) -> np.ndarray:
        """(len(documents), PERMUTATIONS); a row is read once, and the file is not mapped: its pages would stay."""
        distinct, back = np.unique(documents, return_inverse=True)
        rows = b"".join(os.pread(file, ROW_BYTES, ROW_BYTES * document) for document in distinct.tolist())
        return np.frombuffer(rows, np.uint16).reshape(-1, PERMUTATIONS)[back]


def bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of each: the longest rows with which two documents of this similarity meet in one of the bands
    with a probability of RECALL, 1 - (1 - threshold ** rows) ** bands."""
    for rows in range(PERMUTATIONS, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= RECALL:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1


def near_duplicates(signatures: Signatures, threshold: float) -> np.ndarray:
    """(documents,) bool: which are left out because they are a near duplicate of an earlier one.

    In every bucket the first that is left is compared with the others, and those at least `threshold` similar go; then
    the next that is left, and so on, LEADERS times at most. So no two documents that stay are known to be alike, and
    what goes was like an earlier document (which may itself have gone, for one that is still earlier).
    """
    count, rows = bands(threshold)
    gone = np.zeros(signatures.count, bool)
    for band in range(count):
        keys = signatures.bucket_keys(band * rows, rows)
        left = np.flatnonzero(~gone)
        left = left[np.argsort(keys[left], kind="stable")]  # a bucket's documents side by side, in their order
        keys = keys[left]
        for _ in range(LEADERS):
            first = np.ones(len(left), bool)
            first[1:] = keys[1:] != keys[:-1]
            if first.all():
                break
            others = np.flatnonzero(~first)
            leaders = left[np.flatnonzero(first)[np.cumsum(first)[others] - 1]]
            alike = signatures.similarities(leaders, left[others]) >= threshold
            gone[left[others[alike]]] = True
            left, keys = left[others[~alike]], keys[others[~alike]]
    return gone


def _mixed(values: np.ndarray) -> np.ndarray:
    """The same values spread over all bits (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
