"""Every shape of tokenizer: render -> tokenise -> line spans -> log-likelihoods, and what decides act or think."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import SHAPES, checkpoint, shape
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ra3core.corpora.demonstrations import Demonstration, annotate, comment_boundaries
from ra3core.errors import UserError
from ra3core.learning.annotation import RationaleSampler
from ra3core.lm.generation import Sampling, generate
from ra3core.lm.likelihood import decision_log_probs, line_log_likelihoods
from ra3core.lm.lines import LineTokenizer, comment_token_ids, token_texts, undecided
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.lm.prefix import encode

PROMPT = 'def f(xs):\n    """Say (it).\n\n    # not a comment\n    """'
LINES = (
    "    out = [x for x in xs]",
    "    for x in out:",
    "\tif x:",
    "\t\treturn '#'  # why",
    "    text = '''a",
    "",
    "   ",
    "# no comment <|endoftext|> </s> <|im_end|>",
    "    é = '\\r\\n'; ok = \"日本\U0001f600\"",
    "'''",
    "    print(text); print(12345)  ",
    "",
    "    return out[0:1]",
    "#include",
    "## end",
    "x = 1",
)
ODD = Demonstration("odd", PROMPT, LINES, (0, 1, 2, 3, 4, 10, 12, 13, 14, 15))
LEFT_OUT = {
    **{name: {3} for name in ("llama3", "qwen2", "deepseek-v3")},  # a tab and the word after it are one token
    "undecided": {0, 1, 4, 10, 12},
}
LAST = {"llama3", "qwen2", "deepseek-v3", "merged", "undecided"}

each = pytest.mark.parametrize("name", SHAPES)


def plain(model, tokens):
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].detach()


def text_of(lines: LineTokenizer, tokens) -> str:
    begun = len(lines.text("")) if lines.text("")[:1] == tuple(tokens[:1]) else 0
    return lines.decode(tokens[begun:])


@each
def test_pieces_are_the_program_and_line_breaks_are_where_the_tokenizer_has_them(name):
    lines = LineTokenizer(shape(name))
    assert lines.break_last == (name in LAST)
    program = lines.demonstration(ODD)
    assert text_of(lines, program.tokens()[:-1]) == ODD.text and program.tokens()[-1] == lines.end_id
    assert lines.end_id not in program.tokens()[:-1]  # a special token's name in a program is text
    break_first = "" if lines.break_last else "\n"
    for line, piece in zip(LINES, program.lines, strict=True):
        if piece:
            found = lines.decode([*lines.encode("x\n"), *piece]).removeprefix("x\n")
            assert found.rstrip("\n") == (break_first + line).rstrip("\n") or not line.strip() or lines.break_last
    rationales = {t: lines.rationale(LINES[t], "do (it):") for t in program.boundaries}
    written = annotate(ODD, dict.fromkeys(program.boundaries, "do (it):"))
    assert text_of(lines, program.tokens(rationales)[:-1]) == written.text
    joined = [token for piece in lines.program(PROMPT, written.body) for token in piece]
    assert joined == program.tokens(rationales)


@each
def test_every_boundary_that_one_token_can_decide_is_decided(name):
    lines = LineTokenizer(shape(name))
    texts = token_texts(lines.tokenizer)
    program = lines.demonstration(ODD)
    code = [t for t in ODD.boundaries if not LINES[t].startswith("#")]
    assert set(code) - set(program.boundaries) == LEFT_OUT.get(name, set())
    assert set(program.boundaries) <= set(code)
    assert undecided([program]) == (  # two lines are comments themselves
        f"{2 + len(LEFT_OUT.get(name, ()))} of 10 boundaries left out: no single token tells think from act there"
    )
    for t in program.boundaries:
        comment, header = lines.rationale(LINES[t], "do it"), program.headers[t]
        assert comment[:header] == program.header(t) == lines.header(LINES[t])
        assert re.match(r"\s*#", texts[comment[header]]) and not re.match(r"\s*#", texts[program.rest(t)[0]])
        before = text_of(lines, program.prefix(t))
        assert re.search(r"\n[ \t]*$", before)  # the line has begun and nothing else is written
        assert (
            program.prefix(t) + list(program.rest(t))
            == program.tokens()[: len(program.prefix(t) + list(program.rest(t)))]
        )


@each
def test_lines_sum_to_the_whole_and_decisions_to_one(name, tmp_path):
    checkpoint(name, tmp_path)
    model, lines = load_model(tmp_path), LineTokenizer(load_tokenizer(tmp_path))
    program = lines.demonstration(ODD)
    rationales = {t: lines.rationale(LINES[t], "do (it)") for t in program.boundaries[:2]}
    for pieces in (
        lines.program(PROMPT, LINES),
        lines.program(PROMPT, annotate(ODD, dict.fromkeys(rationales, "do (it)")).body),
    ):
        whole = [token for piece in pieces for token in piece]
        (found,) = line_log_likelihoods(model, [pieces])
        expected = plain(model, whole)[len(pieces[0]) - 1 :]
        assert sum(found) == pytest.approx(float(expected.sum()), rel=1e-5)
        assert len(found) == len(pieces) - 1 and found[-1] < 0
    t = program.boundaries[-1]
    logits = model(torch.tensor([program.prefix(t, rationales)])).logits[0, -1].detach()
    think, act = decision_log_probs(logits, lines.think_ids).exp().tolist()
    probabilities = logits.softmax(-1)
    texts = token_texts(lines.tokenizer)
    brute = sum(float(p) for p, text in zip(probabilities, texts, strict=False) if text.lstrip().startswith("#"))
    assert think == pytest.approx(brute, rel=1e-4) and think + act == pytest.approx(1, abs=1e-6)


