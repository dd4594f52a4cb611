"""The versions of a registered MLflow model, and what is decided about them; no Prefect.

A version holds a model, its card and the results by which it can be compared anywhere (tasks/packaging.py), and tags
that say where it comes from. MLflow is asked here itself and not through tasks/tracking.py: what it does not take now
cannot be made up for later, since a version gets its number and the alias its place from the server.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ra3core.artifacts import Artifact, Store, content_digest
from ra3core.errors import UserError
from ra3core.evaluation import gate
from ra3core.evaluation.gate import Comparison, Measured

CHAMPION = "champion"
FOLDER = "model"  # below the artifacts of the pipeline run
RESULTS = "results.json"
CONNECT_SECONDS = 5.0
LOCAL_RUN = "ra3.run"  # tag: the id that a run had while the server was away (tasks/tracking.py)

FIGURES = ("new", "old", "difference", "bound", "upper", "level", "problems")  # of a comparison, as tags and metrics

Verdict = Literal["first", "same", "better", "not shown", "not compared", "forced", "not registered"]


class Unreachable(Exception):
    """MLflow does not answer, or not in order; the message is for the user."""


@dataclass(frozen=True)
class Decision:
    """What became of a model. verdict: `moved` tells whether it is why the alias moved.

    version: of the model in question; None when it is not registered. champion: the version it was held against, if
    any. reason: of a verdict that has no numbers, and of `forced`.
    """

    model: str
    verdict: Verdict
    version: str | None = None
    champion: str | None = None
    comparison: Comparison | None = None
    reason: str = ""

    @property
    def moved(self) -> bool:
        """Whether the version becomes champion by this decision."""
        return self.verdict in ("first", "better", "forced")

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        this, other = f"{self.model} version {self.version}", f"version {self.champion}"
        if self.verdict == "not registered":
            return f"The final model was not registered: {self.reason}."
        if self.verdict == "first":
            return f"{this} is champion: there was none."
        if self.verdict == "same":
            return f"{this} is this run's final model and champion already."
        if self.verdict == "forced":
            return f"{this} is champion by force: {self.reason}."
        if self.verdict == "not compared":
            return f"{self.model} {other} stays champion: version {self.version} was not compared, {self.reason}."
        assert self.comparison is not None
        if self.verdict == "better":
            return f"{this} is the new champion: {numbers(self.comparison, other)}."
        return (
            f"{self.model} {other} stays champion, {this} is not shown to beat it: {numbers(self.comparison, other)}."
        )


def numbers(found: Comparison, other: str) -> str:
    """The gate's numbers in words; `other`: what the champion is called."""
    return (
        f"{100 * found.new:.1f} % of samples passed, of {other} {100 * found.old:.1f} %, on the same {found.problems} "
        f"problems ({', '.join(found.benchmarks)}); difference {100 * found.difference:+.1f} points, lower bound "
        f"{100 * found.bound:+.1f} at {100 * found.level:g} % confidence"
    )


def judge(
    model: str,
    version: str,
    champion: str,
    new: Sequence[Measured],
    old: Sequence[Measured],
    level: float,
    resamples: int,
) -> Decision:
    """The gate's verdict about two versions with comparable results."""
    found = gate.compare(new, old, level=level, resamples=resamples)
    return Decision(model, "better" if found.better else "not shown", version, champion, found)


