from __future__ import annotations

import math

import pytest
import torch

from ra3core.corpora.demonstrations import strip
from ra3core.learning.annotation import Annotation, Drawn, RationaleSampler, State, annotate_batch
from ra3core.learning.scoring import reconstruction, score_rationales
from ra3core.lm.likelihood import line_log_likelihoods
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.prefix import Prefix, encode


@pytest.fixture
def lines(tokenizer):
    return LineTokenizer(tokenizer)


def sampler_of(lines, model, temperature=1.0, max_tokens=8):
    return RationaleSampler(lines, model.config.vocab_size, temperature, max_tokens)


def eager(model, lines, by=30.0):
    """The model, made to think often."""
    with torch.no_grad():
        model.lm_head.weight[list(lines.think_ids)] *= by
    return model


def plain(model, tokens):
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].detach()


@pytest.mark.parametrize("cuttable", [True, False])
def test_annotation_decides_in_order_and_keeps_every_expert_byte(model, lines, demonstrations, monkeypatch, cuttable):
    """Decisions equal those of full passes over the final text: each boundary saw all earlier rationales, no later."""
    if not cuttable:  # a model whose cache cannot be taken back
        monkeypatch.setattr(Prefix, "cut", lambda *_: None)
    model = eager(model, lines)
    tokens = [lines.demonstration(d) for d in demonstrations[:6]]
    found = annotate_batch(model, tokens, sampler_of(lines, model), torch.Generator().manual_seed(0))
    assert 0 < sum(len(a.rationales) for a in found) < sum(len(t.boundaries) for t in tokens)
    for annotation in found:
        annotated = annotation.annotated
        assert strip(annotated.body, annotated.rationale_lines) == annotated.demonstration.lines
        assert set(annotation.decisions) == set(annotation.tokens.boundaries)
        for t, (think, act) in annotation.decisions.items():
            context = annotation.state(t).context
            assert lines.tokenizer.decode(list(context)).count("#") == sum(u < t for u in annotation.rationales)
            last = model(torch.tensor([context]), use_cache=False).logits[0, -1].log_softmax(-1)
            expected = float(last[list(lines.think_ids)].logsumexp(-1))
            assert think == pytest.approx(expected, abs=1e-4)
            assert math.exp(think) + math.exp(act) == pytest.approx(1, abs=1e-5)
        assert annotation.processed > len(annotation.tokens.tokens()) / 2


def test_annotation_is_deterministic_and_greedy_at_zero(model, lines, demonstrations):
    model = eager(model, lines)
    tokens = [lines.demonstration(d) for d in demonstrations[:3]]

    def run(seed, temperature):
        generator = torch.Generator().manual_seed(seed)
        found = annotate_batch(model, tokens, sampler_of(lines, model, temperature), generator)
        return [a.rationales for a in found], found

    assert run(1, 1.0)[0] == run(1, 1.0)[0] != run(2, 1.0)[0]
    texts, found = run(1, 0.0)
    assert texts == run(2, 0.0)[0]
    for annotation in found:
        assert {t for t, (think, act) in annotation.decisions.items() if think > act} >= set(annotation.rationales)


def test_sampled_rationales_obey_the_constraint_and_report_their_probability(model, lines, demonstrations):
    tokens = [lines.demonstration(d) for d in demonstrations[:4]]
    states = [State(program, t, tuple(program.prefix(t))) for program in tokens for t in (0, 2, 6)]
    stops = [state.stop for state in states]
    sampler = sampler_of(lines, model, temperature=0.8, max_tokens=6)
    with torch.no_grad():
        for stop in set(stops):
            model.lm_head.weight[stop] *= 3
    prefix = encode(model, [state.context for state in states])
    rows = [i for i in range(len(states)) for _ in range(8)]
    drawn, decisions = sampler.sample(model, prefix, rows, [stops[i] for i in rows], torch.Generator())
    assert {d.terminated for d in drawn} == {True, False}
    banned = {*lines.newline_ids, *lines.think_ids, *lines.tokenizer.all_special_ids}
    for i, d in zip(rows, drawn, strict=True):
        assert d.tokens[0] in lines.think_ids and not banned & set(d.content[1:]) and len(d.content) > 1
        assert len(d.tokens) <= 6 and (d.tokens[-1] == stops[i]) == d.terminated
        assert d.terminated or len(d.tokens) == 6
        logits = model(torch.tensor([[*states[i].context, *d.tokens]]), use_cache=False).logits
        logits = logits[:, len(states[i].context) - 1 : -1]
        log_probs = sampler.constrain(logits, [stops[i]])[0].log_softmax(-1)
        total = float(log_probs.gather(1, torch.tensor(d.tokens)[:, None]).sum())
        assert d.log_prob == pytest.approx(total, abs=1e-3)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(len(d.tokens)))
    assert decisions.shape == (len(states), 2)


