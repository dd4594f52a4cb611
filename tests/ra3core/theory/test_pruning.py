"""Demonstrations needed, against the bounds; and that fewer are not enough where a bound is said to be tight."""

from __future__ import annotations

from itertools import product
from math import comb, log

import numpy as np
import pytest

from ra3core.theory import hardest, pruning
from ra3core.theory.families import garnet, lock
from ra3core.theory.semi_mdp import optimal
from ra3core.theory.study import enough
from ra3core.theory.surveys import Table, pruning_survey


@pytest.fixture(scope="module")
def survey() -> Table:
    """2,000 random families with random eps, sigma and delta."""
    return pruning_survey(np.random.default_rng(0), 2000)


def test_as_many_as_the_bounds_say_are_enough_in_every_random_family(survey: Table) -> None:
    """Exact probabilities, so without exception; a quarter of the demonstrations fails in some."""
    for rule in ("paper", "elimination", "keeping"):
        assert (survey[f"{rule}_left"] <= survey["delta"]).all()
    assert (survey["suboptimal"] > 0).mean() > 0.8
    for rule in ("elimination", "keeping"):
        assert (survey[rule] <= np.ceil(survey[f"{rule}_bound"])).all()
        assert (survey[f"{rule}_bound"] <= survey["paper"]).all()
        assert (survey[rule] > survey[f"{rule}_bound"] / 4).any()


def test_what_outlives_pruning_costs_eps_and_sigma_of_the_worst(survey: Table) -> None:
    """E[Delta] <= eps + sigma max Delta in all families; eps alone, as the paper has it, not in all."""
    assert (survey["worst_survivor"] <= survey["survivor_bound"]).all()
    assert (survey["worst_survivor"] > survey["eps"]).any()


@pytest.mark.parametrize("demonstrations", [0, 1, 2, 4, 6])
def test_the_probability_that_a_candidate_is_left_is_that_over_all_sequences(demonstrations: int) -> None:
    rng = np.random.default_rng(demonstrations)
    for _ in range(10):
        weights, struck = rng.dirichlet(np.ones(3)), rng.random((3, 4)) < 0.4
        left = 0.0
        for tasks in product(range(3), repeat=demonstrations):
            if not struck[list(tasks)].any(0).all():
                left += weights[list(tasks)].prod()
        assert pruning.Candidates(weights, struck).left_after(demonstrations) == pytest.approx(left)


def test_needed_is_the_least_number_and_what_a_simulation_finds() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        struck = rng.random((6, 8)) < 0.3
        struck[rng.integers(0, 6, 8), np.arange(8)] = True  # each by some task
        found = pruning.Candidates(rng.dirichlet(np.full(6, 3.0)), struck)
        n = found.needed(0.1)
        assert found.left_after(n) <= 0.1 < found.left_after(n - 1)
        assert np.mean(found.simulate(rng, 4000) > n) == pytest.approx(found.left_after(n), abs=0.02)


def test_no_suboptimal_set_needs_no_demonstration() -> None:
    assert pruning.Candidates(np.array([0.3, 0.7]), np.zeros((2, 0), bool)).needed(0.1) == 0


def test_the_compact_set_is_the_smallest_that_covers_every_task() -> None:
    sets = pruning.subsets(3, (1, 2))
    errors = np.array([[0.0, 0.5, 0.1, 0.0, 0.02, 0.0], [0.3, 0.0, 0.2, 0.0, 0.01, 0.0]])
    assert pruning.smallest_cover(errors, sets, 0.2) == 2  # the third option alone
    assert pruning.smallest_cover(errors, sets, 0.1) == 3  # of the pairs that do, one that costs nothing
    with pytest.raises(ValueError, match="the whole set"):
        pruning.smallest_cover(errors[:, :2], sets[:2], 0.1)


def test_what_the_expert_shows_is_all_that_it_uses() -> None:
    """With what it shows alone the expert does as well; with one of them left out it may not."""
    family = garnet(np.random.default_rng(2), families=200)
    within = np.array([True, True, True, True, False])
    used = pruning.expert_options(family, within)
    best = optimal(family.model, within)[0] @ family.start
    assert not used[..., 4].any()
    assert optimal(family.model, used)[0] @ family.start == pytest.approx(best)
    fewer = used.copy()
    fewer[..., 0] = False
    fewer |= ~fewer.any(-1, keepdims=True)
    assert (optimal(family.model, fewer)[0] @ family.start < best - 1e-6).any()


