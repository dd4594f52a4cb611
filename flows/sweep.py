"""A sweep over seeds and think penalties as one flow.

    prefect deployment run 'sweep/demo' -p penalties='[0, 0.05, 0.3]' -p seeds=3

All stages of all points are tasks of one flow run, on whatever its task runner has. Stages that points share (data,
base models, NTP) are built once: their keys are equal.
"""

from __future__ import annotations

from contextlib import ExitStack
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
)
from flows.results import keep, track
from flows.running import finish, run_of, task_runner
from flows.shown import interval
from ra3core.config import load
from ra3core.errors import UserError
from tasks.evaluate import asked
from tasks.report import report
from tasks.session import Session
from tasks.tracking import Tracking


@flow(name="sweep", task_runner=task_runner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
@described
def sweep(
    penalties: Annotated[
        list[float], Field(min_length=1, description="Think penalties c of the E-step, in nats; .inf for none thought.")
    ],
    preset: Preset = "demo",
    seeds: Seeds = 1,
    settings: GivenSettings = AS_PRESET,
    overrides: Overrides = NONE,
    refresh: Refresh = NONE,
    runtime: Runtime = None,
    rl: Rl = False,
) -> dict[str, Any]:
    """The comparison at every think penalty, each with its report; returns pass@1 of RA3 by penalty."""
    if len(set(penalties)) < len(penalties):
        raise UserError(f"penalties {penalties}: expected each once")
    given = [*settings.overrides(), *overrides]
    configs = {c: load(preset, [*given, f"e_step.think_penalty={c}"]) for c in penalties}
    runtime = environment.chosen(runtime)
    first = configs[penalties[0]]
    benchmarks = asked(first, runtime.root)
    check_refresh(refresh, first, benchmarks)
    with run_of(first, runtime, seeds, refresh, "sweep") as (session, shown), ExitStack() as stack:
        points: dict[float, tuple[Session, dict[str, Future], Future]] = {}
        shards: list[Future] = []
        for c, config in configs.items():
            point = Session(
                config, runtime, Tracking(runtime.root), session.display, refresh, session.machine, f"c={c:g} "
            )
            stack.enter_context(point)
            stack.enter_context(track(point, seeds, "point of a sweep", session.tracking.run_id))
            made, parts = comparison(point, range(config.seed, config.seed + seeds), benchmarks, rl=rl)
            shards.extend(parts)
            points[c] = point, made, report.submit(point, config.seed, made, environment.commit(runtime.root))
        finish([*shards, *(f for _, made, page in points.values() for f in (*made.values(), page))], shown)
        found: dict[str, Any] = {}
        for c, (point, made, page) in points.items():
            outcome = keep(point, shown, page.result(), [future.state for future in (*made.values(), page)])
            found[f"{c:g}"] = outcome.metrics["results"]["ra3"]["free"]
        session.tracking.finish({f"pass_at_1/ra3/free/c_{c}": score["value"] for c, score in found.items()})
    rows = [{"think penalty": c, "RA3, pass@1": interval(score)} for c, score in found.items()]
    shown.table(rows, "sweep", "pass@1 in percent by think penalty")
    return found
