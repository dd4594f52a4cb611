"""The report over all arms and seeds of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ra3core.artifacts import MANIFEST, Artifact
from tasks.session import Session, StageFunction, stage_task
from tasks.tracking import links

if TYPE_CHECKING:
    from prefect import State


@stage_task("report", "report")
def report(session: Session, seed: int, artifacts: Mapping[str, Artifact], commit: str | None) -> State[Artifact]:
    """One page from all artifacts; `artifacts`: "stage/seed" (and "data") -> artifact."""
    config = session.config.report.model_copy(
        update={
            "settings": session.config.model_dump(mode="json", exclude={"report"}),
            "commit": commit,
            "mlflow_runs": links(artifacts, session.tracking.uri),
        }
    )
    function = StageFunction("ra3core.report.report", "report")
    # a base model of the user's has no manifest to report on; the settings name it
    stages = {name: a for name, a in artifacts.items() if name == "data" or (a.path / MANIFEST).is_file()}
    return session.stage("report", function, config, stages, label="report", seed=seed)
