"""The three corpus stages: what the base model, mid-training and RLVR are trained on, decontaminated.

The paper mid-trains on 3.5 M Python snippets and runs RLVR on 7.7 k coding tasks. Here every corpus passes the same
check against the evaluation tasks first (decontamination.py), is checked again as written, and comes with a
decontamination.json that says what was removed and why. Demonstrations are drawn with the run's seed.

Alone: `dvc repro corpus`, `dvc repro demonstrations`, `dvc repro rlvr_tasks`; input "data" is the folder of the suite.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ra3core.config import CorpusConfig
from ra3core.corpora.decontamination import BATCH, EvaluationIndex, Report, clean, recheck
from ra3core.corpora.demonstrations import (
    Demonstration,
    Task,
    read_demonstrations,
    read_tasks,
    write_demonstrations,
    write_tasks,
)
from ra3core.corpora.python_source import Cutter
from ra3core.corpora.sources import load_demonstrations
from ra3core.errors import UserError
from ra3core.stage import Context, Metrics

WEB_FILES = ("web", "outlines")


def prepare_corpus(config: CorpusConfig, context: Context) -> Metrics:
    """web.parquet and outlines.parquet (column text) without what gives an evaluation task away.

    Metrics: documents, outlines (kept), removed, tokens (of decontamination's tokeniser: an estimate).
    """
    index = _index(config, context)
    reports: dict[str, Report] = {}
    with context.log.progress("corpus", total=len(WEB_FILES)) as advance:
        for name in WEB_FILES:
            report = reports[name] = Report()
            file = f"{name}.parquet"
            _write_texts(clean(_texts(context.inputs["data"] / file), str, index, report), context.out / file)
            recheck(_texts(context.out / file), index, report)
            advance(1)
    _write_report(context, index, reports)
    kept = {name: report.documents - report.removed.total() for name, report in reports.items()}
    return {
        "documents": kept["web"],
        "outlines": kept["outlines"],
        "removed": sum(report.removed.total() for report in reports.values()),
        "tokens": sum(report.tokens for report in reports.values()),
    }


def prepare_demonstrations(config: CorpusConfig, context: Context) -> Metrics:
    """demonstrations.parquet: `config.demonstrations` of the source's clean ones, drawn with the run's seed.

    A source with fewer gives all it has, and the log says so. At most `config.pool` are read before the draw.
    Metrics: demonstrations (drawn), available (clean), removed, lines, boundaries, tokens (an estimate, of all
    available), skipped (by reason).
    """
    index = _index(config, context)
    report = Report()
    cutter = Cutter(config.max_lines)
    found = islice(load_demonstrations(config.source, context.inputs["data"], cutter), config.pool)
    drawn = draw(clean(_counted(found, context), _program, index, report), config.demonstrations, context.seed)
    available = report.documents - report.removed.total()
    if not drawn:
        raise UserError(f"corpus.source {config.source}: every demonstration gives an evaluation task away")
    if len(drawn) < config.demonstrations:
        context.log.message(
            f"{config.source} has {available} demonstrations, fewer than corpus.demonstrations = "
            f"{config.demonstrations}: all of them are used"
        )
    if report.documents == config.pool:
        context.log.message(f"only the first corpus.pool = {config.pool} demonstrations of {config.source} were read")
    path = context.out / "demonstrations.parquet"
    write_demonstrations(drawn, path)
    recheck((d.text for d in read_demonstrations(path)), index, report)
    _write_report(context, index, {"demonstrations": report})
    return {
        "demonstrations": len(drawn),
        "available": available,
        "removed": report.removed.total(),
        "lines": sum(len(d.lines) for d in drawn),
        "boundaries": sum(len(d.boundaries) for d in drawn),
        "tokens": report.tokens,
        "skipped": {name: n for name, n in sorted(cutter.counts.items()) if name not in ("files", "kept")},
    }


def prepare_rlvr_tasks(config: CorpusConfig, context: Context) -> Metrics:
    """rlvr_tasks.parquet without tasks that give an evaluation task away. Metrics: tasks (kept), removed, tests."""
    index = _index(config, context)
    report = Report()
    path = context.out / "rlvr_tasks.parquet"
    tasks = list(clean(read_tasks(context.inputs["data"] / "rlvr_tasks.parquet"), _prompt, index, report))
    if not tasks:
        raise UserError(f"{context.inputs['data'] / 'rlvr_tasks.parquet'}: every task gives an evaluation task away")
    write_tasks(tasks, path)
    recheck((task.prompt for task in read_tasks(path)), index, report)
    _write_report(context, index, {"rlvr_tasks": report})
    return {
        "tasks": len(tasks),
        "removed": report.removed.total(),
        "tests": sum(len(task.tests) for task in tasks),
        "tokens": report.tokens,
    }


def draw(demonstrations: Iterable[Demonstration], count: int, seed: int) -> list[Demonstration]:
    """A uniform sample without replacement in random order: those of the `count` smallest random keys.

    Reads a stream once and keeps `count` of it. A larger count with the same seed begins with the same ones.
    """
    rng = random.Random(f"{seed}/demonstrations")
    return heapq.nsmallest(count, demonstrations, key=lambda demonstration: rng.random())


def _index(config: CorpusConfig, context: Context) -> EvaluationIndex:
    tasks = read_tasks(context.inputs["data"] / "evaluation_tasks.parquet")
    prompts = {task.id: task.prompt for task in tasks}
    return EvaluationIndex(prompts, config.ngram, config.max_overlap, config.boilerplate)


def _program(demonstration: Demonstration) -> str:
    return demonstration.text


def _prompt(task: Task) -> str:
    return task.prompt


def _counted(demonstrations: Iterable[Demonstration], context: Context) -> Iterator[Demonstration]:
    """Progress without a known total: the total shown is what has been read so far."""
    for number, demonstration in enumerate(demonstrations, start=1):
        if number % BATCH == 0:
            with context.log.progress("demonstrations read", total=number, done=number):
                pass
        yield demonstration


def _texts(path: Path) -> Iterator[str]:
    """Column text of a parquet file, a batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a parquet file with column text")
    try:
        with parquet.ParquetFile(path) as file:
            if "text" not in file.schema_arrow.names:
                raise UserError(f"{path}: column 'text' is missing, found {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
                yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({' '.join(str(error).split())})") from error


def _write_texts(texts: Iterable[str], path: Path) -> None:
    """One parquet file with column text, written as the texts come."""
    import pyarrow
    import pyarrow.parquet as parquet

    schema = pyarrow.schema([("text", pyarrow.string())])
    iterator = iter(texts)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(iterator, 10 * BATCH)):
            writer.write_table(pyarrow.table({"text": rows}, schema=schema))


def _write_report(context: Context, index: EvaluationIndex, reports: dict[str, Report]) -> None:
    rule: dict[str, Any] = {
        "ngram": index.ngram,
        "max_overlap": index.max_overlap,
        "evaluation_tasks": len(index.ids),
        "evaluation_plans": index.plans,
        "ngrams_ignored_as_boilerplate": index.ignored_ngrams,
    }
    content = {"rule": rule, "corpora": {name: report.as_dict() for name, report in reports.items()}}
    (context.out / "decontamination.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
