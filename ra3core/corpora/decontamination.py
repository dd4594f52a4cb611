"""Decontamination: no training document may give an evaluation task away.

The paper does not describe its own check; public practice is n-gram overlap. A document is removed when

1. **prompt**: it contains the whole prompt of an evaluation task, white space and letter case aside (a prompt
   shorter than one n-gram counts only where the document begins with it: it would match by chance elsewhere);
2. **plan**: it is a labelled-steps program or outline whose plan contains the plan of an evaluation task: the ordered
   skills, whatever their labels, their wording, the distractor, or the code;
3. **overlap**: it holds more than `max_overlap` of the n-grams of some evaluation prompt. An n-gram that more than
   `boilerplate` of the prompts of its benchmark share (and more than two of them) says nothing about any one task and
   does not count.

Of benchmarks outside the suite reference solutions are indexed too, each as a prompt (held_out.py). Of the suite
prompts are compared, not solutions: programs of the embedded suite are put together from the same blocks on purpose,
so two of them share long runs of code without sharing a task; what must not leak is the order of the steps.
The same rules apply to every corpus: web text, outlines, demonstrations (a user's too) and tasks for RLVR.

Only the evaluation side is indexed, so memory does not grow with the training corpus.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ra3core.corpora.suite.skills import SKILLS

Document = TypeVar("Document")

TOKEN = re.compile(r"\w+|[^\w\s]")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of the rolling hash, modulo 2**64; odd, so nothing is lost
BATCH = 1_000  # documents
EXAMPLES = 5  # removed documents shown in a report
BINS = 10  # of the histogram of overlaps

PLAN = re.compile(r"Steps:(?P<steps>.*?\.)\s*(?P<verb>Run|Let|Return)\s(?P<order>[^.]*)\.", re.DOTALL)
STEP = re.compile(r"(?P<label>\w)\s+(?P<phrase>[^;]*?)\s*(?:;|\.$)", re.DOTALL)
LABEL = re.compile(r"\b[A-Z]\b")
SKILL_OF_PHRASE: Mapping[str, str] = {phrase: skill.name for skill in SKILLS for phrase in skill.phrasings}


def tokens_of(text: str) -> list[str]:
    """Words, numbers and single signs of a text in lower case."""
    return TOKEN.findall(text.lower())


def plans_of(text: str) -> list[tuple[str, ...]]:
    """The plans that labelled-steps docstrings in `text` ask for: skills in the order in which they are to be run.

    A phrase that is none of the suite's stands for itself.
    """
    plans = []
    for match in PLAN.finditer(text):
        steps = {step["label"]: " ".join(step["phrase"].split()) for step in STEP.finditer(match["steps"])}
        if match["verb"] == "Return":  # direct wording: steps bear the names of variables, run in alphabetical order
            order = sorted(label for label in steps if label <= match["order"].strip())
        else:
            order = LABEL.findall(match["order"])
        if order and all(label in steps for label in order):
            plans.append(tuple(SKILL_OF_PHRASE.get(steps[label], steps[label]) for label in order))
    return plans


@dataclass(frozen=True)
class Finding:
    """What the index says about one document.

    reason: "prompt", "plan", "overlap", or None for a clean document.
    task: the evaluation task concerned (for a clean document the one it overlaps most, None without overlap).
    overlap: largest share of an evaluation prompt's n-grams that the document holds, 0 to 1.
    tokens: the document's length as `tokens_of` counts.
    """

    reason: str | None
    task: str | None
    overlap: float
    tokens: int


class EvaluationIndex:
    """n-grams, prompts and plans of the evaluation tasks.

    prompts: id -> prompt. ngram: tokens. max_overlap, boilerplate: shares, see the module.
    benchmarks: id -> the benchmark it is of, where there is more than one.
    """

    def __init__(
        self,
        prompts: Mapping[str, str],
        ngram: int,
        max_overlap: float,
        boilerplate: float,
        benchmarks: Mapping[str, str] | None = None,
    ) -> None:
        self.ngram = ngram
        self.max_overlap = max_overlap
        self.ids = list(prompts)
        self.benchmark_of = {task: (benchmarks or {}).get(task, "") for task in prompts}
        tokens = [tokens_of(prompt) for prompt in prompts.values()]
        # A token that no prompt has is coded 0: no n-gram with it can match.
        self._codes = {t: _code(t) for prompt in tokens for t in prompt}
        self._prompts = [self._encode(prompt) for prompt in tokens]
        self._plans = {plan: task for task, prompt in prompts.items() for plan in plans_of(prompt)}
        self._plan_lengths = sorted({len(plan) for plan in self._plans})
        self._short = {tuple(prompt): task for task, prompt in enumerate(tokens) if 0 < len(prompt) < ngram}
        self._short_lengths = sorted({len(prompt) for prompt in self._short})

        hashes = [rolling(prompt, ngram) for prompt in self._prompts]
        distinct = [np.unique(grams) for grams in hashes]
        self._grams, frequency = np.unique(_concatenate(distinct), return_counts=True)  # both (grams,)
        self._anchors = self._find_anchors(hashes, frequency)

        task_of = np.repeat(np.arange(len(distinct)), [len(grams) for grams in distinct])
        gram_of = np.searchsorted(self._grams, _concatenate(distinct))
        keep = self._informative(task_of, gram_of, boilerplate)
        self.ignored_ngrams = len(np.unique(gram_of[~keep]))
        task_of, gram_of = task_of[keep], gram_of[keep]
        self._sizes = np.bincount(task_of, minlength=len(distinct))  # informative n-grams of each task
        order = np.argsort(gram_of, kind="stable")
        self._tasks = task_of[order]  # tasks of gram g: self._tasks[self._starts[g] : self._starts[g + 1]]
        self._starts = np.searchsorted(gram_of[order], np.arange(len(self._grams) + 1))

    @property
    def plans(self) -> int:
        """Number of distinct plans read from the prompts."""
        return len(self._plans)

    @property
    def sizes(self) -> dict[str, int]:
        """Texts of every benchmark; empty where only one is indexed."""
        return dict(Counter(name for name in self.benchmark_of.values() if name))

    def check(self, texts: Sequence[str], tokens: Sequence[list[str]] | None = None) -> list[Finding]:
        """One finding for each document; tokens: of each, where they are known."""
        tokens = [tokens_of(text) for text in texts] if tokens is None else tokens
        codes = self._encode([token for document in tokens for token in document])
        document_of = np.repeat(np.arange(len(texts)), [len(document) for document in tokens])
        hashes = rolling(codes, self.ngram)
        if len(hashes) and len(self._grams):
            gram = np.searchsorted(self._grams, hashes).clip(max=len(self._grams) - 1)
            inside = document_of[: len(hashes)] == document_of[self.ngram - 1 :]  # not across two documents
            where = np.flatnonzero((self._grams[gram] == hashes) & inside)
        else:
            gram = where = np.zeros(0, np.int64)
        overlap, best = self._overlaps(document_of[where], gram[where], len(texts))
        whole = self._whole_prompts(codes, document_of, where, gram[where])
        findings = []
        for i, text in enumerate(texts):
            reason, task = None, self.ids[best[i]] if overlap[i] > 0 else None
            exact = whole.get(i, self._short_prompt(tokens[i]))
            planned = self._planned(text)
            if exact is not None:
                reason, task = "prompt", self.ids[exact]
            elif planned is not None:
                reason, task = "plan", planned
            elif overlap[i] > self.max_overlap:
                reason = "overlap"
            findings.append(Finding(reason, task, float(overlap[i]), len(tokens[i])))
        return findings

    def _informative(self, task_of: np.ndarray, gram_of: np.ndarray, boilerplate: float) -> np.ndarray:
        """Which pairs of a task and an n-gram count: those whose n-gram is no boilerplate of the task's benchmark."""
        names, benchmark = np.unique([self.benchmark_of[task] for task in self.ids], return_inverse=True)
        limits = np.maximum(2.0, boilerplate * np.bincount(benchmark, minlength=len(names)))
        pairs = benchmark[task_of] * max(len(self._grams), 1) + gram_of
        _, which, counts = np.unique(pairs, return_inverse=True, return_counts=True)
        return counts[which] <= limits[benchmark[task_of]]

    def _encode(self, tokens: Sequence[str]) -> np.ndarray:
        return np.fromiter((self._codes.get(token, 0) for token in tokens), np.uint64, len(tokens))

    def _find_anchors(self, hashes: list[np.ndarray], frequency: np.ndarray) -> dict[int, list[tuple[int, int]]]:
        """gram -> (task, its offset in the prompt) of the rarest n-gram of every prompt: where to look for a copy."""
        anchors: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for task, grams in enumerate(hashes):
            if len(grams):
                ids = np.searchsorted(self._grams, grams)
                offset = int(frequency[ids].argmin())
                anchors[int(ids[offset])].append((task, offset))
        return dict(anchors)

    def _overlaps(self, documents: np.ndarray, grams: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Largest share of a task's informative n-grams in each document, and that task; both (documents,)."""
        overlap, best = np.zeros(count), np.zeros(count, np.int64)
        pairs = np.unique(documents * len(self._grams) + grams)  # an n-gram counts once a document
        documents, grams = np.divmod(pairs, max(len(self._grams), 1))
        lengths = self._starts[grams + 1] - self._starts[grams]
        first = np.repeat(self._starts[grams] - np.cumsum(lengths) + lengths, lengths)
        tasks = self._tasks[first + np.arange(lengths.sum())]
        keys, shared = np.unique(np.repeat(documents, lengths) * len(self.ids) + tasks, return_counts=True)
        documents, tasks = np.divmod(keys, max(len(self.ids), 1))
        shares = shared / self._sizes[tasks]
        order = np.argsort(shares, kind="stable")  # the largest is written last
        overlap[documents[order]] = shares[order]
        best[documents[order]] = tasks[order]
        return overlap, best

    def _whole_prompts(
        self, codes: np.ndarray, document_of: np.ndarray, where: np.ndarray, grams: np.ndarray
    ) -> dict[int, int]:
        """document -> a task whose whole prompt it contains."""
        found: dict[int, int] = {}
        for position, gram in zip(where.tolist(), grams.tolist(), strict=True):
            for task, offset in self._anchors.get(gram, ()):
                prompt = self._prompts[task]
                start, end = position - offset, position - offset + len(prompt)
                if start < 0 or end > len(codes) or document_of[start] != document_of[end - 1]:
                    continue
                if np.array_equal(codes[start:end], prompt):
                    found[int(document_of[start])] = task
        return found

    def _short_prompt(self, tokens: list[str]) -> int | None:
        """A task whose prompt, shorter than one n-gram, the document begins with."""
        for length in self._short_lengths:
            task = self._short.get(tuple(tokens[:length]))
            if task is not None:
                return task
        return None

    def _planned(self, text: str) -> str | None:
        """A task whose plan is part of the document's."""
        if not self._plans:
            return None
        for plan in plans_of(text):
            for length in self._plan_lengths:
                for start in range(len(plan) - length + 1):
                    task = self._plans.get(plan[start : start + length])
                    if task is not None:
                        return task
        return None


@dataclass
class Report:
    """What decontamination did to one corpus; `as_dict` is JSON."""

    documents: int = 0
    tokens: int = 0  # of the documents kept
    removed: Counter[str] = field(default_factory=Counter)  # by reason
    benchmarks: Counter[str] = field(default_factory=Counter)  # removed, by benchmark, where there is more than one
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)  # documents by largest overlap
    largest_kept: float = 0.0
    examples: list[dict[str, Any]] = field(default_factory=list)
    rechecked: int = 0

    def record(self, text: str, finding: Finding, benchmark: str = "") -> None:
        """Count one document; benchmark: of the task that is found in it."""
        self.documents += 1
        self.histogram[min(int(finding.overlap * BINS), BINS - 1)] += 1
        if finding.reason is None:
            self.tokens += finding.tokens
            self.largest_kept = max(self.largest_kept, finding.overlap)
            return
        self.removed[finding.reason] += 1
        self.benchmarks.update([benchmark] if benchmark else [])
        if len(self.examples) < EXAMPLES:
            example = {"task": finding.task, "reason": finding.reason, "overlap": round(finding.overlap, 4)}
            self.examples.append({**example, "document": text[:500]})

    def as_dict(self) -> dict[str, Any]:
        """Counts, histogram (bins of width 0.1 from 0 to 1), examples."""
        return {
            "documents": self.documents,
            "removed": self.removed.total(),
            "removed_by": {reason: self.removed[reason] for reason in ("prompt", "plan", "overlap")},
            **({"removed_for": dict(sorted(self.benchmarks.items()))} if self.benchmarks else {}),
            "tokens_kept": self.tokens,
            "largest_overlap_kept": round(self.largest_kept, 4),
            "overlap_histogram": self.histogram,
            "examples": self.examples,
            "rechecked": self.rechecked,
        }


