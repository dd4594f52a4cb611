"""The work that bench/ measures on: the demo's base model (0.64 M parameters) and data of the embedded suite."""

from __future__ import annotations

import tempfile
from pathlib import Path

from figures import CHECKOUT

from ra3core.config import DataConfig, RunConfig, load
from ra3core.corpora.demonstrations import Demonstration, Task, read_demonstrations, read_tasks
from ra3core.corpora.suite.generate import generate

BASE = CHECKOUT / "configs" / "base" / "0"
"""The folder of the demo's base model as a stage's input: BASE / "model" is the transformers folder."""


def demo() -> RunConfig:
    """The settings of `make run`."""
    return load("demo")


def data(folder: Path, demonstrations: int = 200, tasks: int = 60) -> Path:
    """A small data folder as the suite makes it: demonstrations.parquet, rlvr_tasks.parquet and the rest."""
    config = DataConfig(
        web_documents=400, outlines=100, demonstrations=demonstrations, rlvr_tasks=tasks, evaluation_tasks=5
    )
    generate(config, folder)
    return folder


def demonstrations_and_tasks(demonstrations: int = 200, tasks: int = 60) -> tuple[list[Demonstration], list[Task]]:
    """The first of the suite's demonstrations (3 or 4 steps) and RLVR tasks."""
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        made = data(Path(folder), demonstrations, tasks)
        return read_demonstrations(made / "demonstrations.parquet"), read_tasks(made / "rlvr_tasks.parquet")
