"""RLVR: reinforcement learning from unit tests, the same from every mid-trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task
from tasks.tune import learning_rate as own

if TYPE_CHECKING:
    from prefect import State


@stage_task("rlvr", "{label} seed {seed}")
def rlvr(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    tasks: Artifact,
    learning_rate: float | Artifact | None = None,
    rank: int = 0,
) -> State[Artifact]:
    """`model` after GRPO on `tasks`. learning_rate: as `m_step`'s."""
    config, verifier = session.config.rlvr, session.config.verifier
    rate = own(learning_rate, config.learning_rate)
    config = config.model_copy(update={"verifier": verifier, "learning_rate": rate})
    function = StageFunction("ra3core.learning.rlvr", "rlvr")
    return session.stage("rlvr", function, config, {"model": model, "tasks": tasks}, label=label, seed=seed, rank=rank)
