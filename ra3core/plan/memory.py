"""Memory of one device while a stage runs, and what the stage leaves on the disk.

As the stages work today: models are loaded in float32, a layer's activations are kept for the backward pass, and logits
are held whole. A test holds the training stages against the measured peak of tiny models.
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
    WEB_TOKENS,
    Counts,
    pass_tokens,
)

WIDTH = 4  # bytes of a number: models are loaded in float32
MOMENTS = 8  # bytes of AdamW's two moments of a parameter
LONG = 2.0  # the longest text of a batch against the mean

LOSS_LOGITS, POLICY_LOGITS, RATIONALE_LOGITS, SCORE_LOGITS, SAMPLE_LOGITS = 3, 5, 7, 3, 4
"""Copies of the logits at the peak of a pass: with a loss of next tokens; with a policy gradient, and that of rationales,
whose distribution is constrained; scored; drawn from. Measured on tiny models: 2.9, 4.9, 6.4, 3.0; the last is read off
lm/generation.py."""

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


def activations(shape: Shape, tokens: float) -> float:
    """Bytes that the layers keep for the backward pass of `tokens` tokens.

    Numbers a token of an attention layer: its input, normed and scaled, twice (6 hidden), queries and the heads'
    outputs, keys and values; of the feed-forward part gate, its activation, up and their product (4 intermediate). A
    convolution keeps six times its width in place of the heads.
    """
    feed = 6 * shape.hidden + 4 * shape.intermediate
    attention = 4 * shape.query + 4 * shape.key_value
    numbers = shape.layers * feed + shape.attention * attention + shape.convolution * 6 * shape.hidden
    return WIDTH * tokens * numbers


def trained(shape: Shape, lora: LoraConfig | None) -> tuple[float, float, float]:
    """Bytes of a model in training: its weights, gradients and AdamW's moments."""
    own = shape.parameters if lora is None else shape.adapters(lora.rank)
    weights = shape.parameters + (own if lora else 0)
    return WIDTH * weights, WIDTH * own, MOMENTS * own


def memory(config: BaseModel, shape: Shape, counts: Counts, device: str) -> Memory | None:
    """Of the stage that this configuration is of; none for a stage without a model. counts: of its texts."""
    logit = WIDTH * shape.vocabulary
    most = pass_tokens(shape.vocabulary, device)
    frozen = WIDTH * shape.parameters

    def cached(rows: float, length: float) -> float:
        return ROOM * SELECTED * rows * length * shape.cache_bytes(WIDTH)

    match config:
        case BaseConfig() | MStepConfig():
            plain = isinstance(config, BaseConfig)
            longest = LONG * WEB_TOKENS if plain else min(LONG * counts.text, config.max_tokens)
            tokens = min(config.batch_size * longest, max(PASS[device], longest))
            lora = None if plain else config.lora
            return Memory(*trained(shape, lora), activations(shape, tokens), 0, LOSS_LOGITS * tokens * logit)
        case EStepConfig():
            weights, gradients, moments = trained(shape, config.lora)
            states = config.demonstrations * config.states
            rollouts = states * config.group_size * (config.rationale_tokens + BREAK_TOKENS)
            contexts = config.demonstrations * LONG * counts.text  # states of one demonstration share its text
            tokens = min(rollouts + contexts, most)
            logits = RATIONALE_LOGITS * min(rollouts, most) * logit
            cache = cached(states * config.group_size, LONG * counts.text)
            return Memory(weights + frozen, gradients, moments, activations(shape, tokens), cache, logits)
        case RLVRConfig():
            weights, gradients, moments = trained(shape, config.lora)
            new = config.group_size * (config.max_new_tokens + 1)
            group = counts.tokens + new  # a prompt is run once for its samples
            tokens = min(config.prompts * group, max(most, group))
            # sampling and the update are not at the same time: what the larger of the two takes
            sampled = Memory(
                weights + frozen,
                0,
                moments,
                0,
                cached(config.batch_size, counts.tokens + config.max_new_tokens),
                SAMPLE_LOGITS * config.batch_size * logit,
            )
            update = Memory(
                weights + frozen,
                gradients,
                moments,
                activations(shape, tokens),
                0,
                POLICY_LOGITS * tokens * new / group * logit,
            )
            return max(sampled, update, key=lambda one: one.total)
        case BootstrapConfig():
            if math.isinf(config.think_penalty):
                return None
            rows = config.batch_size * config.samples
            tokens = min(config.batch_size * LONG * counts.text, most)
            cache = cached(rows, LONG * counts.text)
            return Memory(2 * frozen, cache=cache, logits=SCORE_LOGITS * max(tokens, rows) * logit)
        case BenchmarkConfig():
            known = BENCHMARKS.get(config.benchmark.partition(":")[0])
            prompt = PROMPT_TOKENS if config.benchmark == EMBEDDED or known is None else known.prompt
            cache = cached(config.batch_size, prompt + config.max_new_tokens)
            return Memory(frozen, cache=cache, logits=SAMPLE_LOGITS * config.batch_size * logit)
        case AnalysisConfig():
            cache = cached(config.lines, LONG * counts.text)
            return Memory(2 * frozen, cache=cache, logits=SCORE_LOGITS * most * logit)
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
    return number * own * (WIDTH + MOMENTS)


def artifact(kind: str, shape: Shape, counts: Counts) -> float:
    """Bytes that a stage leaves in the store: a model in float32, or its texts."""
    if kind in ("base", "e_step", "m_step", "rlvr"):
        return WIDTH * shape.parameters
    if kind in ("demonstrations", "bootstrap", "distil", "shuffle"):
        return PARQUET_BYTES * counts.documents * counts.text
    return 0.0


def largest(memories: Sequence[Memory]) -> Memory:
    """The one that takes most."""
    return max(memories, key=lambda one: one.total)
