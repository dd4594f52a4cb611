"""Memory of one device while a stage runs, and what the stage leaves on the disk.

How a stage holds its numbers is in `Numbers`: precision and gradient_checkpointing are its section's, logits are in
tiles (lm/head.py). A test holds training against the measured peak of tiny models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pydantic import BaseModel

from ra3core.config import (
    EMBEDDED,
    AnalysisConfig,
    BaseConfig,
    BenchmarkConfig,
    BootstrapConfig,
    EStepConfig,
    LoraConfig,
    MStepConfig,
    RLVRConfig,
)
from ra3core.plan.shapes import Shape
from ra3core.plan.work import (
    BENCHMARKS,
    BREAK_TOKENS,
    PASS,
    PROMPT_TOKENS,
    TILE,
    WEB_TOKENS,
    Counts,
    pass_tokens,
)

FLOAT32 = 4  # bytes: of weights that are trained, their gradients, logits in a loss
MOMENTS = 8  # bytes of AdamW's two moments of a parameter
LONG = 2.0  # the longest text of a batch against the mean

LOSS_LOGITS, POLICY_LOGITS, RATIONALE_LOGITS, SCORE_LOGITS, SAMPLE_LOGITS = 3, 5, 7, 3, 4
"""Copies of the logits at the peak of a pass: with a loss of next tokens; with a policy gradient, and with that of
rationales, whose distribution is constrained; scored; drawn from. Measured on tiny models: 2.9, 4.9, 6.4, 3.0; the last
is read off lm/generation.py."""

ROOM, SELECTED = 1.5, 1.75
"""Of keys and values: buffers have room for half as much again, and what goes on is copied out of what has ended."""

PARQUET_BYTES = 3.0  # a token of text on the disk


@dataclass(frozen=True)
class Memory:
    """Bytes. weights: of every model that is held. cache: keys and values of what is decoded or shared."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    cache: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Numbers:
    """width: bytes of an activation, of keys and values, and of a weight that is not trained: 4, or 2 in bfloat16, in
    which trained weights stay in float32 beside a copy in bfloat16. recomputed: layers keep their inputs alone for the
    backward pass. tile: logits that are held at once; none: those of a whole pass."""

    width: int = 4
    recomputed: bool = False
    tile: int | None = None


def numbers_of(config: BaseModel, device: str = "cuda") -> Numbers:
    """How the stage of this configuration holds its numbers."""
    width = 2 if getattr(config, "precision", "float32") == "bfloat16" else FLOAT32
    return Numbers(width, bool(getattr(config, "gradient_checkpointing", False)), TILE[device])


def activations(shape: Shape, tokens: float, numbers: Numbers, logits: float = 0.0) -> float:
    """Bytes that the layers keep for the backward pass of `tokens` tokens.

    Numbers a token of an attention layer: its input, normed and scaled, twice (6 hidden; in bfloat16 two of each three
    stay in float32), queries and the heads' outputs, keys and values; of the feed-forward part gate, its activation, up
    and their product (4 intermediate). A convolution keeps six times its width in place of the heads.
    logits: bytes of the pass's, which are gone when a layer is computed again.
    """
    norms = 6 * FLOAT32 if numbers.width == FLOAT32 else 4 * FLOAT32 + 2 * numbers.width
    feed = norms * shape.hidden + 4 * numbers.width * shape.intermediate
    attention = numbers.width * 4 * (shape.query + shape.key_value)
    convolution = numbers.width * 6 * shape.hidden
    if numbers.recomputed:
        inputs = FLOAT32 * shape.layers * shape.hidden * tokens
        return inputs + max(tokens * (feed + max(attention, convolution)) - logits, 0.0)
    return tokens * (shape.layers * feed + shape.attention * attention + shape.convolution * convolution)


def trained(shape: Shape, lora: LoraConfig | None, numbers: Numbers) -> tuple[float, float, float]:
    """Bytes of a model in training: its weights (with the copy in bfloat16 that a pass makes), gradients and AdamW's
    moments."""
    n = shape.parameters
    if lora is None:
        return FLOAT32 * n + narrow(shape, lora, numbers), FLOAT32 * n, MOMENTS * n
    own = shape.adapters(lora.rank)
    return numbers.width * n + FLOAT32 * own, FLOAT32 * own, MOMENTS * own


def narrow(shape: Shape, lora: LoraConfig | None, numbers: Numbers) -> float:
    """Bytes of all weights in bfloat16, of a model whose weights in training are in float32: a copy."""
    return numbers.width * shape.parameters if lora is None and numbers.width < FLOAT32 else 0.0


