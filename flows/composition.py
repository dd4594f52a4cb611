"""What a run is composed of, without running any of it: what would be asked of the store, in order, in milliseconds.

`comparison` submits its tasks to a session; this one calls them at once, in this thread and without Prefect, and makes
of every stage that they ask for an artifact of its own. `ra3 run --dry-run` is made of it, and so are tests.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from pydantic import BaseModel

from flows.comparison import comparison
from ra3core.artifacts import Artifact, Manifest, Store
from ra3core.config import RunConfig, RuntimeConfig
from ra3core.stage import Metrics
from tasks.data import generated
from tasks.evaluate import Asked as AskedBenchmark
from tasks.session import Session, StageFunction, StageTask


@dataclass(frozen=True)
class Stage:
    """One stage that is asked for. name: "label/seed", behind the title of a tuning's point; label: without either.
    inputs: by role.

    digest: of what the composition decides of the stage's key: all but the code.
    """

    name: str
    label: str
    kind: str
    function: StageFunction
    config: BaseModel
    inputs: Mapping[str, Artifact]
    seed: int
    digest: str

    def refreshed(self, names: Sequence[str]) -> bool:
        """Whether `--refresh` names it, as tasks.session.Session has it."""
        return bool({self.kind, self.label, f"{self.label}/{self.seed}"}.intersection(names))


@dataclass(frozen=True)
class Made:
    """A future that is there already."""

    artifact: Artifact

    def result(self) -> Artifact:
        return self.artifact


@dataclass(frozen=True)
class _Done:
    """What a task's function returns in place of a Prefect state."""

    data: Artifact


class Composition(ABC):
    """Stands for tasks.session.Session; `artifact` says what becomes of a stage.

    data, base: the run's data, and the base model if the configuration names one, as inputs.
    """

    def __init__(self, config: RunConfig, runtime: RuntimeConfig, data: Artifact, base: Artifact | None) -> None:
        self.config = config
        self.runtime = runtime.model_copy(update={"shards": 1})  # no result differs
        self.title = ""
        self.stages: dict[str, Stage] = {}
        self._outside = {"data": data} | ({} if base is None else {"base": base})

    @abstractmethod
    def artifact(self, stage: Stage) -> Artifact:
        """What is in the store, or stands for what would be built."""

    def compose(self, benchmarks: Sequence[AskedBenchmark], *, rl: bool = True) -> None:
        """Ask for everything that a run of this configuration asks for, the report aside."""
        comparison(cast(Session, self), benchmarks, cast(Any, self.point), rl=rl)

    def submit(self, task: StageTask, *arguments: Any, **options: Any) -> Made:
        """Call the task's function now."""
        session: Any = self
        made: Any
        if task.name == "data" and self.config.suite == "generated":
            made = generated(session)
        elif task.name in self._outside:
            return Made(self._outside[task.name])
        else:
            settled = {name: _resolved(value) for name, value in options.items()}
            made = task.fn(session, *map(_resolved, arguments), **settled)
        return Made(made.data)

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
    ) -> _Done:
        """Note the stage. Raises ValueError when its name is another stage's: the composition has a mistake."""
        name = f"{self.title}{label}/{seed}"
        digests = {role: artifact.digest for role, artifact in inputs.items()}
        content = json.dumps([kind, config.model_dump(mode="json"), digests, seed], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        if name in self.stages and self.stages[name].digest != digest:
            raise ValueError(f"{name} is asked for twice, in two ways")
        self.stages[name] = Stage(name, label, kind, function, config, inputs, seed, digest)
        return _Done(self.artifact(self.stages[name]))

    def point(self, config: RunConfig, title: str) -> Self:
        """The same composition at other settings."""
        other = copy.copy(self)
        other.config, other.title = config, f"{title} "
        return other


def standing_for(stage: Stage, metrics: Metrics) -> Artifact:
    """An artifact that a stage would make; its digest is the stage's."""
    manifest = Manifest(
        stage=stage.kind,
        key=stage.digest,
        seed=stage.seed,
        config={},
        inputs={},
        code="",
        files={},
        metrics=metrics,
        seconds=0.0,
        created="",
        digest=stage.digest,
    )
    return Artifact(Path(stage.name), manifest)


def outside(name: str, digest: str) -> Artifact:
    """An input that no stage makes, by what it is called alone."""
    return Store.external(name, Path(name), digest)


def _resolved(value: Any) -> Any:
    if isinstance(value, Made):
        return value.artifact
    if isinstance(value, list | tuple):
        return [_resolved(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _resolved(one) for name, one in value.items()}
    return value
