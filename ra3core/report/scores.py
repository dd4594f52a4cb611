"""pass@k of every arm with its interval, computed from the counts of all seeds.

The unit is a matrix of seeds by tasks of unbiased pass@k estimates; ra3core.statistics resamples both. Two arms are
resampled together, so that what makes a task hard or a seed lucky for both cancels in their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ra3core import statistics
from ra3core.report.inputs import Evaluation, Evaluations, Run


@dataclass(frozen=True)
class Contender:
    """An arm under a decoding mode."""

    arm: str
    mode: str = "free"


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
        """1 or -1 where the interval excludes zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


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
        seeds = self._seeds(contender)
        matrix = self._matrix({seed: self._values(seeds[seed], contender.mode, k, steps) for seed in seeds})
        if matrix is None:
            return None
        interval = statistics.nested_bootstrap(matrix, samples=self.resamples)
        return Score(interval.value, interval.low, interval.high, *matrix.shape)

    def _difference(self, first: Contender, second: Contender, k: int, steps: int | None) -> Difference | None:
        mine, theirs = self._seeds(first), self._seeds(second)
        common = sorted(mine.keys() & theirs.keys())
        mine_values = {seed: self._values(mine[seed], first.mode, k, steps) for seed in common}
        their_values = {seed: self._values(theirs[seed], second.mode, k, steps) for seed in common}
        tasks = _common_tasks([*mine_values.values(), *their_values.values()])
        if not tasks:
            return None
        a, b = _stack(mine_values, tasks), _stack(their_values, tasks)
        interval = statistics.paired_difference(a, b, samples=self.resamples)
        return Difference(
            float(a.mean()),
            float(b.mean()),
            interval.value,
            interval.low,
            interval.high,
            tuple(float(value) for value in (a - b).mean(axis=1)),
            len(tasks),
        )

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

    def _matrix(self, values: Mapping[int, Mapping[str, float]]) -> np.ndarray | None:
        tasks = _common_tasks(list(values.values()))
        return _stack(values, tasks) if tasks else None


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


def _common_tasks(values: list[dict[str, float]] | list[Mapping[str, float]]) -> list[str]:
    return sorted(set.intersection(*(set(one) for one in values))) if values else []


def _stack(values: Mapping[int, Mapping[str, float]], tasks: list[str]) -> np.ndarray:
    """(seeds, tasks)"""
    return np.array([[values[seed][task] for task in tasks] for seed in sorted(values)])
