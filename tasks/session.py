"""What the stages of one pipeline run share: the store, the child processes, the tracking, the display, and the slots.

`Session.stage` is what the tasks of this folder call: it looks the artifact up, else has it built in a child process.
"""

from __future__ import annotations

import atexit
import functools
import heapq
import importlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import BaseModel

from ra3core.artifacts import Artifact, Store
from ra3core.config import RunConfig, RuntimeConfig
from ra3core.fingerprint import code_digest
from ra3core.stage import Context, Metrics
from tasks.devices import Devices
from tasks.display import Display
from tasks.runner import PRELOAD, Runner, StageKilled

if TYPE_CHECKING:
    from prefect import State, Task
    from prefect.client.schemas.objects import TaskRun
    from prefect.futures import PrefectFuture

    from tasks.tracking import StageRun, Tracking

Changes = Mapping[str, Any]
"""Settings of a section in which a control differs from the configuration."""

AS_CONFIGURED: Changes = {}

RETRIES, RETRY_SECONDS = 2, 1.0
_GRACE = 0.5


class StageFunction:
    """Stands for the function `name` of `module` without importing it: where every artifact is found, the flow's own
    process needs no torch. The store reads the module's source for the key; the runner's child imports it."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = module
        self.__name__ = self.__qualname__ = name

    def __call__(self, config: Any, context: Context) -> Metrics:
        return getattr(importlib.import_module(self.__module__), self.__name__)(config, context)


def read_sources() -> None:
    """Read the code that stages run, which their keys need: a second, for which there is time while a server starts.

    What was read of a module is kept (ra3core/fingerprint.py), whichever function of it is asked for later.
    """
    for module in PRELOAD:
        if module.startswith("ra3core."):
            code_digest(StageFunction(module, ""))


class StageTask:
    """A Prefect task, made when the first is submitted: what only composes a run (flows/composition.py) is spared the
    seconds in which Prefect is imported. A session decides how its tasks run.

    fn: the function itself. name, run_name: as Prefect shows them.
    """

    def __init__(self, fn: Callable[..., State[Artifact]], name: str, run_name: str) -> None:
        self.fn, self.name, self.run_name = fn, name, run_name

    @functools.cached_property
    def prefect(self) -> Task[..., Artifact]:
        """The task."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        decorate: Any = task(
            name=self.name,
            task_run_name=self.run_name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=RETRIES,
            retry_delay_seconds=RETRY_SECONDS,
            retry_condition_fn=_was_killed,
        )
        return decorate(self.fn)

    def submit(self, session: Session, *arguments: Any, **options: Any) -> PrefectFuture[Artifact]:
        """Have it run with the futures of others in their places."""
        return session.submit(self, *arguments, **options)

    def map(self, *arguments: Any) -> list[PrefectFuture[Artifact]]:
        """As Prefect's tasks."""
        return list(cast(Any, self.prefect).map(*arguments))


def stage_task(name: str, run_name: str) -> Callable[[Callable[..., State[Artifact]]], StageTask]:
    """A Prefect task that returns a stage's artifact, and is submitted with the futures of others in their place.

    Its name is the kind of stage. It has no tags: for every set of tags in a run Prefect starts a service that asks
    for concurrency limits, which takes longer than a reused stage. It has no cache policy and keeps no result, see
    `Session.stage`. What is tried again is a stage whose process was killed: it goes on from its last
    checkpoint. How long a stage may take is the runtime's `stage_minutes`: Prefect's own timeout would leave the child
    process running.
    """
    return lambda fn: StageTask(fn, name, run_name)


def completed(data: Artifact, message: str, name: str | None = None) -> State[Artifact]:
    """A Prefect state with an artifact."""
    from prefect.states import Completed

    return Completed(name=name, message=message, data=data)


def _was_killed(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, StageKilled)


class Machine:
    """What executes stages here: slots for them, devices, their processes, and one builder an artifact."""

    def __init__(self, runtime: RuntimeConfig) -> None:
        self.slots = Slots(runtime.workers)
        self.devices = Devices(runtime.device, runtime.root / ".cache" / "devices")
        self.runner = Runner(runtime)
        self.refreshed: set[str] = set()  # keys of what was built again
        self._lock = threading.Lock()
        self._keys: dict[str, threading.Lock] = {}

    def alone(self, key: str) -> threading.Lock:
        """Held by the one task that looks up or builds the artifact of a key."""
        with self._lock:
            return self._keys.setdefault(key, threading.Lock())

    def close(self) -> None:
        """Nothing starts any more, and what runs is ended."""
        self.slots.close()
        self.devices.close()
        self.runner.close()


