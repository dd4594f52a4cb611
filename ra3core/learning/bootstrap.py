"""Bootstrap: the trained policy annotates every demonstration with its rationales.

The paper (section 5): rationales sampled from the policy are put ahead of the expert's lines, which are copied byte
for byte; the M-step then trains on the annotated demonstrations.

What we do: the policy walks along each demonstration exactly as in the E-step (ra3core/learning/annotation.py): at
every boundary it decides act or think given the rationales so far, and at a think it writes one. Both are sampled at
`temperature` (0: the likelier decision and token). With `samples` > 1 that many rationales are drawn at a think, and
the one under which the likelihood model finds the next `window` expert lines likeliest is kept: a choice that saw the
answer, so the *decision* to think stays the policy's. An infinite `think_penalty` is the limit c -> infinity of the
E-step: no rationales, and the annotated demonstrations are the demonstrations.

Alone:  bootstrap(BootstrapConfig(), Context(inputs={"policy": ..., "likelihood": ..., "demonstrations": ...}, ...)),
where policy and likelihood are folders with model/ and demonstrations one with demonstrations.parquet. On several
machines: annotate_shard(BootstrapShard(shard=1, shards=2), ...) and so on, then bootstrap with inputs shard_1, shard_2.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ra3core import shards
from ra3core.config import BootstrapConfig, BootstrapShard
from ra3core.corpora.demonstrations import Annotated, Demonstration, annotate, read_demonstrations, write_annotated
from ra3core.errors import UserError
from ra3core.learning.annotation import Annotation, Drawn, DrawRationales, RationaleSampler, State, annotate_batch
from ra3core.learning.scoring import Scores, reward, score_rationales
from ra3core.learning.served_rationales import ServedRationales
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration, undecided
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.lm.served import find, names_of
from ra3core.stage import METRICS_FILE, Context, Metrics

FINISHED = "chunks.jsonl"
SECONDS = ".seconds.json"  # of a shard's chunks: a hidden file, so that shards of equal content have equal digests
SCORED_CHUNKS = 4  # the gain per rationale is measured on the first of them


def bootstrap(config: BootstrapConfig, context: Context) -> Metrics:
    """Annotate every demonstration; writes annotated.parquet, examples.json and metrics.jsonl.

    With inputs shard_1, shard_2, ... (from `annotate_shard`) the annotations are theirs, and no model is loaded.

    Returns think_rate (mean p(think) over boundaries), thinks_per_demonstration, rationale_tokens (mean),
    annotated_lines (share of lines with a rationale), segment_lines (mean lines under one rationale), gain (mean
    log-likelihood gain of a rationale over none on its window, nats, on a sample), unterminated, matches_reference
    (share of rationales equal to the reference ahead of the same line, and `references`, how many could be compared),
    tokens, train_tokens, demonstrations_per_second. Raises UserError for unusable inputs, and for shards that do not
    hold every chunk once.
    """
    chunks = _chunks(config, context)
    folders = shards.folders(context.inputs)
    finished = _merged(folders, chunks, context) if folders else _annotated(config, context, chunks, range(len(chunks)))
    rationales = [{int(t): z for t, z in row.items()} for chunk in finished for row in chunk["rationales"]]
    demonstrations = [d for chunk in chunks for d in chunk]
    annotated = [annotate(d, row) for d, row in zip(demonstrations, rationales, strict=True)]
    write_annotated(annotated, context.out / "annotated.parquet")
    examples = [{"id": a.demonstration.id, "before": a.demonstration.text, "after": a.text} for a in _first(annotated)]
    (context.out / "examples.json").write_text(json.dumps(examples, indent=1))
    counts = {"train_tokens": 0, "demonstrations": len(annotated)}
    return _figures(finished) | _agreement(annotated) | counts | _servers(finished)


def annotate_shard(config: BootstrapShard, context: Context) -> Metrics:
    """Annotate one shard's chunks; writes chunks.jsonl, which `bootstrap` merges, and metrics.jsonl.

    Inputs, metrics and errors are those of `bootstrap`, the agreement with references aside. A shard without chunks
    is empty files, and loads no model.
    """
    chunks = _chunks(config, context)
    finished = _annotated(config, context, chunks, shards.own(range(len(chunks)), config.shard, config.shards))
    content = [{name: value for name, value in chunk.items() if name != "seconds"} for chunk in finished]
    (context.out / FINISHED).write_text("".join(json.dumps(chunk) + "\n" for chunk in content))
    (context.out / SECONDS).write_text(json.dumps([chunk["seconds"] for chunk in finished]))
    counts = {"train_tokens": 0, "demonstrations": sum(c["demonstrations"] for c in finished)}
    return _figures(finished) | counts | _servers(finished)


def _chunks(config: BootstrapConfig, context: Context) -> list[list[Demonstration]]:
    """The demonstrations by what is annotated side by side; prepares the folders and the log."""
    context.out.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    context.log.path = context.out / METRICS_FILE
    file = context.inputs["demonstrations"] / "demonstrations.parquet"
    demonstrations = read_demonstrations(file)
    if not demonstrations:
        raise UserError(f"{file}: no demonstrations, expected at least one")
    size = config.batch_size
    return [demonstrations[i : i + size] for i in range(0, len(demonstrations), size)]


def _annotated(
    config: BootstrapConfig, context: Context, chunks: Sequence[Sequence[Demonstration]], asked: Sequence[int]
) -> list[dict[str, Any]]:
    """The chunks of these indices, annotated in this order; goes on after those that a killed attempt finished."""
    finished = _read_chunks(context.scratch / FINISHED)
    context.log.resume(finished[-1]["chunk"] + 1 if finished else 0)
    missing = asked[len(finished) :]
    if not missing:
        return finished
    annotator = _Annotator(config, context)
    tokenized: list[TokenizedDemonstration] = []
    total, left = (sum(len(chunks[index]) for index in indices) for indices in (asked, missing))
    with context.log.progress("bootstrap", total, total - left) as advance:
        for index in missing:
            programs = [annotator.lines.demonstration(d) for d in chunks[index]]
            tokenized += programs
            finished.append(annotator.chunk(index, programs))
            with (context.scratch / FINISHED).open("a") as stream:
                stream.write(json.dumps(finished[-1]) + "\n")
            context.log.metrics(index + 1, **_figures(finished[-1:]))
            advance(len(chunks[index]))
    if left_out := undecided(tokenized):
        context.log.message(left_out)
    return finished


def _merged(
    folders: Sequence[Path], chunks: Sequence[Sequence[Demonstration]], context: Context
) -> list[dict[str, Any]]:
    """Every chunk, from the shards that annotated them."""
    found: list[dict[str, Any]] = []
    for folder in folders:
        rows = [json.loads(line) for line in (folder / FINISHED).read_text().splitlines()]
        seconds = json.loads((folder / SECONDS).read_text())
        found += [{**row, "seconds": spent} for row, spent in zip(rows, seconds, strict=True)]
    shards.require_each_once("bootstrap", [str(row["chunk"]) for row in found], map(str, range(len(chunks))))
    found.sort(key=lambda row: row["chunk"])
    context.log.resume(0)
    for index, (row, chunk) in enumerate(zip(found, chunks, strict=True)):
        if len(row["rationales"]) != len(chunk):
            raise UserError(
                f"bootstrap: chunk {index} of the shards has {len(row['rationales'])} demonstrations, expected "
                f"{len(chunk)}: they were made with another batch_size or other demonstrations"
            )
        context.log.metrics(index + 1, **_figures([row]))
    return found


class _Annotator:
    """The models and settings that every chunk shares."""

    def __init__(self, config: BootstrapConfig, context: Context) -> None:
        self.config, self.seed, self.device = config, context.seed, context.device
        folder = context.inputs["policy"] / "model"
        self.policy = load_model(folder, context.device, config.precision)
        self.likelihood = load_model(context.inputs["likelihood"] / "model", context.device, config.precision)
        self.lines = LineTokenizer(load_tokenizer(folder))
        vocabulary: int = self.policy.config.vocab_size
        if self.likelihood.config.vocab_size != vocabulary:
            raise UserError(
                "bootstrap: policy and likelihood model have different vocabularies, expected one tokenizer"
            )
        self.sampler = RationaleSampler(
            self.lines, vocabulary, config.temperature, config.rationale_tokens, context.device
        )
        self.served: ServedRationales | None = None
        if config.engine == "http" and not math.isinf(config.think_penalty):
            self.served = ServedRationales(find(context.servers, names_of(folder)), self.sampler)
            context.log.message(f"rationales are drawn by {self.served.served.said}")

    def chunk(self, index: int, programs: list[TokenizedDemonstration]) -> dict[str, Any]:
        """Annotate some demonstrations; depends on the seed and the index, not on other chunks."""
        began = time.perf_counter()
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + index)
        tokens = 0

        searched = self.config.decision == "gain"

        def best(states: list[State], groups: list[list[Drawn]]) -> list[int | None]:
            nonlocal tokens
            config = self.config
            tokens += _scored_tokens(states, groups, config.window)
            scores = score_rationales(self.likelihood, states, groups, self.sampler, config.window, config.given_act)
            if not searched:
                return [max(range(len(s.thinks)), key=s.thinks.__getitem__) for s in scores]
            return [self._search(score, group) for score, group in zip(scores, groups, strict=True)]

        if math.isinf(self.config.think_penalty):
            annotations = [Annotation(program) for program in programs]
        else:
            annotations = annotate_batch(
                self.policy,
                programs,
                self.sampler,
                generator,
                samples=self.config.samples,
                choose=best if searched or self.config.samples > 1 else None,
                everywhere=searched,
                draw=self._draw(index),
            )
        gains: list[float] = []
        thinks = [(a.state(t), [drawn]) for a in annotations for t, drawn in a.drawn.items()]
        if index < SCORED_CHUNKS and thinks:
            states, groups = [state for state, _ in thinks], [group for _, group in thinks]
            tokens += _scored_tokens(states, groups, self.config.window)
            scores = score_rationales(self.likelihood, states, groups, self.sampler, self.config.window)
            gains = [score.thinks[0] - score.act for score in scores]
        drawn = [d for a in annotations for d in a.drawn.values()]
        return {
            "chunk": index,
            "rationales": [{str(t): z for t, z in a.rationales.items()} for a in annotations],
            "demonstrations": len(annotations),
            "lines": sum(len(a.tokens.lines) for a in annotations),
            "boundaries": sum(len(a.decisions) for a in annotations),
            "think_probability": sum(math.exp(think) for a in annotations for think, _ in a.decisions.values()),
            "segments": sum(len(a.rationales) + (0 not in a.rationales) for a in annotations),
            "thinks": len(drawn),
            "rationale_tokens": sum(len(d.content) for d in drawn),
            "unterminated": sum(not d.terminated for d in drawn),
            "gains": gains,
            "tokens": tokens + sum(a.processed for a in annotations),
            "seconds": time.perf_counter() - began,
            **({"server": self.served.served.said} if self.served else {}),
        }

    def _search(self, score: Scores, group: Sequence[Drawn]) -> int | None:
        """The rationale of the highest reward, where that is above an act's; of those that leave text to write."""
        rewards = {
            i: reward(value, score.tokens, self.config, drawn)
            for i, (value, drawn) in enumerate(zip(score.thinks, group, strict=True))
            if self.sampler.text(drawn)
        }
        index = max(rewards, key=rewards.__getitem__, default=None)
        return index if index is not None and rewards[index] > reward(score.act, score.tokens, self.config) else None

    def _draw(self, index: int) -> DrawRationales | None:
        """What a server draws for this chunk: every round of it has its own seeds."""
        if (served := self.served) is None:
            return None
        rounds = itertools.count()
        return lambda states: served.draw(states, self.config.samples, [self.seed, index, next(rounds)])


