"""The whole of RA3 as one Prefect flow, and mid-training without what follows it.

`ra3 run` calls `pipeline`; the deployments of prefect.yaml are made of both.
"""

from __future__ import annotations

from prefect import flow

from flows import environment
from flows.comparison import check_refresh, comparison
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
from flows.results import Outcome, keep
from flows.running import finish, points_of, run_of, task_runner
from ra3core.config import load
from tasks.evaluate import asked
from tasks.registry import register
from tasks.report import report


# The runner has a thread for every task, most of which wait for their inputs; a session's slots limit what runs.
@flow(name="pipeline", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def pipeline(
    preset: Preset = "demo",
    seeds: Seeds = None,
    settings: GivenSettings = AS_PRESET,
    overrides: Overrides = NONE,
    refresh: Refresh = NONE,
    runtime: Runtime = None,
    rl: Rl = True,
) -> Outcome:
    """Data, base model, RA3 and its controls, RLVR from some of them, evaluation, and a report over all seeds.

    Raises UserError for what the user can put right; stages that do not depend on what failed are finished first.
    """
    config = load(preset, [*settings.overrides(), *overrides, *number(seeds)])
    runtime = environment.chosen(runtime)
    benchmarks = asked(config, runtime.root)
    check_refresh(refresh, config, benchmarks)
    with (
        run_of(config, runtime, refresh, "pipeline" if rl else "mid-training") as (session, shown),
        points_of(session, "tuning") as point,
    ):
        made, others = comparison(session, benchmarks, point, rl=rl)
        commit = environment.commit(runtime.root)
        page = report.submit(session, config.seed, made, commit)
        finish([*made.values(), *others, page], shown)
        artifacts = {name: future.result() for name, future in made.items()}
        decision = register(session, artifacts, page.result(), commit) if rl else None
        return keep(session, shown, page.result(), [future.state for future in [*made.values(), page]], decision)


@flow(name="mid-training", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def mid_training(
    preset: Preset = "demo",
    seeds: Seeds = None,
    settings: GivenSettings = AS_PRESET,
    overrides: Overrides = NONE,
    refresh: Refresh = NONE,
    runtime: Runtime = None,
) -> Outcome:
    """NTP and RA3 mid-training with their controls, evaluation and report, without RLVR.

    Raises UserError for what the user can put right; stages that do not depend on what failed are finished first.
    """
    return pipeline.fn(preset, seeds, settings, overrides, refresh, runtime, rl=False)
