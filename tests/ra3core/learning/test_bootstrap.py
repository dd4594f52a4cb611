from __future__ import annotations

import json
import math

import pytest
import torch

from ra3core.artifacts import Store
from ra3core.config import BootstrapConfig, BootstrapShard
from ra3core.corpora.demonstrations import (
    Demonstration,
    read_annotated,
    read_demonstrations,
    strip,
    write_demonstrations,
)
from ra3core.errors import UserError
from ra3core.learning import bootstrap as module
from ra3core.learning.bootstrap import FINISHED, annotate_shard, bootstrap
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_tokenizer, save_model
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


SETTINGS = {"batch_size": 4, "temperature": 1.0, "rationale_tokens": 8}


def run(inputs, folder, sink=lambda event: None, seed=0, **settings):
    config = BootstrapConfig.model_validate(SETTINGS | settings)
    return bootstrap(config, Context(inputs, folder / "out", folder / "scratch", seed, log=StageLog(sink=sink)))


def run_shard(inputs, folder, shard, shards, sink=lambda event: None, **settings):
    config = BootstrapShard.model_validate(SETTINGS | {"shard": shard, "shards": shards} | settings)
    return annotate_shard(config, Context(inputs, folder / "out", folder / "scratch", log=StageLog(sink=sink)))


def sharded(inputs, folder, count, **settings):
    """The inputs of the merge, and the metrics of every shard."""
    metrics = [run_shard(inputs, folder / str(k), k, count, **settings) for k in range(1, count + 1)]
    return {**inputs, **{f"shard_{k}": folder / str(k) / "out" for k in range(1, count + 1)}}, metrics


def without_speed(metrics):
    return {**metrics, "demonstrations_per_second": 0}


class Kill(Exception):
    pass


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

    def kill(event):
        if event["event"] == "metrics" and event["step"] == 2:
            raise Kill

    with pytest.raises(Kill):
        run(inputs, tmp_path / "cut", kill)
    with (tmp_path / "cut" / "scratch" / FINISHED).open("a") as file:
        file.write('{"rationales": [{"0": "half')
    resumed = run(inputs, tmp_path / "cut")
    assert without_speed(resumed) == without_speed(whole)
    tables = [(tmp_path / name / "out" / "annotated.parquet").read_bytes() for name in ("whole", "cut")]
    assert tables[0] == tables[1]
    assert [r["step"] for r in read_metrics(tmp_path / "cut" / "out" / METRICS_FILE)] == [1, 2, 3]


def test_the_best_of_several_samples_is_likelier(inputs, tmp_path):
    one = run(inputs, tmp_path / "one", window=3)
    best = run(inputs, tmp_path / "best", samples=6, window=3)
    assert best["gain"] > one["gain"]
    assert best["tokens"] > one["tokens"]


def test_decided_by_gain_every_rationale_pays_and_no_other_boundary_would(inputs, tmp_path):
    at = {c: run(inputs, tmp_path / str(c), samples=3, window=3, decision="gain", think_penalty=c) for c in (0.0, 0.1)}
    assert 0 < at[0.1]["thinks_per_demonstration"] < at[0.0]["thinks_per_demonstration"]
    assert at[0.1]["gain"] > at[0.0]["gain"] > 0
    assert run(inputs, tmp_path / "never", decision="gain", think_penalty=1e9)["thinks_per_demonstration"] == 0
    for row in (json.loads(line) for line in (tmp_path / "0.1" / "scratch" / FINISHED).read_text().splitlines()):
        assert all(gain > 0.1 for gain in row["gains"])
    for a in read_annotated(tmp_path / "0.1" / "out" / "annotated.parquet"):
        assert strip(a.body, a.rationale_lines) == a.demonstration.lines


def test_decided_by_gain_a_rationale_that_hits_the_cap_pays_what_it_pays_in_the_e_step(inputs, tmp_path):
    given = {"samples": 3, "window": 3, "decision": "gain", "rationale_tokens": 4}
    free = run(inputs, tmp_path / "free", **given)
    fined = run(inputs, tmp_path / "fined", **given, unterminated_penalty=1e9)
    assert free["unterminated"] > 0
    assert fined["unterminated"] == 0 < fined["thinks_per_demonstration"]


def test_decided_by_gain_rationales_are_proposed_at_every_boundary(inputs, tmp_path, monkeypatch):
    asked, score = [], module.score_rationales

    def watch(likelihood, states, groups, *arguments):
        asked.extend((state.tokens.demonstration.id, state.t) for state in states)
        return score(likelihood, states, groups, *arguments)

    monkeypatch.setattr(module, "SCORED_CHUNKS", 0)
    monkeypatch.setattr(module, "score_rationales", watch)
    run(inputs, tmp_path / "run", samples=2, decision="gain", think_penalty=0.0)
    lines = LineTokenizer(load_tokenizer(inputs["policy"] / "model"))
    programs = map(lines.demonstration, read_demonstrations(inputs["demonstrations"] / "demonstrations.parquet"))
    assert sorted(asked) == sorted((p.demonstration.id, t) for p in programs for t in p.boundaries)


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


