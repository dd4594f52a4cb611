from __future__ import annotations

import pytest
import torch

from ra3core.errors import UserError
from ra3core.lm import generation
from ra3core.lm.generation import Sampling, cut
from ra3core.lm.lines import think_token_ids


def generate(*arguments, on_completion=None, **options) -> list[list[list[int]]]:
    """The tokens of what is drawn."""
    seen = None if on_completion is None else lambda i, j, draw: on_completion(i, j, draw.tokens)
    drawn = generation.generate(*arguments, on_completion=seen, **options)
    return [[one.tokens for one in group] for group in drawn]


def test_greedy_batch_of_different_lengths_equals_one_by_one(model, tokenizer, demonstrations):
    prompts = [tokenizer.encode(d.prompt)[: 5 + 7 * i] for i, d in enumerate(demonstrations[:6])]
    sampling = Sampling(max_new_tokens=12, temperature=0)
    together = generate(model, tokenizer, prompts, sampling)
    alone = [generate(model, tokenizer, [prompt], sampling)[0] for prompt in prompts]
    assert together == alone
    assert len({tuple(completion) for [completion] in together}) > 1


def test_sampling_depends_on_the_seed_alone(model, tokenizer, demonstrations):
    prompts = [tokenizer.encode(d.prompt) for d in demonstrations[:3]]
    sampling = Sampling(max_new_tokens=8, temperature=1.0)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    done: dict[tuple[int, int], list[int]] = {}
    first = generate(
        model,
        tokenizer,
        prompts,
        sampling,
        samples=2,
        seed=3,
        batch_size=4,
        on_completion=lambda i, j, tokens: done.update({(i, j): tokens}),
    )
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert generate(model, tokenizer, prompts, sampling, samples=2, seed=3, batch_size=4) == first
    assert generate(model, tokenizer, prompts, sampling, samples=2, seed=4, batch_size=4) != first
    assert done == {(i, j): tokens for i, group in enumerate(first) for j, tokens in enumerate(group)}
    assert len(done) == 6


def test_probabilities_that_are_not_finite_are_told(model, tokenizer, demonstrations):
    with torch.no_grad():
        model.lm_head.weight[0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        generate(model, tokenizer, [tokenizer.encode(demonstrations[0].prompt)], Sampling(4, 1.0))


def test_a_banned_comment_cannot_be_drawn(make_model, tokenizer, demonstrations):
    model = make_model(initializer_range=0.02)
    think = set(think_token_ids(tokenizer))
    with torch.no_grad():  # a model that wants nothing but comments
        model.lm_head.weight[list(think)] *= 40
    prompts = [tokenizer.encode(d.prompt) for d in demonstrations[:4]]

    def drawn(banned: bool) -> set[int]:
        sampling = Sampling(max_new_tokens=20, temperature=1.0, ban_comments=banned)
        return {t for s in generate(model, tokenizer, prompts, sampling, samples=4) for c in s for t in c}

    assert drawn(False) & think
    assert not drawn(True) & think


def test_stop_strings_end_a_row_and_are_cut(model, tokenizer, demonstrations):
    prompts = [tokenizer.encode(d.prompt) for d in demonstrations[:4]]
    free = generate(model, tokenizer, prompts, Sampling(max_new_tokens=24, temperature=1.0), samples=3)
    stop = tokenizer.decode(free[0][0][5:7])
    stopped = generate(model, tokenizer, prompts, Sampling(24, 1.0, stop=(stop,)), samples=3)
    assert all(stop not in tokenizer.decode(c) for s in stopped for c in s)
    assert stopped[0][0] == free[0][0][:5]


@pytest.mark.parametrize("stop", ["\n#", "\n", "\n# x", ""])
def test_no_stop_string_may_cut_at_a_comment(stop):
    with pytest.raises(ValueError, match="stop string"):
        Sampling(max_new_tokens=1, temperature=1.0, stop=(stop,))


def test_cut_keeps_a_token_that_straddles_the_stop():
    texts = ("<end>", "a", ":\n", "def", "b")
    assert cut([1, 2, 3, 4], {0}, ["\ndef"], texts) == [1, 2]
    assert cut([1, 4, 0, 3], {0}, ["\ndef"], texts) == [1, 4]
    assert cut([3, 1], {0}, ["def"], texts) == []
    assert cut([1, 3, 4], {0}, ["ef"], texts) == [1]
