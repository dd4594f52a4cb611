from __future__ import annotations

import pytest
import torch

from ra3core.lm import prefix
from ra3core.lm.likelihood import decision_log_probs, grouped_log_probs, line_log_likelihoods, token_log_probs
from ra3core.lm.lines import LineTokenizer, think_token_ids
from ra3core.lm.prefix import batches, continue_with, encode, gather_log_probs, grouped_batches, next_logits


def plain(model, tokens):
    """log p of tokens[1:], one sequence alone, no padding, no cache."""
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


@pytest.fixture
def programs(tokenizer, demonstrations):
    lines = LineTokenizer(tokenizer)
    return [lines.program(d.prompt, d.lines[: 2 + i]) for i, d in enumerate(demonstrations[:6])]


def test_token_log_probs_equal_unpadded_ones(model, programs):
    sequences = [[t for piece in pieces for t in piece] for pieces in programs]
    for sequence, found in zip(sequences, token_log_probs(model, sequences), strict=True):
        torch.testing.assert_close(found, plain(model, sequence), rtol=0, atol=1e-5)


def test_lines_sum_to_the_whole(model, programs):
    for pieces, found in zip(programs, line_log_likelihoods(model, programs), strict=True):
        whole = plain(model, [t for piece in pieces for t in piece])[len(pieces[0]) - 1 :]
        assert len(found) == len(pieces) - 1
        assert sum(found) == pytest.approx(whole.sum().item(), abs=1e-4)
        assert found[0] == pytest.approx(whole[: len(pieces[1])].sum().item(), abs=1e-4)


def test_continuations_of_a_shared_prefix_equal_full_passes(model, programs):
    contexts = [[t for piece in pieces[:2] for t in piece] for pieces in programs]
    contexts[3] = contexts[3][:1]  # nothing to encode in one row of the batch
    continuations = [[pieces[-2], (*pieces[1], *pieces[-1])] for pieces in programs]
    found = grouped_log_probs(model, contexts, continuations)
    for context, group, rows in zip(contexts, continuations, found, strict=True):
        for tokens, row in zip(group, rows, strict=True):
            expected = plain(model, [*context, *tokens])[len(context) - 1 :]
            torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)


def test_a_prefix_survives_what_is_selected_from_it(model, programs):
    context, tokens = list(programs[0][0]), programs[0][1]
    prefix = encode(model, [context, context[3:]])
    first = continue_with(model, prefix.select([0, 0, 1]), [tokens, tokens[:2], tokens])
    chosen = prefix.select([0])
    for token in tokens:
        next_logits(model, chosen)
        chosen.last = torch.tensor([token])
    again = continue_with(model, prefix.select([0, 0, 1]), [tokens, tokens[:2], tokens])
    assert torch.equal(first, again)


def test_single_steps_equal_one_pass(model, programs):
    context, tokens = list(programs[0][0]), programs[0][1]
    prefix = encode(model, [context])
    whole = continue_with(model, prefix.select([0]), [tokens])
    stepping = prefix.select([0])
    for k, token in enumerate(tokens):
        torch.testing.assert_close(next_logits(model, stepping), whole[:, k], rtol=0, atol=1e-5)
        stepping.last = torch.tensor([token])


def test_gradients_flow_through_the_shared_prefix(model, programs):
    contexts = [[t for piece in pieces[:2] for t in piece] for pieces in programs[:3]]
    targets = [pieces[2] for pieces in programs[:3]]
    sum(plain(model, [*c, *t])[len(c) - 1 :].sum() for c, t in zip(contexts, targets, strict=True)).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    prefix = encode(model, contexts)
    logits = continue_with(model, prefix.select([0, 1, 2, 1]), [*targets, targets[1]])
    log_probs, _ = gather_log_probs(logits, [*targets, targets[1]])
    (log_probs.sum() - log_probs[3].sum()).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-4, atol=1e-4)


def test_think_and_act_share_all_probability(tokenizer):
    logits = torch.randn(5, 3, len(tokenizer)) * 8
    think = list(think_token_ids(tokenizer))
    found = decision_log_probs(logits, think)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(5, 3))
    torch.testing.assert_close(found[..., 0].exp(), logits.softmax(-1)[..., think].sum(-1))


