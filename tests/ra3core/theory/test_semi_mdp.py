"""Exact solutions, against enumeration and sums written out."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from ra3core.theory.families import garnet, moves
from ra3core.theory.semi_mdp import (
    SemiMDP,
    fixed_options,
    geometric_options,
    greedy,
    joined,
    occupancy,
    optimal,
    value,
)


def test_policy_iteration_finds_the_best_of_all_policies() -> None:
    """Every deterministic policy within the allowed options, enumerated, in every state."""
    family = garnet(np.random.default_rng(0), families=30, tasks=2, options=4, states=3)
    allowed = np.array([True, False, True, True])
    every = [np.array(policy) for policy in product(np.flatnonzero(allowed), repeat=3)]
    values = [value(family.model, np.broadcast_to(policy, (30, 2, 3))) for policy in every]
    best, policy = optimal(family.model, allowed)
    assert best == pytest.approx(np.max(values, 0), abs=1e-12)
    assert value(family.model, policy) == pytest.approx(best, abs=1e-12)
    assert allowed[policy].all()
    assert (greedy(family.model, best, np.broadcast_to(allowed, (30, 1, 4))) == policy).mean() > 0.95  # but for ties


def test_occupancy_weighs_rewards_to_the_value() -> None:
    family = garnet(np.random.default_rng(1), families=50)
    policy = np.random.default_rng(2).integers(0, 5, (50, 6, 4))
    _, reward = family.model.following(policy)
    paid = (occupancy(family.model, policy, family.start) * reward).sum(-1)
    assert paid == pytest.approx(value(family.model, policy) @ family.start)


def test_an_option_of_random_duration_is_the_mixture_of_fixed_ones() -> None:
    """Geometric with mean 4: the sum over durations, cut where less than 1e-9 is left."""
    primitive = moves(3, [8, 2], gamma=0.9)
    policies = np.random.default_rng(3).integers(0, 4, (3, 9))
    option = geometric_options(primitive, policies, 0.25)
    odds = 0.25 * 0.75 ** np.arange(80)
    fixed = [fixed_options(primitive, policies, steps) for steps in range(1, 81)]
    assert option.kernel == pytest.approx(sum(p * f.kernel for p, f in zip(odds, fixed, strict=True)), abs=1e-9)
    assert option.reward == pytest.approx(sum(p * f.reward for p, f in zip(odds, fixed, strict=True)), abs=1e-9)


def test_options_of_one_step_are_the_primitive_actions() -> None:
    primitive = moves(3, [8, 2], gamma=0.9)
    straight = np.repeat(np.arange(4)[:, None], 9, 1)
    for option in (geometric_options(primitive, straight, 1.0), fixed_options(primitive, straight, 1)):
        assert option.kernel == pytest.approx(primitive.kernel)
        assert option.reward == pytest.approx(primitive.reward)


def test_options_beside_their_primitive_actions_change_no_value() -> None:
    """They only repeat what single steps can do: a wrong kernel or reward would raise or lower V*."""
    primitive = moves(4, [15, 6], gamma=0.95)
    policies = np.random.default_rng(4).integers(0, 4, (5, 16))
    both = joined(primitive, geometric_options(primitive, policies, 0.3), fixed_options(primitive, policies, 5))
    assert optimal(both)[0] == pytest.approx(optimal(primitive)[0], abs=1e-9)


def test_contraction_is_the_largest_expected_discount() -> None:
    kernel = np.array([[[0.5, 0.3], [0.0, 0.2]], [[0.1, 0.1], [0.0, 0.95]]])
    assert SemiMDP(kernel, np.zeros((2, 2))).contraction == pytest.approx(0.95)


def test_the_theory_stands_on_its_own() -> None:
    code = (
        "import sys, ra3core.theory.study, ra3core.theory.page\n"
        "rooms = {m.split('.')[1] for m in sys.modules if m.startswith('ra3core.')}\n"
        "print(sorted(rooms), {'torch', 'transformers', 'prefect', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['plotting', 'stage', 'theory'] set()\n"