def memory(config: BaseModel, shape: Shape, counts: Counts, device: str) -> Memory | None:
    """Of the stage that this configuration is of; none for a stage without a model. counts: of its texts."""
    numbers = numbers_of(config, device)
    most = pass_tokens(shape.vocabulary, device)
    frozen = numbers.width * shape.parameters

    def cached(rows: float, length: float) -> float:
        return ROOM * SELECTED * rows * length * shape.cache_bytes(numbers.width)

    def logits(copies: int, tokens: float) -> float:
        held = tokens * shape.vocabulary
        return copies * FLOAT32 * (held if numbers.tile is None else min(held, numbers.tile))

    match config:
        case BaseConfig() | MStepConfig():
            plain = isinstance(config, BaseConfig)
            longest = LONG * WEB_TOKENS if plain else min(LONG * counts.text, config.max_tokens)
            tokens = min(config.batch_size * longest, max(PASS[device], longest))
            lost = logits(LOSS_LOGITS, tokens)
            kept = activations(shape, tokens, numbers, lost)
            return Memory(*trained(shape, None if plain else config.lora, numbers), kept, 0, lost)
        case EStepConfig():
            weights, gradients, moments = trained(shape, config.lora, numbers)
            weights += narrow(shape, config.lora, numbers)  # what is sampled from
            states = config.demonstrations * config.states
            rollouts = states * config.group_size * (config.rationale_tokens + BREAK_TOKENS)
            # states of one demonstration share its text, if layers are not computed again
            alone = states * config.group_size if numbers.recomputed else config.demonstrations
            contexts = alone * LONG * counts.text
            drawn = logits(RATIONALE_LOGITS, min(rollouts, most))
            kept = activations(shape, min(rollouts + contexts, most), numbers, drawn)
            update = Memory(weights + frozen, gradients, moments, kept, logits=drawn)
            # sampling and the update are not at the same time: the larger of the two counts
            cache = cached(states * config.group_size, LONG * counts.text)
            scored = logits(SCORE_LOGITS, min(rollouts, most))
            return largest([update, Memory(weights + frozen, 0, moments, 0, cache, scored)])
        case RLVRConfig():
            weights, gradients, moments = trained(shape, config.lora, numbers)
            weights += narrow(shape, config.lora, numbers)
            new = config.group_size * (config.max_new_tokens + 1)
            # a prompt is run once for its samples, if layers are not computed again
            group = counts.tokens * (config.group_size if numbers.recomputed else 1) + new
            tokens = min(config.prompts * group, max(most, group))
            lost = logits(POLICY_LOGITS, tokens * new / group)
            update = Memory(
                weights + frozen, gradients, moments, activations(shape, tokens, numbers, lost), logits=lost
            )
            cache = cached(config.batch_size, counts.tokens + config.max_new_tokens)
            drawn = logits(SAMPLE_LOGITS, config.batch_size)
            return largest([update, Memory(weights + frozen, 0, moments, 0, cache, drawn)])
        case BootstrapConfig():
            if math.isinf(config.think_penalty):
                return None
            rows = config.batch_size * config.samples
            tokens = min(config.batch_size * LONG * counts.text, most)
            cache = cached(rows, LONG * counts.text)
            return Memory(2 * frozen, cache=cache, logits=logits(SCORE_LOGITS, max(tokens, rows)))
        case BenchmarkConfig(engine="http"):
            return None  # the model is a server's
        case BenchmarkConfig():
            known = BENCHMARKS.get(config.benchmark.partition(":")[0])
            prompt = PROMPT_TOKENS if config.benchmark == EMBEDDED or known is None else known.prompt
            cache = cached(config.batch_size, prompt + config.max_new_tokens)
            return Memory(frozen, cache=cache, logits=logits(SAMPLE_LOGITS, config.batch_size))
        case AnalysisConfig():
            return Memory(2 * frozen, cache=cached(config.lines, LONG * counts.text), logits=logits(SCORE_LOGITS, most))
    return None


def checkpoints(config: BaseModel, shape: Shape) -> float:
    """Bytes of the checkpoints that a stage keeps while it runs, the one that is being written included."""
    match config:
        case BaseConfig():
            own, number = shape.parameters, 3
        case MStepConfig():
            own, number = shape.adapters(config.lora.rank) if config.lora else shape.parameters, 3
        case EStepConfig() | RLVRConfig():
            own, number = shape.adapters(config.lora.rank) if config.lora else shape.parameters, 2
        case _:
            return 0.0
    return number * own * (FLOAT32 + MOMENTS)


def artifact(config: BaseModel, kind: str, shape: Shape, counts: Counts) -> float:
    """Bytes that a stage leaves in the store: a model in float32 and those kept on the way to it, or its texts."""
    if kind in ("base", "e_step", "m_step", "rlvr"):
        return FLOAT32 * shape.parameters * (1 + getattr(config, "snapshots", 0))
    if kind in ("demonstrations", "bootstrap", "distil", "shuffle"):
        return PARQUET_BYTES * counts.documents * counts.text
    return 0.0


def largest(memories: Sequence[Memory]) -> Memory:
    """The one that takes most."""
    return max(memories, key=lambda one: one.total)
