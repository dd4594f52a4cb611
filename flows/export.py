"""`ra3 export`: a model of a run as a plain transformers folder, with the card that the registry would give it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from flows.models import final_arm, model_artifact, settings_of
from flows.named import by_digest, report_of
from ra3core import atomic
from ra3core.artifacts import Artifact, Store
from ra3core.errors import UserError
from ra3core.report.artifact_card import artifact_card
from ra3core.report.card import Facts, licence_text, model_card, stage_of
from ra3core.report.style import BY_NAME

CARD, LICENCE_FILE = "README.md", "LICENSE.txt"


def export(name: str, folder: Path, arm: str | None, seed: int | None, root: Path) -> None:
    """Write model, tokenizer, README.md and LICENSE.txt to `folder`, whole or not at all, and say so.

    name: a run in reports/, or the artifact of a model. The card is that of the run: of an artifact alone, of the last
    run in the store that has it; else what its manifest says. Raises UserError when there is no such model, and for a
    folder with anything in it.
    """
    model = model_artifact(name, root, arm, seed)
    if model is None:
        raise UserError(f"{name}: neither a run below {root / 'reports'} nor an artifact, expected one to export from")
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: expected a new folder, or an empty one")
    facts = facts_of(name, model, arm, seed, root)

    def fill(partial: Path) -> None:
        shutil.copytree(model.path / "model", partial, dirs_exist_ok=True)
        (partial / CARD).write_text(artifact_card(model) if facts is None else model_card(facts))
        if facts is not None:
            (partial / LICENCE_FILE).write_text(licence_text(facts))

    atomic.folder(folder, fill)
    what = f"{model.stage} {model.key[:8]}" if facts is None else f"{facts.label}, seed {facts.seed}"
    print(f"{folder}: {what}, with {CARD}")


def facts_of(name: str, model: Artifact, arm: str | None, seed: int | None, root: Path) -> Facts | None:
    """What the card is made from; None where no run in the store is known to have made the model."""
    report = report_of(name, root)
    if report is not None:
        settings = settings_of(report)
        arm, seed = arm or final_arm(report, settings), settings.seed if seed is None else seed
    else:
        found = _run_with(model, root)
        if found is None:
            return None
        report, arm, seed = found
        settings = settings_of(report)
    if arm not in BY_NAME or "data" not in report.manifest.inputs:  # a stage on the way, such as e_step_1
        return None
    store = _by_digest(root)
    # what is no longer in the store has no part in the card
    made = {label: store[digest] for label, digest in report.manifest.inputs.items() if digest in store}
    made["data"] = Store.external("data", root / "data", report.manifest.inputs["data"])
    base = f"base/{seed}"
    if base not in made and (given := _given_base(made, root)) is not None:
        made[base] = given
    config = report.manifest.config
    return Facts(
        name=settings.registry.model,
        arm=arm,
        seed=seed,
        config=settings,
        made=made,
        runs=config.get("mlflow_runs", {}),
        commit=config.get("commit"),
        plain=True,
    )


def _by_digest(root: Path) -> dict[str, Artifact]:
    """The store's artifacts by content. Of equal ones not that which left its input as it was, and the newest."""
    found = [
        (one.digest not in one.manifest.inputs.values(), one.manifest.created, one)
        for one in Store(root / "artifacts").artifacts()
    ]
    return {one.digest: one for *_, one in sorted(found, key=lambda each: each[:2])}


def _given_base(made: Mapping[str, Artifact], root: Path) -> Artifact | None:
    """The base model of the user's that stages of a run started from (tasks/external.py)."""
    for artifact in made.values():
        digest = artifact.manifest.inputs.get("model", "")
        if digest and (root / "artifacts" / "external" / digest[:16]).is_dir():
            return by_digest(digest, "base", root / "artifacts")
    return None


def _run_with(model: Artifact, root: Path) -> tuple[Artifact, str, int] | None:
    """The newest report of a run that has this model as an arm's; the arm and the seed."""
    found = []
    for report in Store(root / "artifacts").artifacts():
        labels = [label for label, digest in report.manifest.inputs.items() if digest == model.digest]
        if report.stage != "report" or not labels:
            continue
        settings = settings_of(report)
        for label in labels:
            stage, _, seed = label.rpartition("/")
            arm = "ra3" if stage == stage_of("ra3", settings) else stage
            if arm in BY_NAME:
                found.append((report.manifest.created, report, arm, int(seed)))
    return max(found, key=lambda one: one[0])[1:] if found else None
