"""The regret of planning in a pruned set of options: V*_M - V^pi_M = pruning error + RL error, for every task.

    pruning error  Delta(M, Z') = V*_M - V*_{M, Z'} >= 0 for every Z', for a smaller set has no better policy
    RL error       V*_{M, Z'} - V^pi_M              >= 0 for pi within Z'; a policy that leaves Z' can do better

The two terms cancel by definition, so the check would be empty if they were computed as differences of values. Each is
computed on its own instead, as what its policy gives away at each decision (the performance difference lemma):

    V^a - V^b = sum_s d_b(s) (V^a(s) - Q^a(s, b(s))),   d_b = start (I - K_b)^-1
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ra3core.theory.semi_mdp import Bools, Floats, Policy, SemiMDP, occupancy, optimal, value


@dataclass(frozen=True)
class Regret:
    """At the start of each task: (...). whole is computed from values, the two parts from decisions."""

    whole: Floats
    pruning: Floats
    rl: Floats

    @property
    def residual(self) -> Floats:
        """|whole - (pruning + rl)|: rounding."""
        return np.abs(self.whole - self.pruning - self.rl)


def split(model: SemiMDP, start: Floats, allowed: Bools, policy: Policy) -> Regret:
    """The regret of `policy` (..., S) when the options are `allowed` (..., Z). start: (S,)."""
    best, _ = optimal(model)
    best_allowed, policy_allowed = optimal(model, allowed)
    return Regret(
        whole=(best - value(model, policy)) @ start,
        pruning=_given_away(model, start, best, policy_allowed),
        rl=_given_away(model, start, best_allowed, policy),
    )


def _given_away(model: SemiMDP, start: Floats, values: Floats, policy: Policy) -> Floats:
    """sum_s d(s) (V(s) - Q(s, policy(s))): what a policy loses against values (..., S), decision by decision."""
    taken = np.take_along_axis(model.backup(values), policy[..., None, :], axis=-2)[..., 0, :]
    return (occupancy(model, policy, start) * (values - taken)).sum(-1)