class Session:
    """One pipeline run. Prefect hands it to every task as it is (it is neither a dataclass nor a collection).

    Pickled, for a task that runs on a worker of a cluster, it is the same run in the worker's process: one session for
    all tasks of that process. Workers need the checkout at the same path, on a disk that all see.

    refresh: stages to build even if they are there: a kind ("m_step"), a label ("ntp") or "label/seed".
    machine: shared by the sessions of a sweep, and closed by whoever made it. title: goes ahead of what it displays.
    """

    def __init__(
        self,
        config: RunConfig,
        runtime: RuntimeConfig,
        tracking: Tracking,
        display: Display,
        refresh: Sequence[str] = (),
        machine: Machine | None = None,
        title: str = "",
    ) -> None:
        self.config = config
        self.runtime = runtime
        self.store = Store(runtime.root / "artifacts")
        self.machine = machine or Machine(runtime)
        self.tracking = tracking
        self.display = display
        self.refresh = refresh
        self.title = title
        self._owner = machine is None
        self._token = uuid.uuid4().hex
        _here[self._token] = self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracking.interrupted = error is not None and not isinstance(error, Exception)
        if self._owner:
            self.machine.close()
        del _here[self._token]

    def __reduce__(self) -> tuple[Any, ...]:
        return _same, (self._token, self.config, self.runtime, self.tracking, self.refresh, self.title)

    def point(self, config: RunConfig, title: str) -> Session:
        """A session for other settings of the same run, on the same machine; a run of its own in MLflow."""
        from tasks.tracking import Tracking

        tracking = Tracking(self.runtime.root)
        return Session(config, self.runtime, tracking, self.display, self.refresh, self.machine, title)

    def submit(self, task: StageTask, *arguments: Any, **options: Any) -> PrefectFuture[Artifact]:
        """Have Prefect run a task for this session."""
        return task.prefect.submit(self, *arguments, **options)

    def stage(
        self,
        kind: str,
        function: StageFunction,
        config: BaseModel,
        inputs: Mapping[str, Artifact],
        *,
        label: str,
        seed: int,
        rank: int = 0,
        shards: Sequence[Artifact] = (),
        part_of: tuple[str, str] | None = None,
    ) -> State[Artifact]:
        """The artifact of a stage, as a Prefect state: "Cached" when it was in the store, "Completed" when built now.

        The store is the one cache: it verifies content, survives the server, and serves DVC and notebooks too. So
        tasks have no Prefect cache policy; the state's name tells the UI that nothing was run.

        kind: what the store files it under; arms with equal inputs share an artifact. label: stage or arm, as the
        report and the trackers name it. seed: reaches the stage. rank: lower ones get a free slot first.
        shards: finished parts of its work; the artifact is the same as without them.
        part_of: of a shard, kind and label of the stage whose work it is a part of: it is refreshed with that.
        """
        from tasks.tracking import read_link, write_link

        name = f"{label}/{seed}"
        key = self.store.key(kind, function, config, inputs, seed)
        child: StageRun | None = None
        # Arms with equal inputs wait for each other here, holding no slot, and find the artifact with its link.
        with self.machine.alone(key), ExitStack() as stack:
            refresh = key not in self.machine.refreshed and self._refreshes(*(part_of or (kind, label)), seed)
            artifact = None if refresh else self.store.find(kind, key)
            if artifact is None:
                stack.enter_context(self.machine.slots.take(rank))

                def execute(function: Any, config: BaseModel, context: Context) -> Metrics:
                    """Called by the store, unless another process has built the artifact meanwhile."""
                    nonlocal child
                    device = stack.enter_context(self.machine.devices.take())
                    child = run = stack.enter_context(self._track(name, kind, label, config, inputs, seed))
                    show = stack.enter_context(self.display.stage(self.title + name))

                    def sink(event: dict[str, Any]) -> None:
                        if event["event"] == "metrics":
                            run.metrics(event["step"], event["values"])
                        show(event)

                    minutes = self.runtime.stage_minutes
                    timeout = None if minutes is None else 60 * minutes
                    return self.machine.runner.run(function, config, context, sink, timeout, device)

                if self.store.busy(kind, key):
                    self.display.line(f"{self.title}{name}: another run builds it; waiting for that")
                parts = {f"shard_{number}": shard for number, shard in enumerate(shards, 1)}
                artifact, _ = self.store.build(
                    kind, function, config, inputs, seed, execute=execute, refresh=refresh, parts=parts
                )
                self.machine.refreshed.add(key)
                if child is not None:
                    child.done(artifact.metrics, artifact.path, artifact.digest, (artifact.path / "model").exists())
                    write_link(artifact.path, self.tracking.uri, child.run_id)
        made_by = read_link(artifact.path, self.tracking.uri)
        if made_by is not None:
            self.tracking.link(name, made_by)
        if child is None:
            self.display.reused(self.title + name)
            return completed(artifact, f"artifact {artifact.path}", "Cached")
        return completed(artifact, f"artifact {artifact.path}")

    def made(
        self,
        kind: str,
        function: StageFunction,
        config: BaseModel,
        inputs: Mapping[str, Artifact],
        label: str,
        seed: int,
    ) -> State[Artifact] | None:
        """The artifact of a stage if it is there already: then its shards have nothing to do."""
        if self._refreshes(kind, label, seed):
            return None
        artifact = self.store.find(kind, self.store.key(kind, function, config, inputs, seed))
        return None if artifact is None else completed(artifact, f"{label} is there", "Cached")

    def _refreshes(self, kind: str, label: str, seed: int) -> bool:
        return bool({kind, label, f"{label}/{seed}"}.intersection(self.refresh))

    def _track(
        self, name: str, kind: str, label: str, config: BaseModel, inputs: Mapping[str, Artifact], seed: int
    ) -> AbstractContextManager[StageRun]:
        from tasks.tracking import flatten_params

        tags = {"stage": kind, "arm": label.removeprefix("evaluate_"), "seed": str(seed), "preset": self.config.name}
        sources = {role: (artifact.path, artifact.digest) for role, artifact in inputs.items()}
        return self.tracking.stage(name, flatten_params(config.model_dump(mode="json")), tags, sources)


