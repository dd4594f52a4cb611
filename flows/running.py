"""The frame of every flow: one display, one session, its runs in MLflow and what the Prefect UI shows of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect import State, Task, tags
from prefect.futures import PrefectConcurrentFuture, PrefectFuture, as_completed
from prefect.states import Pending
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import environment, liveness
from flows.results import track
from flows.shown import Shown
from ra3core.config import RunConfig, RuntimeConfig
from ra3core.errors import UserError
from tasks.display import Display
from tasks.session import Session
from tasks.tracking import Tracking


class Threads(ThreadPoolTaskRunner):
    """Prefect's threads, with futures that answer for themselves."""

    def submit(self, task: Task[..., Any], *arguments: Any, **options: Any) -> PrefectConcurrentFuture[Any]:
        made = super().submit(task, *arguments, **options)
        return _Future(made.task_run_id, made.wrapped_future)


class _Future(PrefectConcurrentFuture[Any]):
    """Of a task in a thread of this process, which need not be asked for at the server: Prefect wants to know the state
    of every input when a task begins to wait for it, two requests a stage."""

    @property
    def state(self) -> State[Any]:
        """Pending until the task is over."""
        return super().state if self.wrapped_future.done() else Pending()


def task_runner(settings: RuntimeConfig | None = None) -> TaskRunner:
    """Where the tasks of a flow run; as RA3_TASK_RUNNER and RA3_CLUSTER say by default.

    Raises UserError when what it takes is not installed, and for a cluster without a Prefect server that its workers
    reach.
    """
    settings = settings or environment.runtime()
    if settings.task_runner == "threads":
        return Threads()
    if settings.cluster and os.environ.get("PREFECT_API_URL") in (None, "", os.environ.get(environment.PRIVATE)):
        raise UserError(
            f"RA3_CLUSTER {settings.cluster}: expected PREFECT_API_URL with a Prefect server that its workers reach too"
        )
    try:
        if settings.task_runner == "ray":
            from prefect_ray import RayTaskRunner  # pyright: ignore[reportMissingImports]

            here = {"num_cpus": settings.workers, "include_dashboard": False}
            return RayTaskRunner(address=settings.cluster, init_kwargs={} if settings.cluster else here)
        import dask.config
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        what = settings.task_runner
        raise UserError(f"task runner {what}: {error}; `pip install 'ra3[{what}]'` brings it") from error
    dask.config.set({"distributed.worker.daemon": False})  # a worker starts the processes of stages
    if settings.cluster:
        return DaskTaskRunner(address=settings.cluster)
    here = {"n_workers": settings.workers, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    return DaskTaskRunner(cluster_kwargs=here)


@contextmanager
def run_of(
    config: RunConfig, runtime: RuntimeConfig, refresh: Sequence[str], flow: str
) -> Iterator[tuple[Session, Shown]]:
    """A run of `flow`: its session, and what the Prefect UI shows of it. Runs whose process died are marked crashed."""
    environment.prepare(runtime.root)
    with (
        tags(*([] if runtime.device == "cpu" else ["gpu"])),  # for a limit of the user's, over several machines
        liveness.alive(runtime.root),
        Display() as display,
        Session(config, runtime, Tracking(runtime.root), display, refresh) as session,
        track(session, flow),
    ):
        yield session, Shown(session.tracking)


@contextmanager
def points_of(session: Session, flow: str) -> Iterator[Callable[[RunConfig, str], Session]]:
    """Opens sessions for other settings of a run, `point(config, title)`; their runs in MLflow, below the run's, end as
    the body does."""
    opened: list[Session] = []
    with ExitStack() as stack:

        def point(config: RunConfig, title: str) -> Session:
            made = stack.enter_context(session.point(config, f"{title} "))
            stack.enter_context(track(made, flow, session.tracking.run_id))
            opened.append(made)
            return made

        yield point
        for one in opened:
            one.tracking.finish({})


def finish(futures: Iterable[PrefectFuture], shown: Shown) -> None:
    """Wait for all; then raise what the first one that failed raised (those that waited for it did not run)."""
    futures = list(futures)
    for done, _ in enumerate(as_completed(futures), start=1):
        shown.progress(done, len(futures))
    for future in futures:
        if future.state.is_failed() or future.state.is_crashed():
            future.result()
