from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Lfm2Config, Lfm2ForCausalLM

from ra3core.learning.policy_gradient import (
    Group,
    Objective,
    PolicyTrainer,
    Rollout,
    clipped_surrogate,
    group_advantages,
    tempered,
    with_reference,
)

END = 2
CONTEXTS = ((0,), (1, 0, 1))


def three_token_policy(seed: int = 0) -> Lfm2ForCausalLM:
    torch.manual_seed(seed)
    config = Lfm2Config(
        vocab_size=3,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.5,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=END,
    )
    return Lfm2ForCausalLM(config).double()


def outcomes() -> list[tuple[int, ...]]:
    """Every sequence of the three tokens that ends with END or at three tokens."""
    found = []
    for length in (1, 2, 3):
        for tokens in itertools.product(range(3), repeat=length):
            if END not in tokens[:-1] and (tokens[-1] == END or length == 3):
                found.append(tokens)
    return found


def reward(context: tuple[int, ...], tokens: tuple[int, ...]) -> float:
    return sum((k + 1.5) * token for k, token in enumerate(tokens)) - 0.3 * len(tokens) ** 2 + 0.1 * len(context)


def probability(model, context, tokens, temperature: float) -> torch.Tensor:
    logits = model(torch.tensor([[*context, *tokens]]), use_cache=False).logits[0, len(context) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum().exp()


def exact_gradient(model, temperature: float) -> dict[str, torch.Tensor]:
    model.zero_grad()
    expected = sum(
        probability(model, context, tokens, temperature) * reward(context, tokens)
        for context in CONTEXTS
        for tokens in outcomes()
    )
    (expected / len(CONTEXTS)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def exhaustive_groups(model, temperature: float, std_floor: float) -> list[Group]:
    """Every outcome with its probability as weight; scaled so that the division by the deviation cancels."""
    groups = []
    for context in CONTEXTS:
        with torch.no_grad():
            weights = [float(probability(model, context, tokens, temperature)) for tokens in outcomes()]
        assert sum(weights) == pytest.approx(1)
        rewards = [reward(context, tokens) for tokens in outcomes()]
        mean = np.average(rewards, weights=weights)
        std = float(np.sqrt(np.average((np.array(rewards) - mean) ** 2, weights=weights)))
        rollouts = tuple(Rollout(t, r, w) for t, r, w in zip(outcomes(), rewards, weights, strict=True))
        groups.append(Group(context, rollouts, scale=std + std_floor))
    return groups


class Gradients(PolicyTrainer):
    """Keeps what would have been applied."""

    def __init__(self, model, objective):
        super().__init__(model, objective)
        self.found: dict[str, torch.Tensor] = {}
        inner = self.accelerator.clip_grad_norm_

        def keep(parameters, norm):
            self.found = {name: p.grad.clone() for name, p in self.model.named_parameters()}
            return inner(parameters, norm)

        self.accelerator.clip_grad_norm_ = keep  # type: ignore[method-assign]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_brute_force_gradient_of_a_three_token_policy(temperature):
    model = three_token_policy()
    expected = exact_gradient(model, temperature)
    groups = exhaustive_groups(model, temperature, std_floor=0.5)
    trainer = Gradients(model, Objective(learning_rate=1e-3, std_floor=0.5))
    metrics = trainer.step(groups, tempered(temperature))
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-2
    for name, gradient in expected.items():
        torch.testing.assert_close(-trainer.found[name], gradient, rtol=0, atol=1e-6, msg=name)
    assert metrics["zero_variance"] == 0 and metrics["grad_norm"] > 0


def test_sampled_rollouts_estimate_it_without_bias():
    """Leave-one-out advantages, G/(G-1) times those from the mean, over many groups of 4 samples."""
    model = three_token_policy()
    expected = exact_gradient(model, 1.0)
    generator = np.random.default_rng(0)
    groups = []
    for exact in exhaustive_groups(model, 1.0, 0.0):
        weights = [r.weight for r in exact.rollouts]
        for _ in range(3000):
            drawn = [
                exact.rollouts[i] for i in generator.choice(len(weights), size=4, p=np.array(weights) / sum(weights))
            ]
            std = float(np.std([r.reward for r in drawn]))
            group = Group(exact.context, tuple(replace(r, weight=0.25) for r in drawn), scale=(std + 1.0) * 4 / 3)
            groups.append(group)
    trainer = Gradients(model, Objective(learning_rate=1e-3, std_floor=1.0))
    trainer.step(groups)
    flat = torch.cat([g.flatten() for g in expected.values()])
    found = -torch.cat([trainer.found[name].flatten() for name in expected])
    assert float((found - flat).norm() / flat.norm()) < 0.1


def test_training_raises_the_expected_reward():
    model = three_token_policy()

    def expected() -> float:
        with torch.no_grad():
            return sum(float(probability(model, c, t, 1.0)) * reward(c, t) for c in CONTEXTS for t in outcomes())

    trainer = PolicyTrainer(model, Objective(learning_rate=1e-2, std_floor=0.5, epochs=2))
    before = expected()
    for _ in range(15):
        metrics = trainer.step(exhaustive_groups(model, 1.0, 0.5))
    assert expected() > before + 1
    assert metrics["train_tokens"] == 2 * sum(g.tokens for g in exhaustive_groups(model, 1.0, 0.5))


def test_groups_without_spread_change_nothing():
    model = three_token_policy()
    before = {name: p.clone() for name, p in model.named_parameters()}
    rollouts = (Rollout((0, 2), 1.0, 0.5), Rollout((1,), 1.0, 0.5))
    metrics = PolicyTrainer(model, Objective(learning_rate=0.1)).step([Group((0, 1), rollouts)] * 3)
    assert metrics["zero_variance"] == 1.0 and metrics["grad_norm"] == 0
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_kl_to_the_reference():
    """At the reference the KL and its gradient vanish; away from it, it pulls back, and it equals the exact KL."""
    model, reference = three_token_policy(0), three_token_policy(1)
    groups = with_reference(reference, exhaustive_groups(model, 1.0, 0.0), tempered(1.0))
    flat = [Group(g.context, tuple(replace(r, reward=0.0) for r in g.rollouts)) for g in groups]
    trainer = Gradients(model, Objective(learning_rate=1e-2, kl=1.0))
    metrics = trainer.step(flat)
    exact = 0.0
    with torch.no_grad():
        for g in groups:
            for r in g.rollouts:
                p, q = (probability(m, g.context, r.tokens, 1.0) for m in (model, reference))
                exact += float(p * (p / q).log())
    for _ in range(20):
        fresh = with_reference(reference, exhaustive_groups(model, 1.0, 0.0), tempered(1.0))
        metrics = trainer.step([Group(g.context, tuple(replace(r, reward=0.0) for r in g.rollouts)) for g in fresh])
    with torch.no_grad():
        after = sum(
            float(p * (p / probability(reference, g.context, r.tokens, 1.0)).log())
            for g in groups
            for r in g.rollouts
            for p in [probability(model, g.context, r.tokens, 1.0)]
        )
    assert after < exact / 2
    own = with_reference(model, flat, tempered(1.0))
    metrics = trainer.step(own)
    assert abs(metrics["kl"]) < 1e-9 and metrics["grad_norm"] < 1e-6
    with pytest.raises(ValueError, match="reference"):
        trainer.step(exhaustive_groups(model, 1.0, 0.0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=6),
    st.floats(0.01, 5),
    st.floats(-3, 3),
)
def test_advantages(rewards, floor, shift):
    values = torch.tensor([rewards], dtype=torch.float64)
    weights = torch.full_like(values, 1 / len(rewards))
    advantages, std = group_advantages(values, weights, floor)
    assert float((weights * advantages).sum()) == pytest.approx(0, abs=1e-9)
    assert float(advantages.abs().max()) <= float((values - values.mean()).abs().max()) / floor + 1e-9
    moved, _ = group_advantages(values + shift, weights, floor)
    torch.testing.assert_close(moved, advantages, rtol=0, atol=1e-8)
    assert float(std) == pytest.approx(float(np.std(rewards)), abs=1e-9)


def test_the_clip_stops_moves_that_went_far_enough():
    old = torch.zeros(4)
    log_probs = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    surrogate, clipped = clipped_surrogate(log_probs, old, advantages, clip=0.2)
    surrogate.sum().backward()
    assert clipped.tolist() == [True, False, False, True]
    assert (log_probs.grad == 0).tolist() == [True, False, False, True]


def test_a_restored_trainer_goes_on_as_if_never_stopped(tmp_path):
    def run(trainer, steps):
        for _ in range(steps):
            noise = (torch.rand(()).item(), random.random(), np.random.rand())
            groups = exhaustive_groups(trainer.model, 1.0, 0.5)
            trainer.step([replace(g, scale=g.scale * sum(noise)) for g in groups])

    objective = Objective(learning_rate=1e-2, std_floor=0.5)
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    straight = PolicyTrainer(three_token_policy(), objective)
    assert straight.load(tmp_path) is None
    run(straight, 2)
    straight.save(tmp_path, 1)
    straight.save(tmp_path, 2, {"tokens": 7})
    run(straight, 3)
    random.seed(9), np.random.seed(9)
    resumed = PolicyTrainer(three_token_policy(3), objective)
    (tmp_path / "checkpoint.tmp").mkdir()  # what a kill leaves
    assert resumed.load(tmp_path) == (2, {"tokens": 7})
    run(resumed, 3)
    for (name, a), b in zip(straight.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
