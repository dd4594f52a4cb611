"""Tokens that a stage runs: trained on, read, and written one by one; from its settings and what is known of its data.

The formulas follow what the stages count as `tokens` and `train_tokens` (ra3core/compute.py); a test holds them
against the manifests of a run. What no setting says is a constant below: lengths of text, how often a policy thinks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ra3core.config import (
    EMBEDDED,
    AnalysisConfig,
    BaseConfig,
    BenchmarkConfig,
    BootstrapConfig,
    CorpusConfig,
    DataConfig,
    EStepConfig,
    MStepConfig,
    RLVRConfig,
)
from ra3core.task_set import RLVRTasksConfig

Basis = Literal["run", "data", "settings", "cap", "assumed"]
"""Where a number of tokens comes from: the stage's own manifest; counts of its data in the store; settings alone; the
configured longest lengths (it is at most that); mean lengths assumed below."""

THINKS_PER_LINE, RATIONALE_TOKENS = 0.4, 6.0
"""The paper's upper bounds at c = 0.05: so the costs of thinking are upper bounds too."""

BREAK_TOKENS = 2  # of a rationale in a text: its line break and indentation
CONTEXT_SHARE = 0.6  # of a demonstration that stands ahead of a state: its prompt, and half of its lines
DOCUMENTS: Mapping[str, tuple[float, float]] = {"embedded": (99.0, 9.5), "other": (286.0, 20.0)}
"""Tokens and lines of a demonstration: of the suite as measured; else 1 B tokens in 3.5 M snippets, the paper's."""

PROMPT_TOKENS = 60  # of the suite's tasks
SET_PROMPT_TOKENS = 270  # of a set's: words and signs of a question, mean of the 31 KodCode tasks at hand
WEB_TOKENS, OUTLINE_TOKENS = 95, 60  # of a document that the embedded base model is pre-trained on
SUITE_LENGTHS = 4  # numbers of steps of the suite's evaluation tasks, `limit` tasks of each
HELD_OUT_WEB, HELD_OUT_ELBO, HELD_OUT_TRAINED = 256, 32, 256  # documents of a stage's curves
CURVE_POINTS = 10  # of held-out data, beside the one before the first step
GAIN_CHUNKS = 4  # of an annotation, whose rationales are scored for its log

PASS = {"cpu": 1024, "cuda": 16_384}  # tokens of a pass of an M-step (learning/training.py)
PREFIX_PASS = {"cpu": 2048, "cuda": 8192}  # of a pass of the other stages (lm/prefix.py)
PREFIX_LOGITS = {"cpu": 2**27, "cuda": 2**31}  # tokens x vocabulary of such a pass
TILE = {"cpu": 2**24, "cuda": 2**28}  # logits, of any pass, that are held at once (lm/head.py)


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark asks for when it is sampled as it officially is. Problems as published, prompts about."""

    problems: int
    prompt: int
    max_new_tokens: int
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0


BENCHMARKS: Mapping[str, Benchmark] = {
    "humaneval": Benchmark(164, 150, 512),
    "humaneval-plus": Benchmark(164, 150, 768),
    "mbpp": Benchmark(500, 100, 512),
    "mbpp-plus": Benchmark(378, 100, 768),
    "livecodebench": Benchmark(454, 900, 2000, 10, 0.2, 0.95),
    "codeforces": Benchmark(468, 1000, 2000, 10, 0.2, 0.95),
}


@dataclass(frozen=True)
class Counts:
    """Demonstrations, or tasks, as far as they are known.

    tokens, lines: of one, on average, without rationales. thinks, rationale: rationales of one, and tokens of each.
    """

    documents: int
    tokens: float
    lines: float = 0.0
    thinks: float = 0.0
    rationale: float = RATIONALE_TOKENS
    basis: Basis = "assumed"

    @property
    def text(self) -> float:
        """Tokens of one with its rationales."""
        return self.tokens + self.thinks * (self.rationale + BREAK_TOKENS)

    @property
    def line(self) -> float:
        return self.tokens / max(self.lines, 1.0)


@dataclass(frozen=True)
class Work:
    """trained, read, written: tokens with a gradient, without, and decoded. curves: of all, what only curves need.
    spared: of those read, contexts that are counted but cut out of an earlier pass.

    steps: decoding steps, one after the other, of `rows` sequences of `context` tokens. passes: teacher-forced ones.
    """

    trained: float = 0.0
    read: float = 0.0
    written: float = 0.0
    curves: float = 0.0
    spared: float = 0.0
    steps: float = 0.0
    rows: float = 1.0
    context: float = 0.0
    passes: float = 0.0
    basis: Basis = "settings"

    @property
    def tokens(self) -> int:
        return round(self.trained + self.read + self.written)

    @property
    def metrics(self) -> dict[str, int]:
        """As the stage would report them."""
        return {"tokens": self.tokens, "train_tokens": round(self.trained), "evaluation_tokens": round(self.curves)}


def demonstrations(config: CorpusConfig, metrics: Mapping[str, Any] | None = None) -> Counts:
    """What a run trains on: as the stage has counted it, else the configured number of documents of assumed length."""
    if metrics and "available" in metrics:
        number = int(metrics["demonstrations"])
        tokens = metrics["tokens"] / max(int(metrics["available"]), 1)  # of decontamination's tokeniser
        return Counts(number, tokens, metrics["lines"] / max(number, 1), basis="data")
    tokens, lines = DOCUMENTS.get(config.source, DOCUMENTS["other"])
    return Counts(config.demonstrations, tokens, lines)


def tasks(data: DataConfig, config: RLVRTasksConfig, metrics: Mapping[str, Any] | None = None) -> Counts:
    """What RLVR trains on: as the stage has counted it; else the suite's tasks, or as many of a set as may be kept."""
    if metrics and (number := int(metrics.get("tasks", 0))):
        return Counts(number, metrics["tokens"] / number, basis="data")
    if config.source == EMBEDDED:
        return Counts(data.rlvr_tasks, PROMPT_TOKENS)
    return Counts(config.tasks, SET_PROMPT_TOKENS)


