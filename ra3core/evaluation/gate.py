"""The gate: is a model shown to be better than the one that it would replace?

What an evaluation measured is kept beside the model (`Measured`, a benchmark each), so that two models can be compared
wherever their files are. Compared is like with like alone: the same tasks, the same sampling budget, the same limits
and grading code; `Measured.differs` names what is not.

The statistic is the mean difference of the pass rates of the same problems, all problems of all benchmarks in one pool:

    x_p = c_p(new) / n_p(new) - c_p(old) / n_p(old);    delta = (1/P) sum_p x_p

The new model passes when the lower end of a one-sided percentile bootstrap over problems is above zero, that is when
no more than a share of 1 - level of the resampled means of x lies at zero or below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ra3core import statistics
from ra3core.config import EMBEDDED

MODE = "free"
"""The decoding mode that is compared."""

SETTINGS = ("limit", "samples", "temperature", "top_p", "max_new_tokens", "verifier")
"""What must be equal of a benchmark's configuration. Batch size, k and further modes change no pass rate."""


@dataclass(frozen=True)
class Measured:
    """A model's results on one benchmark, decoding free.

    tasks: digest of the tasks. code: digest of the code that sampled and graded. settings: see SETTINGS.
    problems: task id -> (samples n, passed c).
    """

    benchmark: str
    tasks: str
    code: str
    settings: Mapping[str, Any]
    problems: Mapping[str, tuple[int, int]]

    def differs(self, other: Measured) -> str | None:
        """What keeps the two from being compared, in words; None when nothing does."""
        if self.tasks != other.tasks:
            return f"the tasks of {self.benchmark}"
        for name in SETTINGS:
            if self.settings.get(name) != other.settings.get(name):
                found = f"{self.settings.get(name)} and {other.settings.get(name)}"
                return f"{name} on {self.benchmark} ({found})"
        if self.code != other.code:
            return f"the code that samples and grades {self.benchmark}"
        if self.problems.keys() != other.problems.keys():
            return f"the problems of {self.benchmark}"
        return None

    def rates(self) -> list[float]:
        """Share of passed samples, a problem each, in the order of their ids."""
        return [c / n for _, (n, c) in sorted(self.problems.items())]

    def plain(self) -> dict[str, Any]:
        """For JSON; `parse` reads it again."""
        return {
            "benchmark": self.benchmark,
            "tasks": self.tasks,
            "code": self.code,
            "settings": dict(self.settings),
            "problems": {task: list(count) for task, count in self.problems.items()},
        }


def measured(manifest: Mapping[str, Any], results: Mapping[str, Any]) -> Measured:
    """What an evaluation stage found, from its manifest and its results.json."""
    config = manifest["config"]
    return Measured(
        config.get("benchmark", EMBEDDED),
        manifest["inputs"]["tasks"],
        manifest["code"],
        {name: config.get(name) for name in SETTINGS},
        _counts(results["per_task"][MODE]),
    )


def parse(plain: Mapping[str, Any]) -> Measured:
    """From `Measured.plain`. Raises KeyError, TypeError or ValueError for anything else."""
    return Measured(
        plain["benchmark"], plain["tasks"], plain["code"], dict(plain["settings"]), _counts(plain["problems"])
    )


@dataclass(frozen=True)
class Comparison:
    """The gate's numbers; shares.

    new, old: mean pass rates. difference: new - old. bound: its one-sided lower bound at `level`. upper: the one-sided
    upper bound, so that [bound, upper] is the two-sided interval at 2 * level - 1. benchmarks: those that were pooled.
    """

    new: float
    old: float
    difference: float
    bound: float
    upper: float
    level: float
    problems: int
    benchmarks: tuple[str, ...]

    @property
    def better(self) -> bool:
        """Whether the new model passes."""
        return self.bound > 0


def compare(
    new: Sequence[Measured], old: Sequence[Measured], *, level: float, resamples: int = statistics.RESAMPLES
) -> Comparison:
    """The paired comparison over all problems of all benchmarks, which both list in the same order.

    level: of the one-sided bound, above one half. Raises ValueError when the two are not comparable.
    """
    if not 0.5 < level < 1:
        raise ValueError(f"the level of a one-sided bound lies between 0.5 and 1, found {level}")
    for mine, theirs in zip(new, old, strict=True):
        if mine.benchmark != theirs.benchmark or mine.differs(theirs):
            raise ValueError(f"not comparable: {mine.differs(theirs) or 'the benchmarks'}")
    a, b = ([rate for one in side for rate in one.rates()] for side in (new, old))
    found = statistics.paired_difference(a, b, samples=resamples, level=2 * level - 1)
    names = tuple(one.benchmark for one in new)
    rates = float(np.mean(a)), float(np.mean(b))
    return Comparison(*rates, found.value, found.low, found.high, level, len(a), names)


def _counts(counts: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Raises ValueError where no sample was drawn."""
    found = {task: (int(n), int(c)) for task, (n, c) in counts.items()}
    if not found or not all(n > 0 and 0 <= c <= n for n, c in found.values()):
        raise ValueError("expected samples and passed samples of every problem, at least one of each problem")
    return found
