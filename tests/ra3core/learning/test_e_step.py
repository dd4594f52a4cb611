from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ra3core.config import EStepConfig
from ra3core.corpora.demonstrations import Demonstration, write_demonstrations
from ra3core.errors import UserError
from ra3core.learning import e_step as module
from ra3core.learning.annotation import Annotation, Drawn
from ra3core.learning.e_step import choose_states, e_step, temporal_elbo
from ra3core.learning.scoring import reward
from ra3core.lm.likelihood import line_log_likelihoods
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_model, load_tokenizer, save_model
from ra3core.stage import METRICS_FILE, Context, StageLog, read_metrics

SMALL = {
    "iterations": 4,
    "warmup_iterations": 1,
    "demonstrations": 2,
    "states": 2,
    "group_size": 3,
    "window": 2,
    "rationale_tokens": 6,
    "checkpoint_iterations": 2,
    "learning_rate": 1e-2,
}


@pytest.fixture
def inputs(tmp_path, model, tokenizer, demonstrations):
    """A model that thinks at a third of the lines, and 20 demonstrations."""
    lines = LineTokenizer(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[list(lines.think_ids)] *= 25
    save_model(model, tokenizer, tmp_path / "model" / "model")
    (tmp_path / "demonstrations").mkdir()
    write_demonstrations(demonstrations[:20], tmp_path / "demonstrations" / "demonstrations.parquet")
    return {"model": tmp_path / "model", "demonstrations": tmp_path / "demonstrations"}


def context_of(inputs, folder, sink=lambda event: None, seed=0):
    return Context(inputs, folder / "out", folder / "scratch", seed=seed, log=StageLog(sink=sink))


def weights_of(folder):
    return load_model(folder / "out" / "model").state_dict()


def test_the_reward_is_the_log_likelihood_minus_the_penalty():
    config = EStepConfig(think_penalty=0.3, unterminated_penalty=2.0)
    ended, cut = Drawn((1, 2, 3), True, -1.0), Drawn((1, 2, 3), False, -1.0)
    assert reward(-6.0, 3, config) == -6.0
    assert reward(-6.0, 3, config, ended) == pytest.approx(-6.3)
    assert reward(-6.0, 3, config, cut) == pytest.approx(-8.3)
    assert reward(-6.0, 3, config.model_copy(update={"normalise": "token"}), ended) == pytest.approx(-2.3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=8), st.integers(1, 5))
def test_states_are_drawn_in_proportion_to_thinking(tokenizer, demonstrations, probabilities, count):
    program = LineTokenizer(tokenizer).demonstration(demonstrations[0])
    decisions = {t: (math.log(p), math.log1p(-p) if p < 1 else -50.0) for t, p in enumerate(probabilities)}
    annotation = Annotation(program, decisions=decisions)
    offsets = [(i + 0.5) / 400 for i in range(400)]
    copies = dict.fromkeys(decisions, 0.0)
    for offset in offsets:
        visits = choose_states(annotation, count, offset)
        assert abs(sum(v.copies for v in visits) - count) <= 1
        for visit in visits:
            copies[visit.state.t] += visit.copies / len(offsets)
    total = sum(p + module.FLOOR for p in probabilities)
    for t, p in enumerate(probabilities):
        assert copies[t] == pytest.approx(count * (p + module.FLOOR) / total, abs=0.01)


