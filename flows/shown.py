"""What the Prefect UI shows of a run: a link to MLflow, progress, the table of results, and the report."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from ra3core.report.style import ARMS
from ra3core.stage import Metrics
from tasks.tracking import Tracking

UPDATE_SECONDS = 1.0
MLFLOW = "Settings, metrics and curves of this run"
MODES = {"free": "all", "banned": "comments banned", "forced": "first comment forced"}
_IMAGE = re.compile(r"^!\[.*\]\(.*\)\n?", re.MULTILINE)


class Shown:
    """Artifacts of the present flow run in Prefect."""

    def __init__(self, tracking: Tracking) -> None:
        if page := tracking.page():
            create_link_artifact(page, link_text="The run in MLflow", key="mlflow-run", description=MLFLOW)
        self._progress: Any = create_progress_artifact(0.0, key="progress", description="Finished stages")
        self._updated = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        """So many stages are finished."""
        now = time.monotonic()
        if done == total or now - self._updated >= UPDATE_SECONDS:
            self._updated = now
            update_progress_artifact(self._progress, progress=100.0 * done / total)

    def results(self, metrics: Metrics) -> None:
        """pass@1 of every arm with its interval, from the report's metrics."""
        steps = sorted({number for found in metrics["by_steps"].values() for number in found}, key=int)
        rows: list[dict[str, Any]] = []
        for arm in ARMS:
            found = metrics["results"].get(arm.name)
            if found is None:
                continue
            row: dict[str, Any] = {"arm": arm.label, "all": interval(found["free"])}
            row |= {f"{n} steps": _percent(metrics["by_steps"].get(arm.name, {}).get(n)) for n in steps}
            row |= {MODES[mode]: interval(score) for mode, score in found.items()}
            rows.append(row)
        if rows:
            create_table_artifact(rows, key="results", description="pass@1 in percent, 95 % intervals")
        for name, benchmark in metrics["benchmarks"].items():
            self.table(
                [
                    {"arm": arm, **{title: interval(score) for title, score in scores.items()}}
                    for arm, scores in benchmark["scores"].items()
                ],
                re.sub("[^a-z0-9]+", "-", name.lower()).strip("-"),
                f"{name}: {benchmark['variant']}",
            )

    def table(self, rows: list[dict[str, Any]], key: str, description: str) -> None:
        """Any table."""
        create_table_artifact(rows, key=key, description=description)

    def text(self, markdown: str, key: str, description: str) -> None:
        """Any text."""
        create_markdown_artifact(markdown, key=key, description=description)

    def report(self, page: Path) -> None:
        """The report as text; its figures are in the page, of which the place is given."""
        text = _IMAGE.sub("", page.with_suffix(".md").read_text())
        self.text(f"With figures: `{page}`\n\n{text}", "report", "What was shown, and what was not")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def interval(score: Mapping[str, float]) -> str:
    """A share with its interval, in percent."""
    return f"{100 * score['value']:.1f} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
