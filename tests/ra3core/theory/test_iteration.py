"""Iterations needed, against the bound; and what breaks the bound."""

from __future__ import annotations

import numpy as np
import pytest

from ra3core.theory.families import garnet
from ra3core.theory.iteration import bound_of, iterate, iterations_bound, iterations_needed
from ra3core.theory.semi_mdp import SemiMDP, geometric_options, optimal
from ra3core.theory.surveys import Table, iteration_survey


@pytest.fixture(scope="module")
def survey() -> Table:
    """3,000 random instances with random gamma, durations and eps."""
    return iteration_survey(np.random.default_rng(0), 3000)


def test_as_many_iterations_as_the_bound_says_are_enough_in_every_random_instance(survey: Table) -> None:
    assert (survey["needed"] <= survey["bound"]).all()
    assert (survey["needed"] > survey["bound"] / 2).mean() > 0.1  # half of them would not do


def test_needed_is_the_first_iteration_within_eps() -> None:
    model = garnet(np.random.default_rng(1), families=20).model
    best, _ = optimal(model)
    needed = iterations_needed(model, best, 0.3)
    for n in range(int(needed.max()) + 1):
        within = np.abs(iterate(model, n) - best).max(-1) <= 0.3
        assert (within == (needed <= n)).all()


def test_a_state_that_pays_for_ever_needs_nearly_the_bound() -> None:
    for g in (0.9, 0.99, 0.999):
        model = SemiMDP(np.array([[[g]]]), np.array([[2.0]]))
        needed = iterations_needed(model, np.array([2.0 / (1 - g)]), 0.01)
        assert 0.94 * bound_of(model, 0.01) < needed <= bound_of(model, 0.01)


def test_longer_options_need_fewer_iterations() -> None:
    """g = gamma / (d (1 - gamma) + gamma) for options of geometric duration with mean d."""
    gamma, rng = 0.98, np.random.default_rng(2)
    primitive = garnet(rng, families=10, tasks=1, options=4, gamma=gamma, durations=1).model
    policies = rng.integers(0, 4, (5, primitive.states))
    needed = []
    for duration in (1, 3, 9, 27):
        model = geometric_options(primitive, policies, 1 / duration)
        assert model.contraction == pytest.approx(gamma / (duration * (1 - gamma) + gamma))
        needed.append(iterations_needed(model, optimal(model)[0], 0.05))
        assert (needed[-1] <= bound_of(model, 0.05)).all()
    assert (np.diff(needed, axis=0) < 0).all()


def test_what_one_step_pays_is_no_bound_for_options() -> None:
    """Every step pays up to 1; the bound with R_max = 1 is too low as soon as options are long."""
    rng = np.random.default_rng(3)
    random = garnet(rng, families=10, tasks=1, gamma=0.99, durations=1).model
    primitive = SemiMDP(random.kernel, rng.uniform(0.5, 1.0, random.reward.shape))
    model = geometric_options(primitive, rng.integers(0, 5, (4, 4)), 1 / 16)
    needed = iterations_needed(model, optimal(model)[0], 0.01)
    assert (needed > iterations_bound(float(model.contraction.max()), 1.0, 0.01)).all()
    assert (needed <= bound_of(model, 0.01)).all()


def test_nothing_to_learn_needs_no_iteration() -> None:
    model = SemiMDP(np.full((1, 2, 2), 0.4), np.zeros((1, 2)))
    assert bound_of(model, 0.1) == iterations_needed(model, np.zeros(2), 0.1) == 0
