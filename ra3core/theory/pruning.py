"""Pruning by expert demonstrations: how many until every (eps, sigma)-suboptimal set of options is gone.

    Delta(M, Z') = V*_M - V*_{M, Z'} >= 0, at the start of task M: what planning with Z' alone costs
    Z' is (eps, sigma)-suboptimal iff Pr_M[Delta(M, Z') > eps] >= sigma
    Z_eps is the smallest Z' with Delta(M, Z') <= eps in every task that p(M) can draw; k = |Z_eps|

The paper's k log(|Z| / delta) / sigma, with constant 1, is enough for each of three rules:

    elimination  a demonstration of M strikes out every candidate, a set of k options, that costs more than eps in M.
                 Union bound over the sets: (log C(|Z|, k) + log(1 / delta)) / sigma
    keeping      the expert plans within Z_eps, and what it shows is kept; the candidates are the proper subsets of
                 Z_eps. Union bound over them: (k log 2 + log(1 / delta)) / sigma, whatever |Z|
    decisions    a demonstration shows one of k kinds of decision; each option but Z_eps is for one kind, and struck out
                 with probability sigma **when that kind is shown**. Union bound: k log((|Z| - k) / delta) / sigma

In each a candidate outlives a demonstration with probability at most 1 - s (s = sigma; for decisions sigma / k), so
all are gone after n with probability at least 1 - candidates (1 - s)^n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb, inf, log

import numpy as np
from numpy.typing import NDArray

from ra3core.theory.families import Family
from ra3core.theory.semi_mdp import Bools, Floats, optimal

Counts = NDArray[np.int64]


def paper_bound(size: int, options: int, sigma: float, delta: float) -> float:
    """|Z_eps| log(|Z| / delta) / sigma: the paper's rate with constant 1."""
    return size * log(options / delta) / sigma


def elimination_bound(size: int, options: int, sigma: float, delta: float) -> float:
    """(log C(|Z|, k) + log(1 / delta)) / sigma, never above `paper_bound`."""
    return (log(comb(options, size)) + log(1 / delta)) / sigma


def keeping_bound(size: int, sigma: float, delta: float) -> float:
    """(k log 2 + log(1 / delta)) / sigma, not above `paper_bound` if |Z| >= 2."""
    return (size * log(2) + log(1 / delta)) / sigma


def decisions_bound(size: int, options: int, sigma: float, delta: float) -> float:
    """k log((|Z| - k) / delta) / sigma, for |Z| > k; never above `paper_bound`."""
    return size * log((options - size) / delta) / sigma


def subsets(options: int, sizes: Sequence[int]) -> Bools:
    """Every set of options of the given sizes, small ones first: (sets, Z)."""
    chosen = [one for size in sizes for one in combinations(range(options), size)]
    masks = np.zeros((len(chosen), options), bool)
    for row, one in zip(masks, chosen, strict=True):
        row[list(one)] = True
    return masks


def pruning_errors(family: Family, sets: Bools) -> Floats:
    """Delta(M, Z') of every task and set, by policy iteration; not below 0 but for rounding.

    sets: (C, Z), none of them empty -> (..., T, C).
    """
    whole = optimal(family.model)[0] @ family.start
    return np.stack([whole - optimal(family.model, one)[0] @ family.start for one in sets], -1)


def smallest_cover(errors: Floats, sets: Bools, eps: float) -> int:
    """Z_eps: which of the sets is the smallest that costs at most eps in every task; of equals, the least costly.

    errors: (T, C). Raises ValueError when none does (the set of all options always does).
    """
    worst = errors.max(0)
    order = np.where(worst <= eps, sets.sum(1) + worst / (1 + worst.max()), inf)
    if not np.isfinite(order).any():
        raise ValueError("no set of options covers every task, expected the whole set among them")
    return int(order.argmin())


def expert_options(family: Family, allowed: Bools) -> Bools:
    """The options that an optimal expert within `allowed` (..., Z) uses from the start of every task: (..., T, Z).

    The batch of `allowed` is broadcast against the tasks'.
    """
    policy = optimal(family.model, allowed)[1]
    kernel, reward = family.model.following(policy)
    reached = np.broadcast_to(family.start > 0, policy.shape)
    for _ in range(family.model.states):
        reached = reached | (reached[..., None, :] @ (kernel > 0))[..., 0, :]
    deciding = reached & (kernel.any(-1) | (reward != 0))  # elsewhere the task is over
    options = range(family.model.options)
    return np.stack([(deciding & (policy == z)).any(-1) for z in options], -1)


@dataclass(frozen=True)
class Candidates:
    """What demonstrations have to strike out. weights: (T,), p(M). struck: (T, C), which task strikes out which."""

    weights: Floats
    struck: Bools

    @cached_property
    def _lattice(self) -> tuple[Floats, Floats]:
        """Coefficients and masses over the 2^T sets of tasks, T at most about 16, by inclusion and exclusion.

        A candidate is left iff the tasks seen lie within a set that does not strike it out. With D the sets for which
        some candidate is left, P = sum_{A in D} Pr[seen = A] = sum_B w_B p(B)^n with
        w_B = sum_{A in D, A >= B} (-1)^|A - B|.
        """
        tasks = len(self.weights)
        masses = np.zeros(1)
        for weight in self.weights:
            masses = np.concatenate([masses, masses + weight])
        left = np.zeros(2**tasks, bool)
        left[(~self.struck).T @ (1 << np.arange(tasks))] = True
        for task in range(tasks):  # what a set of tasks leaves, its subsets leave too
            pairs = left.reshape(-1, 2, 1 << task)  # without and with this task
            pairs[:, 0] |= pairs[:, 1]
        coefficients = left.astype(float)
        for task in range(tasks):
            pairs = coefficients.reshape(-1, 2, 1 << task)
            pairs[:, 0] -= pairs[:, 1]
        return coefficients, masses

    def left_after(self, demonstrations: int) -> float:
        """Probability that after so many demonstrations a candidate is left, exactly."""
        coefficients, masses = self._lattice
        return float(coefficients @ masses**demonstrations)

    def needed(self, delta: float) -> int:
        """The least number of demonstrations after which none is left with probability at least 1 - delta, exactly."""
        low, high = -1, 1
        while self.left_after(high) > delta:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.left_after(middle) > delta else (low, middle)
        return high

    def simulate(self, rng: np.random.Generator, runs: int) -> Counts:
        """Demonstrations drawn one by one until no candidate is left: how many it took, (runs,)."""
        left = np.ones((runs, self.struck.shape[1]), bool)
        needed = np.zeros(runs, np.int64)
        while (open_ := left.any(1)).any():
            needed += open_
            left &= ~self.struck[rng.choice(len(self.weights), runs, p=self.weights)]
        return needed


def suboptimal(weights: Floats, errors: Floats, eps: float, sigma: float) -> Bools:
    """Which sets are (eps, sigma)-suboptimal. weights: (T,), errors: (T, C) -> (C,)."""
    return weights @ (errors > eps) >= sigma
