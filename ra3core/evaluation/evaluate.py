"""Evaluation: sample completions, judge them by unit tests, report pass@k with intervals.

The paper reports pass@1 and pass@5 on HumanEval, MBPP and their plus versions. Here every arm gets the same tokens to
spend, each number its bootstrap interval over problems, and each arm is decoded in up to three modes
(ra3core/evaluation/samples.py).

Alone: ``ra3 evaluate MODEL --benchmark humaneval --data HumanEval.jsonl.gz``
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ra3core.config import EvaluationConfig
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import Benchmark, Problem
from ra3core.evaluation.samples import Mode, Sample, Sampler, chunk_seed, flat, summarise
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.stage import Context, Metrics
from ra3core.verifier import WORKERS, Program, Verdict, Verifier

SAMPLES, RESULTS = "samples.jsonl", "results.json"
_BATCHES = 4  # generation batches in a chunk: enough to sort by length, few enough to lose when killed


def evaluate(config: EvaluationConfig, context: Context) -> Metrics:
    """Evaluate inputs["model"]/model on config.benchmark, the embedded one from inputs["tasks"].

    Writes samples.jsonl (a graded sample a line) and results.json (`summarise`). Metrics: pass@k by mode and number of
    steps, comment figures, tokens (prompt and new, every sample). Finished chunks survive in context.scratch.
    """
    folder = context.inputs["model"] / "model"
    benchmark = benchmarks.load(config.benchmark, context.inputs["tasks"] if config.benchmark == "embedded" else None)
    results, samples = _evaluate(folder, benchmark, config, context)
    return {**flat(results), "tokens": sum(s.tokens for s in samples), "train_tokens": 0, "samples": len(samples)}


def evaluate_benchmark(
    model_source: str,
    benchmark: str,
    data: Path | None,
    config: EvaluationConfig,
    out: Path,
    context: Context | None = None,
) -> dict[str, Any]:
    """`ra3 evaluate`: any model that AutoModelForCausalLM loads, on any benchmark; returns what results.json holds.

    out: gets samples.jsonl and results.json; an interrupted call goes on there, with the same settings only.
    context: seed, threads, device and log (its folders are not used).
    Raises UserError for an unknown benchmark, missing or malformed data, or a model that cannot be loaded.
    """
    loaded = benchmarks.load(benchmark, data)
    scratch = out / "chunks"
    context = replace(context or Context({}, out, scratch), out=out, scratch=scratch)
    settings = {"model": model_source, "benchmark": benchmark, "seed": context.seed, **config.model_dump(mode="json")}
    scratch.mkdir(parents=True, exist_ok=True)
    note = scratch / "settings.json"
    if note.is_file() and json.loads(note.read_text()) != settings:
        raise UserError(f"{out}: holds samples of other settings, expected an empty folder or the same settings")
    _write(note, json.dumps(settings, indent=1))
    results, _ = _evaluate(model_source, loaded, config, context)
    return results


@dataclass(frozen=True)
class _Chunk:
    """Problems that are sampled and graded together; kept as one file when done."""

    mode: Mode
    number: int
    problems: Sequence[Problem]

    @property
    def file(self) -> str:
        return f"{self.mode}-{self.number:05d}.jsonl"


def _evaluate(
    model_source: str | Path, benchmark: Benchmark, config: EvaluationConfig, context: Context
) -> tuple[dict[str, Any], list[Sample]]:
    torch.set_num_threads(context.threads)
    context.out.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(model_source)
    sampler = Sampler(load_model(model_source, context.device), tokenizer, benchmark)
    problems = limited(benchmark.problems, config.limit)
    chunks = list(_chunks(problems, config))
    done = sum(len(chunk.problems) for chunk in chunks if (context.scratch / chunk.file).is_file())
    total = len(problems) * len(config.modes)
    with (
        Verifier(config.verifier, WORKERS) as verifier,
        context.log.progress(f"evaluation on {benchmark.name}", total, done) as advance,
    ):
        if verifier.missing:
            context.log.message(f"programs run without {', '.join(verifier.missing)}: this machine refuses it")
        waiting: _Graded | None = None
        for chunk in chunks:
            if (context.scratch / chunk.file).is_file():
                continue
            samples = sampler.draw(
                chunk.problems, chunk.mode, config, chunk_seed(context.seed, chunk.mode, chunk.number)
            )
            graded = _Graded(chunk, samples, benchmark, verifier)  # judged while the next chunk is drawn
            if waiting is not None:
                advance(waiting.save(context.scratch))
            waiting = graded
        if waiting is not None:
            advance(waiting.save(context.scratch))
    samples = [sample for chunk in chunks for sample in _read(context.scratch / chunk.file)]
    _write(context.out / SAMPLES, "".join(json.dumps(asdict(sample)) + "\n" for sample in samples))
    results = summarise(samples, config.k, context.seed)
    _write(context.out / RESULTS, json.dumps(results, indent=1) + "\n")
    return results, samples


def limited(problems: Sequence[Problem], limit: int | None) -> list[Problem]:
    """The first `limit` problems of every number of steps."""
    seen: dict[int, int] = {}
    kept = []
    for problem in problems:
        seen[problem.steps] = seen.get(problem.steps, 0) + 1
        if limit is None or seen[problem.steps] <= limit:
            kept.append(problem)
    return kept


def _chunks(problems: Sequence[Problem], config: EvaluationConfig) -> Iterator[_Chunk]:
    size = max(1, _BATCHES * config.batch_size // config.samples)
    for mode in config.modes:
        for number, start in enumerate(range(0, len(problems), size)):
            yield _Chunk(mode, number, problems[start : start + size])


class _Graded:
    """Samples before the judge; equal completions of a problem are judged once."""

    def __init__(self, chunk: _Chunk, samples: Sequence[Sample], benchmark: Benchmark, verifier: Verifier) -> None:
        self.chunk, self.samples = chunk, samples
        problems = {problem.id: problem for problem in chunk.problems}
        self.verdicts: dict[tuple[str, str], Future[Verdict]] = {}
        for sample in samples:
            key = (sample.task_id, sample.completion)
            if key not in self.verdicts:
                program: Program = benchmark.program(problems[sample.task_id], sample.completion)
                self.verdicts[key] = verifier.submit(program)

    def save(self, folder: Path) -> int:
        """Wait for the verdicts and keep the chunk; returns its number of problems."""
        lines = []
        for sample in self.samples:
            verdict = self.verdicts[sample.task_id, sample.completion].result()
            graded = replace(
                sample, passed=verdict.passed, category=verdict.category, detail=verdict.detail, weak=verdict.weak
            )
            lines.append(json.dumps(asdict(graded)) + "\n")
        _write(folder / self.chunk.file, "".join(lines))
        return len(self.chunk.problems)


def _read(path: Path) -> list[Sample]:
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


def _write(path: Path, text: str) -> None:
    """All or nothing."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
