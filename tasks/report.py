"""The report over all arms and seeds of a run."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import State

from ra3core.artifacts import MANIFEST, Artifact
from tasks.session import Session, StageFunction, stage_task
from tasks.tracking import read_link


@stage_task("report", "report")
def report(session: Session, seed: int, artifacts: Mapping[str, Artifact], commit: str | None) -> State[Artifact]:
    """One page from all artifacts; `artifacts`: "stage/seed" (and "data") -> artifact."""
    found = {name: read_link(artifact.path, session.tracking.uri) for name, artifact in artifacts.items()}
    links = {name: run for name, run in sorted(found.items()) if run is not None}
    config = session.config.report.model_copy(
        update={
            "settings": session.config.model_dump(mode="json", exclude={"report"}),
            "commit": commit,
            "mlflow_runs": links,
        }
    )
    function = StageFunction("ra3core.report.report", "report")
    # a base model of the user's has no manifest to report on; the settings name it
    stages = {name: a for name, a in artifacts.items() if name == "data" or (a.path / MANIFEST).is_file()}
    return session.stage("report", function, config, stages, label="report", seed=seed)
