"""Every engine draws from the same distribution; greedy ones write the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ra3core.config import LocalEngine, LoraConfig
from ra3core.errors import UserError
from ra3core.lm.engines import BuiltIn, ContinuousBatching, Transformers, local_engine
from ra3core.lm.generation import Draw, Sampling
from ra3core.lm.lines import think_token_ids
from ra3core.lm.models import add_lora

LOCAL: tuple[LocalEngine, ...] = ("built-in", "transformers", "continuous_batching")


@pytest.fixture
def attention(tokenizer) -> PreTrainedModel:
    """A tiny Qwen2: attention layers alone."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


def wishes(model: PreTrainedModel, tokenizer) -> PreTrainedModel:
    """It ends often, at all sorts of lengths, and thinks often."""
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight[tokenizer.eos_token_id] *= 6
        weight[list(think_token_ids(tokenizer))] *= 3
    return model


def prompts_of(tokenizer, demonstrations, count: int = 5) -> list[list[int]]:
    return [tokenizer.encode(d.prompt)[: 5 + 6 * i] for i, d in enumerate(demonstrations[:count])]


def scored(model: PreTrainedModel, prompt: list[int], draw: Draw, temperature: float) -> list[float]:
    """Log-probabilities of a draw's tokens by a plain forward pass."""
    tokens = [*draw.tokens, *([] if draw.end is None else [draw.end])]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()


CASES = {
    "sampled": Sampling(40, 1.0),
    "tempered": Sampling(40, 0.7),
    "nucleus": Sampling(40, 1.3, top_p=0.8),
    "banned": Sampling(40, 0.9, ban_comments=True),
    "greedy": Sampling(40, 0.0),
    "stopped": Sampling(40, 0.9, stop=("\n    ys",)),
}


@pytest.mark.parametrize("case", CASES)
def test_built_in_draws_token_for_token_what_transformers_does(case, model, tokenizer, demonstrations) -> None:
    """With prompts of several lengths, repeated rows, rows that end early, several batches and a model whose own
    settings (top-k, a penalty for repetition) would draw something else."""
    wishes(model, tokenizer)
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=3, repetition_penalty=1.7, max_new_tokens=3, eos_token_id=tokenizer.eos_token_id
    )
    prompts = prompts_of(tokenizer, demonstrations)
    sampling = CASES[case]
    told: dict[tuple[int, int], Draw] = {}

    def draw(engine: Callable[..., BuiltIn | Transformers]) -> list[list[Draw]]:
        told.clear()
        found = engine(model, tokenizer, 8).generate(
            prompts,
            sampling,
            samples=6,
            seed=11,
            log_probs=True,
            on_completion=lambda i, j, d: told.update({(i, j): d}),
        )
        assert told == {(i, j): d for i, group in enumerate(found) for j, d in enumerate(group)}
        return found

    ours, theirs = draw(BuiltIn), draw(Transformers)
    assert [[d.tokens for d in group] for group in ours] == [[d.tokens for d in group] for group in theirs]
    assert [[d.ended for d in group] for group in ours] == [[d.ended for d in group] for group in theirs]
    assert model.generation_config.top_k == 3
    lengths = {len(d.tokens) for group in ours for d in group}
    if case == "greedy":
        assert all(d.log_probs is None for group in (*ours, *theirs) for d in group)
        return
    assert len(lengths) > 5 and min(lengths) < 10
    for a, b in zip((d for group in ours for d in group), (d for group in theirs for d in group), strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)


@pytest.mark.parametrize("name", LOCAL)
def test_the_end_token_is_the_one_that_was_drawn(name, attention, tokenizer, demonstrations) -> None:
    """A chat model has several: its end of turn, and the end of text."""
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    with torch.no_grad():
        attention.get_output_embeddings().weight[ends] *= 4
    attention.generation_config = GenerationConfig(eos_token_id=ends)
    prompts = prompts_of(tokenizer, demonstrations)
    groups = local_engine(name, attention, tokenizer).generate(
        prompts, Sampling(4, 0.8), samples=8, seed=3, log_probs=True
    )
    draws = [(prompt, d) for prompt, group in zip(prompts, groups, strict=True) for d in group]
    assert {d.end for _, d in draws} == {*ends, None}
    assert all((d.end is None) == (not d.ended) for _, d in draws)
    for prompt, d in draws:  # the log-probability tells which it was
        assert d.log_probs is not None
        assert list(d.log_probs) == pytest.approx(scored(attention, prompt, d, 0.8), abs=1e-4)


@pytest.mark.parametrize("name", LOCAL)
def test_log_probabilities_are_those_of_a_forward_pass(name, attention, tokenizer, demonstrations) -> None:
    wishes(attention, tokenizer)
    prompts = prompts_of(tokenizer, demonstrations)
    engine = local_engine(name, attention, tokenizer)
    groups = engine.generate(prompts, Sampling(8, 0.8), samples=4, seed=3, log_probs=True)
    draws = [(prompt, d) for prompt, group in zip(prompts, groups, strict=True) for d in group]
    assert {d.ended for _, d in draws} == {True, False}
    assert all(len(d.tokens) == 8 or d.ended for _, d in draws)
    for prompt, d in draws:
        assert d.log_probs is not None and len(d.log_probs) == len(d.tokens) + d.ended
        assert list(d.log_probs) == pytest.approx(scored(attention, prompt, d, 0.8), abs=1e-4)
    silent = engine.generate(prompts[:1], Sampling(4, 0.8), seed=3)
    assert silent[0][0].log_probs is None


