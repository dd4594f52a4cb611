"""What a pipeline run leaves behind: its runs in MLflow, the page under reports/, and a table on the terminal."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from prefect import State

from flows.environment import commit
from flows.shown import Shown
from ra3core import atomic
from ra3core.artifacts import Artifact
from ra3core.stage import Metrics
from tasks.session import Session
from tasks.tracking import flatten_params
from tasks.versions import Decision


@dataclass(frozen=True)
class Outcome:
    """A finished pipeline run.

    page: reports/<name>-<key>/report.html. metrics: the report's. built, reused: numbers of stages.
    decision: what became of the final model in the registry, if there is one.
    """

    page: Path
    metrics: Metrics
    built: int
    reused: int
    decision: Decision | None = None


@contextmanager
def track(session: Session, flow: str = "pipeline", parent: str = "") -> Iterator[None]:
    """The parent run in MLflow, ended as FAILED or KILLED when the body does not end well.

    flow: what is run. parent: the run that it is a point of, of a sweep or of a tuning.
    """
    config, tracking = session.config, session.tracking
    values = config.model_dump(mode="json")
    digest = hashlib.sha256(yaml.safe_dump(values).encode()).hexdigest()
    tags = {"flow": flow, "preset": config.name, "seed": str(config.seed), "seeds": str(config.seeds)}
    if parent:
        tags["mlflow.parentRunId"] = parent
    revision = commit(session.runtime.root)
    if revision is not None:
        tags["git_commit"] = revision
    name = f"{config.name}-{digest[:8]}-{time.strftime('%Y%m%d-%H%M%S')}"
    tracking.start(name, flatten_params(values), tags, yaml.safe_dump(values, sort_keys=False))
    try:
        yield
    except Exception as error:
        tracking.fail(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise
    except BaseException:
        tracking.fail("interrupted", "KILLED")
        raise


def keep(
    session: Session, shown: Shown, report: Artifact, states: Sequence[State], decision: Decision | None = None
) -> Outcome:
    """End the parent run with the headline results, show them in the Prefect UI, and copy the page to reports/, where
    reports/latest points."""
    session.tracking.finish(headline(report.metrics), report.path)
    folder = publish(report, session.runtime.root / "reports", session.config.name)
    shown.results(report.metrics)
    shown.report(folder / "report.html")
    if decision is not None:
        shown.text(decision.sentence, "registry", "The final model in the registry")
    names = [state.name for state in states]
    return Outcome(folder / "report.html", report.metrics, names.count("Completed"), names.count("Cached"), decision)


def headline(metrics: Metrics) -> dict[str, float]:
    """The report's results under names that sort and compare in MLflow: pass_at_1/<arm>/<mode>/<number of steps>, and
    <benchmark>/pass_at_1/<arm> for benchmarks beside the embedded suite."""
    flat: dict[str, float] = {}
    for arm, modes in metrics["results"].items():
        for mode, score in modes.items():
            flat[f"pass_at_1/{arm}/{mode}/all"] = score["value"]
            flat[f"pass_at_1_low/{arm}/{mode}/all"] = score["low"]
            flat[f"pass_at_1_high/{arm}/{mode}/all"] = score["high"]
    for arm, steps in metrics["by_steps"].items():
        for number, value in steps.items():
            flat[f"pass_at_1/{arm}/free/steps_{number}"] = value
    for comparison, difference in metrics["differences"].items():
        flat[f"difference/{comparison}"] = difference["value"]
    for benchmark, found in metrics["benchmarks"].items():
        for arm, scores in found["scores"].items():
            for title, score in scores.items():
                name = f"{benchmark}/{title.replace('@', '_at_').replace(' ', '_')}"
                flat[f"{name}/{arm}"] = score["value"]
                flat[f"{name}_low/{arm}"] = score["low"]
                flat[f"{name}_high/{arm}"] = score["high"]
    return flat


def publish(report: Artifact, reports: Path, name: str) -> Path:
    """Copy a report out of the store to reports/<name>-<key>/ and point reports/latest at it."""
    folder = reports / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('.')}-{report.key[:8]}"

    def fill(partial: Path) -> None:
        for path in sorted(report.path.iterdir()):
            if path.suffix in (".html", ".md", ".png", ".svg") or path.name == "numbers.json":
                shutil.copy2(path, partial)

    atomic.folder(folder, fill)
    atomic.link(reports / "latest", Path(folder.name))
    return folder


def show(outcome: Outcome) -> None:
    """The table, the findings, and where the page is."""
    from rich.console import Console

    from ra3core.report.terminal import render

    console = Console(highlight=False)
    console.print(render(outcome.metrics))
    if outcome.decision is not None:
        console.print(outcome.decision.sentence, soft_wrap=True)
    console.print(f"{outcome.built} stages run, {outcome.reused} reused. Report: {outcome.page}", soft_wrap=True)