def test_scores_are_log_likelihoods_of_the_same_expert_tokens(model, lines, demonstrations):
    program = lines.demonstration(demonstrations[0])
    states = [State(program, t, tuple(program.prefix(t))) for t in (0, 4, 7)]
    sampler = sampler_of(lines, model)
    groups = []
    for state in states:
        ended = (*lines.rationale(program.demonstration.lines[state.t], "keep")[1:], state.stop)
        groups.append([Drawn(ended, True, 0.0), Drawn(ended[:-1], False, 0.0)])
    scores = score_rationales(model, states, groups, sampler, 3, given_act=False)
    for state, group, found in zip(states, groups, scores, strict=True):
        window = [*program.rest(state.t)] + [x for line in program.lines[state.t + 1 : state.t + 3] for x in line]
        assert found.tokens == len(window)
        assert found.act == pytest.approx(
            float(plain(model, [*state.context, *window])[-len(window) :].sum()), abs=1e-4
        )
        whole = [*state.context, *group[0].content, *state.header, *window]
        expected = float(plain(model, whole)[-len(window) :].sum())
        assert found.thinks == pytest.approx([expected, expected], abs=1e-4)
        assert [len(r) for r in found.references] == [len(d.tokens) for d in group]
        logits = model(torch.tensor([whole]), use_cache=False).logits[:, len(state.context) - 1 :]
        own = sampler.constrain(logits[:, : len(group[0].tokens)], [state.stop])[0].log_softmax(-1)
        own = own.gather(1, torch.tensor(group[0].tokens)[:, None])[:, 0]
        assert found.references[0] == pytest.approx(own.tolist(), abs=1e-3)


def test_lines_can_be_scored_given_that_they_begin_no_comment(model, lines, demonstrations):
    """The difference is log p(act) at every decision of the window, and at every boundary of the demonstration."""
    model, program = eager(model, lines, 5.0), lines.demonstration(demonstrations[0])
    state, sampler = State(program, 3, tuple(program.prefix(3))), sampler_of(lines, model)
    drawn = Drawn((*lines.rationale(program.demonstration.lines[3], "keep")[1:], state.stop), True, 0.0)

    def log_act(context):
        last = model(torch.tensor([context]), use_cache=False).logits[0, -1].double().softmax(-1)
        return float(torch.log1p(-last[list(lines.think_ids)].sum()).detach())

    text, given = (score_rationales(model, [state], [[drawn]], sampler, 3, flag)[0] for flag in (False, True))
    without = sum(log_act(program.prefix(t)) for t in (3, 4, 5))
    piece = lines.rationale(program.demonstration.lines[3], "keep")
    context = [*state.context, *drawn.content, *state.header]
    with_ = log_act(context) + sum(log_act(program.prefix(t, {3: piece})) for t in (4, 5))
    assert text.act - given.act == pytest.approx(without, abs=1e-3)
    assert text.thinks[0] - given.thinks[0] == pytest.approx(with_, abs=1e-3)
    annotation = Annotation(program, {3: "keep"}, {3: piece})
    both = [reconstruction(model, [annotation], lines, flag)[0] for flag in (False, True)]
    expected = sum(log_act(program.prefix(t, {3: piece}) if t != 3 else context) for t in program.boundaries)
    assert both[0] - both[1] == pytest.approx(expected, abs=1e-3)


def test_reconstruction_without_rationales_is_the_plain_log_likelihood(model, lines, demonstrations):
    program = lines.demonstration(demonstrations[0])
    [annotation] = annotate_batch(eager(model, lines, 0.0), [program], sampler_of(lines, model), torch.Generator())
    annotation.rationales.clear(), annotation.pieces.clear()
    [pieces] = [lines.program(program.demonstration.prompt, program.demonstration.lines)]
    plain_ = sum(line_log_likelihoods(model, [pieces])[0])
    assert reconstruction(model, [annotation], lines, given_act=False) == pytest.approx([plain_], abs=1e-3)
    annotation.pieces[4] = lines.rationale(program.demonstration.lines[4], "keep")
    with_rationale = lines.program(program.demonstration.prompt, program.demonstration.lines)
    with_rationale.insert(5, annotation.pieces[4])
    parts = line_log_likelihoods(model, [with_rationale])[0]
    whole = plain(model, [x for piece in with_rationale for x in piece])
    place = sum(len(p) for p in with_rationale[:5])
    header, again = whole[place - 1], whole[place - 1 + len(annotation.pieces[4])]
    assert reconstruction(model, [annotation], lines, given_act=False) == pytest.approx(
        [sum(parts) - parts[4] + float(header) - float(again)], abs=1e-3
    )


@pytest.mark.parametrize("text", ["keep the\x0b big\u2028ones \r", "  ## twice", "tab\tand\x00nul"])
def test_any_rationale_becomes_one_printable_line(model, lines, text, demonstrations):
    sampler = sampler_of(lines, model)
    drawn = Drawn(tuple(lines.tokenizer.encode("#" + text)), False, 0.0)
    found = sampler.text(drawn)
    assert found and len(found.splitlines()) == 1 and found.isprintable() and found == found.strip()
