"""One group policy gradient, for the E-step and for RLVR.

A group is a context with rollouts drawn after it. With rewards r_i and weights w_i that sum to 1,

    b = sum_i w_i r_i                      baseline: the group's (weighted) mean
    A_i = (r_i - b) / (std + std_floor)    std: the group's weighted standard deviation
    J = scale * sum_i w_i sum_k min(rho_ik A_i, clip(rho_ik, 1 - clip, 1 + clip) A_i)
    rho_ik = pi(token k of rollout i) / pi_old(the same)

averaged over groups. w_i = 1/G when the rollouts are G independent samples (GRPO); when they enumerate every outcome
and w_i is its probability, the gradient of J is that of the expected reward, exactly. On the first epoch rho = 1 and
J's gradient is the plain policy gradient; the clip acts when the same rollouts are used again.

What differs from GRPO as published: the terms of a rollout's tokens are summed, not averaged over its length (an
average favours short right answers and long wrong ones), and `std_floor` keeps groups of nearly equal rewards from
being blown up to unit advantage: rewards that differ by much less than the floor keep their proportions.
Option `kl` adds kl * sum_k (exp(d) - d - 1), d = log pi_ref - log pi: the k3 estimator of KL(pi || pi_ref), in nats per
rollout. Built on accelerate; AdamW without weight decay.
Option `importance_cap` multiplies a rollout's terms by its truncated importance weight when an engine drew it whose
distribution is not quite the model's (ra3core/learning/mismatch.py).

Several processes that are given the same groups plan the same passes and make every n-th of them; their gradients,
each already divided by the number of all groups, are added up once a step (ra3core/processes.py).

In bfloat16 (docs/devices.md#precision) passes compute in it (autocast); weights in training, their gradients and
moments, log-probabilities and this objective stay in float32.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from ra3core.learning import checkpoints, mismatch
from ra3core.lm import head
from ra3core.lm.head import NO_TOKEN, Predictions, predict
from ra3core.lm.lines import Tokens
from ra3core.lm.models import autocast, narrow, recomputes
from ra3core.lm.prefix import encode, gather_log_probs, grouped_batches, padded, predictions_after
from ra3core.processes import Processes
from ra3core.section import Precision


@dataclass(frozen=True)
class Rollout:
    """What was drawn after a group's context.

    tokens: at least one. reward: finite. weight: share of the group. reference: log-probabilities (nats) of the tokens
    under the frozen reference model, for the KL; none leaves the KL out. suffix: given text after the rollout, run for
    extra loss terms only. copies: how many equal draws it stands for; `weight` is theirs together. behaviour:
    log-probabilities of the tokens under what drew them, as that tells them; none: the model itself drew them.
    """

    tokens: Tokens
    reward: float
    weight: float
    reference: tuple[float, ...] | None = None
    suffix: Tokens = ()
    copies: int = 1
    behaviour: tuple[float, ...] | None = None


def merged(rollouts: Sequence[Rollout]) -> tuple[Rollout, ...]:
    """Equal rollouts as one with their weights added: the same objective, whose gradient is linear in the weights.

    A policy that knows what it wants draws the same few rationales again and again: most of the work is spared.
    """
    found: dict[Rollout, list[Rollout]] = {}
    for rollout in rollouts:
        found.setdefault(replace(rollout, weight=0.0, copies=1), []).append(rollout)
    return tuple(
        replace(equal[0], weight=math.fsum(r.weight for r in equal), copies=sum(r.copies for r in equal))
        for equal in found.values()
    )


@dataclass(frozen=True)
class Group:
    """Rollouts of one context; `scale` multiplies the group's objective (an importance weight)."""

    context: Tokens
    rollouts: tuple[Rollout, ...]
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.context or not self.rollouts or any(not rollout.tokens for rollout in self.rollouts):
            raise ValueError("a group has a context and rollouts of at least one token each")
        if not all(math.isfinite(rollout.reward) for rollout in self.rollouts):
            raise ValueError("rewards must be finite")
        if any(r.behaviour is not None and len(r.behaviour) != len(r.tokens) for r in self.rollouts):
            raise ValueError("a rollout's behaviour is a log-probability for each of its tokens")

    @property
    def draws(self) -> int:
        """Rollouts that were drawn, equal ones counted each."""
        return sum(r.copies for r in self.rollouts)

    @property
    def tokens(self) -> int:
        """Tokens of the context and of all that was drawn: what the method asks for, however it is computed."""
        return len(self.context) + sum(r.copies * (len(r.tokens) + len(r.suffix)) for r in self.rollouts)


