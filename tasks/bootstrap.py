"""Bootstrap: the policy annotates every demonstration with its rationales."""

from __future__ import annotations

import math

from prefect import State

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task


@stage_task("bootstrap", "{label} seed {seed}")
def bootstrap(
    session: Session,
    seed: int,
    label: str,
    policy: Artifact,
    likelihood: Artifact,
    demonstrations: Artifact,
    rank: int = 0,
) -> State[Artifact]:
    """Annotated demonstrations; of several rationales the one that `likelihood` gains most from is kept.

    With an infinite think penalty nothing is annotated: the limit in which RA3 is next-token prediction.
    """
    config = session.config.bootstrap
    if math.isinf(session.config.e_step.think_penalty):
        config = config.model_copy(update={"think_penalty": math.inf})
    function = StageFunction("ra3core.learning.bootstrap", "bootstrap")
    inputs = {"policy": policy, "likelihood": likelihood, "demonstrations": demonstrations}
    return session.stage("bootstrap", function, config, inputs, label=label, seed=seed, rank=rank)
