from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3core.statistics import (
    bootstrap,
    cohens_h,
    nested_bootstrap,
    over_seeds,
    paired_difference,
    pass_at_k,
    standard_error,
    standardised,
    student_quantile,
)


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
    """All S^S * P^P resamples of the formula, with w and v worked out by hand.

    Seed means 1, 2, 3; problem means 1.5, 2.5; MS_p = 3 * (0.25 + 0.25) = 1.5. The table less its margins leaves
    e = +-0.5 in the first and the last row, so MS_e = 4 * 0.25 / 2 = 0.5 and v = sqrt(2 / 3).
    """
    values = np.array([[0.0, 2.0], [1.5, 2.5], [3.0, 3.0]])
    w = np.sqrt(3 / 2) * 1.3862 / 1.0364  # t with 2 degrees of freedom and z at 0.85
    means = [
        2 + w * (np.mean(seeds) - 2) + np.sqrt(2 / 3) * (np.mean(problems) - 2)
        for seeds in itertools.product([1, 2, 3], repeat=3)
        for problems in itertools.product([1.5, 2.5], repeat=2)
    ]
    estimate = nested_bootstrap(values, samples=40_000, level=0.7)
    assert estimate.value == pytest.approx(2.0)
    assert inside(estimate.low, np.array(means), 0.15)
    assert inside(estimate.high, np.array(means), 0.85)
    assert min(means) - 1e-3 <= estimate.low and estimate.high <= max(means) + 1e-3


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("spread", [(0.1, 0.0, 0.5), (0.1, 1.0, 1.0), (0.0, 0.0, 1.0), (0.03, 0.3, 1.0)])
def test_intervals_over_few_seeds_cover_the_truth(seeds: int, spread: tuple[float, float, float]) -> None:
    """Standard deviations of seeds, problems and the rest. 300 studies: 95 % +- 4 % is 3 standard errors.

    Where both seeds and problems matter the interval is a little too wide (Student's tails for all of it), so that
    there is no upper limit.
    """
    rng = np.random.default_rng(seeds)
    of_seeds, of_problems, rest = spread
    covered = 0
    for study in range(300):
        x = 0.2 + of_seeds * rng.normal(size=(seeds, 1)) + of_problems * rng.normal(size=(1, 60))
        found = nested_bootstrap(x + rest * rng.normal(size=(seeds, 60)), samples=400, seed=study)
        covered += found.low <= 0.2 <= found.high
    assert covered / 300 > 0.91


def test_a_claim_without_a_difference_is_rarely_shown() -> None:
    """Of arms that are alike, 5 % of differences should seem to be there; 5 samples, 3 seeds, 60 tasks."""
    rng = np.random.default_rng(0)
    wrong = 0
    for study in range(300):
        chance = np.clip(rng.beta(0.6, 1.0, size=(1, 60)) + 0.05 * rng.normal(size=(3, 1)), 0, 1)
        a, b = (rng.binomial(5, chance) / 5 for _ in range(2))
        found = paired_difference(a, b, samples=400, seed=study)
        wrong += found.low > 0 or found.high < 0
    assert wrong / 300 < 0.09


def test_benchmarks_weigh_the_same_and_share_their_seeds() -> None:
    long, short = np.tile([[0.2], [0.4]], 90), np.tile([[0.6], [1.0]], 10)
    found = nested_bootstrap([long, short])
    assert found.value == pytest.approx((0.3 + 0.8) / 2)
    alone = nested_bootstrap(np.array([[0.4], [0.7]]))  # what is left of it: two seeds
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.01)
    with pytest.raises(ValueError, match="every benchmark needs the same seeds"):
        nested_bootstrap([long, short[:1]])


def test_students_interval_over_seeds() -> None:
    found = over_seeds([1.0, 2.0, 3.0])  # s = 1; t(2) = 4.3027
    assert (found.value, found.low, found.high) == pytest.approx(
        (2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4
    )
    one = over_seeds([1.5])
    assert one.value == 1.5 and np.isnan(one.low) and np.isnan(one.high)


def test_seeds_that_are_all_alike_have_no_interval() -> None:
    for values in ([-200.0, -200.0, -200.0], [0.6 - 0.2, 0.5 - 0.1]):  # the latter differ in their last bit
        found = over_seeds(values)
        assert found.value == pytest.approx(values[0]) and np.isnan(found.low) and np.isnan(found.high)


def test_an_interval_ends_where_the_figure_does() -> None:
    found = over_seeds([0.9, 1.0, 0.95]).within(0, 1)
    assert (found.value, found.high) == (pytest.approx(0.95), 1.0) and 0.8 < found.low < 0.9
    assert np.isnan(over_seeds([0.5]).within(0, 1).low)


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.975, 4, 2.7764), (0.95, 9, 1.8331), (0.975, 30, 2.0423)],
)
def test_student_quantile_is_that_of_tables(probability: float, degrees: int, value: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(value, abs=1e-4)


def test_effect_sizes() -> None:
    assert cohens_h(0.5, 0.25) == pytest.approx(np.pi / 2 - np.pi / 3)
    assert cohens_h(0.3, 0.3) == 0.0 and cohens_h(0.1, 0.6) == -cohens_h(0.6, 0.1)
    assert standardised([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert np.isnan(standardised([1.0])) and np.isnan(standardised([1.0, 1.0]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        cohens_h(1.2, 0.5)


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