@dataclass(frozen=True)
class Objective:
    """Settings of the gradient; the fields have the names and units of EStepConfig and RLVRConfig."""

    learning_rate: float
    clip: float = 0.2
    epochs: int = 1
    std_floor: float = 0.0
    kl: float = 0.0
    max_grad_norm: float = 1.0
    importance_cap: float | None = None


@dataclass
class Pass:
    """One forward pass over some of the groups: what extra loss terms are made of.

    groups: indices into the groups that the step was given. rows: (group, rollout) of each row. lengths: tokens of each
    row's rollout and suffix. predictions: (rows, 1 + longest); [r, k] is of token k of row r and [r, lengths[r]]
    of the token after it; the model's own, with gradient.
    """

    groups: list[int]
    rows: list[tuple[int, int]]
    lengths: list[int]
    predictions: Predictions

    def distribution(self, distribution: Distribution) -> head.Distribution:
        """It, of any part of these rows."""
        return lambda logits, rows, start: distribution(logits, self.rows[rows], start)


Distribution = Callable[[Tensor, Sequence[tuple[int, int]], int], Tensor]
"""From the model's logits (rows, width, vocabulary) to those the rollouts were drawn from: of some rows of a `Pass`,
named as there, from this column on."""


def tempered(temperature: float) -> Distribution:
    """The distribution of sampling at a temperature."""
    return lambda logits, rows, start: logits / temperature


def group_advantages(rewards: Tensor, weights: Tensor, std_floor: float) -> tuple[Tensor, Tensor]:
    """Advantages (groups, rollouts) of rewards and weights of that shape, and each group's deviation (groups,).

    A group's weights sum to 1; a missing rollout has weight 0. A group without spread gets advantages of 0.
    """
    centred = rewards - (weights * rewards).sum(1, keepdim=True)
    std = (weights * centred.square()).sum(1, keepdim=True).sqrt()
    return centred / (std + std_floor).clamp(min=1e-12), std[:, 0]


