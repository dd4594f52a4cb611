"""`ra3 export`: a model of a run as a plain transformers folder, with the card that the registry would give it."""

from __future__ import annotations

import shutil
from pathlib import Path

from flows.models import final_arm, model_artifact, settings_of
from flows.named import by_digest, report_of
from ra3core.artifacts import Artifact, Store
from ra3core.errors import UserError
from ra3core.report.artifact_card import artifact_card
from ra3core.report.card import Facts, licence_text, model_card, stage_of

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
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model.path / "model", partial)
        (partial / CARD).write_text(artifact_card(model) if facts is None else model_card(facts))
        if facts is not None:
            (partial / LICENCE_FILE).write_text(licence_text(facts))
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except OSError as error:
        raise UserError(f"{folder}: could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    what = f"{model.stage} {model.key[:8]}" if facts is None else f"{facts.label}, seed {facts.seed}"
    print(f"{folder}: {what}, with {CARD}")


def facts_of(name: str, model: Artifact, arm: str | None, seed: int | None, root: Path) -> Facts | None:
    """What the card is made from; None where no run in the store is known to have made the model."""
    report = report_of(name, root) or _run_with(model, root)
    if report is None:
        return None
    settings = settings_of(report)
    if arm is None and report_of(name, root) is None:
        label = next(label for label, digest in report.manifest.inputs.items() if digest == model.digest)
        stage, _, number = label.rpartition("/")
        arm, seed = "ra3" if stage == stage_of("ra3", settings) else stage, int(number)
    made = {}
    for label, digest in report.manifest.inputs.items():
        if label == "data":
            made[label] = Store.external("data", root / "data", digest)
            continue
        try:
            made[label] = by_digest(digest, label, root / "artifacts")
        except UserError:  # what is no longer in the store has no part in the card
            continue
    config = report.manifest.config
    return Facts(
        name=settings.registry.model,
        arm=arm or final_arm(report, settings),
        seed=settings.seed if seed is None else seed,
        config=settings,
        made=made,
        runs=config.get("mlflow_runs", {}),
        commit=config.get("commit"),
        plain=True,
    )


def _run_with(model: Artifact, root: Path) -> Artifact | None:
    """The newest report of a run that has this model as an arm's."""
    reports = [one for one in Store(root / "artifacts").artifacts() if one.stage == "report"]
    having = [one for one in reports if model.digest in one.manifest.inputs.values()]
    return max(having, key=lambda one: one.manifest.created, default=None)