@each
def test_rationales_end_at_any_token_that_ends_a_line(name, tmp_path):
    checkpoint(name, tmp_path)
    model, lines = load_model(tmp_path), LineTokenizer(load_tokenizer(tmp_path))
    program = lines.demonstration(ODD)
    texts = token_texts(lines.tokenizer)
    bias = torch.zeros(model.config.vocab_size)
    bias[[i for i, text in enumerate(texts) if text.endswith("\n")]] = 20 if lines.break_last else 0
    bias[program.stop(program.boundaries[0])] = 20
    model.lm_head.register_forward_hook(lambda *given: given[2] + bias)
    sampler = RationaleSampler(lines, model.config.vocab_size, 3.0, 8)
    t = program.boundaries[0]
    prefix = encode(model, [program.prefix(t)])
    drawn, _ = sampler.sample(model, prefix, [0] * 24, [program.stop(t)] * 24, torch.Generator().manual_seed(0))
    ended = [d for d in drawn if d.terminated]
    assert ended and all("\n" not in "".join(texts[i] for i in d.tokens[:-1]) for d in drawn)
    if len(lines.break_ids) > 1:
        assert len({d.tokens[-1] for d in ended}) > 1 and all(texts[d.tokens[-1]].endswith("\n") for d in ended)
    for d in ended:  # what follows is the line, whichever token ended the rationale
        tokens = [*program.prefix(t), *d.tokens, *program.after(t, True), *program.rest(t)]
        assert lines.decode(tokens).endswith("\n" + LINES[t] + lines.opening)
        text = sampler.text(d)
        assert "\n" not in text and not text.startswith("#")


@each
def test_no_token_that_begins_a_comment_is_drawn_when_they_are_banned(name, tmp_path):
    checkpoint(name, tmp_path)
    model, tokenizer = load_model(tmp_path), load_tokenizer(tmp_path)
    banned = comment_token_ids(tokenizer)
    texts = token_texts(tokenizer)
    assert {i for i, text in enumerate(texts) if re.match(r"\s*#", text) or re.search(r"\n\s*#", text)} == set(banned)
    with torch.no_grad():
        model.lm_head.weight[list(banned)] = 5 * model.lm_head.weight[banned[0]].sign()
    lines = LineTokenizer(tokenizer)
    prompts = [lines.prompt(PROMPT), lines.text("x = 1\n")]
    for completions in generate(model, tokenizer, prompts, Sampling(12, 1.0, ban_comments=True), samples=4):
        assert not any(set(draw.tokens) & set(banned) for draw in completions)


@each
def test_what_pieces_change_of_the_tokens_of_a_whole_text(name):
    """Nothing, for programs without blank lines at odd places; the page on tokenizers has the figures."""
    lines = LineTokenizer(shape(name))
    body = [line for line in LINES[:4] + LINES[8:10] if line.strip()]
    pieces = [token for piece in lines.program(PROMPT, body)[:-1] for token in piece]
    whole = lines.text("\n".join([PROMPT, *body]) + lines.opening)
    assert (list(whole) == pieces) == (name not in ("merged", "undecided"))


PART = st.sampled_from([*"\t #a(:)'\"\\\r.é日\U0001f600\x0b\x00=1", "    ", "# ", "##", "</s>", "re"])
LINE = st.lists(PART, max_size=8).map("".join)


@each
@settings(max_examples=25, deadline=None)
@given(st.lists(LINE, max_size=5), st.lists(LINE, min_size=1, max_size=3))
def test_any_program_is_its_pieces(name, body, prompt):
    lines = LineTokenizer(shape(name))
    head = "\n".join(["x", *prompt])
    demonstration = Demonstration("d", head, tuple(body), tuple(t for t, line in enumerate(body) if line.strip()))
    program = lines.demonstration(demonstration)
    assert text_of(lines, program.tokens()[:-1]) == unicodedata.normalize("NFC", demonstration.text)
    for t in program.boundaries:
        rationale = lines.rationale(body[t], "why")
        assert rationale[: program.headers[t]] == program.header(t)
        with_it = text_of(lines, program.tokens({t: rationale})[:-1])
        assert with_it == unicodedata.normalize("NFC", annotate(demonstration, {t: "why"}).text)


def test_a_tokenizer_that_loses_line_breaks_is_refused():
    """As T5's: white space is one blank, whatever it was."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Replace("\n", " ")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>")
    inner.train_from_iterator(["def f ( x ) : return x + 1"] * 50, trainer)
    with pytest.raises(UserError, match=r"blanks and line breaks|within a program"):
        LineTokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>"))


def test_the_program_of_these_tests_has_those_boundaries():
    body = [line for line in LINES if "no comment" not in line]
    assert comment_boundaries(PROMPT, body)


def test_a_token_in_a_text_is_with_the_blank_that_it_has(tmp_path: Path):
    """Decoded alone, a first token of Llama 2 loses its blank, and a stop string would be met at another place."""
    texts = token_texts(shape("llama2"))
    ids = shape("llama2").encode("x in xs", add_special_tokens=False)
    assert "".join(texts[i] for i in ids).strip() == "x in xs"
