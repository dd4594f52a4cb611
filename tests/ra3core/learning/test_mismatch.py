"""An engine whose distribution is not the trainer's: measured, and corrected by importance weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from ra3core.learning import mismatch
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout
from ra3core.processes import Processes

TOKENS = ((2, 2), (2, 3), (3, 2), (3, 3))
REWARD = dict(zip(TOKENS, (1.0, 0.0, 0.25, 3.0), strict=True))
CONTEXT = (5, 6, 7)
FLOOR = 1e6  # so large that advantages are rewards less the mean, divided by it


def two(logits: Tensor, rows: object, start: int = 0) -> Tensor:
    """Only the tokens 2 and 3 can be drawn."""
    banned = torch.full_like(logits, -torch.inf)
    banned[..., 2:4] = 0
    return logits + banned


def log_probs(model: torch.nn.Module, tokens: tuple[int, ...]) -> Tensor:
    """Of the tokens after the context, with gradient."""
    logits = two(model(torch.tensor([[*CONTEXT, *tokens]])).logits[0, len(CONTEXT) - 1 : -1], None)
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


def off(model: torch.nn.Module) -> dict[tuple[int, int], tuple[float, float]]:
    """What an engine tells that draws otherwise: probabilities of the two tokens moved towards each other, and on."""
    found = {}
    for tokens in TOKENS:
        own = log_probs(model, tokens).detach().exp()
        ahead = 0.35 if tokens[0] == 2 else 0.65
        behind = 0.5 * float(own[1]) + (0.35 if tokens[1] == 2 else 0.15)
        found[tokens] = (math.log(ahead), math.log(behind))
    assert sum(math.exp(sum(values)) for values in found.values()) == pytest.approx(1)
    return found


def gradient(trainer: PolicyTrainer, run: Callable[[], object]) -> Tensor:
    """What a step hands to the optimiser."""
    seen: list[Tensor] = []

    def keep(*_: object) -> None:
        parameters = [p for p in trainer.model.parameters() if p.requires_grad]
        seen.append(
            torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        )

    hook = trainer.optimizer.optimizer.register_step_pre_hook(keep)
    run()
    hook.remove()
    return seen[0].clone()


@pytest.fixture
def trainer(make_model) -> Callable[[float | None], PolicyTrainer]:
    def make(cap: float | None, floor: float = FLOOR, epochs: int = 1) -> PolicyTrainer:
        torch.manual_seed(0)
        objective = Objective(0.0, std_floor=floor, max_grad_norm=1e12, importance_cap=cap, epochs=epochs)
        return PolicyTrainer(make_model(initializer_range=0.6).double(), objective)

    return make


def pairs(engine: dict[tuple[int, int], tuple[float, float]]) -> Iterator[tuple[float, Group]]:
    """Every group of two rollouts that the engine may draw, with its probability."""
    for a, b in itertools.product(TOKENS, repeat=2):
        chance = math.exp(sum(engine[a]) + sum(engine[b]))
        rollouts = tuple(Rollout(tokens, REWARD[tokens], 0.5, behaviour=engine[tokens]) for tokens in (a, b))
        yield chance, Group(CONTEXT, rollouts)


def expected(trainer: PolicyTrainer, engine: dict[tuple[int, int], tuple[float, float]]) -> Tensor:
    """The mean of the estimate over all groups that the engine may draw, times what the floor divides it by."""
    total: Tensor | None = None
    for chance, group in pairs(engine):
        if len({r.reward for r in group.rollouts}) == 1:
            continue  # no advantage
        found = chance * gradient(trainer, lambda group=group: trainer.step([group], two))
        total = found if total is None else total + found
    assert total is not None
    return total * FLOOR


def exact(trainer: PolicyTrainer) -> Tensor:
    """Minus the gradient of the expected reward, times (G - 1) / G: a rollout is part of its own baseline."""
    trainer.model.train()
    value = torch.stack([log_probs(trainer.model, t).sum().exp() * REWARD[t] for t in TOKENS]).sum()
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(-value / 2, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
    )


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_weighted_estimates_have_the_exact_gradients_mean_and_plain_ones_do_not(trainer) -> None:
    truth = exact(trainer(None))
    engine = off(trainer(None).model)
    assert distance(expected(trainer(math.inf), engine), truth) < 1e-5
    assert distance(expected(trainer(None), engine), truth) > 0.05
    capped = distance(expected(trainer(1.2), engine), truth)  # bounded weights, some of the bias
    assert 1e-3 < capped < distance(expected(trainer(None), engine), truth)


def test_ratios_of_single_tokens_would_be_biased(trainer) -> None:
    """Why weights are of whole rollouts: the same with each token's own ratio."""
    policy = trainer(None).model.train()
    engine = off(policy)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for tokens in TOKENS:
        own = log_probs(policy, tokens)
        ratio = (own.detach() - torch.tensor(engine[tokens])).exp()
        chance = math.exp(sum(engine[tokens]))
        found = torch.autograd.grad(-(ratio * own).sum() * REWARD[tokens] * chance / 2, parameters, allow_unused=True)
        total += torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(parameters, found, strict=True)
            ]
        )
    assert distance(total, exact(trainer(None))) > 0.02


