"""Annotation whose rationales a server draws: the same distribution, and the same rationales where it is greedy."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from completion_server import CompletionServer

from ra3core.config import BootstrapConfig
from ra3core.corpora.demonstrations import read_annotated, strip, write_demonstrations
from ra3core.errors import UserError
from ra3core.learning.annotation import Annotation, Drawn, RationaleSampler, State
from ra3core.learning.bootstrap import bootstrap
from ra3core.learning.served_rationales import ServedRationales
from ra3core.lm import served
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_model, save_model
from ra3core.lm.prefix import encode
from ra3core.lm.served import find
from ra3core.stage import Context, Servers, StageLog

SETTINGS = {"batch_size": 2, "temperature": 0.0, "rationale_tokens": 8}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    monkeypatch.setattr(served, "PAUSE", 0.01)


@pytest.fixture
def inputs(tmp_path: Path, make_model, tokenizer, demonstrations) -> dict[str, Path]:
    policy = make_model(0)
    with torch.no_grad():
        policy.lm_head.weight[list(LineTokenizer(tokenizer).think_ids)] *= 25
    save_model(policy, tokenizer, tmp_path / "policy" / "model")
    save_model(make_model(1), tokenizer, tmp_path / "likelihood" / "model")
    (tmp_path / "demonstrations").mkdir()
    write_demonstrations(demonstrations[:6], tmp_path / "demonstrations" / "demonstrations.parquet")
    return {name: tmp_path / name for name in ("policy", "likelihood", "demonstrations")}


def serving(inputs: dict[str, Path], tokenizer, **how) -> CompletionServer:
    """A server of the policy, under its path."""
    folder = inputs["policy"] / "model"
    return CompletionServer(load_model(folder), tokenizer, "policy", root=str(folder), **how)


def run(inputs: dict[str, Path], folder: Path, *running: CompletionServer, **settings) -> dict:
    config = BootstrapConfig.model_validate(SETTINGS | settings)
    where = Servers(tuple(one.url for one in running), concurrency=4, timeout=20, retries=1)
    return bootstrap(config, Context(inputs, folder / "out", folder / "scratch", servers=where, log=StageLog()))


def content(folder: Path) -> list[bytes]:
    return [(folder / "out" / name).read_bytes() for name in ("annotated.parquet", "examples.json")]


@pytest.mark.parametrize(
    ("tells", "decision"), [("token_ids", "policy"), ("logprobs", "policy"), ("token_ids", "gain")]
)
def test_greedy_annotation_is_the_same_over_http(tells, decision, inputs, tokenizer, tmp_path: Path) -> None:
    how = {"decision": decision, "think_penalty": 0.1 if decision == "gain" else 0.0}
    plain = run(inputs, tmp_path / "plain", **how)
    with serving(inputs, tokenizer, tells=tells) as server:
        found = run(inputs, tmp_path / "served", server, engine="http", **how)
    assert content(tmp_path / "served") == content(tmp_path / "plain")
    assert plain["thinks_per_demonstration"] > 0
    assert found.pop("servers") == [f"{server.url}: policy (from {inputs['policy'] / 'model'})"]
    assert {**found, "demonstrations_per_second": 0} == {**plain, "demonstrations_per_second": 0}


def test_sampled_annotation_keeps_the_experts_lines_and_depends_on_the_seed(inputs, tokenizer, tmp_path: Path) -> None:
    with serving(inputs, tokenizer) as server:
        metrics = run(inputs, tmp_path / "a", server, engine="http", temperature=1.0, samples=2)
        run(inputs, tmp_path / "b", server, engine="http", temperature=1.0, samples=2)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    annotated = read_annotated(tmp_path / "a" / "out" / "annotated.parquet")
    assert all(strip(a.body, a.rationale_lines) == a.demonstration.lines for a in annotated)
    assert metrics["thinks_per_demonstration"] > 0.3
    seeds = [request["seed"] for request in server.requests[: len(server.requests) // 2]]
    assert len(set(seeds)) == len(seeds)


class Leaning(torch.nn.Module):
    """A model whose logit of one token is higher, so that lines end now and then."""

    def __init__(self, model: torch.nn.Module, token: int) -> None:
        super().__init__()
        self.model, self.token, self.config = model, token, model.config

    def forward(self, ids: torch.Tensor) -> SimpleNamespace:
        logits = self.model(ids).logits.clone()
        logits[..., self.token] += 4
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_what_requests_bias_is_the_constrained_distribution(temperature, inputs, tokenizer, demonstrations) -> None:
    """The biased distribution of each of the three requests against `constrain`, token for token."""
    lines = LineTokenizer(tokenizer)
    sampler = RationaleSampler(lines, len(tokenizer), temperature, 6)
    state = Annotation(lines.demonstration(demonstrations[0])).state(2)
    policy = Leaning(load_model(inputs["policy"] / "model"), state.stop)
    with CompletionServer(policy, tokenizer, "policy") as server:
        source = ServedRationales(find(Servers((server.url,)), ["policy"]), sampler)
        [drawn] = source.draw([state], 12, [7])
    assert {d.terminated for d in drawn} == {True, False}
    assert all(d.terminated == (d.tokens[-1] == state.stop) for d in drawn)
    assert all(state.stop not in d.tokens[:-1] for d in drawn)
    for request in server.requests:
        k = len(request["prompt"]) - len(state.context)
        with torch.no_grad():
            logits = policy(torch.tensor([request["prompt"]])).logits[:, -1:].float()
        bias = torch.zeros(len(tokenizer))
        for token, by in request["logit_bias"].items():
            bias[int(token)] = by
        exact = sampler.constrain(logits, [state.stop], k)[0, 0].softmax(-1)
        assert torch.allclose(((logits[0, 0] + bias) / temperature).softmax(-1), exact, atol=1e-7)
        assert request["max_tokens"] == (1 if k < 2 else 4)


def test_greedy_rationales_equal_the_samplers(inputs, tokenizer, demonstrations) -> None:
    lines = LineTokenizer(tokenizer)
    policy = load_model(inputs["policy"] / "model")
    for longest in (1, 2, 3, 7):
        sampler = RationaleSampler(lines, len(tokenizer), 0.0, longest)
        states: list[State] = [Annotation(lines.demonstration(d)).state(4) for d in demonstrations[:3]]
        prefix = encode(policy, [state.context for state in states])
        with torch.no_grad():
            expected, _ = sampler.sample(policy, prefix, range(3), [s.stop for s in states], torch.Generator())
        with serving(inputs, tokenizer) as server:
            found = ServedRationales(find(Servers((server.url,)), ["policy"]), sampler).draw(states, 1, [0])
        assert [(d.tokens, d.terminated) for [d] in found] == [(d.tokens, d.terminated) for d in expected]


def test_a_server_that_dies_is_one_sentence_and_the_stage_goes_on_where_it_was(
    inputs, tokenizer, tmp_path: Path
) -> None:
    run(inputs, tmp_path / "whole")
    needed = 0
    with serving(inputs, tokenizer) as server:
        run(inputs, tmp_path / "counted", server, engine="http")
        needed = len(server.requests)
    folder = tmp_path / "killed"
    with (
        serving(inputs, tokenizer, fail=lambda n: "die" if n > 0.7 * needed else None) as server,
        pytest.raises(UserError, match=r"no answer from the server after 2 attempts"),
    ):
        run(inputs, folder, server, engine="http")
    finished = (folder / "scratch" / "chunks.jsonl").read_text().splitlines()
    assert 0 < len(finished) < 3
    with pytest.raises(UserError, match=r"no answer from the server \("):
        run(inputs, folder, server, engine="http")
    with serving(inputs, tokenizer) as another:
        found = run(inputs, folder, another, engine="http")
    assert content(folder) == content(tmp_path / "whole")
    assert len(another.requests) < needed
    assert (
        found["servers"] == sorted({json.loads(finished[0])["server"], *found["servers"]})
        and len(found["servers"]) == 2
    )


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"tells": "text"}, "tells no token ids, which annotation needs"),
        ({"heeds": False}, "drew a token that logit_bias bans"),
    ],
)
def test_a_server_that_cannot_is_refused(how, sentence, inputs, tokenizer, tmp_path: Path) -> None:
    with serving(inputs, tokenizer, **how) as server, pytest.raises(UserError, match=sentence):
        run(inputs, tmp_path / "run", server, engine="http", temperature=1.0)


def test_another_model_is_refused_and_none_is_asked_where_nothing_is_drawn(inputs, tokenizer, tmp_path: Path) -> None:
    folder = inputs["likelihood"] / "model"
    with (
        CompletionServer(load_model(folder), tokenizer, "other", root=str(folder)) as server,
        pytest.raises(UserError, match=r"no server of RA3_SERVERS serves .*, found other"),
    ):
        run(inputs, tmp_path / "run", server, engine="http")
    metrics = run(inputs, tmp_path / "none", engine="http", think_penalty=float("inf"))
    assert metrics["thinks_per_demonstration"] == 0 and "servers" not in metrics


def test_a_drawn_rationale_has_no_log_probability(inputs, tokenizer, demonstrations) -> None:
    lines = LineTokenizer(tokenizer)
    sampler = RationaleSampler(lines, len(tokenizer), 1.0, 3)
    state = Annotation(lines.demonstration(demonstrations[0])).state(0)
    with serving(inputs, tokenizer) as server:
        [[found]] = ServedRationales(find(Servers((server.url,)), ["policy"]), sampler).draw([state], 1, [0])
    assert isinstance(found, Drawn) and found.log_prob != found.log_prob
