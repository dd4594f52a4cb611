"""Parameters are counted as transformers builds the models, and a model's shape is found where it can be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, Lfm2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from ra3core.config import BaseConfig, load
from ra3core.errors import UserError
from ra3core.plan.shapes import KNOWN, read_config, shape_of, typical

SMALL = {
    "vocab_size": 97,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
    "llama": LlamaConfig(**SMALL),
    "llama, wide heads": LlamaConfig(**SMALL, head_dim=16, tie_word_embeddings=True),
    "mistral": MistralConfig(**SMALL),
    "lfm2": Lfm2Config(**SMALL, layer_types=["conv", "full_attention", "conv"], block_auto_adjust_ff_dim=False),
    "lfm2, adjusted": Lfm2Config(**SMALL, layer_types=["conv", "full_attention", "conv"], block_multiple_of=16),
}


@pytest.mark.parametrize("name", MODELS)
def test_as_many_parameters_as_transformers_makes(name: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(MODELS[name])
    model.config.save_pretrained(tmp_path)
    assert read_config(tmp_path / "config.json").parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_the_papers_models_have_their_published_sizes(name: str, parameters: int) -> None:
    assert KNOWN[name].parameters == parameters


def test_the_embedded_model_is_the_one_that_the_demo_makes() -> None:
    kept = Path("configs/base/0/model/config.json")
    shape, _ = shape_of(load("demo").base)
    assert shape == read_config(kept)


def test_adapters_are_counted_as_peft_makes_them() -> None:
    from peft import LoraConfig, get_peft_model

    shape = read_config_of(MODELS["qwen2"])
    model = get_peft_model(
        AutoModelForCausalLM.from_config(MODELS["qwen2"]), LoraConfig(r=4, target_modules="all-linear")
    )
    assert shape.adapters(4) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def read_config_of(config):
    from ra3core.plan.shapes import _shape

    return _shape(config.to_dict())


def test_a_folder_and_the_hubs_cache_come_before_the_table(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--a--b"
    snapshot = repository / "snapshots" / "0123"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123\n")
    MODELS["llama"].save_pretrained(snapshot)
    expected = read_config_of(MODELS["llama"])
    for name in ("a/b", str(snapshot)):
        shape, found = shape_of(BaseConfig(model=name))
        assert shape == expected and found == str(snapshot / "config.json")


def test_an_unknown_model_needs_its_size_and_another_kind_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="give --parameters"):
        shape_of(BaseConfig(model="a/b"))
    shape, _ = shape_of(BaseConfig(model="a/b"), 3_000_000_000)
    assert shape.parameters == 3_000_000_000
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "hidden_size": 4}))
    with pytest.raises(UserError, match="expected the config\\.json of a Qwen2"):
        shape_of(BaseConfig(model=str(tmp_path)))


def test_usual_proportions_are_near_those_of_the_papers_models() -> None:
    """What is given without a shape has about its layers and widths."""
    for name in ("Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B"):
        known = KNOWN[name]
        guessed = typical(known.parameters)
        assert 0.6 < guessed.layers * guessed.hidden / (known.layers * known.hidden) < 1.6
