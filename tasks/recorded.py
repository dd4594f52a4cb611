"""Runs as they are on record: which artifacts a pipeline run made, from MLflow, or from a folder of artifacts alone.

In MLflow the parent run says which run made each of its stages (tags stage.<label>/<seed>), and that one where its
artifact lies and with which digest. A folder of artifacts has no labels but in its reports, whose manifests name their
inputs by digest: the newest report of it is taken, or the one whose own folder is given.

Nothing is computed and nothing written here. A run need not be complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from ra3core.artifacts import MANIFEST, Manifest
from ra3core.errors import UserError
from ra3core.report.pooling import Recorded
from tasks.writer import EXPERIMENT, chosen_uri, reason, shown

STAGE = re.compile(r"\w+(?::[\w.-]+)?/\d+")
RUN_ID = re.compile(r"[0-9a-f]{32}")
POINT = "point of a sweep"


def recorded(root: Path, name: str) -> list[Recorded]:
    """The run of a name, an id, or a folder; of a sweep, each of its points.

    root: the checkout, whose store is read unless MLFLOW_TRACKING_URI names another. Raises UserError when there is no
    such run.
    """
    if Path(name).is_dir():
        return [from_folder(Path(name).resolve())]
    uri = chosen_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(f"{name}: no such folder, and nothing has been tracked at {shown(uri)} yet")
    try:
        client = MlflowClient(tracking_uri=uri)
        return list(_from_mlflow(client, name, shown(uri)))
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(f"MLflow at {shown(uri)} does not answer: {reason(error)}") from error


def _from_mlflow(client: MlflowClient, name: str, where: str) -> Iterator[Recorded]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = _find(client, experiment.experiment_id, name) if experiment else []
    if not found:
        raise UserError(f"{name}: expected the id or the name of a run in MLflow at {where}, or a folder of artifacts")
    if len(found) > 1:
        raise UserError(f"{name}: {len(found)} runs have this name, expected an id: {', '.join(map(_id, found))}")
    run = found[0]
    if "stage" in run.data.tags:
        parent = run.data.tags.get("parent", "the run above it")
        raise UserError(f"{name} is the run of one stage, expected the pipeline's: {parent}")
    assert experiment is not None
    children = _children(client, experiment.experiment_id, _id(run))
    points = [child for child in children if child.data.tags.get("flow") == POINT]
    if run.data.tags.get("flow") == "sweep" and not points:
        raise UserError(f"{name}: a sweep of which no point has begun, so there is no report")
    for point in points or [run]:
        own = _children(client, experiment.experiment_id, _id(point)) if points else children
        yield _record(client, point, own)


def _find(client: MlflowClient, experiment: str, name: str) -> list[Run]:
    if RUN_ID.fullmatch(name):
        try:
            return [client.get_run(name)]
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return list(client.search_runs([experiment], f"attributes.run_name = '{quoted}'"))


def _children(client: MlflowClient, experiment: str, parent: str) -> list[Run]:
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _record(client: MlflowClient, run: Run, children: list[Run]) -> Recorded:
    """What a run finished, and in its notes what it did not."""
    name, tags = run.info.run_name or _id(run), run.data.tags
    known = {_id(child): child for child in children}
    stages: dict[str, Path] = {}
    runs: dict[str, str] = {}
    notes: list[str] = []
    if run.info.status != "FINISHED":
        notes.append(f"Run {name} is {run.info.status}: this page has the stages that it finished.")
    for tag, made_by in sorted(tags.items()):
        label = tag.removeprefix("stage.")
        if label == tag or not STAGE.fullmatch(label) or label.startswith("report/"):
            continue
        try:
            maker = known.get(made_by) or client.get_run(made_by)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            notes.append(f"{label} of {name} is absent: its run {made_by} is not in the store; `ra3 sync` sends it.")
            continue
        folder, problem = _folder(maker)
        if folder is None:
            notes.append(f"{label} of {name} is absent: {problem}.")
        else:
            stages[label], runs[label] = folder, made_by
    unfinished = {
        child.info.run_name or _id(child): child.info.status.lower()
        for child in children
        if child.info.status != "FINISHED" and "stage" in child.data.tags and child.info.run_name not in stages
    }
    if unfinished:
        listed = ", ".join(f"{label} ({status})" for label, status in sorted(unfinished.items()))
        notes.append(f"Stages of {name} that are not finished: {listed}.")
    first, count = int(tags.get("seed", 0)), int(tags.get("seeds", 1))
    begun = {int(label.rpartition("/")[2]) for label in stages}
    absent = [str(seed) for seed in range(first, first + count) if seed not in begun]
    if absent:
        notes.append(f"No stage of {name} is finished for seed {', '.join(absent)}.")
    return Recorded(name, _config(client, run), tags.get("git_commit"), stages, runs, tuple(notes))


def _folder(maker: Run) -> tuple[Path | None, str]:
    """Where a stage's artifact lies, if it is still what the run made; else why not."""
    tags = maker.data.tags
    if "artifact.path" not in tags:
        return None, f"its run {_id(maker)} says of no artifact"
    path = Path(tags["artifact.path"])
    if not (path / MANIFEST).is_file():
        return None, f"{path} is gone"
    if _manifest(path).digest != tags.get("artifact.digest"):
        return None, f"{path} was built again since, with another content"
    return path, ""


def _config(client: MlflowClient, run: Run) -> Mapping[str, Any]:
    """The resolved configuration that a run logged as a file."""
    try:
        path = client.download_artifacts(_id(run), "config.yaml")
    except (MlflowException, OSError) as error:
        raise UserError(f"{run.info.run_name}: its config.yaml cannot be read in MLflow: {reason(error)}") from error
    return yaml.safe_load(Path(path).read_text())


def from_folder(folder: Path) -> Recorded:
    """The run behind a report: of an artifact store, or of a report's own folder in one."""
    home = folder if (folder / MANIFEST).is_file() else None
    store = folder if home is None else folder.parent.parent
    reports = [home] if home else [path.parent for path in store.glob(f"report/[!.]*/{MANIFEST}")]
    if not reports:
        raise UserError(
            f"{folder}: expected a folder of artifacts with a report in it, which names the stages of its run; give "
            "the run's name or id in MLflow instead"
        )
    page = max((_manifest(path) for path in reports), key=lambda one: one.created)
    if page.stage != "report":
        raise UserError(f"{folder}: an artifact of {page.stage}, expected that of a report or a folder of artifacts")
    made: dict[str, tuple[str, Path]] = {}
    for path in store.glob(f"[!.]*/[!.]*/{MANIFEST}"):
        one = _manifest(path.parent)
        made[one.digest] = max(made.get(one.digest, ("", path.parent)), (one.created, path.parent))
    labels = [name for name in page.inputs if STAGE.fullmatch(name)]
    stages = {name: made[page.inputs[name]][1] for name in labels if page.inputs[name] in made}
    gone = [name for name in labels if name not in stages]
    notes = (f"Not in {store} any more: {', '.join(gone)}.",) if gone else ()
    settings = {**page.config.get("settings", {}), "report": page.config}
    runs = page.config.get("mlflow_runs", {})
    return Recorded(str(folder), settings, page.config.get("commit"), stages, runs, notes)


def _manifest(folder: Path) -> Manifest:
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise UserError(f"{folder / MANIFEST}: damaged, expected the manifest of an artifact") from error


def _id(run: Run) -> str:
    return run.info.run_id
