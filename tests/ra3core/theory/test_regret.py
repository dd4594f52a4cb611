"""Regret = pruning error + RL error, on every instance."""

from __future__ import annotations

import numpy as np
import pytest

from ra3core.theory.families import garnet
from ra3core.theory.iteration import iterate
from ra3core.theory.regret import split
from ra3core.theory.semi_mdp import greedy, optimal, value
from ra3core.theory.surveys import Table, regret_survey

ROUNDING = 1e-12


@pytest.fixture(scope="module")
def survey() -> Table:
    """3,000 random families of six tasks, random Z', random policies within it and outside."""
    return regret_survey(np.random.default_rng(0), 3000)


def test_the_two_parts_make_up_the_regret(survey: Table) -> None:
    """They are computed apart, from decisions, the regret from values."""
    assert survey["whole"].mean() > 1
    assert survey["residual"].max() < ROUNDING


def test_pruning_and_planning_within_never_gain(survey: Table) -> None:
    assert survey["pruning"].min() > -ROUNDING
    assert survey["rl"].min() > -ROUNDING
    assert (survey["pruning"] > 0.1).mean() > 0.5
    assert (survey["rl"] > 0.1).mean() > 0.5


def test_a_policy_outside_the_kept_options_can_beat_them(survey: Table) -> None:
    """The premise matters: pi within Z'."""
    assert (survey["rl_outside"] < -0.1).mean() > 0.05


def test_the_parts_are_the_differences_of_values() -> None:
    family = garnet(np.random.default_rng(1), families=100)
    allowed = np.array([True, True, False, True, False])
    policy = greedy(family.model, iterate(family.model, 2, allowed), np.broadcast_to(allowed, (100, 6, 5)))
    found = split(family.model, family.start, allowed, policy)
    best, within = (optimal(family.model, one)[0] @ family.start for one in (None, allowed))
    assert found.pruning == pytest.approx(best - within, abs=ROUNDING)
    assert found.rl == pytest.approx(within - value(family.model, policy) @ family.start, abs=ROUNDING)


def test_planning_longer_leaves_the_pruning_error_alone() -> None:
    family = garnet(np.random.default_rng(2), families=50)
    allowed = np.array([False, True, True, True, False])
    found = []
    for iterations in (1, 3, 60):
        policy = greedy(family.model, iterate(family.model, iterations, allowed), np.broadcast_to(allowed, (50, 6, 5)))
        found.append(split(family.model, family.start, allowed, policy))
    assert found[0].rl.mean() > found[1].rl.mean() > found[2].rl.mean()
    assert found[2].rl.max() < 1e-2
    assert found[0].pruning == pytest.approx(found[2].pruning)
