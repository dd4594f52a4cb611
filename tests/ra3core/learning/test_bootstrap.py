from __future__ import annotations

import json
import math

import pytest
import torch

from ra3core.config import BootstrapConfig
from ra3core.corpora.demonstrations import Demonstration, read_annotated, strip, write_demonstrations
from ra3core.errors import UserError
from ra3core.learning.bootstrap import FINISHED, bootstrap
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import save_model
from ra3core.stage import METRICS_FILE, Context, StageLog, read_metrics


@pytest.fixture
def inputs(tmp_path, make_model, tokenizer, demonstrations):
    """A policy that thinks now and then, another likelihood model, and 11 demonstrations, one with no boundary."""
    lines = LineTokenizer(tokenizer)
    policy = make_model(0)
    with torch.no_grad():
        policy.lm_head.weight[list(lines.think_ids)] *= 25
    save_model(policy, tokenizer, tmp_path / "policy" / "model")
    save_model(make_model(1), tokenizer, tmp_path / "likelihood" / "model")
    (tmp_path / "demonstrations").mkdir()
    closed = Demonstration("closed", "def f():", ('    """', "", "x", '"""'), ())
    write_demonstrations([closed, *demonstrations[:10]], tmp_path / "demonstrations" / "demonstrations.parquet")
    return {name: tmp_path / name for name in ("policy", "likelihood", "demonstrations")}


def run(inputs, folder, sink=lambda event: None, seed=0, **settings):
    config = BootstrapConfig.model_validate({"batch_size": 4, "temperature": 1.0, "rationale_tokens": 8} | settings)
    return bootstrap(config, Context(inputs, folder / "out", folder / "scratch", seed, log=StageLog(sink=sink)))


def test_expert_lines_are_copied_byte_for_byte(inputs, tmp_path, demonstrations):
    metrics = run(inputs, tmp_path / "run")
    annotated = read_annotated(tmp_path / "run" / "out" / "annotated.parquet")
    assert [a.demonstration for a in annotated[1:]] == demonstrations[:10]
    for a in annotated:
        assert strip(a.body, a.rationale_lines) == a.demonstration.lines
        compile(a.text, "x", "exec")
    thinks = sum(len(a.rationales) for a in annotated)
    assert thinks > 3 and annotated[0].rationales == {}
    assert metrics["thinks_per_demonstration"] == pytest.approx(thinks / 11)
    assert metrics["annotated_lines"] == pytest.approx(thinks / sum(len(a.demonstration.lines) for a in annotated))
    assert 0 < metrics["think_rate"] < 1 and metrics["tokens"] > 1000 and math.isfinite(metrics["gain"])
    examples = json.loads((tmp_path / "run" / "out" / "examples.json").read_text())
    assert len(examples) == 3 and all("#" in e["after"] and "#" not in e["before"] for e in examples)


def test_an_infinite_penalty_gives_the_demonstrations_back(inputs, tmp_path):
    metrics = run(inputs, tmp_path / "run", think_penalty=math.inf)
    annotated = read_annotated(tmp_path / "run" / "out" / "annotated.parquet")
    assert all(a.text == a.demonstration.text for a in annotated)
    assert metrics["thinks_per_demonstration"] == 0 and metrics["tokens"] == 0


def test_an_interrupted_bootstrap_equals_an_uninterrupted_one(inputs, tmp_path):
    whole = run(inputs, tmp_path / "whole")

    class Kill(Exception):
        pass

    def kill(event):
        if event["event"] == "metrics" and event["step"] == 2:
            raise Kill

    with pytest.raises(Kill):
        run(inputs, tmp_path / "cut", kill)
    with (tmp_path / "cut" / "scratch" / FINISHED).open("a") as file:
        file.write('{"rationales": [{"0": "half')
    resumed = run(inputs, tmp_path / "cut")
    assert {**resumed, "demonstrations_per_second": 0} == {**whole, "demonstrations_per_second": 0}
    tables = [(tmp_path / name / "out" / "annotated.parquet").read_bytes() for name in ("whole", "cut")]
    assert tables[0] == tables[1]
    assert [r["step"] for r in read_metrics(tmp_path / "cut" / "out" / METRICS_FILE)] == [1, 2, 3]


def test_the_best_of_several_samples_is_likelier(inputs, tmp_path):
    one = run(inputs, tmp_path / "one", window=3)
    best = run(inputs, tmp_path / "best", samples=6, window=3)
    assert best["gain"] > one["gain"]
    assert best["tokens"] > one["tokens"]


def test_seeds_and_temperature_zero(inputs, tmp_path):
    def texts(name, **settings):
        run(inputs, tmp_path / name, **settings)
        return [a.rationales for a in read_annotated(tmp_path / name / "out" / "annotated.parquet")]

    assert texts("a", seed=1) != texts("b", seed=2)
    assert texts("c", seed=1, temperature=0.0) == texts("d", seed=2, temperature=0.0)


def test_models_that_do_not_fit_together(inputs, tmp_path, tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(inputs["likelihood"] / "model")
    config.vocab_size += 1
    save_model(AutoModelForCausalLM.from_config(config), tokenizer, inputs["likelihood"] / "model")
    with pytest.raises(UserError, match="vocabular"):
        run(inputs, tmp_path / "run")
