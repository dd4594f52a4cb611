"""Gains, the curve over c, and the c for a think rate, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ra3core.analysis.calibration import calibrate, gain_curve
from ra3core.analysis.clusters import Clusters
from ra3core.analysis.gains import Gain, measure_gains
from ra3core.config import EStepConfig
from ra3core.learning.annotation import Annotation, RationaleSampler
from ra3core.lm.likelihood import line_log_likelihoods
from ra3core.lm.prefix import encode


def gains_of(values, demonstrations=2, tokens=5.0):
    return [Gain(f"d{i % demonstrations}", i, 0.5, value, value + 1, tokens) for i, value in enumerate(values)]


def clusters_of(gains):
    return Clusters([gain.demonstration for gain in gains], 500)


VALUES = [-3.0, -1.0, 0.2, 0.5, 0.7, 1.5, 2.0, 4.0, -0.5, 0.9]


@pytest.mark.parametrize(
    ("target", "c", "rate"),
    [(0.1, 2.0, 0.1), (0.2, 1.5, 0.2), (0.5, 0.5, 0.5), (0.35, 0.9, 0.3), (0.7, 0.0, 0.7), (0.95, 0.0, 0.7)],
)
def test_the_least_penalty_at_which_no_more_than_the_target_think(target, c, rate):
    gains = gains_of(VALUES)
    found = calibrate([gain.mean for gain in gains], clusters_of(gains), target)
    assert (found.c, found.think_rate, found.at_zero) == (c, rate, 0.7)
    assert found.low <= found.c <= found.high


def test_there_and_back():
    """The think rate at the proposed c is the target, as far as whole boundaries allow."""
    rng = np.random.default_rng(0)
    gains = gains_of(rng.normal(0.5, 1, 400), demonstrations=40)
    values = np.array([gain.mean for gain in gains])
    for target in (0.05, 0.2, 0.3, 0.5):
        found = calibrate(values, clusters_of(gains), target)
        assert target - 1 / 400 < np.mean(values > found.c) <= target
        assert found.low < found.c < found.high


def test_demonstrations_are_resampled_and_not_boundaries():
    """One demonstration thinks everywhere, the other nowhere: as many boundaries as you like say no more than two."""
    alike = [Gain("a" if i < 500 else "b", i, 0.5, 1.0 if i < 500 else -1.0, 1.0, 1) for i in range(1000)]
    found = calibrate([gain.mean for gain in alike], Clusters([g.demonstration for g in alike], 500), 0.3)
    assert (found.low, found.high) == (0.0, 1.0)
    rate, low, high = Clusters([g.demonstration for g in alike], 500).mean([g.mean > 0 for g in alike])
    assert (rate, low, high) == (0.5, 0.0, 1.0)


def test_the_curve_counts_boundaries_and_tokens():
    found = gain_curve(gains_of(VALUES), {"d0": 100, "d1": 60}, 0.3, 100)
    curve = found["curve"]
    assert found["plain_tokens"] == 80 and found["boundaries"] == 10 and found["demonstrations"] == 2
    for c, rate, tokens in zip(curve["c"], curve["mean"]["think_rate"], curve["mean"]["tokens"], strict=True):
        assert rate == pytest.approx(sum(value > c + 1e-6 for value in VALUES) / 10, abs=0.11)
        assert tokens == pytest.approx(80 + 5 * 10 * rate / 2)
    assert curve["c"][0] == 0 and curve["mean"]["think_rate"][0] == 0.7 and curve["best"]["think_rate"][0] == 0.8
    assert curve["mean"]["think_rate"] == sorted(curve["mean"]["think_rate"], reverse=True)
    assert found["distribution"]["mean"][0] == -3 and found["distribution"]["best"][-1] == 5
    assert found["gain"]["value"] == pytest.approx(np.mean(VALUES))


def test_a_gain_is_what_the_expert_wins(model, make_model, programs, lines, tokenizer):
    """Of the one rationale drawn: the expert's window in two full passes, with and without it."""
    config = EStepConfig(group_size=1, window=3, think_penalty=7.0, unterminated_penalty=0, given_act=False)
    policy, sampler = make_model(3), RationaleSampler(lines, len(tokenizer), 0.0, 6)
    found = measure_gains(policy, model, programs[:2], sampler, config)
    assert [(g.demonstration, g.t) for g in found] == [
        (p.demonstration.id, t) for p in programs[:2] for t in p.boundaries
    ]
    assert all(g.mean == g.best and 0 < g.think < 1 for g in found)
    for gain in found[:3]:
        state = Annotation(programs[0]).state(gain.t)
        (drawn,), _ = sampler.sample(policy, encode(policy, [state.context]), [0], [state.stop], torch.Generator())
        window = state.window(3)
        thought = (*state.context, *drawn.content, *state.header)
        with_it, without = line_log_likelihoods(model, [[thought, window], [state.context, window]])
        assert gain.mean == pytest.approx(with_it[0] - without[0], abs=1e-3)
        assert gain.tokens == len(drawn.content) + len(state.header)
    free = config.model_copy(update={"think_penalty": 0.0})
    assert found == measure_gains(policy, model, programs[:2], sampler, free)  # c is what gains are held against


def test_the_best_of_the_group_is_no_worse_than_its_mean(model, programs, lines, tokenizer):
    sampler = RationaleSampler(lines, len(tokenizer), 1.0, 8)
    config = EStepConfig(group_size=4, window=2)
    found = measure_gains(model, model, programs, sampler, config, seed=1)
    assert all(g.best >= g.mean for g in found) and any(g.best > g.mean for g in found)
    assert found == measure_gains(model, model, programs, sampler, config, seed=1)
    assert all(math.isfinite(g.mean) for g in found)
