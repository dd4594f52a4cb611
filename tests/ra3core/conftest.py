"""A tiny model of the embedded kind and small demonstrations, for every test below."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, PreTrainedTokenizerFast

from ra3core.corpora.demonstrations import Demonstration, comment_boundaries
from ra3core.lm.tokenizer import train_tokenizer

torch.set_num_threads(1)

PROMPT = 'def f(xs):\n    """Steps: {first}) keep the {kept}; {second}) add {added}. Run {first}, then {second}."""'
BODY = (
    "    out = []",
    "    for x in xs:",
    "        if x {test} 0:",
    "            out.append(x)",
    "    ys = []",
    "    for x in out:",
    "        ys.append(x + {added})",
    "    return ys",
)


def make_demonstration(i: int) -> Demonstration:
    """The i-th of 48 small programs of two steps, with the rationales a human would write."""
    first, second = ("AB", "BA", "DC", "CD")[i % 4]
    kept, test = (("positive numbers", ">"), ("negative numbers", "<"))[i // 4 % 2]
    added = i // 8 % 6 + 1
    prompt = PROMPT.format(first=first, second=second, kept=kept, added=added)
    lines = tuple(line.format(test=test, added=added) for line in BODY)
    reference = {0: f"{first}) keep the {kept}", 4: f"{second}) add {added}"}
    return Demonstration(f"demo-{i}", prompt, lines, comment_boundaries(prompt, lines), reference)


@pytest.fixture(scope="session")
def demonstrations() -> list[Demonstration]:
    return [make_demonstration(i) for i in range(48)]


@pytest.fixture(scope="session")
def tokenizer(demonstrations: list[Demonstration]) -> PreTrainedTokenizerFast:
    comments = [f"    # {text}\n        # {text}" for d in demonstrations for text in d.reference.values()]
    return train_tokenizer([d.text for d in demonstrations] + comments, min_count=2)


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Lfm2ForCausalLM]:
    """A new small Lfm2 (convolution, attention), random but seeded."""

    def make(seed: int = 0, hidden_size: int = 32, initializer_range: float = 0.2) -> Lfm2ForCausalLM:
        config = Lfm2Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention"],
            initializer_range=initializer_range,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Lfm2ForCausalLM(config).eval()

    return make


@pytest.fixture
def model(make_model: Callable[..., Lfm2ForCausalLM]) -> Lfm2ForCausalLM:
    return make_model()
