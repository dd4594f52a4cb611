"""The composition of a run without its stages: what would be asked of the store, in order, in milliseconds.

Tasks are called at once instead of submitted, and a session that builds nothing notes what they ask for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prefect import Task
from prefect.states import Completed
from pydantic import BaseModel

from ra3core.artifacts import Artifact, Manifest, Store
from ra3core.config import RunConfig, RuntimeConfig


@dataclass(frozen=True)
class Asked:
    """One stage. inputs: role -> digest of the artifact. digest: of what the composition decides of the stage's key."""

    kind: str
    config: BaseModel
    inputs: dict[str, str]
    digest: str


@dataclass
class DrySession:
    """Stands for tasks.session.Session. asked: "label/seed" -> what was asked for, points included by their title."""

    config: RunConfig
    runtime: RuntimeConfig
    title: str = ""
    asked: dict[str, Asked] = field(default_factory=dict)

    def stage(
        self,
        kind: str,
        function: Any,
        config: BaseModel,
        inputs: Mapping[str, Artifact],
        *,
        label: str,
        seed: int,
        rank: int = 0,
        shards: Any = (),
    ) -> Any:
        digests = {role: artifact.digest for role, artifact in inputs.items()}
        content = json.dumps([kind, config.model_dump(mode="json"), digests, seed], sort_keys=True)
        made = Asked(kind, config, digests, hashlib.sha256(content.encode()).hexdigest()[:12])
        name = f"{self.title}{label}/{seed}"
        assert name not in self.asked, f"{name} is asked for twice"
        self.asked[name] = made
        metrics: dict[str, Any] = {"tokens": 100, "train_tokens": 40, "evaluation_tokens": 10}
        if kind == "tune":
            metrics["chosen"] = config.model_dump()["values"][-1]
        manifest = Manifest(
            stage=kind,
            key=made.digest,
            seed=seed,
            config={},
            inputs={},
            code="",
            files={},
            metrics=metrics,
            seconds=0.0,
            created="",
            digest=made.digest,
        )
        return Completed(data=Artifact(Path(f"/{label}"), manifest))

    def made(self, *_: Any) -> None:
        return None

    def point(self, config: RunConfig, title: str) -> DrySession:
        return DrySession(config, self.runtime, title, self.asked)


@dataclass(frozen=True)
class _Done:
    """A future that is there already."""

    value: Any

    def result(self) -> Any:
        return self.value


def _resolve(value: Any) -> Any:
    if isinstance(value, _Done):
        return value.value
    if isinstance(value, list | tuple):
        return [_resolve(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _resolve(one) for name, one in value.items()}
    return value


@contextmanager
def at_once() -> Iterator[None]:
    """Tasks run when they are submitted, in this thread and without Prefect's engine; data/ is taken as it comes."""

    def submit(task: Any, *arguments: Any, **options: Any) -> _Done:
        state = task.fn(*map(_resolve, arguments), **{name: _resolve(value) for name, value in options.items()})
        return _Done(state.data)

    with pytest.MonkeyPatch.context() as patch:
        from tasks import data

        patch.setattr(Task, "submit", submit)
        patch.setattr(
            data.data, "fn", lambda session: Completed(data=Store.external("data", Path("/data"), "of the run"))
        )
        yield
