"""The composition of a run without its stages, every one of which is taken to report the same few figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.composition import Composition, Stage, outside, standing_for
from flows.planning import benchmarks
from ra3core.artifacts import Artifact
from ra3core.config import RunConfig, RuntimeConfig


@dataclass(frozen=True)
class Asked:
    """One stage. inputs: role -> digest of the artifact. digest: of what the composition decides of the stage's key."""

    kind: str
    config: BaseModel
    inputs: dict[str, str]
    digest: str


class Dry(Composition):
    """A tuning chooses its last value."""

    def artifact(self, stage: Stage) -> Artifact:
        metrics: dict[str, Any] = {"tokens": 100, "train_tokens": 40, "evaluation_tokens": 10}
        if stage.kind == "tune":
            metrics["chosen"] = stage.config.model_dump()["values"][-1]
        return standing_for(stage, metrics)


def composed(config: RunConfig) -> dict[str, Asked]:
    """ "label/seed" -> stage; those of the tuning's trials behind the title of their point."""
    model = config.base.model
    base = None if model is None else outside("base", f"model {model}")
    dry = Dry(config, RuntimeConfig(root=Path("/nowhere")), outside("data", "of the run"), base)
    dry.compose(benchmarks(config))
    return {
        name: Asked(one.kind, one.config, {role: each.digest for role, each in one.inputs.items()}, one.digest)
        for name, one in dry.stages.items()
    }
