"""The stage, its page of abstractions, and the figures drawn from its results, with tiny models."""

from __future__ import annotations

import html
import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from ra3core.analysis.abstractions import abstraction_table, occurrences, score_occurrences
from ra3core.analysis.analysis import PAGE, RESULTS, analysis
from ra3core.analysis.page import SHOWN, render
from ra3core.artifacts import Store
from ra3core.config import AnalysisConfig, EStepConfig
from ra3core.corpora.demonstrations import annotate, read_rows, write_annotated, write_demonstrations
from ra3core.errors import UserError
from ra3core.learning.annotation import Annotation
from ra3core.lm.likelihood import decision_log_probs
from ra3core.lm.models import save_model
from ra3core.report import analysis_figures
from ra3core.report.figures import draw
from ra3core.report.style import BY_NAME
from ra3core.stage import Context

EVIL = "</script><script>alert('x')</script> & \"q\""
SMALL = AnalysisConfig(
    demonstrations=3,
    boundaries=4,
    lines=3,
    line_tokens=6,
    resamples=50,
    held_out=0.2,
    e_step=EStepConfig(group_size=2, window=2, rationale_tokens=6),
)


@pytest.fixture
def inputs(tmp_path, make_model, tokenizer, demonstrations):
    """A model and a policy, demonstrations, annotated ones, an RLVR run's metrics and an E-step's artifact."""
    for name, seed in (("model", 0), ("policy", 1), ("likelihood", 2)):
        save_model(make_model(seed), tokenizer, tmp_path / name / "model")
    for name in ("demonstrations", "annotated", "rlvr"):
        (tmp_path / name).mkdir()
    write_demonstrations(demonstrations, tmp_path / "demonstrations" / "demonstrations.parquet")
    thoughts = [
        annotate(d, {0: "A) keep the positive numbers", 4: f"B) add {i}"}) for i, d in enumerate(demonstrations)
    ]
    write_annotated(
        [*thoughts[:20], annotate(demonstrations[20], {0: EVIL})], tmp_path / "annotated" / "annotated.parquet"
    )
    rows = [{"step": s, "reward": 0.1 * s} for s in range(1, 10)]
    (tmp_path / "rlvr" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def e_step(config, context):
        terms = dict.fromkeys(
            ("elbo", "reconstruction", "think_cost", "bernoulli_kl", "rationale_nats", "thinks_per_demonstration"), -1.0
        )
        return {"elbo_before": terms, "elbo_after": terms}

    found = {name: tmp_path / name for name in ("model", "policy", "likelihood", "demonstrations", "annotated", "rlvr")}
    return found | {"e_step_1": Store(tmp_path / "store").build("e_step", e_step, EStepConfig(), {})[0].path}


def run(inputs, folder, *roles, config=SMALL):
    chosen = {name: inputs[name] for name in ("model", "demonstrations", *roles)}
    metrics = analysis(config, Context(chosen, folder, folder))
    return metrics, json.loads((folder / RESULTS).read_text(), parse_constant=lambda name: pytest.fail(name))


def test_everything_that_the_inputs_allow(inputs, tmp_path):
    everything = ("policy", "likelihood", "annotated", "rlvr", "e_step_1")
    metrics, found = run(inputs, tmp_path / "all", *everything)
    assert set(found) == {"actions", "abstractions", "gains", "planning", "elbo"}
    assert all(isinstance(value, int | float) and math.isfinite(value) for value in metrics.values())
    assert found["abstractions"]["rationales"] == 41 and found["abstractions"]["abstractions"] == 3
    assert found["planning"]["intents"]["count"] == 41 and found["planning"]["rlvr"]["steps"] == 9
    assert metrics["proposed_think_penalty"] == found["gains"]["proposed"]["c"]
    tables = {name: read_rows(tmp_path / "all" / f"{name}.parquet") for name in ("rationales", "abstractions", "gains")}
    assert [len(rows) for rows in tables.values()] == [41, 3, found["gains"]["boundaries"]]
    assert json.loads(tables["abstractions"][0]["examples"])[0]["id"] == "demo-0"
    again, _ = run(inputs, tmp_path / "again", *everything)
    assert again == metrics  # nothing is drawn without a seed


def test_a_model_without_annotations(inputs, tmp_path):
    _, found = run(inputs, tmp_path / "base")
    assert set(found) == {"actions", "planning"} and "intents" not in found["planning"]
    _, later = run(inputs | {"before": tmp_path / "base"}, tmp_path / "same", "before")
    assert later["actions"]["change"]["all"] == {"value": 1, "low": 1, "high": 1}
    _, other = run(inputs | {"before": tmp_path / "base", "model": inputs["policy"]}, tmp_path / "other", "before")
    assert other["actions"]["change"]["all"]["value"] != 1


def test_the_same_boundaries_for_every_model(inputs, tmp_path):
    run(inputs, tmp_path / "one")
    run(inputs | {"model": inputs["policy"]}, tmp_path / "two")
    one, two = (read_rows(tmp_path / name / "actions.parquet") for name in ("one", "two"))

    def places(rows):
        return [(row["demonstration"], row["t"], row["line_act_seen"] is not None) for row in rows]

    assert places(one) == places(two) and sum(sampled for *_, sampled in places(one)) == 4


def test_inputs_that_do_not_do(inputs, tmp_path):
    with pytest.raises(UserError, match="input annotated needs input likelihood"):
        run(inputs, tmp_path / "a", "annotated")
    with pytest.raises(UserError, match=r"expected m_step.held_out above 0"):
        run(inputs, tmp_path / "b", config=SMALL.model_copy(update={"held_out": 0.0}))
    run(inputs, tmp_path / "c")
    few = SMALL.model_copy(update={"demonstrations": 1})
    with pytest.raises(UserError, match=r"actions.parquet: two models measured at different boundaries"):
        run(inputs | {"before": tmp_path / "c"}, tmp_path / "d", "before", config=few)


def test_no_rationales_at_all(inputs, tmp_path, demonstrations):
    write_annotated([annotate(d, {}) for d in demonstrations], inputs["annotated"] / "annotated.parquet")
    metrics, found = run(inputs, tmp_path / "out", "annotated", "likelihood")
    assert metrics["abstractions"] == 0 and found["abstractions"]["gain"] is None
    assert read_rows(tmp_path / "out" / "abstractions.parquet") == []
    assert "0 abstractions" in (tmp_path / "out" / PAGE).read_text()


@torch.no_grad()
def test_the_gain_of_a_rationale_is_that_of_its_own_lines(model, lines, demonstrations):
    """By full passes over the whole text: the governed lines given that they begin no comment, with the rationale and
    without it, the earlier one in both contexts."""
    texts = {0: "A) keep the positive numbers", 4: "B) add 1"}
    found = occurrences([annotate(demonstrations[0], texts)])
    score_occurrences(found, model, lines, 10)
    program = lines.demonstration(demonstrations[0])
    earlier = {0: lines.rationale(program.demonstration.lines[0], texts[0])}

    def nats(context, window, decisions):
        logits = model(torch.tensor([[*context, *window]])).logits[0, len(context) - 1 : -1].double()
        act = decision_log_probs(logits[decisions], lines.think_ids)[:, 1].sum()
        return float(logits.log_softmax(-1)[range(len(window)), window].sum() - act)

    for one, t, before in zip(found, (0, 4), ({}, earlier), strict=True):
        state = Annotation(program, {}, before).state(t)
        window, decisions = state.window(4), state.decisions(4)
        assert (one.t, one.lines, len(decisions)) == (t, 4, 4)
        thought = lines.rationale(program.demonstration.lines[t], texts[t])
        context = [*state.context[: -len(state.header)], *thought, *state.header]
        assert one.gain == pytest.approx(
            nats(context, window, decisions) - nats(state.context, window, decisions), abs=1e-3
        )


def test_only_as_many_are_scored_as_asked_for_and_all_are_counted(model, lines, demonstrations):
    found = occurrences([annotate(d, {0: "A) keep", 4: "B) keep"}) for d in demonstrations])
    score_occurrences(found, model, lines, 7)
    assert sum(one.gain is not None for one in found) == 7
    (row,) = abstraction_table(found, 2)
    assert (row["text"], row["count"], row["scored"], row["demonstrations"]) == ("keep", 96, 7, 48)
    assert row["variants"] == [{"text": "A) keep", "count": 48}, {"text": "B) keep", "count": 48}]
    assert [e["text"] for e in row["examples"]] == ["A) keep", "B) keep"] and row["share"] == 1
    assert row["gain"] == pytest.approx(sum(one.gain for one in found if one.gain is not None) / 7)


class Read(HTMLParser):
    """Tags, cells and everything that would be fetched or run."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.rows, self.fetched, self.text = 0, 0, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.rows += tag == "tr"
        self.fetched += [value for name, value in attributes if name in ("src", "href") and value != "data:,"]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def rows_of(texts, demonstrations):
    return abstraction_table(
        occurrences([annotate(d, {0: text}) for d, text in zip(demonstrations, texts, strict=False)]), 3
    )


def test_the_page_escapes_everything_and_fetches_nothing(demonstrations):
    page = render(rows_of([EVIL, "keep"], demonstrations), f"Title {EVIL}", "<b>facts</b>")
    read = Read(page)
    assert (read.scripts, read.rows, read.fetched) == (1, 3, [])
    assert EVIL in "".join(read.text) and EVIL not in page
    assert html.escape(EVIL) in page and "<b>facts" not in page


def test_thousands_of_abstractions(demonstrations):
    (row,) = rows_of(["keep"], demonstrations)
    page = render([{**row, "text": f"row {i}"} for i in range(SHOWN + 10)], "t", "f")
    assert Read(page).rows == SHOWN + 1
    assert f"{SHOWN + 10} abstractions" in page and f"first {SHOWN} are shown" in page


def test_figures_are_drawn_from_the_results_alone(inputs, tmp_path):
    _, found = run(inputs, tmp_path / "ra3", "policy", "likelihood", "annotated", "rlvr", "e_step_1")
    _, base = run(inputs, tmp_path / "base")
    arms = [(BY_NAME["base"], base), (BY_NAME["ra3"], found)]
    for make in (
        lambda: analysis_figures.gain_curve(found["gains"]),
        lambda: analysis_figures.action_sets(arms),
        lambda: analysis_figures.planning(arms),
        lambda: analysis_figures.planning(arms[:1]),
        lambda: analysis_figures.elbo(found["elbo"]),
    ):
        svg, png = draw(make)
        assert png.startswith(b"\x89PNG") and re.search(rb"<svg", svg)
        assert draw(make) == (svg, png)