_here: dict[str, Session] = {}  # of this process, by token
_arriving = threading.Lock()


def _same(
    token: str, config: RunConfig, runtime: RuntimeConfig, tracking: Tracking, refresh: Sequence[str], title: str
) -> Session:
    """A pickled session, in the process that made it or on a worker, which keeps it as long as it lives."""
    with _arriving:
        if token not in _here:
            session = Session(config, runtime, tracking, Display(bars=False), refresh, title=title)
            _here[token] = _here.pop(session._token)
            session._token = token
            atexit.register(tracking.close)
            atexit.register(session.machine.close)
        return _here[token]


class Slots:
    """At most `count` stages at a time; of those that wait, the one of the lowest rank is next, then the first come.

    A free slot is kept for `_GRACE` seconds from ranks above that of the stage that has just ended in it: what follows
    that stage, which has no higher rank if much waits for it, needs a moment to ask. Prefect's own limit counts a task
    from its submission on, while it waits for its inputs too.
    """

    def __init__(self, count: int) -> None:
        self._free = [(0, time.monotonic())] * count  # the rank of what ran there, and when it ended
        self._waiting: list[tuple[int, int]] = []
        self._arrivals = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def take(self, rank: int) -> Iterator[None]:
        """Wait for a slot and hold it; raises RuntimeError once the slots are closed."""
        with self._changed:
            ticket = (rank, next(self._arrivals))
            heapq.heappush(self._waiting, ticket)
            while not self._closed and not (self._waiting[0] == ticket and self._open_to(rank)):
                self._changed.wait(_GRACE if self._free else None)
            self._waiting.remove(ticket)
            heapq.heapify(self._waiting)
            if self._closed:
                raise RuntimeError("the run was interrupted")
            self._free.remove(min(self._open_to(rank)))
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free.append((rank, time.monotonic()))
                self._changed.notify_all()

    def _open_to(self, rank: int) -> list[tuple[int, float]]:
        """The free slots that a stage of this rank may take."""
        now = time.monotonic()
        return [(last, ended) for last, ended in self._free if rank <= last or now - ended >= _GRACE]

    def close(self) -> None:
        """Nothing starts any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
