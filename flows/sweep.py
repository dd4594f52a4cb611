"""The comparison at several settings as one flow: a sweep over think penalties, or over the grid of a file.

    prefect deployment run 'sweep/demo' -p penalties='[0, 0.05, 0.3]' -p seeds=3
    ra3 sweep configs/sweeps/e_step_rl.yaml

All stages of all points are tasks of one flow run, on whatever its task runner has. Stages that points share (data,
base models, NTP) are built once: their keys are equal. Killed, the same command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows import environment
from flows.comparison import Future, check_refresh, comparison
from flows.parameters import (
    AS_PRESET,
    NONE,
    GivenSettings,
    Overrides,
    Preset,
    Refresh,
    Rl,
    Runtime,
    Seeds,
    described,
    number,
)
from flows.results import keep, track
from flows.running import finish, run_of, task_runner
from flows.shown import Shown, interval
from ra3core import atomic
from ra3core.config import EMBEDDED, RunConfig, RuntimeConfig, load
from ra3core.errors import UserError
from ra3core.grid import read_grid
from ra3core.report.grid import write_page
from ra3core.report.numbers import plain
from ra3core.stage import Metrics
from tasks.evaluate import asked
from tasks.report import report
from tasks.session import Session

POINTS = "points.json"

GridFile = Annotated[str, Field(description="The YAML file of a grid, such as configs/sweeps/e_step_rl.yaml.")]


@flow(name="sweep", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def sweep(
    penalties: Annotated[
        list[float], Field(min_length=1, description="Think penalties c of the E-step, in nats; .inf for none thought.")
    ],
    preset: Preset = "demo",
    seeds: Seeds = None,
    settings: GivenSettings = AS_PRESET,
    overrides: Overrides = NONE,
    refresh: Refresh = NONE,
    runtime: Runtime = None,
    rl: Rl = False,
) -> dict[str, Any]:
    """The comparison at every think penalty, each with its report; returns pass@1 of RA3 by penalty."""
    if len(set(penalties)) < len(penalties):
        raise UserError(f"penalties {penalties}: expected each once")
    given = [*settings.overrides(), *overrides, *number(seeds)]
    configs = {f"c={c:g}": load(preset, [*given, f"e_step.think_penalty={c}"]) for c in penalties}
    _check_shown(next(iter(configs.values())))
    with _points(configs, environment.chosen(runtime), refresh, rl=rl) as (session, shown, reported):
        scores = [metrics["results"]["ra3"]["free"] for metrics in reported.values()]
        found = {f"{c:g}": score for c, score in zip(penalties, scores, strict=True)}
        session.tracking.finish({f"pass_at_1/ra3/free/c_{c}": score["value"] for c, score in found.items()})
        rows = [{"think penalty": c, "RA3, pass@1": interval(score)} for c, score in found.items()]
        shown.table(rows, "sweep", "pass@1 in percent by think penalty")
    return found


def _check_shown(config: RunConfig) -> None:
    """Raises UserError for a configuration without the figure that a sweep over think penalties shows."""
    what = "a sweep over think penalties shows RA3's pass@1 on the embedded suite"
    if "ra3" not in config.arms.mid_trained:
        raise UserError(f"arms.mid_trained: {what}, expected ra3 in the list")
    if EMBEDDED not in [entry.name for entry in config.evaluation.benchmarks]:
        raise UserError(f"evaluation.benchmarks: {what}, expected {EMBEDDED} in the list")


@flow(name="grid", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def grid_sweep(
    grid: GridFile, overrides: Overrides = NONE, refresh: Refresh = NONE, runtime: Runtime = None, rl: Rl = False
) -> Path:
    """The comparison at every point of a grid, each with its report; returns the file that sums them up.

    It is reports/sweep-<the grid's name>/points.json, a list of points: axis, value (as text), settings (all of them),
    and what the point's report returns: results, by_steps, differences, benchmarks (ra3core.report.report). Beside it,
    sweep.html and sweep.md show it.
    """
    runtime = environment.chosen(runtime)
    points = read_grid(Path(grid)).points(overrides)
    configs = {f"{axis} {value}".strip(): config for (axis, value), config in points.items()}
    with _points(configs, runtime, refresh, rl=rl) as (session, shown, reported):
        rows = [
            {"axis": axis, "value": value, "settings": _as_json(config), **metrics}
            for ((axis, value), config), metrics in zip(points.items(), reported.values(), strict=True)
        ]
        folder = runtime.root / "reports" / f"sweep-{Path(grid).stem}"
        _write(Path(grid).stem, rows, folder)
        session.tracking.finish({})
        table = [
            {"point": name, **{arm: interval(modes["free"]) for arm, modes in metrics["results"].items()}}
            for name, metrics in reported.items()
        ]
        shown.table(table, "sweep", "pass@1 in percent, decoded freely")
    return folder / POINTS


def _as_json(config: RunConfig) -> dict[str, Any]:
    """All settings; an infinite one, which JSON has no number for, as the text that a configuration is read from."""
    return json.loads(config.model_dump_json(), parse_constant=str)


def _write(name: str, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The points and their page, in place of an earlier sweep's as a whole, or not at all."""

    def fill(partial: Path) -> None:
        (partial / POINTS).write_text(json.dumps(plain(rows), indent=1, allow_nan=False) + "\n")
        write_page(name, rows, partial)

    atomic.folder(folder, fill)  # an earlier one goes with figures that this one may not have


@contextmanager
def _points(
    configs: Mapping[str, RunConfig], runtime: RuntimeConfig, refresh: Sequence[str], *, rl: bool
) -> Iterator[tuple[Session, Shown, dict[str, Metrics]]]:
    """Run the comparison at every point, by its title; yields the sweep's session, what shows it, and what the reports
    of the points say, in order. Raises UserError for points that would tune, which is for single runs."""
    first = next(iter(configs.values()))
    if any(config.tuning.seeds for config in configs.values()):
        raise UserError("tuning.seeds: a sweep varies settings at given learning rates, expected none")
    wanted = {title: asked(config, runtime.root) for title, config in configs.items()}
    for title, config in configs.items():
        check_refresh(refresh, config, wanted[title])
    with run_of(first, runtime, refresh, "sweep") as (session, shown), ExitStack() as stack:
        points: list[tuple[Session, dict[str, Future], Future]] = []
        others: list[Future] = []
        for title, config in configs.items():
            point = stack.enter_context(session.point(config, f"{title} "))
            stack.enter_context(track(point, "point of a sweep", session.tracking.run_id))
            made, rest = comparison(point, wanted[title], point.point, rl=rl)
            others.extend(rest)
            points.append((point, made, report.submit(point, config.seed, made, environment.commit(runtime.root))))
        finish([*others, *(future for _, made, page in points for future in (*made.values(), page))], shown)
        reported = {}
        for title, (point, made, page) in zip(configs, points, strict=True):
            outcome = keep(point, shown, page.result(), [future.state for future in (*made.values(), page)])
            reported[title] = outcome.metrics
        yield session, shown, reported
