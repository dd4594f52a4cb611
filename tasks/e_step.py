"""E-step: reinforcement learning of rationales that make the expert's next lines more likely."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ra3core.artifacts import Artifact
from tasks.session import AS_CONFIGURED, Changes, Session, StageFunction, stage_task
from tasks.tune import learning_rate as own

if TYPE_CHECKING:
    from prefect import State


@stage_task("e_step", "{label} seed {seed}")
def e_step(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    demonstrations: Artifact,
    changes: Changes = AS_CONFIGURED,
    learning_rate: float | Artifact | None = None,
    rank: int = 0,
) -> State[Artifact]:
    """A policy q that thinks where it pays, trained from `model`, which is also the likelihood model.

    changes: settings in which a control differs from the configuration. learning_rate: as `m_step`'s.
    """
    config = session.config.e_step
    rate = own(learning_rate, config.learning_rate)
    config = config.model_copy(update={**changes, "learning_rate": rate})
    function = StageFunction("ra3core.learning.e_step", "e_step")
    inputs = {"model": model, "demonstrations": demonstrations}
    return session.stage("e_step", function, config, inputs, label=label, seed=seed, rank=rank)
