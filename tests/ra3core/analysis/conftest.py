"""A model whose next token depends on the last one alone, with the probabilities that a test gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration


@pytest.fixture
def lines(tokenizer) -> LineTokenizer:
    return LineTokenizer(tokenizer)


@pytest.fixture
def programs(lines, demonstrations) -> list[TokenizedDemonstration]:
    return [lines.demonstration(d) for d in demonstrations[:6]]


@pytest.fixture
def bigram(tokenizer: PreTrainedTokenizerFast) -> Callable[[torch.Tensor], Lfm2ForCausalLM]:
    """bigram(table): an Lfm2 with p(j | ... i) = table[i, j] / sum of the row.

    Its layers add nothing, token i's embedding is the i-th axis, and the head reads the table.
    """

    def make(table: torch.Tensor) -> Lfm2ForCausalLM:
        size = len(table)
        width = 4 * (size // 4 + 1)
        config = Lfm2Config(
            vocab_size=size,
            hidden_size=width,
            intermediate_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention"],
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = Lfm2ForCausalLM(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "out_proj" in name or "w2" in name:
                    weight.zero_()
            model.get_input_embeddings().weight.copy_(1000 * torch.eye(size, width))
            head = torch.zeros(size, width)
            head[:, :size] = (table + 1e-12).log().T / width**0.5  # the last norm makes an axis sqrt(width) long
            model.lm_head.weight.copy_(head)
        return model

    return make


@pytest.fixture
def known(tokenizer, lines, bigram) -> tuple[Lfm2ForCausalLM, int, int]:
    """At a boundary: think 0.2; x 0.4, y 0.2, the end 0.2. Every other token ends its line, by either of two breaks.

    Of the acts, then: x 1/2, y 1/4, an empty line 1/4; and one rationale.
    """
    size = len(tokenizer)
    taken = {*lines.newline_ids, *lines.think_ids, *tokenizer.all_special_ids}
    x, y = [i for i in range(size) if i not in taken][:2]
    table = torch.zeros(size, size)
    table[:, lines.newline_ids[0]], table[:, lines.newline_ids[1]] = 0.6, 0.4
    for token in lines.newline_ids:
        table[token] = 0.0
        table[token, lines.think_ids[0]], table[token, x] = 0.2, 0.4
        table[token, y], table[token, lines.end_id] = 0.2, 0.2
    return bigram(table), x, y
