"""The three corpus stages: what the base model, mid-training and RLVR are trained on, decontaminated.

The paper mid-trains on 3.5 M Python snippets and runs RLVR on 7.7 k coding tasks. Here every corpus passes the same
check against the evaluation tasks first (decontamination.py), is checked again as written, and comes with a
decontamination.json that says what was removed and why. Demonstrations are drawn with the run's seed.

Alone: `dvc repro corpus`, `dvc repro demonstrations`, `dvc repro rlvr_tasks`; input "data" is the folder of the suite.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ra3core.config import CorpusConfig
from ra3core.corpora.card import CARD, data_card
from ra3core.corpora.collect import FILE as COLLECTION
from ra3core.corpora.collect import collect, report_of
from ra3core.corpora.decontamination import BATCH, EvaluationIndex, Report, clean, recheck
from ra3core.corpora.demonstrations import Task, read_tasks, write_tasks
from ra3core.corpora.draw import drawn, write_drawn
from ra3core.corpora.held_out import evaluation_index
from ra3core.errors import UserError
from ra3core.stage import Context, Metrics

WEB_FILES = ("web", "outlines")


def prepare_corpus(config: CorpusConfig, context: Context) -> Metrics:
    """web.parquet and outlines.parquet (column text) without what gives an evaluation task away.

    Metrics: documents, outlines (kept), removed, tokens (of decontamination's tokeniser: an estimate).
    """
    index = evaluation_index(config, context.inputs)
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

    inputs["collection"]: everything usable of the source (collect.py), which seeds share; without it, it is collected
    here. A source with fewer gives all it has, and the log says so. data_card.md says what they are.
    Metrics: demonstrations (drawn), available (clean, no near duplicates), removed, near_duplicates, lines, boundaries,
    tokens (an estimate, of all available), skipped (by reason).
    """
    folder = context.inputs.get("collection")
    if folder is None:
        folder = context.scratch / "collected"
        folder.mkdir(parents=True, exist_ok=True)
        collect(config, replace(context, out=folder))
    collection = json.loads((folder / COLLECTION).read_text())
    available = collection["demonstrations"]
    order = drawn(available, config.demonstrations, context.seed)
    if len(order) < config.demonstrations:
        context.log.message(
            f"{config.source} has {available} demonstrations, fewer than corpus.demonstrations = "
            f"{config.demonstrations}: all of them are used"
        )
    if collection["limit"]:
        setting = f"corpus.{collection['limit']} = {getattr(config, collection['limit'])}"
        context.log.message(f"{config.source} was read up to {setting}")
    path = context.out / "demonstrations.parquet"
    tally = write_drawn(folder, order, path, context.scratch)
    index, report = evaluation_index(config, context.inputs), report_of(collection["report"])
    recheck(_programs(path), index, report)
    _write_report(context, index, {"demonstrations": report})
    (context.out / CARD).write_text(data_card(config, collection, tally, report, index, context.seed))
    return {
        "demonstrations": tally.demonstrations,
        "available": available,
        "removed": report.removed.total(),
        "near_duplicates": collection["counts"].get("near_duplicate", 0),
        "lines": tally.lines,
        "boundaries": tally.boundaries,
        "tokens": collection["tokens"],
        "skipped": collection["counts"],
    }


def prepare_rlvr_tasks(config: CorpusConfig, context: Context) -> Metrics:
    """rlvr_tasks.parquet without tasks that give an evaluation task away. Metrics: tasks (kept), removed, tests."""
    index = evaluation_index(config, context.inputs)
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


def _prompt(task: Task) -> str:
    return task.prompt


def _programs(path: Path) -> Iterator[str]:
    """The programs of a file of demonstrations, a batch in memory at a time."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=["prompt", "lines"], use_threads=False):
            for row in batch.to_pylist():
                yield "\n".join((row["prompt"], *row["lines"])) + "\n"


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
        **({"benchmarks": benchmarks} if (benchmarks := index.sizes) else {}),
        "evaluation_plans": index.plans,
        "ngrams_ignored_as_boilerplate": index.ignored_ngrams,
    }
    content = {"rule": rule, "corpora": {name: report.as_dict() for name, report in reports.items()}}
    (context.out / "decontamination.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