@pytest.mark.parametrize("cap", [None, 1.0, 2.0, math.inf])
def test_the_models_own_log_probabilities_change_no_bit_of_the_gradient(trainer, cap) -> None:
    rollouts = tuple(Rollout(tokens, REWARD[tokens], 0.25) for tokens in TOKENS)
    plain = trainer(None, floor=0.0)
    expected = gradient(plain, lambda: plain.step([Group(CONTEXT, rollouts)], two))
    seen: list[Tensor] = []
    spy = trainer(None, floor=0.0)
    kept = PolicyTrainer._loss

    def look(self, groups, passed, found, *rest):  # what the trainer itself makes of the tokens
        seen.append(found.detach().clone())
        return kept(self, groups, passed, found, *rest)

    PolicyTrainer._loss = look  # type: ignore[method-assign]
    try:
        spy.step([Group(CONTEXT, rollouts)], two)
    finally:
        PolicyTrainer._loss = kept  # type: ignore[method-assign]
    own = tuple(
        Rollout(r.tokens, r.reward, r.weight, behaviour=tuple(row))
        for r, row in zip(rollouts, seen[0].tolist(), strict=True)
    )
    weighted = trainer(cap, floor=0.0)
    figures: dict[str, float] = {}
    found = gradient(weighted, lambda: figures.update(weighted.step([Group(CONTEXT, own)], two)))
    assert torch.equal(found, expected)
    assert figures["engine_gap"] == figures["engine_gap_max"] == figures["engine_kl"] == 0
    assert figures["engine_ess"] == 1
    assert figures.get("engine_capped", 0) == 0


def test_what_is_measured_is_what_the_definitions_say(trainer) -> None:
    policy = trainer(1.1, floor=0.0, epochs=2)
    engine = off(policy.model)
    copies = (1, 3, 2, 1)
    rollouts = tuple(
        Rollout(tokens, REWARD[tokens], n / 7, behaviour=engine[tokens], copies=n)
        for tokens, n in zip(TOKENS, copies, strict=True)
    )
    flat = Group(CONTEXT, (Rollout((2, 2), 1.0, 1.0, behaviour=(-9.0, -9.0)),))  # is not run, and does not count
    figures = policy.step([Group(CONTEXT, rollouts), flat], two)
    drawn = [tokens for tokens, n in zip(TOKENS, copies, strict=True) for _ in range(n)]
    differences = [log_probs(policy.model, t).detach() - torch.tensor(engine[t]) for t in drawn]  # a rate of 0
    each = torch.cat(differences)
    weights = torch.stack([d.sum().exp() for d in differences])
    assert figures["engine_gap"] == pytest.approx(float(each.abs().mean()), rel=1e-6)
    assert figures["engine_gap_max"] == pytest.approx(float(each.abs().max()), rel=1e-6)
    assert figures["engine_kl"] == pytest.approx(float((each.exp() - each - 1).sum() / 7), rel=1e-6)
    assert figures["engine_ess"] == pytest.approx(float(weights.sum() ** 2 / (7 * weights.square().sum())), rel=1e-6)
    assert figures["engine_capped"] == pytest.approx(float((weights > 1.1).double().mean()))


def test_behaviour_is_of_all_rollouts_or_of_none(trainer) -> None:
    told, untold = Rollout((2, 3), 1.0, 0.5, behaviour=(-1.0, -1.0)), Rollout((3, 3), 0.0, 0.5)
    with pytest.raises(ValueError, match="expected all or none"):
        trainer(None).step([Group(CONTEXT, (told, untold))], two)
    with pytest.raises(ValueError, match="with a cap all"):
        trainer(2.0).step([Group(CONTEXT, (untold, Rollout((2, 2), 1.0, 0.5)))], two)
    with pytest.raises(ValueError, match="each of its tokens"):
        Group(CONTEXT, (Rollout((2, 3), 1.0, 1.0, behaviour=(-1.0,)),))


def test_padding_does_not_count() -> None:
    drift = mismatch.Drift(math.inf)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    weights = drift.add(torch.tensor([[-1.0, -2.0], [-0.5, 0.0]]), [(-1.5, -2.0), (-1.0,)], mask, torch.ones(2, 1))
    assert isinstance(weights, Tensor)
    assert weights[:, 0].tolist() == pytest.approx([math.exp(0.5), math.exp(0.5)])
    assert drift.figures(Processes("cpu"))["engine_gap"] == pytest.approx(1 / 3)
