"""Effective action sets against distributions that are known exactly."""

from __future__ import annotations

import math

import pytest
import torch

from ra3core.analysis.actions import (
    Bounds,
    LineSampler,
    boundaries,
    change,
    choices,
    measure_actions,
    nucleus_bounds,
    nucleus_sizes,
    summarise,
)
from ra3core.config import AnalysisConfig
from ra3core.lm.likelihood import line_log_likelihoods

ACT = 1.5 * math.log(2)  # entropy of (1/2, 1/4, 1/4)


def entropy(*p):
    return -sum(x * math.log(x) for x in p)


def test_nucleus_sizes():
    rows = [[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25], [0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    assert nucleus_sizes(torch.tensor(rows, dtype=torch.float64), 0.9).tolist() == [3, 4, 1, 1]


@pytest.mark.parametrize(
    ("seen", "bounds"),
    [
        ([0.5, 0.3, 0.15, 0.05], Bounds(3, 3)),  # everything was seen
        ([0.5, 0.3], Bounds(3, None)),  # 0.2 was not: one line at least
        ([0.6, 0.32], Bounds(2, 2)),  # the mass is held, whatever the rest is
        ([0.45, 0.25, 0.2], Bounds(3, 3)),
        ([0.3, 0.1], Bounds(2, None)),  # 0.6 unseen, in one line it could be
    ],
)
def test_bounds_of_the_nucleus_from_what_was_drawn(seen, bounds):
    assert nucleus_bounds(seen, 0.9) == bounds


def test_the_next_token_of_a_known_model(known, programs, lines):
    model, *_ = known
    found = choices(model, programs, lines.think_ids, 0.9)
    assert [tuple(at) for at in found] == [program.boundaries for program in programs]
    for choice in (choice for at in found for choice in at.values()):
        assert choice.think == pytest.approx(0.2, abs=1e-5)
        assert choice.entropy == pytest.approx(entropy(0.4, 0.2, 0.2, 0.2), abs=1e-4)
        assert choice.act_entropy == pytest.approx(ACT, abs=1e-4)
        assert (choice.nucleus, choice.act_nucleus) == (4, 3)
        assert not choice.covered and choice.expert > 10  # the expert writes neither x nor y


def test_the_expert_is_covered_where_the_model_finds_it_likely(bigram, tokenizer, programs, lines):
    size = len(tokenizer)
    first = programs[0].rest(programs[0].boundaries[0])[0]
    table = torch.full((size, size), 1e-6)
    table[:, first] = 1.0
    found = choices(bigram(table), programs[:1], lines.think_ids, 0.9)[0]
    assert found[programs[0].boundaries[0]].covered
    assert [at.covered for at in found.values()] == [programs[0].rest(t)[0] == first for t in found]


def test_lines_are_drawn_with_their_own_probabilities(known, programs, lines, tokenizer):
    """Two line breaks end a line alike: what is written is what counts."""
    model, x, y = known
    sampler = LineSampler(lines, len(tokenizer), 8)
    context = programs[0].prefix(programs[0].boundaries[0])
    (acts,) = sampler.sample(model, [context], 4000, torch.Generator().manual_seed(0), think=False)
    assert all(line.ended for line in acts)
    expected = {(x, lines.end_id): 0.5, (y, lines.end_id): 0.25, (lines.end_id,): 0.25}
    for tokens, p in expected.items():
        found = [line for line in acts if line.tokens == tokens]
        assert len(found) / len(acts) == pytest.approx(p, abs=0.03)
        assert math.exp(found[0].log_prob) == pytest.approx(p, abs=1e-4)
    assert {line.tokens for line in acts} == set(expected)
    (thinks,) = sampler.sample(model, [context], 5, torch.Generator().manual_seed(0), think=True)
    assert {sampler.written(line) for line in acts} == {(x,), (y,), ()}
    assert {line.tokens for line in thinks} == {(lines.think_ids[0], lines.end_id)}
    assert all(line.log_prob == pytest.approx(0, abs=1e-4) for line in thinks)


def test_drawn_lines_have_the_likelihood_of_a_full_pass(model, programs, lines, tokenizer):
    """Shared contexts, finished rows that leave and merged line breaks change no probability."""
    sampler = LineSampler(lines, len(tokenizer), 5)
    program, t = programs[0], programs[0].boundaries[1]
    context = program.prefix(t)
    (drawn,) = sampler.sample(model, [context], 64, torch.Generator().manual_seed(1), think=True)
    cut = [line for line in drawn if not line.ended]
    assert cut and all(len(line.tokens) == 5 and sampler.written(line) == line.tokens for line in cut)
    for line in cut[:10]:
        (whole,) = line_log_likelihoods(model, [[tuple(context), line.tokens]])[0]
        (think,) = choices(model, [program], lines.think_ids, 0.9)
        assert line.log_prob == pytest.approx(whole - math.log(think[t].think), abs=1e-4)


def test_figures_of_a_known_model(known, programs, lines):
    model, *_ = known
    config = AnalysisConfig(boundaries=4, lines=200, line_tokens=8)
    rows = measure_actions(model, programs, lines, config)
    assert sum(row["line_act_entropy"] is not None for row in rows) == 4
    found = summarise(rows, 200)
    assert found["think"]["value"] == pytest.approx(0.2, abs=1e-4)
    assert found["token_act"]["perplexity"]["value"] == pytest.approx(math.exp(ACT), rel=1e-3)
    lines_ = found["lines"]
    assert lines_["act"]["perplexity"]["value"] == pytest.approx(math.exp(ACT), rel=0.04)
    assert lines_["rationale"]["perplexity"]["value"] == pytest.approx(1, rel=1e-3)
    assert lines_["all"]["perplexity"]["value"] == pytest.approx(math.exp(entropy(0.2, 0.8) + 0.8 * ACT), rel=0.04)
    assert lines_["given_intent"]["perplexity"]["value"] == pytest.approx(math.exp(ACT), rel=0.04)
    assert (lines_["act"]["nucleus_low"], lines_["act"]["nucleus_high"], lines_["act"]["resolved"]) == (3, 3, 1)
    assert (lines_["rationale"]["nucleus_low"], lines_["rationale"]["nucleus_high"]) == (1, 1)


def test_few_draws_say_so_instead_of_guessing(known, programs, lines):
    """With two draws no set of acts holds 0.9 of the mass: the upper bound is unknown, the entropy is not capped."""
    model, *_ = known
    rows = measure_actions(model, programs, lines, AnalysisConfig(boundaries=12, lines=2, line_tokens=8))
    found = summarise(rows, 200)["lines"]["act"]
    assert found["nucleus_high"] is None and found["nucleus_low"] in (2, 3) and found["resolved"] == 0
    assert found["perplexity"]["high"] > 2.2


def test_a_model_is_compared_with_itself_and_with_another(known, model, programs, lines):
    config = AnalysisConfig(boundaries=5, lines=20, line_tokens=8)
    one, other = (measure_actions(m, programs, lines, config) for m in (known[0], model))
    same = change(one, one, 100)
    assert all(same[name] == {"value": 1, "low": 1, "high": 1} for name in ("token", "all", "given_intent"))
    wider = change(one, other, 100)
    assert wider["token"]["value"] * change(other, one, 100)["token"]["value"] == pytest.approx(1)
    assert wider["token"]["low"] > 1  # a random model has more to choose from
    with pytest.raises(ValueError, match="different boundaries"):
        change(one[1:], other, 100)
    with pytest.raises(ValueError, match="different boundaries"):
        change(one, measure_actions(model, programs, lines, config.model_copy(update={"boundaries": 3})), 100)


def test_boundaries_do_not_depend_on_the_model_and_are_drawn_once(programs):
    every = [(p.demonstration.id, t) for p in programs for t in p.boundaries]
    named = [(p.demonstration.id, t) for p, t in boundaries(programs, 7, seed=3)]
    assert len(set(named)) == 7 and named == [one for one in every if one in named]
    assert named == [(p.demonstration.id, t) for p, t in boundaries(programs, 7, seed=3)]
    assert len(boundaries(programs, 10**6, seed=3)) == len(every)
