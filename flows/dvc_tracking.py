"""MLflow for the stages of dvc.yaml, each a process of its own: the report's makes the parent run, and adopts them.

DVC says neither when a pipeline run begins nor when it ends, and may run three stages of twenty. So a stage's run
stands alone until a report is made of it: runs whose pipeline was never finished stay visible as what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from tasks.tracking import Tracking, read_link

PARENT = "mlflow.parentRunId"


class StageTracking(Tracking):
    """As the flow's, but stages may be run and linked without a parent run. tags: put on every run."""

    def __init__(self, root: Path, tags: Mapping[str, str]) -> None:
        super().__init__(root)
        self._tags = dict(tags)
        self._common |= self._tags

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], config: str) -> None:
        super().start(name, params, {**tags, **self._tags}, config)
        self._common |= self._tags
        self._writer.log(self._run_id, tags={"mlflow.source.name": "dvc repro"})

    def link(self, label: str, run_id: str) -> None:
        if self.run_id:
            super().link(label, run_id)

    def adopt(self, artifacts: Mapping[str, Path]) -> None:
        """Link every stage to the run that made its artifact, and make the runs that have no parent children of this
        one. artifacts: "stage/seed" -> its folder in the store; those that another machine made have no run here."""
        for name, path in artifacts.items():
            run_id = read_link(path, self.uri)
            if run_id is None:
                continue
            with suppress(MlflowException):  # deleted since
                tags = self._writer.tags(run_id)  # none while the server is away
                if tags and PARENT not in tags:
                    self._writer.log(run_id, tags={PARENT: self.run_id})
                self.link(name, run_id)
