"""Finite semi-Markov decision processes: tasks whose actions are options that last tau primitive steps.

What planning needs of an option z is its discounted kernel and its reward,

    K(s' | s, z) = E[gamma^tau 1{s_tau = s'} | s, z],    R(s, z) = E[sum_{i < tau} gamma^i r_i | s, z];

a primitive action is tau = 1, K = gamma P. The backup (T V)(s) = max_z R(s, z) + sum_s' K(s' | s, z) V(s') contracts by
g = max_{s, z} sum_s' K(s' | s, z) = max E[gamma^tau | s, z]. Everything is batched: many tasks, one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Policy = NDArray[np.intp]
"""The option taken in every state: (..., S)."""

TIE = 1e-12  # an option replaces another when it is better by more, so that rounding moves no policy for ever


@dataclass(frozen=True)
class SemiMDP:
    """A batch of tasks over one set of options.

    kernel: (..., Z, S, S), K(s' | s, z); rows sum to less than 1. Its batch may be broadcast against the reward's:
    tasks with the same dynamics share one kernel. reward: (..., Z, S), R(s, z).
    """

    kernel: Floats
    reward: Floats

    @property
    def options(self) -> int:
        return self.reward.shape[-2]

    @property
    def states(self) -> int:
        return self.reward.shape[-1]

    @property
    def contraction(self) -> Floats:
        """g of every task: (...)."""
        return self.kernel.sum(-1).max((-1, -2))

    def backup(self, values: Floats) -> Floats:
        """R(s, z) + sum_s' K(s' | s, z) V(s'). values: (..., S) -> (..., Z, S)."""
        return self.reward + (self.kernel @ values[..., None, :, None])[..., 0]

    def following(self, policy: Policy) -> tuple[Floats, Floats]:
        """Kernel (..., S, S) and reward (..., S) of the chain under a policy (..., S)."""
        kernel = np.broadcast_to(self.kernel, (*self.reward.shape, self.states))
        rows = np.take_along_axis(kernel, policy[..., None, :, None], axis=-3)[..., 0, :, :]
        return rows, np.take_along_axis(self.reward, policy[..., None, :], axis=-2)[..., 0, :]


def value(model: SemiMDP, policy: Policy) -> Floats:
    """V^pi: the solution of (I - K_pi) V = R_pi. policy: (..., S) -> (..., S)."""
    kernel, reward = model.following(policy)
    return _solve(np.eye(model.states) - kernel, reward)


def occupancy(model: SemiMDP, policy: Policy, start: Floats) -> Floats:
    """Expected discounted number of decisions in every state, d (I - K_pi) = start. start: (S,) -> (..., S)."""
    kernel, reward = model.following(policy)
    return _solve(np.swapaxes(np.eye(model.states) - kernel, -1, -2), np.broadcast_to(start, reward.shape))


def optimal(model: SemiMDP, allowed: Bools | None = None) -> tuple[Floats, Policy]:
    """V* and an optimal policy within the allowed options, by policy iteration: exact but for rounding.

    allowed: (..., Z), all options by default; at least one in every task. Returns values (..., S), policy (..., S).
    """
    barred = np.zeros(model.options, bool) if allowed is None else ~allowed
    penalty = np.where(barred, -np.inf, 0.0)[..., None]
    policy = (model.reward + penalty).argmax(-2)
    while True:
        values = value(model, policy)
        backup = model.backup(values) + penalty
        best = backup.argmax(-2)
        kept = np.take_along_axis(backup, policy[..., None, :], axis=-2)[..., 0, :]
        better = backup.max(-2) > kept + TIE * np.maximum(1.0, np.abs(kept))
        if not better.any():
            return values, policy
        policy = np.where(better, best, policy)


def greedy(model: SemiMDP, values: Floats, allowed: Bools | None = None) -> Policy:
    """The policy that is best one option ahead of `values` (..., S), within the allowed options."""
    backup = model.backup(values)
    return (backup if allowed is None else np.where(allowed[..., None], backup, -np.inf)).argmax(-2)


def geometric_options(primitive: SemiMDP, policies: Policy, stop: float) -> SemiMDP:
    """Options that follow a policy over primitive actions and stop after each step with probability `stop`.

    Duration is geometric with mean 1 / stop. policies: (Z, S), primitive actions. With L = gamma P_policy:
    K = stop L (I - (1 - stop) L)^-1, R = (I - (1 - stop) L)^-1 r.
    """
    kernels, rewards = _inner(primitive, policies)
    rest = np.linalg.inv(np.eye(primitive.states) - (1 - stop) * kernels)
    return SemiMDP(stop * (rest @ kernels), (rest @ rewards[..., None])[..., 0])


def fixed_options(primitive: SemiMDP, policies: Policy, steps: int) -> SemiMDP:
    """Options that follow a policy for `steps` primitive steps: K = L^steps, R = sum_{i < steps} L^i r."""
    kernels, rewards = _inner(primitive, policies)
    power, total = np.broadcast_to(np.eye(primitive.states), kernels.shape), np.zeros_like(rewards)
    for _ in range(steps):
        total = total + (power @ rewards[..., None])[..., 0]
        power = power @ kernels
    return SemiMDP(power, total)


def joined(*models: SemiMDP) -> SemiMDP:
    """The same tasks with the options of all models."""
    kernels = [np.broadcast_to(m.kernel, (*m.reward.shape, m.states)) for m in models]
    return SemiMDP(np.concatenate(kernels, -3), np.concatenate([m.reward for m in models], -2))


def _solve(matrices: Floats, right: Floats) -> Floats:
    """x of A x = b for a batch. matrices: (..., S, S), right: (..., S) -> (..., S)."""
    return np.linalg.solve(matrices, right[..., None])[..., 0].astype(np.float64, copy=False)


def _inner(primitive: SemiMDP, policies: Policy) -> tuple[Floats, Floats]:
    """Kernels (..., Z, S, S) and rewards (..., Z, S) of the chains under each of Z policies."""
    chains = [
        primitive.following(np.broadcast_to(p, (*primitive.reward.shape[:-2], primitive.states))) for p in policies
    ]
    return np.stack([kernel for kernel, _ in chains], -3), np.stack([reward for _, reward in chains], -2)
