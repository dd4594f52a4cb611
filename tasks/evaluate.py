"""Evaluation: pass@k of one arm, with the same budget for every arm."""

from __future__ import annotations

from prefect import State

from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task


@stage_task("evaluate", "evaluate {arm} seed {seed}")
def evaluate(
    session: Session, seed: int, arm: str, model: Artifact, data: Artifact, every_mode: bool, rank: int = 0
) -> State[Artifact]:
    """Graded samples of `model` on the evaluation tasks in `data`.

    every_mode: decode in all configured modes (free, comments banned, first comment forced), else free only.
    """
    config = session.config.evaluation.model_copy(update={"verifier": session.config.verifier})
    if not every_mode:
        config = config.model_copy(update={"modes": ["free"]})
    function = StageFunction("ra3core.evaluation.evaluate", "evaluate")
    inputs = {"model": model, "tasks": data}
    return session.stage("evaluate", function, config, inputs, label=f"evaluate_{arm}", seed=seed, rank=rank)
