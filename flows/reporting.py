"""`ra3 report`: the report again, from what tracked runs left behind. Nothing is trained, and no artifact is made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from flows.named import report_of
from ra3core import atomic
from ra3core.errors import UserError
from ra3core.report.pooling import pooled
from ra3core.report.report import report as write
from ra3core.stage import Context, Metrics
from tasks.recorded import recorded

WRITTEN = (".html", ".md", ".json", ".png", ".svg")


def report_on(names: Sequence[str], out: Path | None, root: Path) -> tuple[Path, Metrics, list[str]]:
    """Write the report on runs to `out`, by default reports/runs/<name of the first>.

    A run goes by its folder below reports/ (flows/named.py), or as tasks/recorded.py has it: name or id in MLflow, a
    folder of artifacts. Returns the page, what the terminal shows, and what the runs lack.

    Raises UserError for runs that are not there or do not belong together, and for a folder with other files in it.
    """
    reports = [report_of(name, root) for name in names]
    folders = [name if report is None else str(report.path) for name, report in zip(names, reports, strict=True)]
    records = [one for name in folders for one in recorded(root, name)]
    config, inputs = pooled(records)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(records[0].name).name).strip("-.") or "run"
    folder = (out or root / "reports" / "runs" / name).absolute()
    _require_ours(folder)
    metrics: Metrics = {}

    def fill(partial: Path) -> None:
        metrics.update(write(config, Context(inputs=inputs, out=partial, scratch=partial)))

    atomic.folder(folder, fill)  # an earlier one goes with figures that this one may not have
    return folder / "report.html", metrics, config.notes


def _require_ours(folder: Path) -> None:
    """Raises UserError for a folder with anything but an earlier report in it."""
    found = list(folder.iterdir()) if folder.is_dir() else [folder] if folder.exists() else []
    if found and (not (folder / "report.html").is_file() or any(path.suffix not in WRITTEN for path in found)):
        raise UserError(f"--out {folder}: expected a new folder, an empty one, or one with an earlier report alone")


def show(page: Path, metrics: Metrics, notes: Sequence[str]) -> None:
    """The table, the claims, what is missing, and where the page is."""
    from rich.console import Console

    from ra3core.report.terminal import render

    console = Console(highlight=False)
    console.print(render(metrics))
    for note in notes:
        console.print(note, soft_wrap=True)
    console.print(f"Report: {page}", soft_wrap=True)
