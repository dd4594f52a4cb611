"""Data: generated when missing, compared with the committed data.dvc on every run.

The paper's data are public corpora; ours is the embedded suite (ra3core/corpora/suite). Alone: `ra3 data`, and
`ra3 data --accept` after a deliberate change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ra3core.artifacts import Artifact
from ra3core.stage import StageLog
from tasks.session import Session, StageFunction, completed, stage_task
from tasks.versioning import version

if TYPE_CHECKING:
    from prefect import State


@stage_task("data", "data")
def data(session: Session) -> State[Artifact]:
    """The data folder as an input of stages; its digest is the one in data.dvc.

    With `suite: generated` data/ is left alone, and the suite is an artifact like any other.
    """
    if session.config.suite == "generated":
        state: Any = generated(session)
        session.tracking.dataset("labelled-steps", state.data.digest, state.data.path, "suite")
        return state
    config, root = session.config.data, session.runtime.root
    if there := (root / "data").is_dir():
        artifact = version(config, root, StageLog())
        session.display.reused("data")
    else:
        with session.display.stage("data") as show:
            artifact = version(config, root, StageLog(sink=show))
    session.tracking.dataset("labelled-steps", artifact.digest, artifact.path, "suite")
    return completed(name="Cached" if there else None, message=f"data {artifact.digest}", data=artifact)


def generated(session: Session) -> State[Artifact]:
    """The suite as a stage of its own, of the sizes that the configuration says."""
    function, config = StageFunction("ra3core.corpora.suite.stage", "generate_suite"), session.config.data
    return session.stage("suite", function, config, {}, label="data", seed=config.seed)
