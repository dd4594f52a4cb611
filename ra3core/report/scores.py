"""pass@k of every arm with its interval, computed from the counts of all seeds.

The unit is a matrix of seeds by tasks of unbiased pass@k estimates, one for each benchmark; ra3core.statistics
resamples both. Two arms are resampled together, so that what makes a task hard or a seed lucky for both cancels in
their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ra3core import statistics
from ra3core.config import EMBEDDED
from ra3core.report.inputs import Evaluation, Evaluations, Run

Values = Mapping[int, Mapping[str, float]]
"""Seed -> task -> pass@k."""


@dataclass(frozen=True)
class Contender:
    """An arm under a decoding mode."""

    arm: str
    mode: str = "free"


@dataclass(frozen=True)
class Gain:
    """What one contender has above another, seed by seed and task by task."""

    after: Contender
    before: Contender


@dataclass(frozen=True)
class Score:
    """A share with its 95 % interval, over `seeds` seeds and `tasks` tasks."""

    value: float
    low: float
    high: float
    seeds: int
    tasks: int


@dataclass(frozen=True)
class Difference:
    """first - second with the 95 % interval of the paired difference; all shares.

    per_seed: the difference of each seed that both were run with.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    tasks: int

    @property
    def sign(self) -> int:
        """1 or -1 when the interval lies above or below zero, 0 when it includes zero."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def seeds(self) -> int:
        return len(self.per_seed)

    @property
    def h(self) -> float:
        """The effect as Cohen's h of the two shares."""
        return statistics.cohens_h(self.first, self.second)


