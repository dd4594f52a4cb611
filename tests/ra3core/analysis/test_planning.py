"""Durations, contraction and iterations, by hand; the ELBO's rows."""

from __future__ import annotations

import json
import math

import pytest

from ra3core.analysis.elbo import elbo_by_round
from ra3core.analysis.planning import durations, iterations_needed, predicted_iterations, segments
from ra3core.analysis.text import normalised
from ra3core.artifacts import Store
from ra3core.config import EStepConfig
from ra3core.corpora.demonstrations import annotate
from ra3core.errors import UserError


def test_a_rationale_governs_the_lines_up_to_the_next_one_or_the_end(demonstrations):
    annotated = annotate(demonstrations[0], {1: "B) one", 4: "two"})  # of 8 lines
    assert [(s.t, s.text, s.lines, s.cut) for s in segments(annotated)] == [
        (1, "B) one", 3, False),
        (4, "two", 4, True),
    ]
    assert segments(annotate(demonstrations[0], {})) == []


def test_the_theorem_by_hand():
    assert predicted_iterations(0.5, 0.1) == pytest.approx(2 * math.log(20))
    assert predicted_iterations(0.0, 1.0) == 0
    with pytest.raises(ValueError, match="found 1"):
        predicted_iterations(1.0, 0.1)


def test_contraction_of_measured_durations(demonstrations):
    """Ten times four lines and four lines, ten times three lines ahead of which there is one of its own."""
    long = [annotate(d, {0: f"A) keep {i}", 4: f"B) keep {i}"}) for i, d in enumerate(demonstrations[:5])]
    short = [annotate(d, {1: "drop", 4: "keep 7"}) for d in demonstrations[5:15]]
    found = durations([*long, *short], 0.9, 0.1)
    assert found["primitive"] == {"gamma_bar": 0.9, "iterations": predicted_iterations(0.9, 0.1)}
    intents = found["intents"]
    mean = (20 * 0.9**4 + 10 * 0.9**3) / 30
    assert intents["count"] == 30 and intents["histogram"] == {"3": 10, "4": 20}
    assert intents["mean"]["gamma_bar"] == pytest.approx(mean)
    assert intents["mean"]["iterations"] == pytest.approx(predicted_iterations(mean, 0.1))
    assert intents["sup"]["text"] == "drop" and intents["sup"]["gamma_bar"] == pytest.approx(0.9**3)
    assert intents["governed_lines"] == pytest.approx(1 - 10 / 120)
    assert found["mixed"]["gamma_bar"] == pytest.approx((30 * mean + 10 * 0.9) / 40)
    assert intents["mean"]["iterations"] < intents["sup"]["iterations"] < found["primitive"]["iterations"]


def test_without_rationales_there_are_only_primitive_actions(demonstrations):
    assert "intents" not in durations([annotate(d, {}) for d in demonstrations], 0.9, 0.1)
    few = durations([annotate(demonstrations[0], {0: "x"})], 0.9, 0.1)
    assert "sup" not in few["intents"]  # one visit is no supremum


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("B)  Keep the numbers above 3", "keep the numbers above N"),
        ("d append sum", "append sum"),
        ("2. sort by key1, then -4.5", "sort by key1, then N"),
        ("A", "a"),
        ("x > 0", "x > N"),
        ("return xs[1:]", "return xs[N:]"),
    ],
)
def test_what_makes_two_rationales_the_same(text, plain):
    assert normalised(text) == plain


def test_the_steps_that_rlvr_needed():
    rows = [{"step": 0, "held_out_pass": 0.1}]
    rows += [{"step": s, "reward": s / 10} | ({"held_out_pass": s / 20} if s % 4 == 0 else {}) for s in range(1, 11)]
    found = iterations_needed(rows, [0.1, 0.3, 0.5])
    assert found["steps"] == 10
    assert [row["step"] for row in found["held_out_pass"]] == [0, 8, None]
    assert [row["step"] for row in found["reward"]] == [5, 5, 7]  # means of five steps: 0.3 at step 5, 0.5 at step 7


def test_the_elbo_of_every_round(tmp_path):
    def fake(config, context):
        terms = dict.fromkeys(("reconstruction", "think_cost", "bernoulli_kl", "rationale_nats"), 1.0)
        terms |= {"thinks_per_demonstration": 2.0}
        return {"elbo_before": terms | {"elbo": -5.0}, "elbo_after": terms | {"elbo": -4.0 + context.seed}}

    store = Store(tmp_path)
    folders = {r: store.build("e_step", fake, EStepConfig(think_penalty=0.2), {}, seed=r)[0].path for r in (2, 1)}
    rows = elbo_by_round(folders)
    assert [(row["round"], row["think_penalty"], row["after"]["elbo"]) for row in rows] == [
        (1, 0.2, -3.0),
        (2, 0.2, -2.0),
    ]
    with pytest.raises(UserError, match=r"manifest.json: expected the manifest of an E-step"):
        elbo_by_round({1: tmp_path})
    other = store.build("m_step", lambda config, context: {}, EStepConfig(), {})[0]
    with pytest.raises(UserError, match="expected the manifest of an E-step"):
        elbo_by_round({1: other.path})
    assert json.loads(json.dumps(rows)) == rows
