"""Evaluation: pass@k of one arm on one benchmark, with the same budget for every arm.

Which benchmarks, is in `evaluation.benchmarks`. The embedded suite's tasks are those of the run's data; another
benchmark is loaded ahead of everything else, so that a wrong name or a malformed file costs no training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ra3core import atomic
from ra3core.artifacts import Artifact, Store
from ra3core.config import EMBEDDED, BenchmarkConfig, BenchmarkEntry, BenchmarkShard, RunConfig
from ra3core.corpora.held_out import PREFIX, write_texts
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.grading import data_digest, grading_code
from tasks.session import Session, StageFunction, stage_task

if TYPE_CHECKING:
    from prefect import State
    from prefect.futures import PrefectFuture

MODULE = "ra3core.evaluation.evaluate"

Future: TypeAlias = "PrefectFuture[Artifact]"


@dataclass(frozen=True)
class Asked:
    """A benchmark of a run. config: of its stage. tasks: an input of its stage. texts: what training data must not give
    away, an input of the corpus stages. Both are None for the run's own data."""

    config: BenchmarkConfig
    tasks: Artifact | None
    texts: Artifact | None = None


def asked(config: RunConfig, root: Path) -> list[Asked]:
    """The benchmarks that a run's configuration asks for, loaded once to see that they can be.

    Raises UserError for an unknown one, for a missing or malformed file, and for settings that do not go together.
    """
    evaluation = config.evaluation.model_copy(update={"verifier": config.verifier})
    found = []
    for entry in evaluation.benchmarks:
        if entry.name == EMBEDDED:
            found.append(Asked(evaluation.settled(entry, {}), None))
        else:
            data, benchmark = _loaded(entry)
            settled = evaluation.settled(entry, asdict(benchmark.decoding))
            found.append(Asked(settled, _external(entry, data, benchmark, root), _texts(entry, benchmark, root)))
    return found


def held_out(benchmarks: Sequence[Asked]) -> dict[str, Artifact]:
    """What the corpus stages are decontaminated against beside the run's data: inputs of theirs, by name."""
    return {f"{PREFIX}{one.config.slug}": one.texts for one in benchmarks if one.texts is not None}


def label(arm: str, benchmark: BenchmarkConfig) -> str:
    """What the stage is called: evaluate_ra3, evaluate_ra3:humaneval."""
    return f"evaluate_{arm}" + ("" if benchmark.benchmark == EMBEDDED else f":{benchmark.slug}")


@stage_task("evaluate", "{label} seed {seed}")
def evaluate(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    tasks: Artifact,
    config: BenchmarkConfig,
    rank: int = 0,
    shards: Sequence[Artifact] = (),
) -> State[Artifact]:
    """Graded samples of `model` on a benchmark.

    tasks: the run's data, or what `asked` made of the benchmark's file.
    shards: from `evaluate_shard`, merged; without them the samples are drawn and graded here. The result is the same.
    """
    function = StageFunction(MODULE, "evaluate")
    inputs = {"model": model, "tasks": tasks}
    return session.stage("evaluate", function, config, inputs, label=label, seed=seed, rank=rank, shards=shards)


@stage_task("evaluate_shard", "{label} shard {shard} seed {seed}")
def evaluate_shard(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    tasks: Artifact,
    config: BenchmarkConfig,
    shard: int,
    rank: int = 0,
) -> State[Artifact]:
    """A part of `evaluate`; shard: 1 .. runtime.shards."""
    shards = session.runtime.shards
    inputs = {"model": model, "tasks": tasks}
    if done := session.made("evaluate", StageFunction(MODULE, "evaluate"), config, inputs, label, seed):
        return done
    part = BenchmarkShard(**config.model_dump(), shard=shard, shards=shards)
    function, part_of = StageFunction(MODULE, "evaluate_shard"), ("evaluate", label)
    label = f"{label}:shard_{shard}_of_{shards}"
    return session.stage("evaluate_shard", function, part, inputs, label=label, seed=seed, rank=rank, part_of=part_of)


def submit_evaluate(
    session: Session,
    seed: int,
    label: str,
    model: Artifact | Future,
    tasks: Artifact | Future,
    config: BenchmarkConfig,
    rank: int = 0,
) -> tuple[Future, list[Future]]:
    """Submit `evaluate` and, where runtime.shards asks for more than one, its shards, which it merges.

    Returns what is to come, and the shards: whoever waits should wait for them too, since a shard that fails leaves the
    merge not run, without an error of its own.
    """
    shards: list[Future] = []
    if session.runtime.shards > 1:
        from prefect import unmapped

        shards = evaluate_shard.map(
            unmapped(session),
            unmapped(seed),
            unmapped(label),
            unmapped(model),
            unmapped(tasks),
            unmapped(config),
            range(1, session.runtime.shards + 1),
            unmapped(rank),
        )
    return evaluate.submit(session, seed, label, model, tasks, config, rank=rank, shards=shards), shards


def external_digest(entry: BenchmarkEntry, data: Path | None, benchmark: benchmarks.Benchmark) -> str:
    """Of a benchmark as an input: its content, and the code that grades it."""
    content = [entry.name, data_digest(benchmark, data), grading_code(benchmark)]
    return hashlib.sha256("/".join(content).encode()).hexdigest()


def texts_digest(entry: BenchmarkEntry, texts: Mapping[str, str]) -> str:
    """Of a benchmark's texts as an input: of the texts alone, so that better grading makes no new corpora."""
    return hashlib.sha256(json.dumps([entry.slug, texts]).encode()).hexdigest()


def held_out_by(config: RunConfig, root: Path) -> dict[str, Artifact]:
    """As `held_out`, for who does not evaluate."""
    further = [entry for entry in config.evaluation.benchmarks if entry.name != EMBEDDED]
    return {f"{PREFIX}{entry.slug}": _texts(entry, _loaded(entry)[1], root) for entry in further}


def _loaded(entry: BenchmarkEntry) -> tuple[Path | None, benchmarks.Benchmark]:
    """A benchmark and its file, if it is not from the hub."""
    data = None if entry.data is None else Path(entry.data).expanduser().resolve()
    if data is not None and not data.exists():
        raise UserError(f"evaluation.benchmarks: {entry.name}: {data}: no such file")
    return data, benchmarks.load(entry.name, data)


def _texts(entry: BenchmarkEntry, benchmark: benchmarks.Benchmark, root: Path) -> Artifact:
    """A benchmark's texts as an input."""
    texts = benchmark.texts()
    digest = texts_digest(entry, texts)
    home = root / "artifacts" / "external" / digest[:16]
    home.mkdir(parents=True, exist_ok=True)
    write_texts(texts, home)
    return Store.external(f"{entry.slug}-texts", home, digest)


def _external(entry: BenchmarkEntry, data: Path | None, benchmark: benchmarks.Benchmark, root: Path) -> Artifact:
    """A benchmark as an input: a folder below artifacts/external/ with a link to its file, and room for the expected
    outputs that it computes. Its digest is that of the content, and of the code that grades this benchmark."""
    digest = external_digest(entry, data, benchmark)
    home = root / "artifacts" / "external" / digest[:16]
    home.mkdir(parents=True, exist_ok=True)
    if data is not None:
        suffixes = data.suffixes[-2:] if data.suffix == ".gz" else data.suffixes[-1:]
        atomic.link(home / f"data{''.join(suffixes)}", data)
    return Store.external(entry.slug, home, digest)
