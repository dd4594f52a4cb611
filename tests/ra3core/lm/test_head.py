"""Log-probabilities in tiles: equal to those of all logits at once, with their gradients, for what a head may be."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from ra3core.config import LoraConfig
from ra3core.lm import head
from ra3core.lm.head import NO_TOKEN, predict
from ra3core.lm.models import add_lora
from ra3core.lm.prefix import encode, gather_log_probs, predictions_after

SMALL = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}
KINDS: dict[str, PreTrainedConfig] = {
    "tied": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "untied": LlamaConfig(**SMALL, tie_word_embeddings=False),
    "convolution": Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
    "capped": Gemma2Config(**SMALL, final_logit_softcapping=2.0, query_pre_attn_scalar=8),
    "multiplied": CohereConfig(**SMALL, logit_scale=0.25),
    "divided": GraniteConfig(**SMALL, logits_scaling=3.0),
}


def make(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(KINDS[kind]).eval()


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens a tile: rows are cut, and columns too."""
    monkeypatch.setattr(head, "TILE", {"cpu": 7 * 61})


def losses_and_gradients(model: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    predictions, _ = predict(model, ids, use_cache=False, logits_to_keep=targets.shape[1] + 1)
    log_probs, entropies = predictions.log_probs(targets, counted=targets != NO_TOKEN)
    (log_probs * torch.linspace(1, 2, log_probs.numel()).view_as(log_probs)).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [log_probs.detach(), entropies, *gradients]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, target_modules=["q_proj", "lm_head"])], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_all_logits(kind: str, lora: LoraConfig | None, monkeypatch) -> None:
    model: torch.nn.Module = make(kind)
    if lora is not None:
        model = add_lora(make(kind), lora)
    ids = torch.randint(1, 61, (3, 12))
    targets = torch.cat([ids[:, 3:], torch.full((3, 1), NO_TOKEN)], 1)
    targets[1, 5:] = NO_TOKEN
    whole = losses_and_gradients(model, ids, targets)
    logits = model(input_ids=ids).logits[:, -11:-1]
    expected = -cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    torch.testing.assert_close(whole[0], expected.detach())
    monkeypatch.setattr(head, "TILE", {"cpu": 7 * 61})
    predictions, output = predict(model, ids, use_cache=False)
    assert predictions.states.shape[-1] == 16 and output.logits.shape[1] == 1  # hidden states, no logits
    for found, one in zip(losses_and_gradients(model, ids, targets), whole, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("tiles")
def test_an_architecture_that_is_not_known_is_run_whole() -> None:
    """One whose logits are changed by what no field of its configuration that we know says."""
    model = make("untied")
    inner = model.forward

    def changed(*args, **kwargs):
        output = inner(*args, **kwargs)
        output.logits = output.logits - 0.1 * output.logits.abs()
        return output

    model.forward = changed  # type: ignore[method-assign]
    ids = torch.randint(1, 61, (3, 12))
    predictions, _ = predict(model, ids)
    torch.testing.assert_close(predictions.states, changed(input_ids=ids).logits)


@pytest.mark.usefixtures("tiles")
def test_a_cap_is_no_identity_however_small_the_logits_are() -> None:
    """A test on the model's own hidden states would see none."""
    model = make("capped")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e-4)
    ids = torch.randint(1, 61, (3, 12))
    predictions, _ = predict(model, ids)
    assert predictions.states.shape[-1] == 16
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1e6)
    predictions, _ = predict(model, ids)
    expected = model(input_ids=ids).logits
    assert float(expected.detach().abs().max()) > 1.9
    torch.testing.assert_close(predictions.logits(predictions.states), expected)


def test_after_a_prefix_and_at_single_places(tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, contexts = make("tied"), [(1, 2, 3), (4, 5)]
    tokens = [(7, 8, 9, 10, 11, 12, 13, 14, 15), (16, 17), (18,)]
    shifted = lambda logits, rows, start: logits + torch.arange(start, start + logits.shape[1])[:, None] % 3  # noqa: E731

    def found() -> list[torch.Tensor]:
        with torch.no_grad():
            predictions = predictions_after(model, encode(model, contexts).select([0, 1, 1]), tokens)
            places = predictions.at([0, 1, 2, 0, 0, 1, 2, 0, 0], [9, 2, 1, 0, 1, 2, 0, 3, 4], lambda x: x[:, :2])
            own, mask = gather_log_probs(predictions, tokens)
            return [own, mask, gather_log_probs(predictions.select([2, 0]), [(5,), (6, 7, 8, 9)], shifted)[0], places]

    cut = found()
    monkeypatch.setattr(head, "TILE", {"cpu": 2**24})
    for one, whole in zip(cut, found(), strict=True):
        torch.testing.assert_close(one, whole)


def test_in_bfloat16_probabilities_are_in_float32(tiles: None) -> None:
    model = make("tied").to(torch.bfloat16)
    ids = torch.randint(1, 61, (3, 12))
    predictions, _ = predict(model, ids)
    log_probs, _ = predictions.log_probs(ids)
    assert predictions.states.dtype == torch.bfloat16 and log_probs.dtype == torch.float32


def test_a_gradient_under_autocast_is_not_lost(tiles: None) -> None:
    """The model is tested once, without gradients: casts of weights from then must not be used again."""
    model = make("untied")
    ids = torch.randint(1, 61, (3, 12))
    with torch.autocast("cpu", torch.bfloat16):
        predict(model, ids)[0].log_probs(ids)[0].sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