class Registry:
    """The versions of one registered model. Raises Unreachable when MLflow does not answer."""

    def __init__(self, uri: str, model: str) -> None:
        self.uri, self.model = uri, model
        with self._asking():
            _connect(uri)
            self.client = MlflowClient(tracking_uri=uri)

    def versions(self) -> list[ModelVersion]:
        """Every version, oldest first."""
        with self._asking():
            found: list[ModelVersion] = []
            token = None
            while True:
                page = self.client.search_model_versions(f"name = '{self.model}'", page_token=token)
                found += page
                token = page.token
                if not token:
                    return sorted(found, key=lambda version: int(version.version))

    def find(self, digest: str) -> ModelVersion | None:
        """The version that was made from an artifact of this digest, the oldest if there are several."""
        return next((version for version in self.versions() if version.tags.get("artifact.digest") == digest), None)

    def champion(self) -> ModelVersion | None:
        """The version that the alias points at, if there is one."""
        with self._asking():
            try:
                aliases = cast("dict[str, Any]", self.client.get_registered_model(self.model).aliases)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            number = aliases.get(CHAMPION)
            return None if number is None else self.client.get_model_version(self.model, str(number))

    def results(self, version: ModelVersion) -> dict[str, Any]:
        """What results.json of a version holds; empty when it has none that can be read (made by something else)."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = self._download(version, RESULTS, Path(folder))
            except FileNotFoundError:
                return {}
            return json.loads(file.read_text())

    def measured(self, version: ModelVersion) -> list[Measured]:
        """The results by which a version can be compared."""
        return [gate.parse(one) for one in self.results(version).get("benchmarks", [])]

    def fetch(self, version: ModelVersion, home: Path) -> Artifact:
        """A version's model as the input of a stage: downloaded to `home`/model unless it is there.

        Raises UserError when its files are missing or are not those that were registered.
        """
        kept = home / "model"
        if not kept.is_dir():
            partial = home / ".model.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                self._download(version, "model", partial).replace(kept)
            except FileNotFoundError as error:
                raise UserError(f"the files of {self.model} version {version.version} are missing") from error
            shutil.rmtree(partial)
        content = content_digest(kept)
        if version.tags.get("model.digest", content) != content:
            shutil.rmtree(kept)
            raise UserError(f"the files of {self.model} version {version.version} are not those that were registered")
        return Store.external(CHAMPION, home, version.tags.get("artifact.digest", content))

    def add(self, run_id: str, folder: Path, tags: Mapping[str, str], description: str) -> ModelVersion:
        """Upload a model's folder to a run, and make it the next version."""
        with self._asking():
            run = self._run(run_id)
            self.client.log_artifacts(run.info.run_id, str(folder), FOLDER)
            try:
                self.client.create_registered_model(self.model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{run.info.artifact_uri}/{FOLDER}"
            return self.client.create_model_version(
                self.model, source, run.info.run_id, tags=dict(tags), description=description
            )

    def record(self, decision: Decision, run_id: str | None) -> None:
        """Write a decision to the version and to the pipeline run, then move the alias, if that is what it says.

        That a champion was found again is no decision about it: its version keeps what made it champion.
        """
        texts = {"verdict": decision.verdict, "sentence": decision.sentence, "champion": decision.champion or ""}
        figures: dict[str, float] = {}
        if found := decision.comparison:
            figures = {name: float(getattr(found, name)) for name in FIGURES}
            texts["benchmarks"] = ",".join(found.benchmarks)
        with self._asking():
            if decision.verdict != "same":
                shown = {name: f"{figures[name]:.6g}" if name in figures else "" for name in FIGURES}  # none is stale
                for name, value in (texts | shown).items():
                    self.client.set_model_version_tag(self.model, decision.version, f"gate.{name}", value)
            if run_id is not None:
                now = int(time.time() * 1000)
                tags = texts | {"model": decision.model, "version": str(decision.version)}
                self.client.log_batch(
                    self._run(run_id).info.run_id,
                    metrics=[Metric(f"registry/{name}", value, now, 0) for name, value in figures.items()],
                    tags=[RunTag(f"registry.{name}", value) for name, value in tags.items()],
                )
            if decision.moved:
                self.client.set_registered_model_alias(self.model, CHAMPION, str(decision.version))

    def _run(self, run_id: str) -> Run:
        """The pipeline run. Raises Unreachable when it waits here to be sent."""
        try:
            return self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            everywhere = [one.experiment_id for one in self.client.search_experiments()]
            found = self.client.search_runs(everywhere, f"tags.`{LOCAL_RUN}` = '{run_id}'", max_results=1)
            if not found:
                raise Unreachable(f"MLflow at {self.uri} has not been sent this run yet") from error
            return found[0]

    def _download(self, version: ModelVersion, path: str, folder: Path) -> Path:
        """A file or folder of a version, copied below `folder`. Raises FileNotFoundError when it is not there."""
        with self._asking():
            try:
                source = self.client.get_model_version_download_uri(self.model, str(version.version))
                found = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{source}/{path}", dst_path=str(folder), tracking_uri=self.uri
                )
            except (MlflowException, OSError) as error:
                if _is_missing(error):
                    raise FileNotFoundError(path) from error
                raise
            return Path(found)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Failures of the connection, of the server or of its store as Unreachable; a wrong request stays a bug."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (MlflowException, OSError) as error:
            if isinstance(error, MlflowException) and error.get_http_status_code() < 500:
                raise
            raise Unreachable(f"MLflow at {self.uri} does not answer ({_first_line(error)})") from error


def _connect(uri: str) -> None:
    """Raises OSError within seconds when nothing listens at an address; MLflow itself would try for minutes."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()


def _is_missing(error: Exception) -> bool:
    """Whether MLflow's stores, each in its own way, say that there is no such file."""
    if isinstance(error, MlflowException):
        return error.error_code == "RESOURCE_DOES_NOT_EXIST"
    response = getattr(error, "response", None)  # of requests' HTTPError, which is an OSError
    return isinstance(error, FileNotFoundError) or (response is not None and response.status_code == 404)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