def test_batches_keep_every_index_and_the_budget(model):
    lengths = [3, 900, 5, 4000, 9000, 1]
    found = list(batches(lengths, model))
    assert sorted(i for batch in found for i in batch) == list(range(6))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 8192 for b in found)


def test_contexts_that_others_begin_with_are_cut_out_of_them(model, monkeypatch):
    """Logits, and gradients through the cache, are those of contexts that are run one by one."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.vocab_size
    long, other = (tuple(torch.randint(vocabulary, (n,), generator=generator).tolist()) for n in (40, 33))
    contexts = [long[:1], long[:2], long[:3], long, long[:17], other, other[:30], long[:17]]
    continuations = [long[i : i + 1 + i % 4] for i in range(len(contexts))]
    widths: list[tuple[int, int]] = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda *a, **k: (widths.append(tuple(k["input_ids"].shape)), forward(*a, **k))[1]
    )

    def run(encoded) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        logits = continue_with(model, encoded, continuations)
        kept = [row[: len(tokens) + 1] for row, tokens in zip(logits, continuations, strict=True)]
        model.zero_grad()
        sum(row.log_softmax(-1)[:, 0].sum() for row in kept).backward()
        return [row.detach() for row in kept], [p.grad.clone() for p in model.parameters()]

    shared, gradients = run(encode(model, contexts))
    assert widths[0] == (2, 40)
    monkeypatch.setattr(prefix, "_encode_shared", lambda *_: None)  # as for a cache that cannot be cut
    alone, expected = run(encode(model, contexts))
    assert widths[2] == (8, 39)
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-4)


def test_contexts_are_cut_out_of_a_recorded_pass_and_joined(model):
    """As the contexts encoded anew, from passes of two widths, and again after another pass."""
    generator = torch.Generator().manual_seed(1)
    texts = [tuple(torch.randint(model.config.vocab_size, (n,), generator=generator).tolist()) for n in (50, 30, 41)]
    begun = encode(model, [texts[0][:6], texts[1][:9], texts[2][:2]])
    with torch.no_grad():
        for lengths in ((8, 9, 5), (20, 26, 6)):
            parts = []
            for rows in ([2, 0], [1]):
                run = begun.select(rows)
                run.record()
                contexts = [texts[row][: int(begun.mask[row].sum()) + 1] for row in rows]
                ahead = [texts[row][len(context) :] for row, context in zip(rows, contexts, strict=True)]
                continue_with(model, run, ahead)
                cut = [texts[row][: lengths[row]] for row in rows]
                passed = run.mask.shape[1] - begun.mask.shape[1]
                parts.append(run.cut(passed, list(range(len(rows))), cut))
            begun = prefix.join(parts).select([1, 2, 0])
            contexts = [text[:length] for text, length in zip(texts, lengths, strict=True)]
            assert begun.mask.sum(1).tolist() == [length - 1 for length in lengths]
            found = continue_with(model, begun.select(range(3)), [(7, 8)] * 3)
            torch.testing.assert_close(found, continue_with(model, encode(model, contexts), [(7, 8)] * 3))


def test_sequences_that_are_the_same_so_far_are_one_row(model, programs):
    contexts = [programs[0][0], programs[1][0]]
    with torch.no_grad():
        samples = prefix.Samples(model, encode(model, contexts), [0, 0, 0, 1])
        taken: list[list[int]] = [[], [], [], []]
        steps = [
            ((5, 5, 6, 5), 2),
            ((9, 9, 7, 3), 3),
            ((2, 4, 1, 2), 3),
            ((None, 8, None, 8), 4),
            ((None, 3, None, 1), 2),
        ]
        for tokens, rows in steps:
            logits = samples.logits()
            assert len(logits) == rows
            alive = [i for i, token in enumerate(tokens) if token is not None]
            for i, row in zip(alive, samples.rows(alive), strict=True):
                [expected] = continue_with(model, encode(model, [contexts[i // 3]]), [taken[i]])[:, len(taken[i])]
                torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-4)
                taken[i].append(tokens[i])
            samples.extend({i: tokens[i] for i in alive})


def test_grouped_batches_keep_families_together(model):
    contexts = [(1, 2, 3), (4,) * 700, (1, 2), (1, 2, 3, 4), (5,) * 600]
    lengths = [[5, 6], [30] * 20, [6], [2], [40] * 20]
    assert [sorted(batch) for batch in grouped_batches(contexts, lengths, model)] == [[4], [1], [0, 2, 3]]
