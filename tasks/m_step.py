"""M-step and its controls: next-token prediction on annotated or plain demonstrations."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import State

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task


@stage_task("m_step", "{label} seed {seed}")
def m_step(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    demonstrations: Artifact,
    rounds: int = 1,
    matched: Sequence[Artifact] = (),
    rank: int = 0,
) -> State[Artifact]:
    """`model` after next-token prediction on `demonstrations`.

    rounds: passes over the configured epochs, so that NTP sees the data as often as RA3 with several rounds.
    matched: stages whose processed tokens, all together, are the budget instead (the compute-matched control); what
    they scored for their curves alone was no training and is left out.
    """
    config = session.config.m_step
    if matched:
        budget = sum(int(a.metrics["tokens"]) - int(a.metrics.get("evaluation_tokens", 0)) for a in matched)
        config = config.model_copy(update={"token_budget": budget})
    else:
        config = config.model_copy(update={"epochs": config.epochs * rounds})
    function = StageFunction("ra3core.learning.m_step", "m_step")
    inputs = {"model": model, "demonstrations": demonstrations}
    return session.stage("m_step", function, config, inputs, label=label, seed=seed, rank=rank)
