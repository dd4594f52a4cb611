from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3core.statistics import bootstrap, nested_bootstrap, paired_difference, pass_at_k, standard_error


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 9))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts())
def test_pass_at_k_is_the_share_of_draws_with_a_correct_sample(case: tuple[int, int, int]) -> None:
    n, c, k = case
    samples = [True] * c + [False] * (n - c)
    draws = [any(draw) for draw in itertools.combinations(samples, k)]
    assert pass_at_k(n, c, k) == pytest.approx(sum(draws) / len(draws))


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01)
    assert pass_at_k(200, 200, 100) == 1.0
    assert pass_at_k([200, 200], [0, 3], 1) == pytest.approx([0, 0.015])


@pytest.mark.parametrize(("n", "c", "k"), [(3, 0, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_pass_at_k_refuses_what_has_no_meaning(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"pass@|correct"):
        pass_at_k(n, c, k)


def inside(sampled: float, exact: np.ndarray, quantile: float) -> bool:
    """Whether `sampled` lies between the exact distribution's quantiles a little to either side."""
    ranked = np.sort(exact)
    slack = 0.02
    below = np.quantile(ranked, max(quantile - slack, 0), method="lower")
    above = np.quantile(ranked, min(quantile + slack, 1), method="higher")
    return bool(below - 1e-9 <= sampled <= above + 1e-9)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_bootstrap_interval_agrees_with_every_possible_resample(values: list[int]) -> None:
    """All P^P resamples, enumerated."""
    means = np.array([np.mean(draw) for draw in itertools.product(values, repeat=len(values))])
    estimate = bootstrap(values, samples=20_000, level=0.8)
    assert estimate.value == pytest.approx(np.mean(values))
    assert inside(estimate.low, means, 0.1)
    assert inside(estimate.high, means, 0.9)


def test_nested_bootstrap_agrees_with_enumeration() -> None:
    values = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    means = [
        values[np.ix_(seeds, problems)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for problems in itertools.product(range(3), repeat=3)
    ]
    estimate = nested_bootstrap(values, samples=40_000, level=0.7)
    assert estimate.value == pytest.approx(0.5)
    assert inside(estimate.low, np.array(means), 0.15)
    assert inside(estimate.high, np.array(means), 0.85)


def test_seeds_that_differ_widen_the_interval() -> None:
    problems = np.array([0.0, 1.0] * 50)
    agreeing = nested_bootstrap([problems, problems])
    differing = nested_bootstrap([problems * 0.2, problems])
    assert differing.high - differing.low > 1.5 * (agreeing.high - agreeing.low)


def test_pairing_removes_what_problems_share() -> None:
    rng = np.random.default_rng(1)
    hardness = rng.random(200)
    a, b = hardness + 0.05 + rng.normal(0, 0.02, 200), hardness
    difference = paired_difference(a, b)
    assert difference.low > 0.03
    assert difference.high < 0.07
    assert difference.superiority == 1.0
    assert paired_difference(b, a).superiority == 0.0
    assert paired_difference(b, b).superiority == 0.5


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(300):
        estimate = bootstrap(rng.random(60) < 0.4, level=0.9, samples=400, seed=seed)
        covered += estimate.low <= 0.4 <= estimate.high
    assert 0.83 < covered / 300 < 0.96


def test_equal_inputs_give_equal_intervals() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4)
    assert bootstrap(values, seed=4) != bootstrap(values, seed=5)


def test_standard_error() -> None:
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert np.isnan(standard_error([1.0]))
