"""Completions over HTTP, by a small real server on the loopback."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from completion_server import CompletionServer
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from ra3core.errors import UserError
from ra3core.lm import served
from ra3core.lm.engines import BuiltIn
from ra3core.lm.generation import Sampling
from ra3core.lm.http_engine import Http
from ra3core.lm.lines import think_token_ids, token_texts
from ra3core.lm.served import find, names_of
from ra3core.stage import Servers

NAME = "m_step/0123456789abcdef"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    monkeypatch.setattr(served, "PAUSE", 0.01)


@pytest.fixture
def wordy(tokenizer) -> GPT2LMHeadModel:
    """A tiny model that ends now and then, and likes comments."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=128,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = GPT2LMHeadModel(config).eval()
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    return model


def servers(*running: CompletionServer, retries: int = 3, timeout: float = 20.0, concurrency: int = 4) -> Servers:
    return Servers(tuple(one.url for one in running), concurrency, timeout, retries)


def prompts_of(tokenizer, demonstrations, count: int = 4) -> list[list[int]]:
    return [tokenizer.encode(d.prompt)[: 5 + 6 * i] for i, d in enumerate(demonstrations[:count])]


@pytest.mark.parametrize("tells", ["token_ids", "logprobs", "text"])
@pytest.mark.parametrize("case", ["greedy", "stopped", "banned"])
def test_greedy_completions_are_those_of_the_built_in_engine(tells, case, wordy, tokenizer, demonstrations) -> None:
    prompts = prompts_of(tokenizer, demonstrations)
    think = think_token_ids(tokenizer)
    if case == "banned":
        with torch.no_grad():  # it would write nothing but comments
            wordy.transformer.ln_f.bias.normal_()
            wordy.transformer.wte.weight[think[0]] += wordy.transformer.ln_f.bias
    free = BuiltIn(wordy, tokenizer).generate(prompts, Sampling(12, 0.0))
    texts = [token_texts(tokenizer)[t] for [d] in free for t in d.tokens[2:]]
    stop = (next(text for text in texts if text.isascii() and text.strip("#\n ")),) if case == "stopped" else ()
    sampling = Sampling(12, 0.0, stop=stop, ban_comments=case == "banned")
    expected = BuiltIn(wordy, tokenizer).generate(prompts, sampling)
    with CompletionServer(wordy, tokenizer, NAME, tells=tells) as server:
        engine = Http(find(servers(server), [NAME]), tokenizer)
        found = engine.generate(prompts, sampling)
    assert engine.exact == (tells != "text")
    if engine.exact:
        assert found == expected
    else:
        pairs = [[str(tokenizer.decode(d.tokens)) for [d] in groups] for groups in (found, expected)]
        whole = [(a, b) for a, b in zip(*pairs, strict=True) if b.isprintable()]  # no bytes that are no character
        assert whole and all(a == b for a, b in whole)
    assert [request["prompt"] for request in server.requests] != []
    assert {tuple(request["prompt"]) for request in server.requests} == {tuple(prompt) for prompt in prompts}
    assert server.requests[0]["top_k"] == -1 and server.requests[0]["repetition_penalty"] == 1
    assert case == "greedy" or expected != free


