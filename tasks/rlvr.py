"""RLVR: reinforcement learning from unit tests, the same from every mid-trained model."""

from __future__ import annotations

from prefect import State

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task


@stage_task("rlvr", "{label} seed {seed}")
def rlvr(session: Session, seed: int, label: str, model: Artifact, tasks: Artifact, rank: int = 0) -> State[Artifact]:
    """`model` after GRPO on `tasks`."""
    config = session.config.rlvr.model_copy(update={"verifier": session.config.verifier})
    function = StageFunction("ra3core.learning.rlvr", "rlvr")
    return session.stage("rlvr", function, config, {"model": model, "tasks": tasks}, label=label, seed=seed, rank=rank)
