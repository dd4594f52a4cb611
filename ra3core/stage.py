"""What a stage is given: its inputs, a folder to fill, a place for checkpoints, and a log.

A stage is a function ``stage(config, context) -> metrics`` of one configuration section and one `Context`. It reads
`context.inputs`, writes files below `context.out`, and returns the figures that go into the artifact's manifest.
Prefect tasks, DVC stages, tests and notebooks call the same function:

    context = Context(inputs={"model": folder, "demonstrations": file}, out=Path("out"), scratch=Path("scratch"))
    metrics = m_step(MStepConfig(), context)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Metrics = dict[str, Any]
"""Summary figures of a stage: numbers, strings, or small nested lists and dicts of them (JSON)."""

METRICS_FILE = "metrics.jsonl"

ON_THE_WAY = "on_the_way"
"""A folder of an M-step's: models that it kept while it trained, each below a name such as 2_of_5 (of its steps)."""

ABOUT = frozenset({METRICS_FILE, "decontamination.json", "data_card.md", ON_THE_WAY})
"""Files and folders of a stage that say how its result was made and what it was checked against, and are no part of
the result."""


@dataclass
class StageLog:
    """Step-wise metrics and progress of one stage.

    path: a JSON-lines file that every `metrics` row is appended to; none keeps no file.
    sink: called with each event, a dict whose "event" is "metrics" (step, values), "progress" (description, done,
        total) or "message" (text); the runner shows them and sends the metrics to the tracking server.
    """

    path: Path | None = None
    sink: Callable[[dict[str, Any]], None] = field(default=lambda event: None)

    def metrics(self, step: int, **values: float) -> None:
        """Record figures of one step; rows of a file have the step under "step"."""
        row = {name: float(value) for name, value in values.items()}
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
        self.sink({"event": "metrics", "step": step, "values": row})

    def resume(self, step: int) -> None:
        """Forget rows after `step`: training continues from a checkpoint made at that step."""
        if self.path is None or not self.path.exists():
            return
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        temporary.replace(self.path)
        for row in rows:
            values = {name: value for name, value in row.items() if name != "step"}
            self.sink({"event": "metrics", "step": row["step"], "values": values})

    @contextmanager
    def progress(self, description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Yields `advance(n)`; `total` counts units of work of which `done` are finished already."""
        count = done
        self.sink({"event": "progress", "description": description, "done": count, "total": total})

        def advance(n: int = 1) -> None:
            nonlocal count
            count += n
            self.sink({"event": "progress", "description": description, "done": count, "total": total})

        yield advance

    def message(self, text: str) -> None:
        """One plain line for the reader."""
        self.sink({"event": "message", "text": text})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, a half-written last line (a killed run's) left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


@dataclass(frozen=True)
class Servers:
    """Where engine http asks for completions (docs/engines.md), and how; no part of any result.

    urls: as in http://localhost:8000/v1. concurrency: requests at a time. timeout: seconds for an answer. retries: of a
    request that met a busy, broken or silent server.
    """

    urls: tuple[str, ...] = ()
    concurrency: int = 32
    timeout: float = 600.0
    retries: int = 5


@dataclass
class Context:
    """What a stage works with.

    inputs: name -> folder of an input artifact.
    out: the folder that becomes the artifact; what a killed run left in it is still there.
    scratch: checkpoints; survives a kill, removed when the stage is done.
    """

    inputs: Mapping[str, Path]
    out: Path
    scratch: Path
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    servers: Servers = Servers()
    log: StageLog = field(default_factory=StageLog)
