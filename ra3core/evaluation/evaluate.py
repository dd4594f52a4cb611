"""Evaluation: sample completions, judge them by unit tests, report pass@k with intervals.

The paper reports pass@1 and pass@5 on HumanEval, MBPP and their plus versions. Here every arm gets the same tokens to
spend, each number its bootstrap interval over problems, and on the embedded suite each arm is decoded in up to three
modes (ra3core/evaluation/samples.py); other benchmarks are sampled the way they officially are.

Samples are drawn in chunks; a chunk is kept as it was drawn, and again when it is graded. So a killed evaluation goes
on where it was, and samples outlive a change of the verifier: they are graded again, not drawn again. On several
machines `evaluate_shard` makes some of the chunks each, and `evaluate` merges them (ra3core/shards.py).

Alone: ``ra3 evaluate MODEL --benchmark humaneval --data HumanEval.jsonl.gz``
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ra3core import shards
from ra3core.config import EMBEDDED, BenchmarkConfig, BenchmarkShard
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import (
    Benchmark,
    Problem,
    embedded,  # by name: its code is part of this stage's
)
from ra3core.evaluation.grading import Grader, Pending, data_digest, grading_code, unconfined
from ra3core.evaluation.results import Mode, Sample, flat, summarise
from ra3core.evaluation.samples import Sampler, chunk_seed
from ra3core.lm.engines import Engine, local_engine
from ra3core.lm.http_engine import Http
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.lm.served import find, names_of
from ra3core.section import Precision
from ra3core.stage import Context, Metrics
from ra3core.verifier import WORKERS

SAMPLES, RESULTS = "samples.jsonl", "results.json"
DATA, PREPARED = "data", "prepared"
_GRADED, _SERVERS = ".graded.jsonl", "servers.json"
_BATCHES = 4  # generation batches in a chunk: enough to sort by length, few enough to lose when killed


def evaluate(config: BenchmarkConfig, context: Context) -> Metrics:
    """Evaluate a model on a benchmark: the one in `config.model` of inputs["model"].

    inputs["tasks"]: the data folder for the embedded suite; for another benchmark a folder with its file, named data
    and what its format is called (data.jsonl.gz; none: from the hub), where expected outputs are kept, too.

    inputs["shard_1"] and so on, from `evaluate_shard`: the graded samples are theirs, and no model is loaded.

    Writes samples.jsonl (a graded sample a line) and results.json (`summarise`). Metrics: pass@k by mode and number of
    steps, comment figures, tokens (prompt and new, every sample). Finished chunks survive in context.scratch.
    Raises UserError for a model that cannot be loaded, and for shards that do not hold every chunk once.
    """
    benchmark, data = _benchmark(config, context)
    chunks = _chunks(benchmark, config, context.scratch)
    if folders := shards.folders(context.inputs):
        chunks = _merged(folders, chunks, config.samples)
    else:
        _grade_for_stage(benchmark, config, context, chunks, data)
    results, samples = _summary(benchmark, config, context, chunks)
    figures = flat(results, "" if config.benchmark == EMBEDDED else config.slug)
    return {**figures, **_spent(samples), **_asked(context.scratch)}


def evaluate_shard(config: BenchmarkShard, context: Context) -> Metrics:
    """One shard's part of `evaluate`, with its inputs and errors: a file of graded samples for each of its chunks.

    Metrics: tokens and samples. A shard without chunks is an empty folder, and loads no model.
    """
    benchmark, data = _benchmark(config, context)
    chunks = shards.own(_chunks(benchmark, config, context.scratch), config.shard, config.shards)
    _grade_for_stage(benchmark, config, context, chunks, data)
    for chunk in chunks:
        shutil.copyfile(chunk.graded, replace(chunk, folder=context.out).graded)
    return {**_spent([sample for chunk in chunks for sample in _read(chunk.graded)]), **_asked(context.scratch)}


def _benchmark(config: BenchmarkConfig, context: Context) -> tuple[Benchmark, Path | None]:
    """The benchmark of a stage, and its file."""
    tasks = context.inputs["tasks"]
    if config.benchmark == EMBEDDED:
        return embedded.load(tasks, ""), None
    data = next(iter(sorted(tasks.glob(f"{DATA}*"))), None)
    return benchmarks.load(config.benchmark, data), data


def _grade_for_stage(
    benchmark: Benchmark, config: BenchmarkConfig, context: Context, chunks: Sequence[_Chunk], data: Path | None
) -> None:
    model = Model(context.inputs["model"] / config.model, context.device, precision=config.precision)
    _grade(model, benchmark, config, context, chunks, data, context.inputs["tasks"] / PREPARED)


def _servers(folder: Path) -> list[str]:
    """What drew samples that are kept in a folder, as the servers themselves say; nothing for an engine in this
    process."""
    return json.loads((folder / _SERVERS).read_text()) if (folder / _SERVERS).is_file() else []


def _asked(folder: Path) -> Metrics:
    return {"servers": found} if (found := _servers(folder)) else {}


def _spent(samples: Sequence[Sample]) -> Metrics:
    """What samples cost."""
    return {"tokens": sum(sample.tokens for sample in samples), "train_tokens": 0, "samples": len(samples)}


class Model:
    """A causal language model that is loaded when it is first needed: samples that are there need none.

    source: its folder, or a hub name. identity: what tells it from others; where it lies, by default.
    """

    def __init__(
        self, source: str | Path, device: str = "cpu", identity: str = "", precision: Precision = "float32"
    ) -> None:
        self.source, self.device, self.identity = source, device, identity or str(source)
        self.precision: Precision = precision

    @functools.cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Raises UserError when it cannot be loaded."""
        tokenizer = load_tokenizer(self.source)
        return load_model(self.source, self.device, self.precision), tokenizer

    def engine(self, config: BenchmarkConfig, context: Context) -> tuple[Engine, PreTrainedTokenizerBase]:
        """What draws its completions, and its tokenizer; of a served model nothing else is loaded, and what the server
        says of itself is kept in context.scratch.

        Raises UserError when it cannot be loaded, or no server has it.
        """
        if config.engine != "http":
            loaded, tokenizer = self.loaded
            return local_engine(config.engine, loaded, tokenizer, config.batch_size), tokenizer
        served = find(context.servers, names_of(Path(self.source)))
        context.log.message(f"completions are drawn by {served.said}")
        note = context.scratch / _SERVERS
        _write(note, json.dumps(sorted({served.said, *_servers(context.scratch)})))
        tokenizer = load_tokenizer(self.source)
        return Http(served, tokenizer), tokenizer