@dataclass(frozen=True)
class Scores:
    """Scores of a run; `resamples` bootstrap draws behind every interval. Each is computed once.

    benchmark: one of run.benchmarks, else the embedded suite. base: count the benchmark's original tests alone.
    """

    run: Run
    resamples: int
    benchmark: str = ""
    base: bool = False
    _done: dict[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Numbers of steps that tell tasks apart; none when all tasks have the same."""
        found = {steps for one in self._evaluations for steps in one.steps.values()}
        return tuple(sorted(found)) if len(found) > 1 else ()

    @cached_property
    def ks(self) -> tuple[int, ...]:
        """Of pass@k: those configured, and the paper's 1 and 5 where every task has so many samples."""
        return tuple(sorted({k for one in self._evaluations for k in one.ks}))

    def score(self, contender: Contender, k: int = 1, steps: int | None = None) -> Score | None:
        """pass@k over the tasks whose plan has `steps` steps (all if none is given); None if it was not run."""
        question = (contender, k, steps)
        if question not in self._done:
            self._done[question] = self._score(contender, k, steps)
        return self._done[question]

    def difference(
        self, first: Contender, second: Contender, k: int = 1, steps: int | None = None
    ) -> Difference | None:
        """The paired difference over the seeds and tasks that both have; None if either was not run."""
        question = (first, second, k, steps)
        if question not in self._done:
            self._done[question] = self._difference(first, second, k, steps)
        return self._done[question]

    def _score(self, contender: Contender, k: int, steps: int | None) -> Score | None:
        return _scored([self.values(contender, k, steps)], self.resamples)

    def _difference(self, first: Contender, second: Contender, k: int, steps: int | None) -> Difference | None:
        mine, theirs = (self.values(contender, k, steps) for contender in (first, second))
        return _differing([mine], [theirs], self.resamples)

    def values(self, contender: Contender, k: int = 1, steps: int | None = None) -> Values:
        """The unbiased estimate of pass@k by seed and task; empty if the contender was not run."""
        seeds = self._seeds(contender)
        return {seed: self._values(seeds[seed], contender.mode, k, steps) for seed in seeds}

    @property
    def evaluations(self) -> Evaluations:
        """Those that the scores are made from."""
        return self.run.benchmarks[self.benchmark] if self.benchmark else self.run.evaluations

    @property
    def _evaluations(self) -> list[Evaluation]:
        return [one for seeds in self.evaluations.values() for one in seeds.values()]

    def _seeds(self, contender: Contender) -> dict[int, Evaluation]:
        seeds = self.evaluations.get(contender.arm, {})
        return {seed: one for seed, one in seeds.items() if contender.mode in self._counts(one)}

    def _counts(self, evaluation: Evaluation) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        return evaluation.base if self.base else evaluation.counts

    def _values(self, evaluation: Evaluation, mode: str, k: int, steps: int | None) -> dict[str, float]:
        """Task -> unbiased estimate of pass@k from its n samples, c of which passed."""
        kept = {
            task: (n, c)
            for task, (n, c) in self._counts(evaluation)[mode].items()
            if n >= k and (steps is None or evaluation.steps[task] == steps)
        }
        samples, correct = ([counts[i] for counts in kept.values()] for i in (0, 1))
        return dict(zip(kept, statistics.pass_at_k(samples, correct, k).tolist(), strict=True))


@dataclass(frozen=True)
class Average:
    """pass@k averaged over benchmarks, each weighing the same, as in the paper's last columns.

    suites: every benchmark of a run, the embedded one among them if it was evaluated. Seeds count that a contender has
    on all of them.
    """

    suites: Mapping[str, Scores]
    resamples: int
    _done: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, run: Run, resamples: int) -> Average:
        embedded = {EMBEDDED: Scores(run, resamples)} if run.evaluations else {}
        return cls({**embedded, **{one.name: one.scores for one in benchmarks(run, resamples)}}, resamples)

    @property
    def ks(self) -> tuple[int, ...]:
        """The k that every benchmark has."""
        found = [set(scores.ks) for scores in self.suites.values()]
        return tuple(sorted(set.intersection(*found))) if found else ()

    def score(self, contender: Contender, k: int = 1) -> Score | None:
        """None if it was not run on every benchmark."""
        question = (contender, k)
        if question not in self._done:
            self._done[question] = _scored(self._values(contender, k), self.resamples)
        return self._done[question]

    def difference(self, first: Contender | Gain, second: Contender | Gain, k: int = 1) -> Difference | None:
        """The paired difference of the averages; None if either was not run on every benchmark. Of two gains, how much
        larger the first is: a difference of differences."""
        question = (first, second, k)
        if question not in self._done:
            mine, theirs = self._values(first, k), self._values(second, k)
            self._done[question] = _differing(mine, theirs, self.resamples)
        return self._done[question]

    def _values(self, contender: Contender | Gain, k: int) -> list[Values]:
        if isinstance(contender, Contender):
            return [scores.values(contender, k) for scores in self.suites.values()]
        both = zip(self._values(contender.after, k), self._values(contender.before, k), strict=True)
        return [_less(after, before) for after, before in both]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark beside the embedded suite. name: as the configuration has it. variant: its convention in words."""

    slug: str
    name: str
    variant: str
    scores: Scores
    base: Scores | None

    @property
    def columns(self) -> list[tuple[str, Scores, int]]:
        """(title, scores, k) of its figures, such as pass@1; ahead of each that of the original tests alone."""
        found = []
        for k in self.scores.ks:
            if self.base is not None:
                found.append((f"base pass@{k}", self.base, k))
            found.append((f"pass@{k}", self.scores, k))
        return found


def benchmarks(run: Run, resamples: int) -> list[Benchmark]:
    """Every benchmark of a run beside the embedded suite."""
    found = []
    for slug, evaluations in run.benchmarks.items():
        one = next(one for seeds in evaluations.values() for one in seeds.values())
        base = Scores(run, resamples, slug, base=True) if one.base else None
        found.append(Benchmark(slug, one.benchmark, one.variant, Scores(run, resamples, slug), base))
    return found


def _less(first: Values, second: Values) -> Values:
    """Their difference over the seeds and tasks that both have."""
    return {
        seed: {task: value - second[seed][task] for task, value in first[seed].items() if task in second[seed]}
        for seed in first
        if seed in second
    }


def _scored(suites: Sequence[Values], resamples: int) -> Score | None:
    """The mean over benchmarks, seeds and tasks; None where a benchmark has nothing."""
    matrices = _matrices(suites, suites)
    if matrices is None:
        return None
    strata, _ = matrices
    found = statistics.nested_bootstrap(strata, samples=resamples).within(0, 1)
    return Score(found.value, found.low, found.high, len(strata[0]), sum(x.shape[1] for x in strata))


def _differing(first: Sequence[Values], second: Sequence[Values], resamples: int) -> Difference | None:
    """The paired difference over the seeds and tasks that both have; None where there are none."""
    matrices = _matrices(first, second)
    if matrices is None:
        return None
    a, b = matrices
    found = statistics.paired_difference(a, b, samples=resamples)
    by_seed = np.mean([(x - y).mean(axis=1) for x, y in zip(a, b, strict=True)], axis=0)
    one, other = (float(np.mean([x.mean() for x in strata])) for strata in matrices)
    return Difference(
        one, other, found.value, found.low, found.high, tuple(by_seed.tolist()), sum(x.shape[1] for x in a)
    )


def _matrices(first: Sequence[Values], second: Sequence[Values]) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """(seeds, tasks) of each benchmark for both, over what both have; None where that is nothing."""
    seeds = sorted(set.intersection(*(set(values) for values in (*first, *second)))) if first else []
    if not seeds:
        return None
    both: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for pair in zip(first, second, strict=True):
        tasks = sorted(set.intersection(*(set(values[seed]) for values in pair for seed in seeds)))
        if not tasks:
            return None
        for matrices, values in zip(both, pair, strict=True):
            matrices.append(np.array([[values[seed][task] for task in tasks] for seed in seeds]))
    return both
