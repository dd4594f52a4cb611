"""Tuning: the validation tasks, and the choice among an arm's trials on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ra3core.arms import TuneConfig, ValidationConfig
from ra3core.artifacts import Artifact
from ra3core.evaluation.tuning import role
from tasks.session import Session, StageFunction, stage_task

if TYPE_CHECKING:
    from prefect import State


@stage_task("validation", "validation")
def validation(session: Session, seed: int, data: Artifact) -> State[Artifact]:
    """Tasks for choosing learning rates; drawn by no seed, and left out of the evaluation."""
    function = StageFunction("ra3core.corpora.validation", "prepare_validation")
    config = ValidationConfig(tasks=session.config.tuning.tasks)
    return session.stage("validation", function, config, {"data": data}, label="validation", seed=seed)


@stage_task("tune", "{label}")
def tune(
    session: Session, seed: int, label: str, setting: str, values: Sequence[float], trials: Sequence[Artifact]
) -> State[Artifact]:
    """The best of `values` for `setting`.

    trials: evaluations on the validation tasks, by value and then by tuning seed.
    """
    seeds = session.config.tuning.seeds
    config = TuneConfig(setting=setting, values=list(values), seeds=seeds)
    roles = [role(number, one) for number in range(1, len(values) + 1) for one in seeds]
    inputs = dict(zip(roles, trials, strict=True))
    function = StageFunction("ra3core.evaluation.tuning", "tune")
    return session.stage("tune", function, config, inputs, label=label, seed=seed)


def learning_rate(given: float | Artifact | None, default: float) -> float:
    """An arm's own rate: a number, what a tuning chose, or none, where the configuration's holds."""
    if isinstance(given, Artifact):
        return float(given.metrics["chosen"])
    return default if given is None else given
