"""Every arm of the paper presets for real, at toy size: one command from data to report, then the same one again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ra3core.artifacts import Artifact, Store
from ra3core.config import PRESETS, load
from ra3core.corpora.demonstrations import read_annotated, read_demonstrations

pytestmark = pytest.mark.slow

DATA = {
    "web_documents": 400,
    "outlines": 150,
    "demonstrations": 80,
    "rlvr_tasks": 12,
    "evaluation_tasks": 3,
}  # of each number of steps
TUNING = {
    "seeds": [7],
    "m_step_learning_rates": [1e-3],
    "e_step_learning_rates": [1e-5],
    "rlvr_learning_rates": [1e-4],
    "tasks": 1,
    "samples": 1,
}


def toy(preset: str, folder: Path) -> Path:
    """A preset's arms at the smoke preset's sizes, one seed and round, as a file."""
    values, smoke = (yaml.safe_load((PRESETS / f"{name}.yaml").read_text()) for name in (preset, "smoke"))
    sizes = {name: section for name, section in smoke.items() if isinstance(section, dict)}
    values |= {"name": preset, **sizes, "seeds": 1, "rounds": 1, "data": DATA, "tuning": TUNING}
    values["registry"] = {"enabled": False}
    values["bootstrap"] |= {"samples": 2, "temperature": 8.0}  # an untrained policy never thinks unless it is heated
    file = folder / f"{preset}.yaml"
    file.write_text(yaml.safe_dump(values))
    load(str(file))
    return file


def run(root: Path, preset: Path) -> str:
    """`ra3 run` in a checkout; what it prints."""
    environment = {**os.environ, "RA3_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    environment.pop("PREFECT_HOME", None)  # the checkout's own
    command = [sys.executable, "-m", "flows.cli", "run", "--preset", str(preset)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, cwd=PRESETS.parent)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module", params=["paper-mini", "paper-small"])
def finished(request, tmp_path_factory, new_checkout) -> tuple[Path, Path, str]:
    """(checkout, preset, what was printed) of the first run."""
    folder = tmp_path_factory.mktemp("arms")
    preset = toy(request.param, folder)
    config = load(str(preset))
    root = folder / "checkout"
    if config.suite == "tracked":
        new_checkout(root, config.data)
    else:  # data/ is not needed
        root.mkdir()
    return root, preset, run(root, preset)


def made(root: Path, kind: str) -> list[Artifact]:
    return [artifact for artifact in Store(root / "artifacts").artifacts() if artifact.stage == kind]


def test_every_arm_runs_and_a_second_run_finds_everything(finished) -> None:
    root, preset, printed = finished
    arms = load(str(preset)).arms
    tuned = [*arms.mid_trained, *arms.after_rlvr, "ra3_e_step", "brite_e_step"]
    expected = {f"evaluate_{arm}/0" for arm in arms.names} | {f"tune_{arm}/0" for arm in tuned}
    (report,) = made(root, "report")
    assert expected <= set(report.manifest.inputs)
    assert len(made(root, "base")) == 2  # of the seed, and of the tuning's
    assert all(one.metrics["chosen"] in (1e-3, 1e-4, 1e-5) for one in made(root, "tune"))
    again = run(root, preset)
    assert "\n0 stages run" in again, again[-500:]
    assert "Report: " in printed


def test_no_thinking_is_next_token_prediction_to_the_last_bit(finished) -> None:
    root, _, _ = finished
    never = [a for a in made(root, "bootstrap") if a.manifest.config["think_penalty"] in ("Infinity", float("inf"))]
    assert len(never) == 2  # of the seed, and of the tuning's
    plain = {a.digest for a in made(root, "demonstrations")}
    trained = made(root, "m_step")
    for annotated in never:
        (limit,) = [a for a in trained if a.manifest.inputs["demonstrations"] == annotated.digest]
        (ntp,) = [
            a
            for a in trained
            if a.manifest.inputs["demonstrations"] in plain
            and a.manifest.inputs["model"] == limit.manifest.inputs["model"]
            and a.manifest.config["token_budget"] is None
        ]
        assert limit.digest == ntp.digest
        assert limit.metrics["held_out_code"] == ntp.metrics["held_out_code"]


def test_controls_leave_the_experts_lines(finished) -> None:
    root, _, _ = finished
    experts = {
        d.id: d for a in made(root, "demonstrations") for d in read_demonstrations(a.path / "demonstrations.parquet")
    }
    for kind in ("distil", "shuffle"):
        for artifact in made(root, kind):
            for one in read_annotated(artifact.path / "annotated.parquet"):
                assert one.demonstration == experts[one.demonstration.id]
                compile(one.text, one.demonstration.id, "exec")
