"""The whole of RA3 as one Prefect flow: data, base model, mid-training, RLVR, evaluation, report.

Composition only: every box is a task of tasks/ over a stage function of ra3core. `ra3 run` calls it; so does the
deployment in prefect.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from prefect import flow, tags
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import environment
from flows.results import Outcome, keep, track
from ra3core.artifacts import Artifact
from ra3core.config import RuntimeConfig, load
from tasks.base import base
from tasks.bootstrap import bootstrap
from tasks.corpus import corpus, demonstrations, rlvr_tasks
from tasks.data import data
from tasks.display import Display
from tasks.e_step import e_step
from tasks.evaluate import Asked, asked, evaluate, label
from tasks.m_step import m_step
from tasks.report import report
from tasks.rlvr import rlvr
from tasks.session import Session
from tasks.tracking import Tracking

Future = PrefectFuture[Artifact]

# Who gets a free slot first: what most waits for, and what takes long; evaluations fill the gaps.
RA3, LONG, CONTROL, LEAF = range(4)


# The pool has a thread for every task, most of which wait for their inputs; a session's slots limit what runs.
@flow(name="ra3", flow_run_name="{preset}", task_runner=ThreadPoolTaskRunner(), validate_parameters=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
def pipeline(
    preset: str = "demo",
    overrides: list[str] | None = None,
    seeds: Annotated[int, Field(ge=1)] = 1,
    runtime: RuntimeConfig | None = None,
) -> Outcome:
    """Run the pipeline for `seeds` seeds from the configured one on, and report over all of them.

    preset, overrides: as `ra3core.config.load` takes them. runtime: from the environment by default.
    Raises UserError for what the user can put right; stages that do not depend on what failed are finished first.
    """
    config = load(preset, overrides or [])
    runtime = runtime or environment.runtime()
    benchmarks = asked(config, runtime.root)
    with (
        Display() as display,
        Session(config, runtime, Tracking(runtime.root), display) as session,
        track(session, seeds),
    ):
        made: dict[str, Future] = {"data": data.submit(session)}
        made[f"corpus/{config.seed}"] = shared = corpus.submit(session, config.seed, made["data"])
        made[f"rlvr_tasks/{config.seed}"] = problems = rlvr_tasks.submit(session, config.seed, made["data"])
        for seed in range(config.seed, config.seed + seeds):
            with tags(f"seed {seed}"):
                made |= one_seed(session, seed, made["data"], shared, problems, benchmarks)
        page = report.submit(session, config.seed, made, environment.commit(runtime.root))
        finish([*made.values(), page])
        return keep(session, page.result(), [future.state for future in [*made.values(), page]])


def one_seed(
    session: Session, seed: int, data: Future, corpus: Future, problems: Future, benchmarks: list[Asked]
) -> dict[str, Future]:
    """Every arm of the paper's comparison and its controls, from one seed: "stage/seed" -> artifact to come."""
    start = base.submit(session, seed, corpus)
    expert = demonstrations.submit(session, seed, data)
    made = {"base": start, "demonstrations": expert}

    # RA3: rounds of E-step, bootstrap and M-step
    model = start
    rounds = range(1, session.config.rounds + 1)
    for r in rounds:
        made[f"e_step_{r}"] = policy = e_step.submit(session, seed, f"e_step_{r}", model, expert)
        made[f"bootstrap_{r}"] = annotated = bootstrap.submit(session, seed, f"bootstrap_{r}", policy, model, expert)
        made[f"m_step_{r}"] = model = m_step.submit(session, seed, f"m_step_{r}", model, annotated, rank=RA3)
    ra3, annotations = model, [made[f"bootstrap_{r}"] for r in rounds]
    spent = [made[f"e_step_{r}"] for r in rounds] + annotations

    # Controls: next-token prediction with RA3's data, with RA3's compute, and RA3 without reinforcement learning
    made["ntp"] = ntp = m_step.submit(session, seed, "ntp", start, expert, rounds=len(rounds), rank=LONG)
    made["ntp_compute"] = m_step.submit(
        session, seed, "ntp_compute", start, expert, matched=spent, annotated=annotations, rank=LONG
    )
    made["bootstrap_no_rl"] = untrained = bootstrap.submit(
        session, seed, "bootstrap_no_rl", start, start, expert, rank=CONTROL
    )
    made["ra3_no_rl"] = m_step.submit(session, seed, "ra3_no_rl", start, untrained, rank=CONTROL)

    # RLVR, the same from both
    made["ntp_rlvr"] = rlvr.submit(session, seed, "ntp_rlvr", ntp, problems, rank=LONG)
    made["ra3_rlvr"] = rlvr.submit(session, seed, "ra3_rlvr", ra3, problems, rank=LONG)

    every_mode = {"base": start, "ntp": ntp, "ntp_compute": made["ntp_compute"], "ra3": ra3}
    free_only = {arm: made[arm] for arm in ("ra3_no_rl", "ntp_rlvr", "ra3_rlvr")}
    for benchmark in benchmarks:
        for arm, trained in (every_mode | free_only).items():
            config = benchmark.config
            if arm in free_only:
                config = config.model_copy(update={"modes": ["free"]})
            name, tasks = label(arm, config), benchmark.tasks or data
            made[name] = evaluate.submit(session, seed, name, trained, tasks, config, rank=LEAF)
    return {f"{stage}/{seed}": future for stage, future in made.items()}


def finish(futures: Iterable[Future]) -> None:
    """Wait for all; then raise what the first one that failed raised (those that waited for it did not run)."""
    futures = list(futures)
    wait(futures)
    for future in futures:
        if future.state.is_failed() or future.state.is_crashed():
            future.result()
