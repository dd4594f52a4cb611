"""What no training document may give away: the suite's evaluation tasks, and the texts of every further benchmark.

This room knows no benchmark. Whoever loads one writes its texts with `write_texts` into a folder, and hands the folder
to the corpus stages as an input named benchmark_<name>; flows do it for each of `evaluation.benchmarks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ra3core import atomic
from ra3core.config import CollectionConfig
from ra3core.corpora.decontamination import EvaluationIndex
from ra3core.corpora.demonstrations import read_tasks
from ra3core.errors import UserError
from ra3core.task_set import TaskSetConfig

PREFIX = "benchmark_"
FILE = "texts.jsonl"


def write_texts(texts: Mapping[str, str], folder: Path) -> None:
    """Texts by id, as `evaluation_index` reads them: a corpus stage of another run may be reading them right now."""
    lines = "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    atomic.write_text(folder / FILE, lines)


def evaluation_index(config: CollectionConfig | TaskSetConfig, inputs: Mapping[str, Path]) -> EvaluationIndex:
    """The index of all that is held out: inputs["data"], and every input whose name begins with PREFIX.

    Raises UserError when a file is missing or damaged.
    """
    prompts = {task.id: task.prompt for task in read_tasks(inputs["data"] / "evaluation_tasks.parquet")}
    benchmarks = dict.fromkeys(prompts, "embedded")
    further = {name.removeprefix(PREFIX): folder for name, folder in inputs.items() if name.startswith(PREFIX)}
    for name, folder in further.items():
        try:
            rows = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
            texts = {f"{name}/{row['id']}": row["text"] for row in rows}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{folder / FILE}: cannot be read, expected the texts of a benchmark ({error})") from error
        prompts |= texts
        benchmarks |= dict.fromkeys(texts, name)
    limits = (config.ngram, config.max_overlap, config.boilerplate)
    return EvaluationIndex(prompts, *limits, benchmarks if further else None)