def test_samples_have_the_models_distribution_and_log_probabilities(wordy, tokenizer, demonstrations) -> None:
    """Pearson's chi-squared of first tokens against exact probabilities; log-probabilities exactly."""
    [prompt] = prompts_of(tokenizer, demonstrations, 1)
    count = 400
    with CompletionServer(wordy, tokenizer, NAME) as server:
        engine = Http(find(servers(server, concurrency=8), [NAME]), tokenizer)
        [draws] = engine.generate([prompt], Sampling(1, 1.0), samples=count, seed=4, log_probs=True)
        assert engine.generate([prompt], Sampling(1, 1.0), samples=5, seed=4, log_probs=True)[0] == draws[:5]
        assert engine.generate([prompt], Sampling(1, 0.5), seed=4, log_probs=True)[0][0].log_probs is None
    assert 1 < server.most <= 8
    with torch.no_grad():
        exact = wordy(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    end = tokenizer.eos_token_id
    firsts = [(d.tokens[0] if d.tokens else end) for d in draws]
    for first, d in zip(firsts, draws, strict=True):
        assert d.log_probs == pytest.approx((float(exact[first]),), abs=1e-5)
        assert d.ended == (first == end)
    likely = [t for t in range(len(tokenizer)) if count * float(exact[t].exp()) >= 5]
    seen = Counter(firsts)
    statistic = sum((seen[t] - count * float(exact[t].exp())) ** 2 / (count * float(exact[t].exp())) for t in likely)
    assert len(likely) > 8
    assert statistic < len(likely) + 4 * (2 * len(likely)) ** 0.5


def test_a_server_that_breaks_down_is_asked_again(wordy, tokenizer, demonstrations) -> None:
    prompts = prompts_of(tokenizer, demonstrations)
    order: dict[int, int] = {1: 500, 2: 503, 3: 429}
    with CompletionServer(wordy, tokenizer, NAME, fail=order.get) as server:
        found = Http(find(servers(server), [NAME]), tokenizer).generate(prompts, Sampling(6, 0.0))
    assert found == BuiltIn(wordy, tokenizer).generate(prompts, Sampling(6, 0.0))
    assert len(server.requests) == len(prompts) + 3


def test_a_server_that_is_too_slow_is_asked_again(wordy, tokenizer, demonstrations) -> None:
    [prompt] = prompts_of(tokenizer, demonstrations, 1)
    with CompletionServer(wordy, tokenizer, NAME, fail={1: "hang"}.get) as server:
        engine = Http(find(servers(server, timeout=0.4), [NAME]), tokenizer)
        assert engine.generate([prompt], Sampling(2, 0.0)) == BuiltIn(wordy, tokenizer).generate(
            [prompt], Sampling(2, 0.0)
        )
    assert len(server.requests) == 2


def choice(**changes: object) -> bytes:
    plain = {"text": "x", "finish_reason": "length", "token_ids": [3]}
    return json.dumps({"choices": [plain | changes]}).encode()


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        (lambda n: 500, r"no answer from the server after 3 attempts \(500 out of order\)$"),
        (lambda n: 400, r"the server refuses: 400 out of order$"),
        (lambda n: "hang", r"no answer from the server after 3 attempts \(.*\)$"),
        (lambda n: "die", r"no answer from the server after 3 attempts \(.*\)$"),
        (lambda n: b"<html>", r"an answer that is no JSON: '<html>'$"),
        (lambda n: b"[]", r"an answer that is no completion: answer: "),
        (lambda n: b'{"choices": []}', r"an answer that is no completion: choices: "),
        (lambda n: choice(text=None), r"an answer that is no completion: choices.0.text: "),
        (lambda n: choice(finish_reason="abort"), r"an answer that is no completion: choices.0.finish_reason: "),
        (lambda n: choice(token_ids=[3] * 9), r"an answer that is no completion: tokens, lengths do not agree"),
        (lambda n: choice(token_ids=[10**6]), r"drew a token that the tokenizer lacks, expected the same model"),
        (
            lambda n: choice(logprobs={"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0]}),
            r"an answer that is no completion: tokens, lengths do not agree",
        ),
    ],
)
def test_a_server_that_fails_is_one_sentence(fail, sentence, wordy, tokenizer, demonstrations) -> None:
    prompts = prompts_of(tokenizer, demonstrations)
    with CompletionServer(wordy, tokenizer, NAME, fail=fail) as server:
        engine = Http(find(servers(server, retries=2, timeout=0.3), [NAME]), tokenizer)
        with pytest.raises(UserError, match=sentence):
            engine.generate(prompts, Sampling(2, 0.0), samples=3)
    assert len(server.requests) < 3 * 3 * len(prompts)  # the others were ended


def test_a_ban_that_is_not_heeded_is_told(wordy, tokenizer, demonstrations) -> None:
    with torch.no_grad():
        wordy.transformer.wte.weight[list(think_token_ids(tokenizer))] *= 10
    prompts = prompts_of(tokenizer, demonstrations)
    with CompletionServer(wordy, tokenizer, NAME, heeds=False) as server:
        engine = Http(find(servers(server), [NAME]), tokenizer)
        with pytest.raises(UserError, match=r"logit_bias bans, expected a server that heeds it"):
            engine.generate(prompts, Sampling(12, 1.0, ban_comments=True), samples=2)


def test_the_server_of_the_model_is_found(wordy, tokenizer) -> None:
    with (
        CompletionServer(wordy, tokenizer, "other") as other,
        CompletionServer(wordy, tokenizer, "mine", root="/models/mine/") as mine,
    ):
        both = servers(other, mine)
        found = find(both, ["somebody/else", "/models/mine"])
        assert (found.url, found.name) == (mine.url, "mine")
        assert found.said == f"{mine.url}: mine (from /models/mine/)"
        with pytest.raises(UserError, match=rf"serves {NAME}, found other, mine; expected the folder /here"):
            find(both, [NAME, "/here"])
    with pytest.raises(UserError, match=rf"{mine.url}: no answer from the server \("):
        find(servers(mine), ["mine"])
    with pytest.raises(UserError, match=r"RA3_SERVERS is not set, expected URLs such as"):
        find(Servers(), ["mine"])


def test_the_key_is_sent_and_no_password_shown(wordy, tokenizer, monkeypatch) -> None:
    with CompletionServer(wordy, tokenizer, "mine", key="secret") as server:
        with pytest.raises(UserError, match="the server refuses: 401 Unauthorized"):
            find(servers(server), ["mine"])
        monkeypatch.setenv("RA3_SERVER_KEY", "secret")
        found = find(servers(server), ["mine"])
        assert "secret" not in repr(found)
        named = Servers((server.url.replace("//", "//me:hidden@"),))
        monkeypatch.delenv("RA3_SERVER_KEY")
        with pytest.raises(UserError, match="401") as caught:
            find(named, ["mine"])
        assert "hidden" not in str(caught.value)


def test_names_of_a_model(tmp_path: Path) -> None:
    artifact = tmp_path / "m_step" / "0123" / "model"
    artifact.mkdir(parents=True)
    assert names_of(artifact) == [str(artifact)]
    (artifact.parent / "manifest.json").write_text("{}")
    assert names_of(artifact) == ["m_step/0123", str(artifact)]
    snapshot = tmp_path / "hub" / "models--Qwen--Qwen2.5-1.5B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    link = tmp_path / "model"
    link.symlink_to(snapshot)
    assert names_of(link) == ["Qwen/Qwen2.5-1.5B", str(link), str(snapshot)]


def test_it_works_inside_a_running_event_loop(wordy, tokenizer, demonstrations) -> None:
    import asyncio

    [prompt] = prompts_of(tokenizer, demonstrations, 1)
    told: list[Callable | int] = []

    async def notebook() -> object:
        return Http(find(servers(server), [NAME]), tokenizer).generate(
            [prompt], Sampling(3, 0.0), on_completion=lambda i, j, d: told.append(threading.get_ident())
        )

    with CompletionServer(wordy, tokenizer, NAME) as server:
        found = asyncio.run(notebook())
    assert found == BuiltIn(wordy, tokenizer).generate([prompt], Sampling(3, 0.0))
    assert len(told) == 1
