"""Estimates and their uncertainty: pass@k, bootstrap intervals over problems and seeds, paired differences.

numpy alone. Every interval is a percentile bootstrap, seeded, so that equal inputs print equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
_BLOCK = 4_000_000  # indices held in memory at once


@dataclass(frozen=True)
class Estimate:
    """A mean with the percentile bootstrap interval [low, high] at the level asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """An estimate of mean(a) - mean(b) over the same problems.

    superiority: share of bootstrap resamples in which a is ahead, ties counting one half.
    """

    superiority: float


@overload
def pass_at_k(samples: int, correct: int, k: int) -> float: ...
@overload
def pass_at_k(samples: ArrayLike, correct: ArrayLike, k: int) -> Floats: ...
def pass_at_k(samples: ArrayLike, correct: ArrayLike, k: int) -> Floats | float:
    """The unbiased estimate of pass@k for each problem.

        pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1}^{n} (1 - k / i)

    samples: n, correct: c; integers or arrays of one shape, 0 <= c <= n. Returns a number or an array of that shape.
    The product keeps every factor in [0, 1], so nothing overflows. Raises ValueError when k < 1, n < k or c is out of
    range.
    """
    n, c = np.broadcast_arrays(np.asarray(samples, dtype=np.int64), np.asarray(correct, dtype=np.int64))
    if k < 1:
        raise ValueError(f"pass@k needs k >= 1, found {k}")
    if np.any(n < k):
        raise ValueError(f"pass@{k} needs at least {k} samples of every problem, found {int(n.min())}")
    if np.any(c < 0) or np.any(c > n):
        raise ValueError("correct samples must lie between 0 and the number of samples")
    fail = np.ones(n.shape)
    for i in range(1, int(n.max(initial=0)) + 1):
        factor = np.clip(1.0 - k / i, 0.0, None)
        fail = np.where((i > n - c) & (i <= n), fail * factor, fail)
    return 1.0 - fail if fail.ndim else float(1.0 - fail)


def bootstrap(values: ArrayLike, *, samples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Mean over problems with its interval: problems are drawn with replacement.

        theta*_b = (1/P) sum_p values[i_bp],   i_bp ~ Uniform{1..P};   interval = quantiles of theta*

    values: (problems,). Raises ValueError when there are none.
    """
    x = _vector(values)
    means = _resampled_means(x[None, :], samples, np.random.default_rng(seed))[:, 0]
    return Estimate(float(x.mean()), *_interval(means, level))


def nested_bootstrap(values: ArrayLike, *, samples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Mean over seeds and problems when both are drawn from larger populations.

        theta*_b = (1/S) sum_s (1/P) sum_p values[s_b, p_b]

    with seeds s_b and problems p_b drawn with replacement, the problems once for all seeds of a resample, because all
    seeds were evaluated on the same problems. `samples` resamples are drawn.

    values: (seeds, problems). With one seed this is `bootstrap`: the spread between seeds is then unknown.
    """
    x = _matrix(values)
    means = _nested_means(x, samples, np.random.default_rng(seed))
    return Estimate(float(x.mean()), *_interval(means, level))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, samples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Difference:
    """mean(a) - mean(b) with its interval, both measured on the same problems.

    The resamples draw problems (and seeds) once for both, so what makes a problem hard for both cancels:

        delta*_b = mean over the resample of (a - b);   superiority = P(delta* > 0) + P(delta* = 0) / 2

    a, b: (problems,) or (seeds, problems), one shape.
    """
    left, right = np.atleast_2d(np.asarray(a, dtype=float)), np.atleast_2d(np.asarray(b, dtype=float))
    if left.shape != right.shape:
        raise ValueError(f"paired values must have one shape, found {left.shape} and {right.shape}")
    x = _matrix(left - right)
    deltas = _nested_means(x, samples, np.random.default_rng(seed))
    tie = np.abs(deltas) < 1e-12
    superiority = float(np.mean((deltas > 0) & ~tie) + tie.mean() / 2)
    return Difference(float(x.mean()), *_interval(deltas, level), superiority)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, s / sqrt(n) with n - 1 in s; nan for fewer than two values."""
    x = np.asarray(values, dtype=float)
    return float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else float("nan")


def _resampled_means(x: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Means over resampled problems; x: (rows, problems) -> (resamples, rows)."""
    problems = x.shape[1]
    means = np.empty((resamples, x.shape[0]))
    block = max(1, _BLOCK // problems)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = rng.integers(0, problems, size=(stop - start, problems))
        for row in range(x.shape[0]):
            means[start:stop, row] = x[row][drawn].mean(axis=1)
    return means


def _nested_means(x: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Means over resampled problems and seeds; x: (seeds, problems) -> (resamples,)."""
    by_seed = _resampled_means(x, resamples, rng)
    seeds = x.shape[0]
    if seeds == 1:
        return by_seed[:, 0]
    drawn = rng.integers(0, seeds, size=(resamples, seeds))
    return np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)


def _interval(means: Floats, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"an interval's level lies between 0 and 1, found {level}")
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _vector(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"expected one value a problem, at least one, found shape {x.shape}")
    return x


def _matrix(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"expected values of shape (seeds, problems), found {x.shape}")
    return x