@pytest.mark.parametrize("case", ["greedy", "banned greedy", "stopped greedy"])
def test_greedy_completions_of_all_engines_are_the_same(case, attention, tokenizer, demonstrations) -> None:
    wishes(attention, tokenizer)
    think = list(think_token_ids(tokenizer))
    if case == "banned greedy":
        with torch.no_grad():
            attention.lm_head.weight[think] *= 10
    prompts = prompts_of(tokenizer, demonstrations)
    free = BuiltIn(attention, tokenizer).generate(prompts, Sampling(24, 0.0))
    stop = ()
    if case == "stopped greedy":  # what the first prompt's completion holds
        stop = (tokenizer.decode(free[0][0].tokens[3:6]).lstrip("\n#") or "xs",)
    sampling = Sampling(24, 0.0, stop=stop, ban_comments=case == "banned greedy")
    expected, *others = (local_engine(name, attention, tokenizer, 3).generate(prompts, sampling) for name in LOCAL)
    assert all(found == expected for found in others)
    assert case == "greedy" or expected != free
    assert {*think}.isdisjoint(t for [d] in expected for t in d.tokens) or case != "banned greedy"


def test_continuous_batching_draws_from_the_same_distribution(attention, tokenizer, demonstrations) -> None:
    """Pearson's chi-squared of a token against its exact probability, comments banned and a nucleus cut."""
    [prompt] = prompts_of(tokenizer, demonstrations, 1)
    sampling = Sampling(1, 2.5, top_p=0.7, ban_comments=True)
    count = 400
    groups = ContinuousBatching(attention, tokenizer).generate(
        [prompt], sampling, samples=count, seed=5, log_probs=True
    )
    seen = Counter(tuple(d.tokens) for d in groups[0])
    probability = {tuple(d.tokens): sum(d.log_probs or ()) for d in groups[0]}
    reference = BuiltIn(attention, tokenizer).generate([prompt], sampling, samples=count, seed=5, log_probs=True)
    for d in reference[0]:  # the two agree about what each token's probability is
        if (token := tuple(d.tokens)) in probability:
            assert sum(d.log_probs or ()) == pytest.approx(probability[token], abs=1e-3)
        probability.setdefault(tuple(d.tokens), sum(d.log_probs or ()))
    likely = [p for p, value in probability.items() if count * torch.tensor(value).exp() >= 5]
    expected = {p: count * float(torch.tensor(probability[p]).exp()) for p in likely}
    rest = count - sum(expected.values())
    statistic = sum((seen[p] - e) ** 2 / e for p, e in expected.items())
    statistic += (count - sum(seen[p] for p in likely) - rest) ** 2 / max(rest, 1e-9)
    degrees = len(likely)
    assert len(likely) > 10 and rest > 5
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5


def test_continuous_batching_depends_on_the_seed_alone(attention, tokenizer, demonstrations) -> None:
    prompts = prompts_of(tokenizer, demonstrations, 2)
    engine = ContinuousBatching(attention, tokenizer, 3)
    state = torch.random.get_rng_state()
    told: list[tuple[int, int]] = []
    first = engine.generate(
        prompts, Sampling(6, 1.0), samples=3, seed=1, on_completion=lambda i, j, d: told.append((i, j))
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert sorted(told) == [(i, j) for i in range(2) for j in range(3)]
    torch.manual_seed(8)
    assert engine.generate(prompts, Sampling(6, 1.0), samples=3, seed=1) == first
    assert engine.generate(prompts, Sampling(6, 1.0), samples=3, seed=2) != first


def test_continuous_batching_follows_weights_and_leaves_attention_and_mode(
    attention, tokenizer, demonstrations
) -> None:
    [prompt] = prompts_of(tokenizer, demonstrations, 1)
    policy = add_lora(attention, LoraConfig(rank=2, alpha=4)).train()
    how = attention.config._attn_implementation
    engine = local_engine("continuous_batching", policy, tokenizer)
    before = engine.generate([prompt], Sampling(12, 0.0))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    after = engine.generate([prompt], Sampling(12, 0.0))
    assert after != before
    assert after == BuiltIn(policy, tokenizer).generate([prompt], Sampling(12, 0.0))
    assert policy.training and attention.config._attn_implementation == how


def test_continuous_batching_is_refused_for_a_convolution(model, tokenizer) -> None:
    with pytest.raises(UserError, match=r"continuous_batching: .* layers of kind conv"):
        local_engine("continuous_batching", model, tokenizer)


@pytest.mark.parametrize("name", LOCAL)
def test_an_empty_prompt_is_refused(name, attention, tokenizer) -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        local_engine(name, attention, tokenizer).generate([[]], Sampling(2, 0.0))