def test_the_decision_gradient_is_that_of_the_expected_reward(inputs, model, tokenizer, demonstrations):
    """grad of sum_t n_t / rate_t [(1 - p) a + p m] / (std + floor), by automatic differentiation of p itself."""
    lines = LineTokenizer(tokenizer)
    programs = [lines.demonstration(d) for d in demonstrations[:12]]
    config = EStepConfig.model_validate(SMALL | {"consecutive_penalty": 0.0, "max_grad_norm": 1e9})
    policy, likelihood = (load_model(inputs["model"] / "model") for _ in range(2))
    run = module._Run(config, context_of(inputs, inputs["model"]), lines, likelihood, policy, programs)
    states = [Annotation(p).state(t) for p in programs[:2] for t in (0, 3)]
    drawn, decisions = run.draw(states, torch.Generator().manual_seed(0))
    probability = [math.exp(think) for think, _ in decisions]
    acts, thinks, visited = [-3.0, -1.0, 0.5, 2.0], [[1.0] * 3, [-4.0] * 3, [0.4] * 3, [2.5] * 3], [1.0, 2.0, 0.3, 0.7]
    scores = [module.Scores(0.0, (0.0,) * 3, 1, tuple((0.0,) * len(d.tokens) for d in g)) for g in drawn]
    groups = [
        module.Group(s.context, run.rollouts(s, d, t, x), scale=v * p)
        for s, d, t, x, v, p in zip(states, drawn, thinks, scores, visited, probability, strict=True)
    ]
    expected = torch.zeros(())
    for state, a, [m, *_], v in zip(states, acts, thinks, visited, strict=True):
        logits = policy(torch.tensor([state.context]), use_cache=False).logits[0, -1]
        p = logits.softmax(-1)[list(lines.think_ids)].sum()
        std = float((p * (1 - p)).sqrt()) * abs(m - a)
        expected = expected + v * ((1 - p) * a + p * m) / (std + config.std_floor)
    (expected / len(states)).backward()
    exact = {name: p.grad.clone() for name, p in policy.named_parameters()}
    policy.zero_grad()
    found = {}
    clip = run.trainer.accelerator.clip_grad_norm_

    def keep(parameters, norm):
        found.update({name: p.grad.clone() for name, p in policy.named_parameters()})
        return clip(parameters, norm)

    run.trainer.accelerator.clip_grad_norm_ = keep  # type: ignore[method-assign]
    stops = [state.stop for state in states]
    run.trainer.step(
        groups,  # the rewards within a group are equal: no content gradient
        lambda logits, rows, start: run.sampler.constrain(logits, [stops[n] for n, _ in rows], start),
        module.DecisionLoss(lines.think_ids, config, groups, acts, thinks, probability, visited, decisions=True),
    )
    assert max(float(g.abs().max()) for g in exact.values()) > 1e-3
    for name, gradient in exact.items():
        torch.testing.assert_close(-found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_an_interrupted_e_step_equals_an_uninterrupted_one(inputs, tmp_path):
    config = EStepConfig.model_validate(SMALL | {"kl": 0.1})
    whole = e_step(config, context_of(inputs, tmp_path / "whole"))

    class Kill(Exception):
        pass

    def kill(event):
        if event["event"] == "metrics" and event["step"] == 3:
            raise Kill

    with pytest.raises(Kill):
        e_step(config, context_of(inputs, tmp_path / "cut", kill))
    steps: list[int] = []
    again = context_of(inputs, tmp_path / "cut", lambda e: steps.append(e["step"]) if e["event"] == "metrics" else None)
    resumed = e_step(config, again)
    assert steps == [1, 2, 3, 4]
    assert resumed == whole
    expected, found = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    start = load_model(inputs["model"] / "model").state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any(not torch.equal(expected[name], start[name]) for name in expected)
    rows = [read_metrics(tmp_path / name / "out" / METRICS_FILE) for name in ("whole", "cut")]
    assert [{**row, "seconds": 0} for row in rows[0]] == [{**row, "seconds": 0} for row in rows[1]]
    examples = [json.loads((tmp_path / name / "out" / "examples.json").read_text()) for name in ("whole", "cut")]
    assert examples[0] == examples[1] and {e["iteration"] for e in examples[0]} == {1, 4}


def test_a_high_penalty_teaches_the_policy_not_to_think(inputs, tmp_path):
    config = EStepConfig.model_validate(
        SMALL | {"iterations": 16, "warmup_iterations": 0, "think_penalty": 60.0, "demonstrations": 4}
    )
    metrics = e_step(config, context_of(inputs, tmp_path / "run"))
    before, after = metrics["elbo_before"], metrics["elbo_after"]
    assert before["thinks_per_demonstration"] > 0.5
    assert after["thinks_per_demonstration"] < before["thinks_per_demonstration"] / 2
    assert after["elbo"] > before["elbo"]


def test_warmup_trains_what_is_thought_and_not_when(inputs, tmp_path, monkeypatch, tokenizer):
    """With a reward for one word, that word is written more; decisions hardly move although acting pays far less."""
    word = tokenizer.encode("numbers")[0]
    monkeypatch.setattr(module, "reward", lambda ll, n, config, z=None: -9.0 if z is None else 3.0 * (word in z.tokens))
    config = EStepConfig.model_validate(
        SMALL | {"iterations": 25, "warmup_iterations": 25, "demonstrations": 4, "group_size": 6, "learning_rate": 5e-3}
    )
    metrics = e_step(config, context_of(inputs, tmp_path / "run"))
    rows = read_metrics(tmp_path / "run" / "out" / METRICS_FILE)
    first = sum(row["reward_think"] for row in rows[:5]) / 5
    last = sum(row["reward_think"] for row in rows[-5:]) / 5
    assert last > first + 0.5
    assert metrics["train_tokens"] < metrics["tokens"]


def test_an_infinite_penalty_leaves_the_model_as_it_is(inputs, tmp_path, demonstrations):
    config = EStepConfig.model_validate(SMALL | {"think_penalty": math.inf, "given_act": False})
    metrics = e_step(config, context_of(inputs, tmp_path / "run"))
    start = load_model(inputs["model"] / "model")
    assert all(torch.equal(w, start.state_dict()[name]) for name, w in weights_of(tmp_path / "run").items())
    load_tokenizer(tmp_path / "run" / "out" / "model")
    lines = LineTokenizer(load_tokenizer(inputs["model"] / "model"))
    plain = [sum(line_log_likelihoods(start, [lines.program(d.prompt, d.lines)])[0]) for d in demonstrations[:20]]
    assert metrics["elbo_before"] == metrics["elbo_after"]
    assert min(plain) <= metrics["elbo_after"]["elbo"] <= max(plain)
    assert metrics["train_tokens"] == 0


def test_temporal_elbo_terms(tokenizer, demonstrations):
    program = LineTokenizer(tokenizer).demonstration(demonstrations[0])
    c, p = 0.7, 0.2
    alpha = 1 / (1 + math.exp(-c))
    decisions = {t: (math.log(p), math.log(1 - p)) for t in program.boundaries}
    annotation = Annotation(program, {0: "x"}, {}, decisions, {0: Drawn((1, 2), True, -3.0)})
    terms = temporal_elbo([annotation], [-10.0], c)
    kl = p * math.log(p / (1 - alpha)) + (1 - p) * math.log((1 - p) / alpha)
    assert terms["bernoulli_kl"] == pytest.approx(len(program.boundaries) * kl)
    assert terms["elbo"] == pytest.approx(-10.7) and terms["rationale_nats"] == 3.0


def test_demonstrations_without_a_place_for_a_comment(inputs, tmp_path):
    empty = Demonstration("d", "def f():", ("    return 1",), ())
    write_demonstrations([empty], inputs["demonstrations"] / "demonstrations.parquet")
    with pytest.raises(UserError, match="no demonstration has a line"):
        e_step(EStepConfig.model_validate(SMALL), context_of(inputs, tmp_path))