def clipped_surrogate(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """min(rho A, clip(rho) A) of each entry, and whether the clip binds; all of one shape."""
    ratio = (log_probs - old).exp()
    free, bound = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.minimum(free, bound), bound < free


def with_reference(model: torch.nn.Module, groups: Sequence[Group], distribution: Distribution) -> list[Group]:
    """The groups with their tokens' log-probabilities under a frozen reference model."""
    found: list[Group] = list(groups)
    with torch.no_grad():
        for batch in _batches(model, groups):
            passed, tokens = _forward(model, groups, batch)
            log_probs, _ = gather_log_probs(passed.predictions, tokens, passed.distribution(distribution))
            for (n, i), row in zip(passed.rows, log_probs.tolist(), strict=True):
                rollouts = list(found[n].rollouts)
                rollouts[i] = replace(rollouts[i], reference=tuple(row[: len(rollouts[i].tokens)]))
                found[n] = replace(found[n], rollouts=tuple(rollouts))
    return found


class PolicyTrainer:
    """A policy, its optimiser, and checkpoints from which training continues exactly, on any number of processes.

    model: what is trained, its trainable weights in float32. policy: what to sample from, whole in every process; the
    model itself unless its weights are sharded (FSDP) or in another precision than what is sampled from: then a copy
    that follows it. A model that recomputes its layers runs each rollout with its context ahead of it: transformers
    leaves a cache out of such passes, and a context encoded once would be lost.
    """

    def __init__(
        self, model: torch.nn.Module, objective: Objective, device: str = "cpu", precision: Precision = "float32"
    ) -> None:
        self.objective = objective
        self.precision: Precision = precision
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.processes = Processes(device)
        self.sharded = self.accelerator.distributed_type == DistributedType.FSDP
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=objective.learning_rate, weight_decay=0.0
        )
        self.model = self.policy = model.to(self.processes.device)
        self.apart = self.sharded or recomputes(model)  # every rollout with a context of its own
        narrower = precision == "bfloat16" and all(p.dtype == torch.float32 for p in model.parameters())
        if self.sharded or narrower:
            self.policy = copy.deepcopy(model).requires_grad_(False)
        if narrower:
            narrow(self.policy)
        if self.sharded:
            self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        else:
            self.optimizer = self.accelerator.prepare(optimizer)

    def step(
        self,
        groups: Sequence[Group],
        distribution: Distribution | None = None,
        extra: Callable[[Pass, int], Tensor] | None = None,
    ) -> dict[str, float]:
        """`epochs` gradient steps on these groups, which every process is given; a context is encoded once for all.

        distribution: what the rollouts were drawn from; the model's own at temperature 1 when none is given.
        extra: called with each of this process's passes and the epoch, returns a loss to add: the sum over the pass's
            groups of what is averaged over all groups.

        Returns, averaged over epochs: loss; grad_norm (ahead of clipping); entropy (the policy's at rollout tokens,
        nats per token); kl (nats per rollout, where references are given); clipped (share of tokens); zero_variance
        (share of groups whose rewards are all equal; they have no gradient and are not run, unless `kl` or `extra`
        needs them); and train_tokens, the sum (`Group.tokens`). Where rollouts have `behaviour`, also
        `mismatch.Drift.figures` of those that are run. Raises ValueError when there are no groups.
        """
        if not groups:
            raise ValueError("no groups to train on")
        distribution = distribution or tempered(1.0)
        advantages, std = self._advantages(groups)
        flat = std < 1e-9
        trained = [n for n in range(len(groups)) if extra is not None or self.objective.kl > 0 or not flat[n]]
        metrics: dict[str, float] = {"zero_variance": float(flat.double().mean())}
        metrics.update(dict.fromkeys(("loss", "grad_norm", "entropy", "kl", "clipped", "train_tokens"), 0.0))
        if not trained:
            return metrics
        drift = self._drift([groups[n] for n in trained])
        plan = [
            [trained[i] for i in batch]
            for batch in _batches(self.model, [groups[n] for n in trained], shared=not self.apart)
        ]
        tokens = sum(rollout.copies * len(rollout.tokens) for n in trained for rollout in groups[n].rollouts)
        rollouts = sum(groups[n].draws for n in trained)
        units = {"loss": 1, "entropy": tokens, "clipped": tokens, "kl": rollouts}
        plan = _enough(plan, self.processes.count)
        own = plan[self.processes.rank :: self.processes.count]
        idle = math.ceil(len(plan) / self.processes.count) - len(own) if self.sharded else 0
        parameters = list(checkpoints.trainable(self.model).values())
        totals = dict.fromkeys(units, 0.0)
        old: list[Tensor] = []
        importance: list[Tensor | float] = []
        self.model.train()
        for epoch in range(self.objective.epochs):
            self.optimizer.zero_grad()
            for index, batch in enumerate(own):
                with autocast(self.processes.device, self.precision):
                    passed, drawn = self._forward(groups, batch)
                    targets = padded(drawn).to(passed.predictions.states.device)
                    log_probs, entropies = passed.predictions.log_probs(
                        targets, passed.distribution(distribution), targets != NO_TOKEN
                    )
                    mask = (targets != NO_TOKEN).float()
                    if epoch == 0:
                        old.append(log_probs.detach())
                        importance.append(_importance(drift, groups, passed, old[index], mask))
                    loss, sums = self._loss(groups, passed, log_probs, old[index], mask, advantages, importance[index])
                    if extra is not None:
                        loss = loss + extra(passed, epoch)
                loss = loss / len(groups)
                self._backward(loss)
                sums["loss"] = float(loss.detach())
                sums["entropy"] = float((entropies * _copies(groups, passed, mask)).sum())
                for name, value in sums.items():
                    totals[name] += value / units[name] / self.objective.epochs
            for _ in range(idle):
                with autocast(self.processes.device, self.precision):
                    nothing = 0 * self._forward(groups, plan[0])[0].predictions.states.sum()
                self._backward(nothing)
            if not self.sharded:
                self.processes.sum_gradients(parameters)
            norm = self.accelerator.clip_grad_norm_(parameters, self.objective.max_grad_norm)
            metrics["grad_norm"] += float(checkpoints.whole(norm)) / self.objective.epochs  # type: ignore[arg-type]
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.eval()
        self._refresh()
        metrics |= self.processes.sum(totals)
        if drift:
            metrics |= drift.figures(self.processes)
        metrics["train_tokens"] = float(self.objective.epochs * sum(groups[n].tokens for n in trained))
        return metrics

    def _forward(self, groups: Sequence[Group], batch: list[int]) -> tuple[Pass, list[Tokens]]:
        """`_forward` through the model; apart, in one call a pass, which FSDP gathers and frees weights around."""
        return _forward(self.model, groups, batch, _in_one_call if self.apart else _in_two_calls)

    def _backward(self, loss: Tensor) -> None:
        """Add this process's gradient; FSDP averages over processes where the others are added up."""
        self.accelerator.backward(loss * self.processes.count if self.sharded else loss)

    def _drift(self, groups: Sequence[Group]) -> mismatch.Drift | None:
        """What measures how far the rollouts' engine is off; none where no engine has told."""
        told = [rollout.behaviour is not None for group in groups for rollout in group.rollouts]
        if not all(told) and (any(told) or self.objective.importance_cap is not None):
            raise ValueError("some rollouts have no behaviour log-probabilities, expected all or none, with a cap all")
        return mismatch.Drift(self.objective.importance_cap) if all(told) else None

    def _advantages(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        rewards = torch.zeros((len(groups), max(len(group.rollouts) for group in groups)), dtype=torch.float64)
        weights = torch.zeros_like(rewards)
        for n, group in enumerate(groups):
            for i, rollout in enumerate(group.rollouts):
                rewards[n, i], weights[n, i] = rollout.reward, rollout.weight
        return group_advantages(rewards, weights, self.objective.std_floor)

    def _loss(
        self,
        groups: Sequence[Group],
        passed: Pass,
        log_probs: Tensor,
        old: Tensor,
        mask: Tensor,
        advantages: Tensor,
        importance: Tensor | float,
    ) -> tuple[Tensor, dict[str, float]]:
        """Minus J, and the KL penalty, summed over the pass's groups; log_probs, old, mask: (rows, width)."""
        rows = passed.rows
        weights = log_probs.new_tensor([groups[n].scale * groups[n].rollouts[i].weight for n, i in rows])[:, None]
        weights = weights * importance
        advantage = log_probs.new_tensor([float(advantages[n, i]) for n, i in rows])[:, None].expand_as(log_probs)
        surrogate, clipped = clipped_surrogate(log_probs, old, advantage, self.objective.clip)
        loss = -(weights * surrogate * mask).sum()
        copies = _copies(groups, passed, mask)
        sums = {"clipped": float((clipped * mask * copies).sum())}
        references = [groups[n].rollouts[i].reference for n, i in rows]
        if any(reference is not None for reference in references):
            reference = log_probs.detach().clone()  # rows without one: no difference, no KL
            for row, values in enumerate(references):
                if values is not None:
                    reference[row, : len(values)] = reference.new_tensor(values)
            difference = reference - log_probs
            k3 = (difference.exp() - difference - 1) * mask
            loss = loss + self.objective.kl * (weights * k3).sum()
            sums["kl"] = float((copies * k3.detach()).sum())
        elif self.objective.kl > 0:
            raise ValueError("kl > 0 needs rollouts with reference log-probabilities")
        return loss, sums

    def save(self, scratch: Path, step: int, state: dict[str, Any] | None = None) -> None:
        """Checkpoint of trainable weights, optimiser, generators and `state` (JSON); replaces the one before."""

        def also(folder: Path) -> None:
            (folder / "state.json").write_text(json.dumps({"step": step, "state": state or {}}))

        checkpoints.save(scratch, step, self.model, self.optimizer, self.processes.first, also)

    def load(self, scratch: Path) -> tuple[int, dict[str, Any]] | None:
        """Restore the latest checkpoint: its step and state, or None when there is none."""
        folder = checkpoints.latest(scratch)
        if folder is None:
            return None
        checkpoints.restore_weights(folder, self.model)
        checkpoints.restore_optimizer(folder, self.model, self.optimizer)
        checkpoints.restore_generators(folder)
        self._refresh()
        saved = json.loads((folder / "state.json").read_text())
        return saved["step"], saved["state"]

    def whole(self) -> torch.nn.Module:
        """The trained model, whole, with the weights that were trained: what to save; called by every process."""
        if not self.sharded or self.precision == "float32":
            return self.policy if self.sharded else self.model
        target = copy.deepcopy(self.policy).to("cpu", torch.float32)
        checkpoints.copy_whole(self.model, target)
        return target

    def _refresh(self) -> None:
        """The policy to sample from is as the weights are now."""
        if self.policy is not self.model:
            checkpoints.copy_whole(self.model, self.policy, only_trainable=True)


def _batches(model: torch.nn.Module, groups: Sequence[Group], shared: bool = True) -> Iterator[list[int]]:
    lengths = [[len(rollout.tokens) + len(rollout.suffix) for rollout in group.rollouts] for group in groups]
    return grouped_batches([group.context for group in groups], lengths, model, shared)


def _enough(plan: Sequence[list[int]], count: int) -> list[list[int]]:
    """The passes, the largest ones halved until there are `count` of them or each is of one group."""
    found = list(plan)
    while len(found) < count and len(largest := max(found, key=len)) > 1:
        found.remove(largest)
        found += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return found


Run = Callable[[torch.nn.Module, Sequence[Tokens], Sequence[int], Sequence[Tokens]], Predictions]
"""What is predicted after contexts: (model, contexts, the context of each row, the tokens of each row)."""


def _in_two_calls(
    model: torch.nn.Module, contexts: Sequence[Tokens], places: Sequence[int], rows: Sequence[Tokens]
) -> Predictions:
    """Each context is encoded once for all its rows."""
    return predictions_after(model, encode(model, contexts).select(places), rows)


def _in_one_call(
    model: torch.nn.Module, contexts: Sequence[Tokens], places: Sequence[int], rows: Sequence[Tokens]
) -> Predictions:
    """Each row runs with its context ahead of it, padded so that all contexts end at one place."""
    longest, width = max(map(len, contexts)), max(map(len, rows))
    ids = torch.zeros((len(rows), longest + width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (place, tokens) in enumerate(zip(places, rows, strict=True)):
        begin, end = longest - len(contexts[place]), longest + len(tokens)
        ids[row, begin:end] = torch.tensor([*contexts[place], *tokens])
        mask[row, begin:] = 1  # what is padded behind a row is seen by nothing that counts
    device = next(model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"attention_mask": mask, "position_ids": positions, "use_cache": False}
    return predict(model, ids, **inputs, logits_to_keep=width + 1)[0]


def _forward(
    model: torch.nn.Module, groups: Sequence[Group], batch: list[int], run: Run = _in_two_calls
) -> tuple[Pass, list[Tokens]]:
    """One pass over some groups; also the rollout tokens of each row."""
    rows = [(n, i) for n in batch for i in range(len(groups[n].rollouts))]
    tokens = [groups[n].rollouts[i].tokens for n, i in rows]
    place = {n: k for k, n in enumerate(batch)}
    whole = [(*groups[n].rollouts[i].tokens, *groups[n].rollouts[i].suffix) for n, i in rows]
    contexts = [groups[n].context for n in batch]
    predictions = run(model, contexts, [place[n] for n, _ in rows], whole)
    return Pass(batch, rows, [len(row) for row in whole], predictions), tokens


def _copies(groups: Sequence[Group], passed: Pass, like: Tensor) -> Tensor:
    """Draws that each row of a pass stands for, (rows, 1)."""
    return like.new_tensor([groups[n].rollouts[i].copies for n, i in passed.rows])[:, None]


def _importance(
    drift: mismatch.Drift | None, groups: Sequence[Group], passed: Pass, log_probs: Tensor, mask: Tensor
) -> Tensor | float:
    """What a pass's terms are multiplied by; log_probs: the model's, ahead of the update."""
    if drift is None:
        return 1.0
    told = [groups[n].rollouts[i].behaviour or () for n, i in passed.rows]
    return drift.add(log_probs, told, mask, _copies(groups, passed, mask))