def clean(
    documents: Iterable[Document], text: Callable[[Document], str], index: EvaluationIndex, report: Report
) -> Iterator[Document]:
    """The documents that give no evaluation task away, in order; the others are counted in `report`."""
    for batch in _batches(documents):
        texts = [text(document) for document in batch]
        for document, document_text, finding in zip(batch, texts, index.check(texts), strict=True):
            report.record(document_text, finding, index.benchmark_of.get(finding.task or "", ""))
            if finding.reason is None:
                yield document


def recheck(texts: Iterable[str], index: EvaluationIndex, report: Report) -> None:
    """Check what was written once more; raises RuntimeError when it still holds a contaminated document."""
    for batch in _batches(texts):
        for text, finding in zip(batch, index.check(batch), strict=True):
            if finding.reason is not None:
                raise RuntimeError(
                    f"decontamination left a document that gives {finding.task} away ({finding.reason}): {text[:200]!r}"
                )
        report.rechecked += len(batch)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _code(token: str) -> np.uint64:
    """A random-looking code of a token, the same on every machine, never 0."""
    return np.uint64(int.from_bytes(blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()) | 1)


def rolling(codes: np.ndarray, ngram: int) -> np.ndarray:
    """Hash of every n-gram: sum of code_j * MULTIPLIER**(n - 1 - j) modulo 2**64; (tokens,) -> (tokens - n + 1,)."""
    count = len(codes) - ngram + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    for j in range(ngram):
        hashes *= MULTIPLIER
        hashes += codes[j : j + count]
    return hashes


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.uint64), *arrays])
