"""Estimates and their uncertainty: pass@k, bootstrap intervals over problems and seeds, paired differences.

numpy alone. Intervals over problems are percentile bootstraps, seeded, so that equal inputs print equal numbers.

Seeds are few, and every seed is evaluated on the same problems. A figure of seed s on problem p is taken as
mu + a_s + b_p + e_sp (seed, problem, and what is left), so that its mean over S seeds and P problems varies by
var(a)/S + var(b)/P + var(e)/(SP). A resample therefore adds two parts, each from its own draw:

    seeds     w(S) times the mean of S drawn deviations of seed means (they hold a and e/P),
              w(S) = sqrt(S / (S - 1)) t(S - 1) / z: 9.2, 2.7, 1.6, 1.2 for 2, 3, 5, 10 seeds at 95 %
    problems  v times the mean of P drawn deviations of problem means (they hold b and e/S),
              v = sqrt(max(0, 1 - MS_e / MS_p)), which takes out e: the part of the seeds has it already

t and z are quantiles of Student's and the normal distribution, MS the mean squares of the two-way analysis of variance.
A percentile bootstrap without w takes the spread of a handful of seeds for known and is too narrow; problems drawn anew
for each seed would count one hard problem S times. tests/ra3core/test_statistics.py measures how often such intervals
cover the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import asin, cos, nan, pi, sin, sqrt
from statistics import NormalDist
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

    def within(self, least: float, most: float) -> Estimate:
        """The part of the interval that the figure can lie in: a share is not above 1. Covers the truth as often."""
        return replace(self, low=float(np.clip(self.low, least, most)), high=float(np.clip(self.high, least, most)))


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
    means = _resampled_means(x, samples, np.random.default_rng(seed))
    return Estimate(float(x.mean()), *_interval(means, level))


def nested_bootstrap(
    values: ArrayLike | Sequence[Floats], *, samples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """Mean over seeds and problems when both are drawn from larger populations.

        theta*_b = m + w(S) (1/S) sum_s (seed mean[s_b] - m) + v (1/P) sum_p (problem mean[p_b] - m)

    with seeds s_b and problems p_b drawn with replacement; w(S) and v are said above. `samples` resamples are drawn.

    values: (seeds, problems), or one such matrix for each of several benchmarks, all with the same seeds: then the mean
    over benchmarks, each weighing the same, of which problems are drawn separately and seeds together. With one seed
    problems alone are drawn: the spread between seeds is then unknown.
    """
    strata = _strata(values)
    means = _nested_means(strata, samples, level, np.random.default_rng(seed))
    return Estimate(_mean(strata), *_interval(means, level))


def paired_difference(
    a: ArrayLike | Sequence[Floats],
    b: ArrayLike | Sequence[Floats],
    *,
    samples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Difference:
    """mean(a) - mean(b) with its interval, both measured on the same problems.

    The resamples draw problems (and seeds) once for both, so what makes a problem hard for both cancels: it is
    `nested_bootstrap` of a - b, with superiority = P(delta* > 0) + P(delta* = 0) / 2.

    a, b: (problems,), (seeds, problems), or a sequence of the latter as above; of one shape.
    """
    left, right = ([np.atleast_2d(x) for x in _arrays(values)] for values in (a, b))
    if [x.shape for x in left] != [x.shape for x in right]:
        shapes = [x.shape for x in left], [x.shape for x in right]
        raise ValueError(f"paired values must have one shape, found {shapes[0]} and {shapes[1]}")
    strata = _strata([x - y for x, y in zip(left, right, strict=True)])
    deltas = _nested_means(strata, samples, level, np.random.default_rng(seed))
    tie = np.abs(deltas) < 1e-12
    superiority = float(np.mean((deltas > 0) & ~tie) + tie.mean() / 2)
    return Difference(_mean(strata), *_interval(deltas, level), superiority)


def over_seeds(values: Sequence[float], level: float = LEVEL) -> Estimate:
    """Mean of one figure a seed with Student's interval, mean +- t(S - 1) s / sqrt(S).

    Without bounds (nan) for one seed, and for seeds that are all alike, as figures on a grid are: that their spread is
    finer than the grid does not make it zero.
    """
    x = _vector(values)
    error = standard_error(x.tolist())
    if not error > 1e-12:
        return Estimate(float(x.mean()), nan, nan)
    half = student_quantile((1 + level) / 2, x.size - 1) * error
    return Estimate(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


def cohens_h(first: float, second: float) -> float:
    """Standardised difference of two shares, 2 asin sqrt(first) - 2 asin sqrt(second).

    0.2 is called small, 0.5 medium, 0.8 large (Cohen 1988, chapter 6). Its variance does not depend on the shares,
    so that 2 % against 6 % and 50 % against 60 % compare.
    """
    if not (0 <= first <= 1 and 0 <= second <= 1):
        raise ValueError(f"shares lie between 0 and 1, found {first} and {second}")
    return 2 * asin(sqrt(first)) - 2 * asin(sqrt(second))


def standardised(differences: Sequence[float]) -> float:
    """Paired differences, one a seed, in units of their own standard deviation: mean / s (Cohen's d_z).

    nan for fewer than two, or when all are equal: there is no spread to compare with.
    """
    x = _vector(differences)
    spread = x.std(ddof=1) if x.size > 1 else 0.0
    return float(x.mean() / spread) if spread > 1e-12 else nan


def student_quantile(probability: float, degrees: int) -> float:
    """The t with P(T <= t) = probability for Student's distribution, by bisection; 0.5 <= probability < 1."""
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"expected 0.5 <= probability < 1 and degrees >= 1, found {probability} and {degrees}")
    low, high = 0.0, pi / 2  # of the angle atan(t / sqrt(degrees)), which is bounded
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, degrees) < 2 * probability - 1 else (low, middle)
    return sqrt(degrees) * sin(low) / cos(low)