def _scored_tokens(states: Sequence[State], groups: Sequence[Sequence[Drawn]], window: int) -> int:
    """Tokens that scoring these rationales runs: the contexts once, the window after nothing and after each."""
    return sum(
        len(s.context)
        + len(s.window(window)) * (1 + len(g))
        + sum(len(d.tokens) + len(s.after(d.terminated)) for d in g)
        for s, g in zip(states, groups, strict=True)
    )


def _read_chunks(path: Path) -> list[dict[str, Any]]:
    """Chunks that are finished; a line that a kill cut short is dropped from the file."""
    if not path.exists():
        return []
    complete = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(complete))
    return [json.loads(line) for line in complete]


def _figures(chunks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over some chunks."""

    def ratio(part: str, whole: str) -> float:
        return sum(chunk[part] for chunk in chunks) / max(sum(chunk[whole] for chunk in chunks), 1e-9)

    gains = [gain for chunk in chunks for gain in chunk["gains"]]
    figures = {
        "think_rate": ratio("think_probability", "boundaries"),
        "thinks_per_demonstration": ratio("thinks", "demonstrations"),
        "rationale_tokens": ratio("rationale_tokens", "thinks"),
        "annotated_lines": ratio("thinks", "lines"),
        "segment_lines": ratio("lines", "segments"),
        "unterminated": ratio("unterminated", "thinks"),
        "demonstrations_per_second": ratio("demonstrations", "seconds"),
        "tokens": sum(chunk["tokens"] for chunk in chunks),
    }
    return figures | ({"gain": sum(gains) / len(gains)} if gains else {})


def _servers(chunks: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What drew the rationales, as the servers themselves say; nothing where it was this process."""
    said = sorted({chunk["server"] for chunk in chunks if "server" in chunk})
    return {"servers": said} if said else {}


def _agreement(annotated: Sequence[Annotated]) -> dict[str, float]:
    """How many rationales stand where the demonstration has a reference, and how many of those say the same."""
    pairs = [(z, a.demonstration.reference.get(t)) for a in annotated for t, z in a.rationales.items()]
    compared = [(z, reference) for z, reference in pairs if reference is not None]
    if not compared:
        return {"references": 0}
    same = sum(" ".join(z.split()) == " ".join(reference.split()) for z, reference in compared)
    return {"references": len(compared), "matches_reference": same / len(compared)}


def _first(annotated: Sequence[Annotated], count: int = 3) -> list[Annotated]:
    """The first few demonstrations, those that got a rationale ahead of the others."""
    return sorted(annotated, key=lambda a: not a.rationales)[:count]
