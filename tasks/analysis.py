"""Analysis: what mid-training did to one arm's model, measured: action sets, abstractions, gains, durations, ELBO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task

if TYPE_CHECKING:
    from prefect import State


@stage_task("analysis", "{label} seed {seed}")
def analysis(
    session: Session,
    seed: int,
    label: str,
    model: Artifact,
    demonstrations: Artifact,
    others: Mapping[str, Artifact] | None = None,
    rank: int = 0,
) -> State[Artifact]:
    """Everything that the inputs allow to measure of `model`.

    demonstrations: the plain ones, of which those held out by every M-step are read. others: by role, as
    ra3core/analysis/analysis.py lists them: before, annotated, policy, likelihood, rlvr, e_step_1, ...
    """
    config = session.config
    settings = config.analysis.model_copy(update={"e_step": config.e_step, "held_out": config.m_step.held_out})
    inputs = {"model": model, "demonstrations": demonstrations, **(others or {})}
    function = StageFunction("ra3core.analysis.analysis", "analysis")
    return session.stage("analysis", function, settings, inputs, label=label, seed=seed, rank=rank)