def annotated(counts: Counts, config: BootstrapConfig, metrics: Mapping[str, Any] | None = None) -> Counts:
    """Demonstrations with their rationales, as an annotation has counted them or as assumed."""
    if metrics and "thinks_per_demonstration" in metrics:
        rationale = float(metrics["rationale_tokens"])
        return replace(counts, thinks=float(metrics["thinks_per_demonstration"]), rationale=rationale)
    if math.isinf(config.think_penalty):
        return counts
    return replace(counts, thinks=THINKS_PER_LINE * counts.lines, basis="assumed")


def pretrain(config: BaseConfig) -> Work:
    """The embedded base model's own training."""
    trained = config.web_tokens + config.outline_steps * config.batch_size * OUTLINE_TOKENS
    steps = config.outline_steps + config.web_tokens / (config.batch_size * WEB_TOKENS)
    curves = (CURVE_POINTS + 1) * HELD_OUT_WEB * WEB_TOKENS
    return Work(trained, read=curves, curves=curves, context=WEB_TOKENS / 2, passes=steps + 11)


def m_step(config: MStepConfig, counts: Counts, matched: Sequence[Counts], device: str) -> Work:
    """matched: annotated demonstrations on which the M-steps that a budget is matched with train."""

    def split(counts: Counts) -> tuple[float, float, float]:
        held = max(1.0, config.held_out * counts.documents) if config.held_out else 0.0
        return counts.documents - held, held, min(counts.text, config.max_tokens)

    trained_on, held, length = split(counts)
    trained = config.epochs * trained_on * length
    basis = counts.basis
    if config.token_budget is not None:
        trained = config.token_budget + sum(config.epochs * n * each for n, _, each in map(split, matched))
        basis = "assumed" if any(one.basis == "assumed" for one in matched) else basis
    steps = max(1, math.ceil(trained / (config.batch_size * length)))
    scored = min(HELD_OUT_TRAINED, held) * length
    curves = (min(CURVE_POINTS, steps) + 3) * scored if held else 0.0
    passes = steps * math.ceil(config.batch_size * length / PASS[device]) + curves / (config.batch_size * length)
    return Work(trained, read=curves, curves=curves, context=length / 2, passes=passes, basis=basis)


