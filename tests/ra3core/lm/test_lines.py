from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ra3core.corpora.demonstrations import Demonstration, annotate
from ra3core.lm.lines import LineTokenizer, think_token_ids, token_texts


def test_pieces_join_to_the_program(tokenizer, demonstrations):
    lines = LineTokenizer(tokenizer)
    for demonstration in demonstrations[:8]:
        annotated = annotate(demonstration, demonstration.reference)
        pieces = lines.program(demonstration.prompt, annotated.body)
        joined = [token for piece in pieces for token in piece]
        assert tokenizer.decode(joined) == annotated.text + tokenizer.eos_token
        tokens = lines.demonstration(demonstration)
        rationales = {t: lines.rationale(demonstration.lines[t], z) for t, z in demonstration.reference.items()}
        assert tokens.tokens(rationales) == joined
        assert tokenizer.decode(tokens.tokens()) == demonstration.text + tokenizer.eos_token


def test_the_decision_comes_after_newline_and_indentation(tokenizer, demonstrations):
    lines = LineTokenizer(tokenizer)
    think = set(think_token_ids(tokenizer))
    tokens = lines.demonstration(demonstrations[0])
    assert tokens.boundaries == demonstrations[0].boundaries
    for t in tokens.boundaries:
        expert = demonstrations[0].lines[t]
        header = tokenizer.decode(tokens.lines[t][: tokens.headers[t]])
        assert header == "\n" + expert[: len(expert) - len(expert.lstrip())]
        assert tokens.lines[t][tokens.headers[t]] not in think
        assert lines.rationale(expert, "why")[tokens.headers[t]] in think
        prefix = tokens.prefix(t)
        assert tokens.tokens()[: len(prefix)] == prefix
        assert tokens.tokens()[len(prefix) :][: len(tokens.rest(t))] == list(tokens.rest(t))


def test_think_tokens_are_those_that_begin_a_comment(tokenizer):
    texts = token_texts(tokenizer)
    assert {texts[i] for i in think_token_ids(tokenizer)} == {"#"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12), max_size=5))
def test_any_text_is_its_pieces(tokenizer, texts):
    lines = LineTokenizer(tokenizer)
    demonstration = Demonstration("d", "def f():", tuple(texts), tuple(range(len(texts))))
    tokens = lines.demonstration(demonstration)
    assert tokenizer.decode(tokens.tokens()[:-1]) == demonstration.text
    assert all(t in tokens.boundaries for t, text in enumerate(texts) if text.strip() and "#" not in text)


def test_a_subword_tokenizer_that_splits_the_indentation(demonstrations):
    """As hub tokenizers do: "\\n", "   ", " x" for a line and "\\n", "   ", " #" for a comment."""
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s*\n|\s+(?!\S)| ?\w+| ?[^\s\w]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pieces, decoders.ByteLevel()
    texts = [annotate(d, d.reference).text for d in demonstrations]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["</s>"])
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    lines = LineTokenizer(tokenizer)
    assert {"#", " #"} <= {token_texts(tokenizer)[i] for i in think_token_ids(tokenizer)}
    for demonstration in demonstrations[:4]:
        tokens = lines.demonstration(demonstration)
        assert tokens.boundaries == demonstration.boundaries
        assert tokenizer.decode(tokens.tokens()[:-1]) == demonstration.text
        for t in tokens.boundaries:
            piece = lines.rationale(demonstration.lines[t], "why")
            assert tokens.headers[t] == 2 and piece[:2] == tokens.lines[t][:2]
            assert piece[2] in lines.think_ids and tokens.lines[t][2] not in lines.think_ids