def evaluate_benchmark(
    model: Model,
    benchmark: Benchmark,
    config: BenchmarkConfig,
    out: Path,
    context: Context | None = None,
    *,
    data: Path | None = None,
    cache: Path | None = None,
    workers: int = WORKERS,
) -> dict[str, Any]:
    """`ra3 evaluate`: any model on any benchmark; returns what results.json holds.

    out: gets samples.jsonl and results.json, and keeps what was drawn: samples of the same model, prompts and sampling
    are not drawn again. data: the benchmark's file. cache: for expected outputs.
    context: seed, threads, device and log (its folders are not used).
    Raises UserError for a model that cannot be loaded.
    """
    context = context or Context({}, out, out)
    prompts = [[problem.id, benchmark.prompt(problem)] for problem in limited(benchmark.problems, config.limit)]
    drawn_by = [model.identity, prompts, benchmark.stop, context.seed, config.samples, config.temperature]
    drawn_by += [config.top_p, config.max_new_tokens, config.batch_size]
    if config.engine != "built-in":  # which drew what is kept of older versions
        drawn_by.append(config.engine)
    if model.precision != "float32":
        drawn_by.append(model.precision)
    folder = out / "chunks" / hashlib.sha256(json.dumps(drawn_by).encode()).hexdigest()[:16]
    context = replace(context, out=out, scratch=folder)
    chunks = _chunks(benchmark, config, folder)
    _grade(model, benchmark, config, context, chunks, data, cache or out / PREPARED, workers)
    return _summary(benchmark, config, context, chunks)[0]


