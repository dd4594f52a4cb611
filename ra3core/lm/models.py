"""Models and tokenizers: load, save, low-rank adapters.

Any architecture that `AutoModelForCausalLM` loads without custom code. Weights are safetensors only (a pickle is never
opened), and a checkpoint that lacks a weight is an error instead of a warning.

Precision (docs/devices.md#precision): a frozen model of a stage in bfloat16 has its weights in it. Weights in training
are in float32 and its passes are computed in bfloat16 (`autocast`); with adapters these alone are in training. What is
saved is in float32.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ra3core.config import BaseConfig, EStepConfig, LoraConfig, MStepConfig, RLVRConfig
from ra3core.errors import UserError
from ra3core.section import Precision

Source = str | os.PathLike[str]


def load_model(
    source: Source, device: str | torch.device = "cpu", precision: Precision | Literal["auto"] = "float32"
) -> PreTrainedModel:
    """The causal language model of a folder or of a hub name, in evaluation mode, its weights in this precision.

    auto: as they were saved.

    Raises UserError when the folder is missing, has no config.json, or its weights are damaged or incomplete.
    """
    name = _resolve(source)
    folder = Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise UserError(f"model {name}: no weights, expected model.safetensors")
    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"model {name}: config.json does not describe a known model ({_first_line(error)})") from error
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=precision, use_safetensors=True, output_loading_info=True
        )
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"model {name}: the weights cannot be read ({_first_line(error)})") from error
    model, info = loaded
    wrong = [str(key) for kind in ("missing_keys", "mismatched_keys") for key in info.get(kind, ())]
    if wrong:
        raise UserError(f"model {name}: the weights are incomplete, {sorted(wrong)[0]} is missing or has another shape")
    return model.to(device).eval()


def load_to_train(source: Source, config: EStepConfig | MStepConfig | RLVRConfig, device: str) -> torch.nn.Module:
    """The model as a stage begins to train it: all weights in float32, or adapters in float32 beside the frozen ones.

    The adapters are drawn with torch's global generator.
    """
    model = load_model(source, device, config.precision if config.lora else "float32")
    recompute(model, config)
    return add_lora(model, config.lora) if config.lora else model


def recompute(model: PreTrainedModel, config: BaseConfig | EStepConfig | MStepConfig | RLVRConfig) -> None:
    """Make the layers keep their inputs alone for a backward pass, if that is configured; they are computed again.

    Raises UserError for an architecture that cannot.
    """
    if not config.gradient_checkpointing:
        return
    try:
        model.activation_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise UserError(f"gradient_checkpointing: {_first_line(error)}") from error


def recomputes(model: torch.nn.Module) -> bool:
    """Whether `recompute` was asked for."""
    return bool(getattr(model, "is_activation_checkpointing", False))


def autocast(device: str | torch.device, precision: Precision) -> torch.autocast:
    """Within it a model with weights in float32 computes in this precision: for one step, whose weights are one.

    What is precise by need stays in float32 (norms, softmax, losses), as PyTorch has it.
    """
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")


@torch.no_grad()
def narrow(model: torch.nn.Module) -> None:
    """Weights to bfloat16, in place; buffers stay as they are: rotary frequencies must be precise."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a hub name; it pads with its end token when it has no padding token.

    Raises UserError when there is none, or when it has no end-of-text token.
    """
    name = _resolve(source)
    folder = Path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        raise UserError(f"model {name}: no tokenizer, expected tokenizer.json in the folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"model {name}: the tokenizer cannot be read ({_first_line(error)})") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"model {name}: the tokenizer has no eos_token, which ends a program")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Source) -> None:
    """A plain transformers folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))


def add_lora(model: PreTrainedModel, config: LoraConfig) -> torch.nn.Module:
    """The model with trainable low-rank adapters, everything else frozen (peft).

    The adapters are drawn with torch's global generator. Raises UserError when `target_modules` names no module.
    """
    import peft

    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"lora.target_modules: {_first_line(error)}") from error


def merge_lora(model: torch.nn.Module) -> PreTrainedModel:
    """The plain model with its adapters added into the weights; a model without adapters as it is.

    Frozen weights in bfloat16 are added to in float32, on the CPU: rounding would take small changes back.
    """
    import peft

    if isinstance(model, peft.PeftModel) and any(p.dtype != torch.float32 for p in model.parameters()):
        model = model.to("cpu", torch.float32)
    merged = model.merge_and_unload() if isinstance(model, peft.PeftModel) else model
    if not isinstance(merged, PreTrainedModel):
        raise TypeError(f"expected a transformers model, got {type(merged).__name__}")
    return merged


def _resolve(source: Source) -> str:
    """A folder's path or a hub name; a path that does not exist is no hub name."""
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"model {path}: no config.json, expected the folder of a transformers model")
        return str(path)
    text = os.fspath(source)
    if not isinstance(source, str) or path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise UserError(f"model {path}: no such folder")
    return text


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
