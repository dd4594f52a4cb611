"""Value iteration over options: iterations needed against N >= 1 / (1 - g) log(R_max / (eps (1 - g))).

From V_0 = 0, |V_n - V*| <= g^n |V*| <= g^n R_max / (1 - g), and g <= exp(-(1 - g)). R_max bounds what one **option**
pays, max |R(s, z)|. With the bound of one primitive step, long options break it: |V*| can be R_max / (1 - gamma).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ra3core.theory.semi_mdp import Bools, Floats, SemiMDP

Counts = NDArray[np.int64]


def iterations_bound(contraction: Floats | float, largest_reward: Floats | float, eps: float) -> Counts:
    """The least whole N >= 1 / (1 - g) log(R_max / (eps (1 - g))), not below 0; arrays of one shape."""
    g, reward = np.asarray(contraction), np.maximum(largest_reward, np.finfo(float).tiny)
    return np.ceil(np.maximum(np.log(reward / (eps * (1 - g))) / (1 - g), 0.0)).astype(np.int64)


def bound_of(model: SemiMDP, eps: float) -> Counts:
    """The bound for each task of a batch: (...)."""
    g = np.broadcast_to(model.contraction, model.reward.shape[:-2])
    return iterations_bound(g, np.abs(model.reward).max((-1, -2)), eps)


def iterations_needed(model: SemiMDP, best: Floats, eps: float) -> Counts:
    """How many backups from V = 0 until max_s |V(s) - V*(s)| <= eps for good. best: V*, (..., S) -> (...).

    The distance never grows (T contracts and V* is its fixed point), so the first time is for good.
    """
    values = np.zeros_like(best)
    needed = np.zeros(best.shape[:-1], np.int64)
    while (far := np.abs(values - best).max(-1) > eps).any():
        needed += far
        values = model.backup(values).max(-2)
    return needed


def iterate(model: SemiMDP, iterations: int, allowed: Bools | None = None) -> Floats:
    """V_N from V_0 = 0 within the allowed options (..., Z): (..., S)."""
    barred = np.zeros(model.options, bool) if allowed is None else ~allowed
    penalty = np.where(barred, -np.inf, 0.0)[..., None]
    values = np.zeros((*np.broadcast_shapes(model.reward.shape[:-2], barred.shape[:-1]), model.states))
    for _ in range(iterations):
        values = (model.backup(values) + penalty).max(-2)
    return values