def e_step(config: EStepConfig, counts: Counts, vocabulary: int, device: str) -> Work:
    """Annotation, rollouts, scores and a gradient step an iteration; the temporal ELBO before and after."""
    held = min(HELD_OUT_ELBO, counts.documents // 10) or counts.documents
    if math.isinf(config.think_penalty):
        return Work(read=held * counts.tokens, passes=1, basis=counts.basis)
    thinking = replace(counts, thinks=THINKS_PER_LINE * counts.lines)
    rationale = min(RATIONALE_TOKENS + 1, config.rationale_tokens)
    demonstrations_, size = min(config.demonstrations, counts.documents), config.group_size
    states = demonstrations_ * config.states
    context = CONTEXT_SHARE * thinking.text
    group = context + size * (rationale + BREAK_TOKENS)
    window = config.window * counts.line
    annotated_ = (1 + thinking.thinks) * thinking.text
    once = annotated_ + thinking.text  # annotation, and its likelihood for the log
    read = demonstrations_ * once + states * (2 * group + (size + 1) * window)
    written = (demonstrations_ * thinking.thinks + states * size) * rationale
    held_out = 2 * held * once
    most = pass_tokens(vocabulary, device)
    passes = thinking.thinks + 4 + 3 * math.ceil(states * group / most)
    return Work(
        trained=config.iterations * config.epochs * states * group,
        read=config.iterations * (read - written) + held_out,
        written=config.iterations * written,
        spared=config.iterations * demonstrations_ * thinking.thinks * context,
        steps=config.iterations * (2 * thinking.thinks + 1) * config.rationale_tokens,
        rows=states * size,
        context=context,
        passes=config.iterations * passes,
        basis="assumed",
    )


def bootstrap(config: BootstrapConfig, counts: Counts, vocabulary: int, device: str) -> Work:
    """Annotation of every demonstration; contexts are counted once a think, as the stage does."""
    if math.isinf(config.think_penalty):
        return Work(basis=counts.basis)
    searched = config.decision == "gain"
    thinking = replace(counts, thinks=THINKS_PER_LINE * counts.lines)
    drawn = counts.lines if searched else thinking.thinks  # places of a demonstration where rationales are drawn
    context, rationale = CONTEXT_SHARE * thinking.text, RATIONALE_TOKENS + 1
    window = config.window * counts.line
    read = thinking.text + drawn * (context if searched else thinking.text)
    if searched or config.samples > 1:
        read += drawn * (context + (1 + config.samples) * window + config.samples * (rationale + BREAK_TOKENS))
    chunks = math.ceil(counts.documents / config.batch_size)
    gains = min(GAIN_CHUNKS, chunks) * config.batch_size * thinking.thinks * (context + 2 * window + rationale)
    most = pass_tokens(vocabulary, device)
    return Work(
        read=counts.documents * read + min(gains, counts.documents * (context + 2 * window)),
        written=counts.documents * drawn * config.samples * rationale,
        spared=counts.documents * drawn * context,
        steps=chunks * 2 * drawn * config.rationale_tokens,  # until the demonstration that thinks most is done
        rows=config.batch_size * config.samples / 2,
        context=context,
        passes=chunks * (2 * drawn + 1) * math.ceil(config.batch_size * thinking.text / most),
        basis="assumed",
    )


def rlvr(config: RLVRConfig, tasks: Counts, vocabulary: int, device: str) -> Work:
    """Samples as long as they may be, of which every group has a gradient: at most this."""
    new, prompt = config.max_new_tokens, tasks.tokens
    group = prompt + config.group_size * new
    sampled = config.steps * config.prompts * config.group_size
    compared = config.steps if config.kl > 0 else config.steps // config.eval_every
    points = 1 + math.ceil(config.steps / config.eval_every) if config.held_out else 0
    scored = points * config.held_out * config.eval_samples
    batches = math.ceil(config.prompts * config.group_size / config.batch_size) * config.steps
    batches += points * math.ceil(config.held_out * config.eval_samples / config.batch_size)
    most = pass_tokens(vocabulary, device)
    return Work(
        trained=config.epochs * config.steps * config.prompts * group,
        read=(sampled + scored) * prompt + compared * config.prompts * group,
        written=(sampled + scored) * new,
        curves=scored * (prompt + new),
        steps=batches * new,
        rows=min(config.batch_size, config.prompts * config.group_size),
        context=prompt + new / 2,
        passes=(config.epochs * config.steps + compared) * math.ceil(config.prompts * config.group_size * new / most),
        basis="cap",
    )


def evaluate(config: BenchmarkConfig, problems: int | None) -> Work:
    """Every sample as long as it may be. problems: as far as they were counted; of the embedded suite, for every number
    of steps."""
    if config.benchmark == EMBEDDED:
        number, prompt = SUITE_LENGTHS * (config.limit or problems or 1), PROMPT_TOKENS
    else:
        known = BENCHMARKS[config.benchmark.partition(":")[0]]
        problems, prompt = problems or known.problems, known.prompt
        number = min(config.limit or problems, problems)
    sequences = number * config.samples * len(config.modes)
    return Work(
        read=sequences * prompt,
        written=sequences * config.max_new_tokens,
        steps=math.ceil(sequences / config.batch_size) * config.max_new_tokens,
        rows=min(config.batch_size, sequences),
        context=prompt + config.max_new_tokens / 2,
        basis="cap",
    )


def analysis(config: AnalysisConfig, counts: Counts) -> Work:
    """Boundaries, sampled lines and scored rationales of one arm's model."""
    context = CONTEXT_SHARE * counts.tokens
    lines = 3 * config.boundaries * config.lines
    scored = min(config.scored, THINKS_PER_LINE * counts.lines * counts.documents)
    return Work(
        read=config.demonstrations * counts.tokens + config.boundaries * context + scored * 2 * context,
        written=lines * config.line_tokens,
        steps=math.ceil(lines / config.lines) * config.line_tokens,
        rows=config.lines,
        context=context,
        passes=config.demonstrations + config.boundaries,
        basis="cap",
    )


def pass_tokens(vocabulary: int, device: str) -> int:
    """Tokens of one pass of the stages that go through lm/prefix.py."""
    return min(PREFIX_PASS[device], PREFIX_LOGITS[device] // vocabulary)