def test_the_lock_written_out_is_what_its_name_says() -> None:
    """Of sets of two options the first is Z_eps, the others fail in their share of the tasks, one by one."""
    family = lock(np.random.default_rng(3), options=5, size=2, sigma=0.3, tasks=400)
    sets = pruning.subsets(5, (2,))
    errors = pruning.pruning_errors(family, sets)
    fails = errors > 0.5
    assert errors[fails] == pytest.approx(0.9)
    assert errors[~fails] == pytest.approx(0.0, abs=1e-12)
    assert pruning.smallest_cover(errors, sets, 0.1) == 0
    assert fails[:, 1:].mean(0) == pytest.approx(0.3, abs=0.09)
    assert np.abs(np.corrcoef(fails[:, 1:].T) - np.eye(9)).max() < 0.2


SETTINGS = [(16, 3, 0.1, 0.1), (64, 3, 0.05, 0.02), (128, 5, 0.3, 0.3), (32, 7, 0.2, 0.05)]


@pytest.mark.parametrize(("options", "size", "sigma", "delta"), SETTINGS)
def test_on_its_hardest_family_a_rule_needs_its_bound_up_to_a_constant(
    options: int, size: int, sigma: float, delta: float
) -> None:
    rng, runs = np.random.default_rng(4), 4000
    noise = 4 * np.sqrt(delta / runs)
    drawn = {
        "elimination": (hardest.lock, pruning.elimination_bound(size, options, sigma, delta), 0.7),
        "keeping": (hardest.menu, pruning.keeping_bound(size, sigma, delta), 0.4),
        "decisions": (hardest.roles, pruning.decisions_bound(size, options, sigma, delta), 0.85),
    }
    for family, bound, share in drawn.values():
        assert bound <= pruning.paper_bound(size, options, sigma, delta)
        needed = family(rng, options=options, size=size, sigma=sigma, runs=runs)
        assert np.mean(needed > np.ceil(bound)) <= delta + noise
        assert np.mean(needed > share * bound) > delta + noise


@pytest.mark.parametrize(("options", "size", "sigma", "delta"), SETTINGS)
def test_the_lock_needs_what_is_claimed_from_below(options: int, size: int, sigma: float, delta: float) -> None:
    needed = hardest.lock_needed(options, size, sigma, delta)
    assert needed >= (1 - sigma) * log((comb(options, size) - 1) * (1 - delta) / delta) / sigma
    measured = hardest.lock(np.random.default_rng(5), options, size, sigma, 8000)
    assert enough(measured, delta) == pytest.approx(needed, rel=0.03, abs=1)


def test_two_candidates_wait_for_the_slower_of_two_geometric_times() -> None:
    """C(3, 1) - 1 = 2 locks; menu's 2 rare options, of which both must be seen; roles' 2 options left in each of 2."""
    rng, runs, sigma = np.random.default_rng(3), 40_000, 0.3
    slower = 2 / sigma - 1 / (1 - (1 - sigma) ** 2)
    assert hardest.lock(rng, 3, 1, sigma, runs).mean() == pytest.approx(slower, rel=0.02)
    assert hardest.lock_needed(3, 1, sigma, 0.2) == next(n for n in range(99) if (1 - 0.7**n) ** 2 >= 0.8)
    assert hardest.menu(rng, 9, 3, sigma, runs).mean() == pytest.approx(1 / (2 * sigma) + 1 / sigma, rel=0.02)
    wait = 2 / (sigma / 2) - 1 / sigma  # one option a role: of two roles, each ends with sigma / 2 a demonstration
    assert hardest.roles(rng, 4, 2, sigma, runs).mean() == pytest.approx(wait, rel=0.02)


def test_fewer_failures_cost_each_rule_what_the_page_says() -> None:
    """In log(1 / delta) the rate's slope is k / sigma. Decisions have it; elimination has 1 / sigma, whatever k."""
    size, sigma, deltas = 5, 0.1, np.array([0.2, 0.05, 0.0125])
    for family, slope in ((hardest.lock, 1 / sigma), (hardest.roles, size / sigma)):
        needed = family(np.random.default_rng(6), options=64, size=size, sigma=sigma, runs=20_000)
        found = np.polyfit(-np.log(deltas), [enough(needed, delta) for delta in deltas], 1)[0]
        assert found == pytest.approx(slope, rel=0.15)


def test_elimination_needs_a_constant_share_of_the_rate_unless_failures_are_rare() -> None:
    """(1 - sigma) / 4 of it for delta from 1 / |Z| to 1/2 and |Z| >= k^2; towards 1 / k as delta falls."""
    for size, sigma in product((1, 2, 3, 5, 8), (0.01, 0.1, 0.3)):
        for options in (max(4, size**2), max(4, size**2) * 4, 1000):
            for delta in (1 / options, options**-0.5, 0.5):
                rate = pruning.paper_bound(size, options, sigma, delta)
                assert hardest.lock_needed(options, size, sigma, delta) >= (1 - sigma) / 4 * rate
    rare = hardest.lock_needed(64, 8, 0.01, 1e-200) / pruning.paper_bound(8, 64, 0.01, 1e-200)
    assert rare == pytest.approx(1 / 8, rel=0.1)
