"""The base model: one that the user names, or one pre-trained on the web-like corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ra3core.artifacts import Artifact
from tasks import external
from tasks.session import Session, StageFunction, completed, stage_task

if TYPE_CHECKING:
    from prefect import State


@stage_task("base", "base seed {seed}")
def base(session: Session, seed: int, corpus: Artifact) -> State[Artifact]:
    """The model that mid-training starts from."""
    config = session.config.base
    if config.model is not None:
        artifact = external.model(config.model, session.runtime.root, chat=config.chat)
        return completed(name="External", message=f"model {config.model}", data=artifact)
    function = StageFunction("ra3core.learning.pretrain", "pretrain")
    return session.stage("base", function, config, {"corpus": corpus}, label="base", seed=seed)
