"""Intervals for figures whose observations come in groups: the boundaries of one demonstration are not independent.

    theta*_b = sum_d w_bd S_d / sum_d w_bd n_d,        w_b ~ Multinomial(D, 1/D)

with S_d the sum of demonstration d's observations and n_d their number or weight: demonstrations are drawn with
replacement, each with everything measured in it. numpy alone, seeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95


class Clusters:
    """Observations 0 .. n-1 and the demonstration that each was made in."""

    def __init__(self, groups: Sequence[str], resamples: int, seed: int = 0) -> None:
        names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
        if not names:
            raise ValueError("no observations, expected at least one")
        self.of = np.array([names[name] for name in groups])
        self.count = len(names)
        rng = np.random.default_rng(seed)
        self.draws: Floats = rng.multinomial(self.count, np.full(self.count, 1 / self.count), resamples).astype(float)

    def sums(self, values: ArrayLike) -> Floats:
        """Sum of each demonstration's values: (observations, ...) -> (demonstrations, ...)."""
        x = np.asarray(values, dtype=float)
        found = np.zeros((self.count, *x.shape[1:]))
        np.add.at(found, self.of, x)
        return found

    def mean(self, values: ArrayLike, weights: ArrayLike | None = None) -> tuple[Any, Any, Any]:
        """The mean over observations with its interval: values (observations,) or (observations, figures).

        weights: of the observations, all above zero; equal ones without them.
        """
        x = np.asarray(values, dtype=float)
        w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=float)
        each = w.reshape(-1, *[1] * (x.ndim - 1))
        sums, total = self.sums(x * each), self.sums(w)
        drawn = self.draws @ sums / (self.draws @ total).reshape(-1, *[1] * (x.ndim - 1))
        return (sums.sum(0) / total.sum())[()], *interval(drawn)


def interval(drawn: ArrayLike) -> tuple[Any, Any]:
    """The percentile interval of resampled figures (resamples, ...)."""
    low, high = np.quantile(np.asarray(drawn, dtype=float), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low[()], high[()]
