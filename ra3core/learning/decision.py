"""The E-step's decision to think, as a loss beside that of the rationales (equations: ra3core/learning/e_step.py).

A group of the two outcomes act and think, both always scored, so that its gradient is p (m - a) grad log p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ra3core.config import EStepConfig
from ra3core.learning.policy_gradient import Group, Pass, clipped_surrogate, group_advantages
from ra3core.lm.likelihood import decision_log_probs


class DecisionLoss:
    """Extra loss terms of a pass: the decision's surrogate, and the penalty on thinking right after a rationale.

    acts, thinks: rewards at each state of acting, and of each rationale. probability: p(think) there.
    visited: n / rate. decisions: whether the decision is trained (else the loss is zero, and only `rates` are noted).
    """

    def __init__(
        self,
        think_ids: Sequence[int],
        config: EStepConfig,
        groups: Sequence[Group],
        acts: Sequence[float],
        thinks: Sequence[Sequence[float]],
        probability: Sequence[float],
        visited: Sequence[float],
        decisions: bool,
    ) -> None:
        self.think_ids, self.config, self.groups, self.decisions = think_ids, config, groups, decisions
        rewards = torch.tensor([[sum(t) / len(t), a] for t, a in zip(thinks, acts, strict=True)], dtype=torch.float64)
        self.weights = torch.tensor([[p, 1 - p] for p in probability], dtype=torch.float64)
        self.advantages, _ = group_advantages(rewards, self.weights, config.std_floor)
        self.visited = torch.tensor(visited, dtype=torch.float64)[:, None]
        self.old: dict[int, Tensor] = {}
        self.rates: list[float] = []  # probability of a second rationale right after the first, a row of the passes
        self.copies: list[float] = []  # draws that each row stands for

    def __call__(self, passed: Pass, epoch: int) -> Tensor:
        predictions, device = passed.predictions, passed.predictions.states.device

        def decided(rows: Sequence[int], columns: Sequence[int]) -> Tensor:
            return predictions.at(rows, columns, lambda logits: decision_log_probs(logits, self.think_ids))

        after = decided(range(len(passed.rows)), passed.lengths)
        if epoch == 0:
            self.rates += after[:, 0].detach().exp().tolist()
            self.copies += [self.groups[n].rollouts[i].copies for n, i in passed.rows]
        if not self.decisions:
            return after.new_zeros(())
        weights = [self.groups[n].scale * self.groups[n].rollouts[i].weight for n, i in passed.rows]
        loss = -self.config.consecutive_penalty * (after[:, 1] * after.new_tensor(weights)).sum()
        first = [passed.rows.index((n, 0)) for n in passed.groups]
        log_probs = decided(first, [0] * len(first))
        old = torch.stack(
            [self.old.setdefault(n, row) for n, row in zip(passed.groups, log_probs.detach(), strict=True)]
        )
        advantages = self.advantages[passed.groups].to(device, log_probs.dtype)
        surrogate, _ = clipped_surrogate(log_probs, old, advantages, self.config.clip)
        importance = (self.visited * self.weights)[passed.groups].to(device, log_probs.dtype)
        return loss - (importance * surrogate).sum()
