from __future__ import annotations

import pytest
import torch

from ra3core.config import LoraConfig
from ra3core.errors import UserError
from ra3core.lm.models import add_lora, load_model, load_tokenizer, merge_lora, save_model


@pytest.fixture
def folder(tmp_path, model, tokenizer):
    save_model(model, tokenizer, tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_comes_back_bit_for_bit(folder, model, tokenizer, demonstrations):
    loaded = load_model(folder)
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name
    text = demonstrations[0].text + "# ünknown ☃"
    again = load_tokenizer(str(folder))
    assert again.encode(text) == tokenizer.encode(text) and again.decode(again.encode(text)) == text
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{}"), "known model"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-99]),
            "cannot be read",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "cannot be read"),
    ],
)
def test_a_damaged_folder_is_one_sentence(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.0.conv.in_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"incomplete, model\.layers\.0\.conv\.in_proj"):
        load_model(folder)


def test_no_folder_and_no_tokenizer(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(folder)


def test_lora_trains_little_and_merges_into_a_plain_model(model, tokenizer, tmp_path):
    ids = torch.arange(6)[None]
    before = model(ids).logits
    tuned = add_lora(model, LoraConfig(rank=2, alpha=4))
    trainable = [p for p in tuned.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trainable) < sum(p.numel() for p in tuned.parameters()) / 4
    torch.testing.assert_close(tuned(ids).logits, before)
    with torch.no_grad():
        for p in trainable:
            p += 0.1
    changed = tuned(ids).logits
    assert (changed - before).abs().max() > 1e-3
    save_model(merge_lora(tuned), tokenizer, tmp_path / "merged")
    torch.testing.assert_close(load_model(tmp_path / "merged")(ids).logits, changed, rtol=1e-4, atol=1e-4)


def test_lora_on_modules_that_do_not_exist(model):
    with pytest.raises(UserError, match="target_modules"):
        add_lora(model, LoraConfig(target_modules=["nothing"]))
