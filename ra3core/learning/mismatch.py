"""How far the engine that draws rollouts is from the model that is trained, and what corrects for it.

Rollouts y_i are drawn from mu, the engine's distribution; the gradient is that of pi, the trainer's. Weights may be the
same, but kernels, number formats and orders of sums are not, and what is taken for on-policy is off-policy by a little.
With log-probabilities of both for every token drawn, d_ik = log pi(y_ik | ..) - log mu(y_ik | ..), rollout i's terms of
the objective are multiplied by

    w_i = min(exp(sum_k d_ik), C)

Without the cap (C infinite) the gradient's expectation is that of rollouts drawn from pi: E_mu[w r grad log pi(y)] =
E_pi[r grad log pi(y)]. A cap bounds what one rollout can weigh, at the price of a bias (Ionides 2008, Truncated
importance sampling). For language models: Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training", who cap the ratio of each token. Here the ratio is that of the whole rollout, since a reward
is: a token's own ratio leaves out that the tokens ahead of it and behind it were drawn from mu too, and is biased
however large the cap.
The group's baseline is the plain mean of its rewards, which any w leaves unbiased (E_mu[w grad log pi] = 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ra3core.processes import Processes

NAMES = frozenset({"engine_gap", "engine_gap_max", "engine_kl", "engine_ess", "engine_capped"})


def differences(trainer: Tensor, engine: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """d = log pi - log mu of every token, 0 at padding. trainer, mask: (rows, width); engine: of each row's tokens."""
    found = torch.zeros_like(trainer)
    for row, values in enumerate(engine):
        found[row, : len(values)] = found.new_tensor(values)
    return (trainer.detach() - found) * mask


def importance(difference: Tensor, cap: float) -> Tensor:
    """w of each row, (rows, 1)."""
    return difference.sum(1, keepdim=True).exp().clamp(max=cap)


class Drift:
    """Adds up, pass by pass, how far the engine is off. cap: C; none weighs nothing."""

    def __init__(self, cap: float | None) -> None:
        self.cap, self.most = cap, 0.0
        names = ("gap", "kl", "weights", "squares", "capped", "tokens", "rollouts")
        self.total: dict[str, float] = dict.fromkeys(names, 0.0)

    def add(self, trainer: Tensor, engine: Sequence[Sequence[float]], mask: Tensor, copies: Tensor) -> Tensor | float:
        """The importance weights of a pass's rows, (rows, 1), or 1. copies: draws that a row stands for, (rows, 1)."""
        difference = differences(trainer, engine, mask)
        weights = importance(difference, torch.inf)
        parts = {
            "gap": difference.abs() * copies,
            "kl": (difference.exp() - difference - 1) * mask * copies,
            "weights": weights * copies,
            "squares": weights.square() * copies,
            "capped": (weights > (torch.inf if self.cap is None else self.cap)) * copies,
            "tokens": mask * copies,
            "rollouts": copies,
        }
        for name, values in parts.items():
            self.total[name] += float(values.double().sum())
        self.most = max(self.most, float(difference.abs().max()))
        return 1.0 if self.cap is None else importance(difference, self.cap)

    def figures(self, processes: Processes) -> dict[str, float]:
        """What is logged of a step, over the passes of all processes.

        engine_gap, engine_gap_max: mean and largest |d| of a token, nats. engine_kl: KL(mu || pi), nats a rollout, by
        the k3 estimator. engine_ess: (sum w)^2 / (n sum w^2), w without the cap: the share of the n rollouts that
        weighted ones are worth. engine_capped: share of rollouts whose weight the cap changes, where there is one.
        """
        total = processes.sum(self.total)
        found = {
            "engine_gap": total["gap"] / total["tokens"],
            "engine_gap_max": max(processes.share(processes.count, lambda _: self.most)),
            "engine_kl": total["kl"] / total["rollouts"],
            "engine_ess": total["weights"] ** 2 / (total["rollouts"] * total["squares"]),
        }
        return found if self.cap is None else found | {"engine_capped": total["capped"] / total["rollouts"]}
