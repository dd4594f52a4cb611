"""Flows about one model that is given: RLVR from it, and its evaluation.

prefect deployment run 'rlvr/demo' -p model=FOLDER
prefect deployment run 'evaluation/demo' -p model=FOLDER -p benchmarks='["embedded", "humaneval"]'
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field

from flows import environment
from flows.comparison import Future
from flows.parameters import NONE, Overrides, Preset, Refresh, Runtime, described
from flows.running import finish, run_of, task_runner
from flows.shown import Shown, interval
from ra3core.artifacts import Artifact
from ra3core.config import BenchmarkEntry, load
from tasks import external
from tasks.corpus import rlvr_tasks
from tasks.data import data
from tasks.evaluate import asked, held_out, label, submit_evaluate
from tasks.rlvr import rlvr as rlvr_stage
from tasks.session import Session, stage_task
from tasks.tracking import flatten_metrics

Model = Annotated[
    str, Field(description="A folder that transformers loads, a folder of artifacts/ with one in it, or a hub name.")
]
Seed = Annotated[int | None, Field(ge=0, description="Of training and samples; the preset's by default.")]
Benchmarks = Annotated[
    list[BenchmarkEntry],
    Field(description="Such as humaneval, with settings of their own if need be; else the preset's."),
]
NO_ENTRIES: list[BenchmarkEntry] = []

Scores = dict[str, dict[str, Any]]
"""Model -> benchmark -> pass@k with its interval."""


@flow(name="rlvr", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def rlvr(
    model: Model,
    preset: Preset = "demo",
    seed: Seed = None,
    benchmarks: Benchmarks = NO_ENTRIES,
    overrides: Overrides = NONE,
    refresh: Refresh = NONE,
    runtime: Runtime = None,
) -> Scores:
    """RLVR from a given model, and what it brought: the model before and after on the benchmarks."""
    return _one_model(model, preset, seed, benchmarks, overrides, refresh, runtime, train=True)


@flow(name="evaluation", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def evaluation(
    model: Model,
    preset: Preset = "demo",
    seed: Seed = None,
    benchmarks: Benchmarks = NO_ENTRIES,
    overrides: Overrides = NONE,
    refresh: Refresh = NONE,
    runtime: Runtime = None,
) -> Scores:
    """A given model on the benchmarks."""
    return _one_model(model, preset, seed, benchmarks, overrides, refresh, runtime, train=False)


@stage_task("model", "model")
def given(session: Session, model: str) -> State[Artifact]:
    """The model that the user names, as an input of stages."""
    chat = session.config.base.chat
    return Completed(name="External", data=external.model(model, session.runtime.root, "model", chat))


def _one_model(
    model: str,
    preset: str,
    seed: int | None,
    benchmarks: Sequence[BenchmarkEntry],
    overrides: Sequence[str],
    refresh: Sequence[str],
    runtime: Runtime,
    *,
    train: bool,
) -> Scores:
    values = list(overrides)
    if seed is not None:
        values.append(f"seed={seed}")
    if benchmarks:
        entries = [entry.model_dump(mode="json") for entry in benchmarks]
        values.append(f"evaluation.benchmarks={json.dumps(entries)}")
    config = load(preset, [*values, "seeds=1"])
    runtime = environment.chosen(runtime)
    wanted = asked(config, runtime.root)
    with run_of(config, runtime, refresh, "rlvr" if train else "evaluation") as (session, shown):
        made: dict[str, Future] = {"data": data.submit(session), "model": given.submit(session, model)}
        models, shards = {"model": made["model"]}, []
        if train:
            made["rlvr_tasks"] = rlvr_tasks.submit(session, config.seed, made["data"], held_out(wanted))
            made["rlvr"] = models["rlvr"] = rlvr_stage.submit(
                session, config.seed, "rlvr", made["model"], made["rlvr_tasks"]
            )
        for benchmark in wanted:
            for name, trained in models.items():
                stage = label(name, benchmark.config)
                tasks = benchmark.tasks or made["data"]
                made[stage], parts = submit_evaluate(session, config.seed, stage, trained, tasks, benchmark.config)
                shards.extend(parts)
        finish([*made.values(), *shards], shown)
        evaluated = {name: future.result() for name, future in made.items() if name.startswith("evaluate_")}
        session.tracking.finish(flatten_metrics({n: a.metrics for n, a in evaluated.items()}))
        return _show(shown, evaluated)


def _show(shown: Shown, evaluated: Mapping[str, Artifact]) -> Scores:
    """pass@k of every model on every benchmark, as a table in the Prefect UI."""
    scores: Scores = {}
    for stage, artifact in evaluated.items():
        name, _, benchmark = stage.removeprefix("evaluate_").partition(":")
        results = json.loads((artifact.path / "results.json").read_text())
        scores.setdefault(name, {})[benchmark or "embedded"] = {
            f"{mode}, {k}": score
            for mode in results["per_task"]
            for k, score in results[mode]["all"].items()
            if k.startswith("pass@")
        }
    rows = [
        {"model": name, "benchmark": benchmark, "decoding": title, "percent": interval(score)}
        for name, found in scores.items()
        for benchmark, titled in found.items()
        for title, score in titled.items()
    ]
    shown.table(rows, "results", "pass@k in percent, 95 % intervals over problems")
    return scores
