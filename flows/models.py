"""Which model is meant by what a user types: a folder, a hub name, an artifact, or an arm of a run."""

from __future__ import annotations

from pathlib import Path

from flows.evaluation import find_model
from flows.named import by_digest, report_of
from ra3core.artifacts import MANIFEST, Artifact, load_artifact
from ra3core.config import RunConfig, parse
from ra3core.errors import UserError
from ra3core.report.card import stage_of


def model_folder(name: str, root: Path, arm: str | None = None, seed: int | None = None) -> str:
    """Where the model of that name lies.

    name: a run in reports/ (`latest`), whose model is that of `arm` and `seed`; an artifact with a model in it; a
    folder that transformers loads; a hub name. Raises UserError when there is no such model.
    """
    made = model_artifact(name, root, arm, seed)
    if made is not None:
        return str(made.path / "model")
    folder = Path(name).expanduser()
    return find_model(str(folder / "model") if (folder / "model" / "config.json").is_file() else name)[0]


def model_artifact(name: str, root: Path, arm: str | None = None, seed: int | None = None) -> Artifact | None:
    """The artifact that holds the model of a run or of a folder with a manifest; None for other names."""
    report = report_of(name, root)
    if report is not None:
        settings = settings_of(report)
        arm = arm or final_arm(report, settings)
        label = f"{stage_of(arm, settings)}/{settings.seed if seed is None else seed}"
        if label not in report.manifest.inputs:
            raise UserError(f"{name}: the run has no model {label}, expected an arm and a seed of {models_of(report)}")
        return with_model(by_digest(report.manifest.inputs[label], label, root / "artifacts"), name)
    if arm is not None or seed is not None:
        raise UserError(f"{name}: no run below {root / 'reports'}, expected one with --arm or --seed")
    folder = Path(name).expanduser()
    return with_model(load_artifact(folder.resolve()), name) if (folder / MANIFEST).is_file() else None


def settings_of(report: Artifact) -> RunConfig:
    """The configuration of the run that a report is about."""
    return parse({**report.manifest.config["settings"], "report": {}}, f"the settings of {report.path}")


def final_arm(report: Artifact, settings: RunConfig) -> str:
    """The arm that the run registers, else RA3."""
    arm = settings.registry.arm
    registered = f"{stage_of(arm, settings)}/{settings.seed}" in report.manifest.inputs
    return arm if registered else "ra3"


def models_of(report: Artifact) -> str:
    """Stages of a run that hold models, in words."""
    others = (
        "data",
        "corpus",
        "demonstrations",
        "bootstrap",
        "evaluate",
        "rlvr_tasks",
        "analysis",
        "tune",
        "validation",
    )
    return ", ".join(sorted(name for name in report.manifest.inputs if not name.startswith(others))) or "none"


def with_model(artifact: Artifact, name: str) -> Artifact:
    """The artifact, if it holds a model. Raises UserError otherwise."""
    if not (artifact.path / "model" / "config.json").is_file():
        raise UserError(f"{name}: an artifact of stage {artifact.stage}, which holds no model")
    return artifact
