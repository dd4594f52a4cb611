"""Data: generated when missing, compared with the committed data.dvc on every run.

The paper's data are public corpora; ours is the embedded suite (ra3core/corpora/suite). Alone: `ra3 data`, and
`ra3 data --accept` after a deliberate change.
"""

from __future__ import annotations

from typing import Any

from prefect import State
from prefect.states import Completed

from ra3core.artifacts import Artifact
from ra3core.stage import StageLog
from tasks.session import Session, StageFunction, stage_task
from tasks.versioning import version


@stage_task("data", "data")
def data(session: Session) -> State[Artifact]:
    """The data folder as an input of stages; its digest is the one in data.dvc.

    With `suite: generated` data/ is left alone, and the suite is an artifact like any other.
    """
    if session.config.suite == "generated":
        function = StageFunction("ra3core.corpora.suite.stage", "generate_suite")
        config = session.config.data
        state: Any = session.stage("suite", function, config, {}, label="data", seed=config.seed)
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
    return Completed(name="Cached" if there else None, message=f"data {artifact.digest}", data=artifact)
