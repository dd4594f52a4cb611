"""`ra3 promote` on versions without weights: only their results and tags are asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.promotion import promote
from ra3core.errors import UserError
from ra3core.evaluation.gate import Measured
from tasks.versions import CHAMPION, Registry

RATES = {"bad": [0] * 20, "good": [4] * 20, "good again": [4] * 20}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with three versions of ra3, of which the first is champion."""
    return fill(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def root(filled: Path, tmp_path: Path, monkeypatch) -> Path:
    """A copy of its own; the results stay where they are."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow").mkdir()
    for file in (filled / "mlflow").glob("mlflow.db*"):  # the write-ahead log belongs to it
        shutil.copy(file, tmp_path / "mlflow")
    return tmp_path


def fill(root: Path) -> Path:
    (root / "mlflow").mkdir()
    for name, passed in RATES.items():
        add(root, passed, name)
    registry = Registry(uri(root), "ra3")
    registry.client.set_registered_model_alias("ra3", CHAMPION, "1")
    return root


def add(root: Path, passed: list[int], name: str, **other: Any) -> str:
    """A version with these results; its number."""
    values = {"benchmark": "embedded", "tasks": "t", "code": "c", "settings": {"samples": 4}} | other
    problems = {f"p{i}": (4, c) for i, c in enumerate(passed)}
    results = {"level": 0.95, "resamples": 1000, "benchmarks": [Measured(**values, problems=problems).plain()]}
    registry = Registry(uri(root), "ra3")
    client = registry.client
    experiment = client.get_experiment_by_name("test")
    if experiment is None:
        identity = client.create_experiment("test", (root / "mlflow" / "artifacts").as_uri())
    else:
        identity = experiment.experiment_id
    package = root / f"package-{name}"
    package.mkdir()
    (package / "results.json").write_text(json.dumps(results))
    run = client.create_run(identity)
    return str(registry.add(run.info.run_id, package, {"arm": "ra3_rlvr", "preset": name}, "").version)


def uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"


def champion(root: Path) -> str:
    return str(MlflowClient(tracking_uri=uri(root)).get_registered_model("ra3").aliases[CHAMPION])


def tags(root: Path, version: str) -> dict[str, str]:
    return MlflowClient(tracking_uri=uri(root)).get_model_version("ra3", version).tags


def test_the_newest_is_promoted_if_it_beats_the_champion(root: Path, capsys) -> None:
    decision = promote(root)
    assert (decision.verdict, champion(root), tags(root, "3")["gate.verdict"]) == ("better", "3", "better")
    out = capsys.readouterr().out
    assert "ra3 version 1, champion" in out and "0.0 % of 20 problems" in out and "100.0 % of 20 problems" in out
    assert out.rstrip().endswith(decision.sentence)


def test_an_equal_one_is_not_unless_forced(root: Path) -> None:
    promote(root, "2")
    with pytest.raises(UserError, match=r"version 3 is not shown to beat it: .*--force moves it anyway$"):
        promote(root, "3")
    assert champion(root) == "2" and "gate.verdict" not in tags(root, "3")
    decision = promote(root, "3", force=True)
    assert (decision.verdict, champion(root), tags(root, "3")["gate.verdict"]) == ("forced", "3", "forced")
    assert "although it is not shown to beat version 2" in tags(root, "3")["gate.sentence"]


def test_the_champion_itself_and_the_first(root: Path) -> None:
    assert promote(root, "1").verdict == "same"
    MlflowClient(tracking_uri=uri(root)).delete_registered_model_alias("ra3", CHAMPION)
    assert promote(root, "1").verdict == "first" and champion(root) == "1"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"tasks": "u"}, "differ in the tasks of embedded"),
        ({"settings": {"samples": 8}}, r"differ in samples on embedded \(8 and 4\)"),
        ({"benchmark": "humaneval"}, "version 1 has no results on humaneval"),
    ],
)
def test_what_cannot_be_compared_is_named(root: Path, other: dict[str, Any], message: str) -> None:
    version = add(root, [4] * 20, "other", **other)
    with pytest.raises(UserError, match=f"version {version} is not promoted: .*{message}; --force"):
        promote(root)
    assert champion(root) == "1"
    decision = promote(root, force=True)
    assert champion(root) == version and decision.verdict == "forced"


def test_what_is_not_there(root: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"^ra3 has no version 9, expected one of 1, 2, 3$"):
        promote(root, "9")
    with pytest.raises(UserError, match=r"^no model other is registered at "):
        promote(root, model="other")
    with pytest.raises(UserError, match="nothing has been run"):
        promote(tmp_path / "empty")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^MLflow at http://127\.0\.0\.1:9 does not answer"):
        promote(root)


def test_the_command(root: Path) -> None:
    environment = {**os.environ, "RA3_ROOT": str(root)}
    ra3 = str(Path(sys.executable).with_name("ra3"))
    good = subprocess.run([ra3, "promote", "2"], env=environment, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert "ra3 version 2 is the new champion" in good.stdout and champion(root) == "2"
    bad = subprocess.run([ra3, "promote", "--model", "ra3", "3"], env=environment, capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stderr.startswith("ra3: ra3 version 2 stays champion")
    assert bad.stderr.count("\n") == 1 and champion(root) == "2"