def _student_within(angle: float, degrees: int) -> float:
    """P(|T| <= t) at angle = atan(t / sqrt(degrees)): the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = degrees % 2 == 1
    term, total = (cos(angle), 0.0) if odd else (1.0, 0.0)
    for i in range(degrees // 2):
        total += term
        term *= cos(angle) ** 2 * (2 * i + 2) / (2 * i + 3) if odd else cos(angle) ** 2 * (2 * i + 1) / (2 * i + 2)
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def seed_widening(seeds: int, level: float = LEVEL) -> float:
    """w(S) above: by how much the spread between `seeds` seeds, at least two, is stretched in a resample."""
    quantile = (1 + level) / 2
    return sqrt(seeds / (seeds - 1)) * student_quantile(quantile, seeds - 1) / NormalDist().inv_cdf(quantile)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, s / sqrt(n) with n - 1 in s; nan for fewer than two values."""
    x = np.asarray(values, dtype=float)
    return float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else float("nan")


def _resampled_means(x: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Means over resampled problems; x: (problems,) -> (resamples,)."""
    means = np.empty(resamples)
    block = max(1, _BLOCK // x.size)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        means[start:stop] = x[rng.integers(0, x.size, size=(stop - start, x.size))].mean(axis=1)
    return means


def _nested_means(strata: Sequence[Floats], resamples: int, level: float, rng: np.random.Generator) -> Floats:
    """Means over resampled seeds and problems; strata: (seeds, problems) each -> (resamples,)."""
    parts = []
    for x in strata:
        by_problem = x.mean(axis=0)
        deviations = _resampled_means(by_problem, resamples, rng) - by_problem.mean()
        parts.append(_problem_share(x) * deviations)
    means = _mean(strata) + np.mean(parts, axis=0)
    by_seed = np.mean([x.mean(axis=1) for x in strata], axis=0)
    seeds = len(by_seed)
    if seeds == 1:
        return means
    drawn = rng.integers(0, seeds, size=(resamples, seeds))
    return means + seed_widening(seeds, level) * (by_seed[drawn].mean(axis=1) - by_seed.mean())


def _problem_share(x: Floats) -> float:
    """v above; 1 for one seed, of which problems and the rest cannot be told apart."""
    seeds, problems = x.shape
    if seeds == 1 or problems == 1:
        return 1.0
    by_seed, by_problem = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    rest = np.square(x - by_seed - by_problem + x.mean()).sum() / ((seeds - 1) * (problems - 1))
    between = seeds * np.square(by_problem - x.mean()).sum() / (problems - 1)
    return sqrt(max(0.0, 1 - rest / between)) if between > 0 else 0.0


def _mean(strata: Sequence[Floats]) -> float:
    return float(np.mean([x.mean() for x in strata]))


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


def _arrays(values: ArrayLike | Sequence[Floats]) -> list[Floats]:
    """One array, or each of a sequence of matrices."""
    if isinstance(values, Sequence) and len(values) and all(isinstance(x, np.ndarray) and x.ndim == 2 for x in values):
        return [np.asarray(x, dtype=float) for x in values]
    return [np.asarray(values, dtype=float)]


def _strata(values: ArrayLike | Sequence[Floats]) -> list[Floats]:
    strata = _arrays(values)
    for x in strata:
        if x.ndim != 2 or x.size == 0:
            raise ValueError(f"expected values of shape (seeds, problems), found {x.shape}")
    if len({len(x) for x in strata}) > 1:
        raise ValueError(f"every benchmark needs the same seeds, found {[len(x) for x in strata]} of them")
    return strata
