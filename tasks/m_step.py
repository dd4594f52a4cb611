"""M-step and its controls: next-token prediction on annotated or plain demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ra3core.artifacts import Artifact
from ra3core.compute import spent_tokens, trained_tokens_of_equal_operations
from tasks.session import Session, StageFunction, stage_task
from tasks.tune import learning_rate as own

if TYPE_CHECKING:
    from prefect import State


@stage_task("m_step", "{label} seed {seed}")
def m_step(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    demonstrations: Artifact,
    rounds: int = 1,
    matched: Sequence[Artifact] = (),
    annotated: Sequence[Artifact] = (),
    operations: bool = False,
    on_the_way: bool = False,
    learning_rate: float | Artifact | None = None,
    rank: int = 0,
) -> State[Artifact]:
    """`model` after next-token prediction on `demonstrations`.

    rounds: passes over the configured epochs, so that NTP sees the data as often as RA3 with several rounds.
    matched, annotated: the compute-matched control. Its budget are the tokens that the matched stages processed (what
    they scored for their curves alone was no training and is left out) and those that M-steps on the annotated
    demonstrations train on. These are counted, not waited for: the longest stage starts while the M-step runs.
    operations: match floating-point operations instead of tokens (ra3core/compute.py).
    on_the_way: keep the configured snapshots, which are evaluated.
    learning_rate: the arm's own, in place of the configuration's: a number, or the artifact of the tuning.
    """
    config = session.config.m_step
    changes = {"learning_rate": own(learning_rate, config.learning_rate)}
    config = config.model_copy(update=changes if on_the_way else {**changes, "snapshots": 0})
    inputs = {"model": model, "demonstrations": demonstrations}
    if matched:
        inputs |= {f"matched_{number}": artifact for number, artifact in enumerate(annotated, start=1)}
        cost = trained_tokens_of_equal_operations if operations else spent_tokens
        budget = sum(cost(artifact.metrics) for artifact in matched)
        config = config.model_copy(update={"token_budget": budget})
    else:
        config = config.model_copy(update={"epochs": config.epochs * rounds})
    function = StageFunction("ra3core.learning.m_step", "m_step")
    return session.stage("m_step", function, config, inputs, label=label, seed=seed, rank=rank)
