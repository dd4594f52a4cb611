"""E-step: reinforcement learning of rationales that make the expert's next lines more likely."""

from __future__ import annotations

from prefect import State

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task


@stage_task("e_step", "{label} seed {seed}")
def e_step(session: Session, seed: int, label: str, model: Artifact, demonstrations: Artifact) -> State[Artifact]:
    """A policy q that thinks where it pays, trained from `model`, which is also the likelihood model."""
    function = StageFunction("ra3core.learning.e_step", "e_step")
    inputs = {"model": model, "demonstrations": demonstrations}
    return session.stage("e_step", function, session.config.e_step, inputs, label=label, seed=seed)
