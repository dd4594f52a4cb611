"""The shape of a causal language model, and what follows from it: parameters, bytes of keys and values, operations.

Qwen2, Qwen3, Llama, Mistral and Lfm2 as transformers builds them, from the numbers of their config.json; a test
compares the count of parameters with transformers' own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3core.config import BaseConfig
from ra3core.errors import UserError

EMBEDDED_VOCABULARY = 420  # of the tokenizer that is trained on the embedded suite


@dataclass(frozen=True)
class Shape:
    """attention, convolution: number of layers of each kind. query, key_value: width of all heads together.

    bias: of the projections to queries, keys and values. normed: heads' queries and keys have a norm of their own.
    head: width of one. kernel: of a convolution. given: parameters, where they are all that is known.
    """

    attention: int
    hidden: int
    query: int
    key_value: int
    intermediate: int
    vocabulary: int
    tied: bool = True
    bias: bool = False
    normed: bool = False
    head: int = 0
    convolution: int = 0
    kernel: int = 0
    given: int | None = None

    @property
    def layers(self) -> int:
        return self.attention + self.convolution

    @property
    def parameters(self) -> int:
        """Every weight once, tied ones included once."""
        if self.given is not None:
            return self.given
        h, q, kv = self.hidden, self.query, self.key_value
        block = 3 * h * self.intermediate + 2 * h
        attention = 2 * h * q + 2 * h * kv + (q + 2 * kv if self.bias else 0) + (2 * self.head if self.normed else 0)
        convolution = 4 * h * h + h * self.kernel
        embeddings = self.vocabulary * h * (1 if self.tied else 2)
        return embeddings + h + self.layers * block + self.attention * attention + self.convolution * convolution

    def adapters(self, rank: int) -> int:
        """Parameters of low-rank adapters on every linear layer (the output layer aside)."""
        h, q, kv, f = self.hidden, self.query, self.key_value, self.intermediate
        mixing = self.attention * (2 * (h + q) + 2 * (h + kv)) + self.convolution * ((h + 3 * h) + (h + h))
        return rank * (mixing + self.layers * 3 * (h + f))

    def cache_bytes(self, width: int) -> int:
        """Keys and values of one token, `width` bytes a number (a convolution's few last inputs are left out)."""
        return 2 * self.attention * self.key_value * width

    def attention_operations(self, context: float) -> float:
        """Forward operations of attention for one token that sees `context` tokens, beside those of the parameters."""
        return 4 * self.attention * self.query * context


def _llama(layers: int, hidden: int, heads: int, kv: int, intermediate: int, vocabulary: int, **rest: Any) -> Shape:
    head = hidden // heads
    return Shape(layers, hidden, hidden, kv * head, intermediate, vocabulary, head=head, **rest)


KNOWN: Mapping[str, Shape] = {
    "Qwen/Qwen2.5-0.5B": _llama(24, 896, 14, 2, 4864, 151_936, bias=True),
    "Qwen/Qwen2.5-1.5B": _llama(28, 1536, 12, 2, 8960, 151_936, bias=True),
    "Qwen/Qwen2.5-3B": _llama(36, 2048, 16, 2, 11_008, 151_936, bias=True),
    "Qwen/Qwen2.5-7B": _llama(28, 3584, 28, 4, 18_944, 152_064, bias=True, tied=False),
    "meta-llama/Llama-3.2-1B": _llama(16, 2048, 32, 8, 8192, 128_256),
    "meta-llama/Llama-3.2-3B": _llama(28, 3072, 24, 8, 8192, 128_256),
    "meta-llama/Llama-3.1-8B": _llama(32, 4096, 32, 8, 14_336, 128_256, tied=False),
}
"""Of the presets' models and their neighbours in size."""


def shape_of(config: BaseConfig, parameters: int | None = None) -> tuple[Shape, str]:
    """The base model's shape, and where it was found.

    parameters: given by the user, used where nothing else is known. Raises UserError with what to give.
    """
    if config.model is None:
        return embedded_shape(config), "the configuration"
    if (folder := local_folder(config.model)) is not None:
        return read_config(folder / "config.json"), str(folder / "config.json")
    if config.model in KNOWN:
        return KNOWN[config.model], "the table in ra3core/plan/shapes.py"
    if parameters is not None:
        return typical(parameters), "--parameters, and the usual proportions"
    raise UserError(
        f"base.model {config.model}: its size is not known here (no folder, not in the hub's cache, not in the table "
        "of ra3core/plan/shapes.py); give --parameters, such as 3e9"
    )


def embedded_shape(config: BaseConfig) -> Shape:
    """Of the model that the base stage pre-trains (Lfm2)."""
    conv = config.layers.count("conv")
    width = config.hidden_size
    return Shape(
        len(config.layers) - conv,
        width,
        width,
        width,
        config.intermediate_size,
        EMBEDDED_VOCABULARY,
        normed=True,
        head=width // config.heads,
        convolution=conv,
        kernel=3,
    )


def typical(parameters: int) -> Shape:
    """Usual proportions of that many parameters: hidden = 128 x layers, feed-forward 4 x, vocabulary 128k, GQA of 4."""
    layers = max(1, round((parameters / (14.5 * 128**2)) ** (1 / 3)))
    hidden = 128 * layers
    return Shape(layers, hidden, hidden, hidden // 4, 4 * hidden, 128_000, head=128, given=parameters)


def local_folder(name: str) -> Path | None:
    """Where a model lies on this machine: the folder that is named, or the hub cache's copy; none otherwise."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder / "model" if (folder / "model" / "config.json").is_file() else folder
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = hub / f"models--{name.replace('/', '--')}"
    try:
        snapshot = repository / "snapshots" / (repository / "refs" / "main").read_text().strip()
    except OSError:
        return None
    return snapshot if (snapshot / "config.json").is_file() else None


def read_config(file: Path) -> Shape:
    """The shape that a model's config.json describes. Raises UserError for a model of another kind."""
    try:
        values = json.loads(file.read_text())
        return _shape(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: no shape to compute with ({type(error).__name__}: {error}), expected the config.json of a Qwen2, "
            "Qwen3, Llama, Mistral or Lfm2 model"
        ) from error


def _shape(values: Mapping[str, Any]) -> Shape:
    kind, hidden, heads = values["model_type"], values["hidden_size"], values["num_attention_heads"]
    layers: int = values["num_hidden_layers"]
    if kind not in ("qwen2", "qwen3", "llama", "mistral", "lfm2"):
        raise ValueError(f"model_type {kind}")
    if bias := next((name for name in ("attention_bias", "mlp_bias", "conv_bias") if values.get(name)), None):
        raise ValueError(f"{bias} is set")
    head = values.get("head_dim") or hidden // heads
    conv = values.get("layer_types", []).count("conv") if kind == "lfm2" else 0
    width = values["intermediate_size"]
    if kind == "lfm2" and values.get("block_auto_adjust_ff_dim", True):
        multiple = values.get("block_multiple_of", 256)
        width = int(values.get("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
        width = multiple * -(-width // multiple)
    return Shape(
        layers - conv,
        hidden,
        heads * head,
        (values.get("num_key_value_heads") or heads) * head,
        width,
        values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", kind == "lfm2")),
        bias=kind == "qwen2",
        normed=kind in ("qwen3", "lfm2"),
        head=head,
        convolution=conv,
        kernel=values.get("conv_L_cache", 3) if conv else 0,
    )