@dataclass(frozen=True)
class _Chunk:
    """Problems that are sampled and graded together; a file when drawn, another when graded."""

    mode: Mode
    number: int
    problems: Sequence[Problem]
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.mode}-{self.number:05d}"

    @property
    def drawn(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    @property
    def graded(self) -> Path:
        return self.folder / f"{self.name}{_GRADED}"


def _grade(
    model: Model,
    benchmark: Benchmark,
    config: BenchmarkConfig,
    context: Context,
    chunks: Sequence[_Chunk],
    data: Path | None,
    cache: Path,
    workers: int = WORKERS,
) -> None:
    """Draw and grade what is missing of these chunks."""
    torch.set_num_threads(context.threads)
    context.out.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    _forget_other_grades(benchmark, data, config, context.scratch)
    missing = [chunk for chunk in chunks if not chunk.graded.is_file()]
    _tell_what_is_kept(chunks, config.samples, context)

    @functools.cache
    def sampler() -> Sampler:
        return Sampler(*model.engine(config, context), benchmark)

    if missing:
        if not all(chunk.drawn.is_file() for chunk in missing):
            sampler()  # a model that cannot be loaded is told at once
        total, left = (sum(len(chunk.problems) for chunk in some) for some in (chunks, missing))
        asked = {problem.id for chunk in chunks for problem in chunk.problems}
        with (
            Grader(benchmark, config.verifier, cache, workers, asked) as grader,
            context.log.progress("tasks", total, total - left) as advance,
        ):
            if grader.missing:
                context.log.message(unconfined(grader.missing))
            waiting: _Graded | None = None
            for chunk in missing:
                samples = _drawn(chunk, sampler, config, context.seed)
                graded = _Graded(chunk, samples, grader)  # judged while the next chunk is drawn
                if waiting is not None:
                    advance(waiting.save())
                waiting = graded
            if waiting is not None:
                advance(waiting.save())


def _merged(folders: Sequence[Path], chunks: Sequence[_Chunk], samples: int) -> list[_Chunk]:
    """The same chunks where the shards have them."""
    files = [file for folder in folders for file in sorted(folder.glob(f"*{_GRADED}"))]
    names = [file.name.removesuffix(_GRADED) for file in files]
    shards.require_each_once("evaluation", names, [chunk.name for chunk in chunks])
    where = {name: file.parent for name, file in zip(names, files, strict=True)}
    merged = [replace(chunk, folder=where[chunk.name]) for chunk in chunks]
    for chunk in merged:
        if [s.task_id for s in _read(chunk.graded)] != [p.id for p in chunk.problems for _ in range(samples)]:
            raise UserError(f"{chunk.graded}: other tasks than expected: the shards are of other settings or data")
    return merged


def _summary(
    benchmark: Benchmark, config: BenchmarkConfig, context: Context, chunks: Sequence[_Chunk]
) -> tuple[dict[str, Any], list[Sample]]:
    """What results.json holds, and all samples; writes both files from graded chunks."""
    problems = limited(benchmark.problems, config.limit)
    samples = [sample for chunk in chunks for sample in _read(chunk.graded)]
    context.out.mkdir(parents=True, exist_ok=True)
    _write(context.out / SAMPLES, "".join(json.dumps(asdict(sample)) + "\n" for sample in samples))
    sampling = {name: getattr(config, name) for name in ("samples", "temperature", "top_p", "max_new_tokens")}
    if config.engine != "built-in":
        sampling["engine"] = config.engine
    part = f"; only {len(problems)} of them" if len(problems) < len(benchmark.problems) else ""
    head = {"benchmark": config.benchmark, "variant": benchmark.variant + part, "sampling": sampling}
    results = summarise(samples, config.k, context.seed, head)
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


def _chunks(benchmark: Benchmark, config: BenchmarkConfig, folder: Path) -> list[_Chunk]:
    """All chunks of an evaluation, in the order in which samples.jsonl has them."""
    problems = limited(benchmark.problems, config.limit)
    size = max(1, _BATCHES * config.batch_size // config.samples)
    return [
        _Chunk(mode, number, problems[start : start + size], folder)
        for mode in config.modes
        for number, start in enumerate(range(0, len(problems), size))
    ]


def _forget_other_grades(benchmark: Benchmark, data: Path | None, config: BenchmarkConfig, folder: Path) -> None:
    """Remove graded chunks when tests, limits or the judge's code are not those that graded them."""
    limits = config.verifier.model_dump(mode="json", exclude={"require_isolation"})
    graded_by = json.dumps([data_digest(benchmark, data), limits, grading_code(benchmark)])
    note = folder / "graded_by.json"
    if not note.is_file() or note.read_text() != graded_by:
        for file in folder.glob(f"*{_GRADED}"):
            file.unlink()
        _write(note, graded_by)


def _tell_what_is_kept(chunks: Sequence[_Chunk], samples: int, context: Context) -> None:
    def count(found: Sequence[_Chunk]) -> int:
        return samples * sum(len(chunk.problems) for chunk in found)

    drawn = [chunk for chunk in chunks if chunk.drawn.is_file()]
    kept, again, missing = (
        count(drawn),
        count([c for c in drawn if not c.graded.is_file()]),
        count(chunks) - count(drawn),
    )
    if kept:
        text = f"{kept} samples kept"
        if again:
            text += f", {'' if again == kept else f'{again} of them '}graded again"
        context.log.message(text + (f", {missing} to draw" if missing else ""))


def _drawn(chunk: _Chunk, sampler: Callable[[], Sampler], config: BenchmarkConfig, seed: int) -> list[Sample]:
    """A chunk's samples, not graded."""
    if chunk.drawn.is_file():
        return _read(chunk.drawn)
    samples = sampler().draw(chunk.problems, chunk.mode, config, chunk_seed(seed, chunk.mode, chunk.number))
    _write(chunk.drawn, "".join(json.dumps(asdict(sample)) + "\n" for sample in samples))
    return samples


class _Graded:
    """Samples before the judge; equal completions of a problem are judged once."""

    def __init__(self, chunk: _Chunk, samples: Sequence[Sample], grader: Grader) -> None:
        self.chunk, self.samples = chunk, samples
        self.grades: dict[tuple[str, str], Pending] = {}
        for sample in samples:
            key = (sample.task_id, sample.completion)
            if key not in self.grades:
                self.grades[key] = grader.submit(*key)

    def save(self) -> int:
        """Wait for the verdicts and keep the chunk; returns its number of problems."""
        lines = []
        for sample in self.samples:
            grade = self.grades[sample.task_id, sample.completion].result()
            graded = replace(
                sample,
                passed=grade.passed,
                category=grade.category,
                detail=grade.detail,
                weak=grade.weak,
                tests=grade.tests,
                tests_passed=grade.tests_passed,
                base=grade.base,
            )
            lines.append(json.dumps(asdict(graded)) + "\n")
        _write(self.chunk.graded, "".join(lines))
        return len(self.chunk.problems)


def _read(path: Path) -> list[Sample]:
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


def _write(path: Path, text: str) -> None:
    """All or nothing."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
