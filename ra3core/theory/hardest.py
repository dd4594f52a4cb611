"""The family of tasks on which each rule of pruning.py needs its bound, up to a constant; drawn, never written out.

    lock   elimination  families.lock: every set of k options but one fails in each task with probability sigma, all
                        independently. Needed: at least (1 - sigma) log((C(|Z|, k) - 1) (1 - delta) / delta) / sigma
    menu   keeping      a task asks for one of the k options, the others pay nothing: one with probability 1 - 2 sigma,
                        each of the k - 1 rare ones with 2 sigma / (k - 1). What was kept is suboptimal while half of
                        the rare ones or more are missing. Needed: more than half the bound, for odd k
    roles  decisions    a task is one of k roles, equally likely; each role has one option that is always right and its
                        share of the others, each wrong with probability sigma, independently. Needed: the bound, or
                        a little less

Each function draws `runs` series of demonstrations and returns how many it took in each until no candidate was left.
"""

from __future__ import annotations

from math import comb

import numpy as np

from ra3core.theory.pruning import Counts


def lock(rng: np.random.Generator, options: int, size: int, sigma: float, runs: int) -> Counts:
    """Of the sets left, each outlives a demonstration with probability 1 - sigma: how many do is binomial. (runs,)."""
    needed = np.zeros(runs, np.int64)
    open_, left = np.arange(runs), np.full(runs, comb(options, size) - 1)
    while (going := left > 0).any():
        open_, left = open_[going], left[going]
        needed[open_] += 1
        left = rng.binomial(left, 1 - sigma)
    return needed


def lock_needed(options: int, size: int, sigma: float, delta: float) -> int:
    """The least n with (1 - (1 - sigma)^n)^(C(|Z|, k) - 1) >= 1 - delta: the lock's exact answer, at least two sets."""
    outlives = -np.expm1(np.log1p(-delta) / (comb(options, size) - 1))
    return int(np.ceil(np.log(outlives) / np.log1p(-sigma)))


def menu(rng: np.random.Generator, options: int, size: int, sigma: float, runs: int) -> Counts:
    """Waiting times for the rare options not seen yet, one after the other; sigma <= 1/2, size >= 2. (runs,)."""
    rare = size - 1
    needed = np.zeros(runs, np.int64)
    missing = rare
    while 2 * missing >= rare:
        needed += rng.geometric(2 * sigma * missing / rare, runs)
        missing -= 1
    return needed


def roles(rng: np.random.Generator, options: int, size: int, sigma: float, runs: int) -> Counts:
    """In the role that a demonstration shows, the options left are thinned as on the lock. (runs,)."""
    needed = np.zeros(runs, np.int64)
    shares = [len(part) for part in np.array_split(np.arange(options - size), size)]
    open_, left = np.arange(runs), np.tile(shares, (runs, 1))
    while (going := left.any(1)).any():
        open_, left = open_[going], left[going]
        needed[open_] += 1
        shown = np.arange(len(open_)), rng.integers(0, size, len(open_))
        left[shown] = rng.binomial(left[shown], 1 - sigma)
    return needed