@pytest.fixture
def no_models(monkeypatch):
    """From here on a stage that loads a model fails."""

    def forbid():
        def load_model(*arguments):
            raise AssertionError("a model was loaded")

        monkeypatch.setattr(module, "load_model", load_model)

    return forbid


def test_the_number_of_shards_decides_nothing(inputs, tmp_path, no_models):
    """11 demonstrations are 3 chunks, so that the last two of 5 shards are empty."""
    whole = run(inputs, tmp_path / "whole", samples=2)
    merges = {count: sharded(inputs, tmp_path / f"of {count}", count, samples=2) for count in (1, 2, 3, 5)}
    no_models()
    for count, (merge, shards) in merges.items():
        said = []
        merged = run(merge, tmp_path / f"merged {count}", said.append, samples=2)
        assert without_speed(merged) == without_speed(whole)
        assert merged["demonstrations_per_second"] > 0
        assert sum(metrics["tokens"] for metrics in shards) == whole["tokens"]
        assert sum(metrics["demonstrations"] for metrics in shards) == 11
        for name in ("annotated.parquet", "examples.json"):
            ours, theirs = (tmp_path / folder / "out" / name for folder in (f"merged {count}", "whole"))
            assert ours.read_bytes() == theirs.read_bytes()
        rows, expected = (
            [without_speed(row) for row in read_metrics(tmp_path / folder / "out" / METRICS_FILE)]
            for folder in (f"merged {count}", "whole")
        )
        assert rows == expected
        assert [event["step"] for event in said if event["event"] == "metrics"] == [1, 2, 3]


def test_an_empty_shard_loads_no_model(inputs, tmp_path, no_models):
    no_models()
    metrics = run_shard(inputs, tmp_path, 4, 4)
    assert (metrics["tokens"], metrics["demonstrations"]) == (0, 0)
    assert (tmp_path / "out" / FINISHED).read_text() == ""
    with pytest.raises(AssertionError, match="was loaded"):
        run_shard(inputs, tmp_path / "third", 3, 4)


def test_a_killed_shard_goes_on_and_has_the_same_content(inputs, tmp_path):
    def kill(event):
        if event["event"] == "metrics":
            raise Kill

    run_shard(inputs, tmp_path / "whole", 1, 2)
    with pytest.raises(Kill):
        run_shard(inputs, tmp_path / "cut", 1, 2, kill)
    assert not (tmp_path / "cut" / "out" / FINISHED).exists()
    assert len((tmp_path / "cut" / "scratch" / FINISHED).read_text().splitlines()) == 1
    progress = []
    run_shard(
        inputs, tmp_path / "cut", 1, 2, lambda event: progress.append(event) if event["event"] == "progress" else None
    )
    assert (progress[0]["done"], progress[0]["total"]) == (4, 7)  # of chunks 0 and 2, 4 and 3 demonstrations
    ours, theirs = ((tmp_path / name / "out" / FINISHED).read_bytes() for name in ("cut", "whole"))
    assert ours == theirs
    assert [row["step"] for row in read_metrics(tmp_path / "cut" / "out" / METRICS_FILE)] == [1, 3]


def test_shards_of_equal_content_have_equal_digests(inputs, tmp_path):
    """How long a chunk took must not decide the key of the merge."""
    config = BootstrapShard.model_validate(SETTINGS | {"shard": 1, "shards": 2})
    sources = {name: Store.external(name, path) for name, path in inputs.items()}
    one, other = (Store(tmp_path / name).build("shard", annotate_shard, config, sources)[0] for name in ("a", "b"))
    assert one.digest == other.digest
    assert one.metrics["demonstrations_per_second"] != other.metrics["demonstrations_per_second"]


def test_shards_that_do_not_hold_every_chunk_once(inputs, tmp_path):
    merge, _ = sharded(inputs, tmp_path / "two", 2)
    missing = {name: path for name, path in merge.items() if name != "shard_2"}
    with pytest.raises(UserError, match=r"^bootstrap: the shards lack chunk 1, expected every chunk once$"):
        run(missing, tmp_path / "missing")
    with pytest.raises(
        UserError, match=r"^bootstrap: the shards hold chunk 1 more than once, expected every chunk once$"
    ):
        run({**merge, "shard_3": merge["shard_2"]}, tmp_path / "doubled")
    with pytest.raises(UserError, match=r"^bootstrap: the shards hold chunk 2, which is none of this stage's$"):
        run(merge, tmp_path / "larger", batch_size=8)
    other, _ = sharded(inputs, tmp_path / "other", 2, batch_size=5)
    with pytest.raises(UserError, match=r"^bootstrap: chunk 0 of the shards has 5 demonstrations, expected 4"):
        run(other, tmp_path / "unlike")
    with pytest.raises(ValueError, match="shard 3 of 2, expected at most 2"):
        run_shard(inputs, tmp_path / "third", 3, 2)
