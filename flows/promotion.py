"""`ra3 promote`: the gate by hand, between a registered version and the champion, by the results that both keep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from rich.console import Console
from rich.table import Table

from ra3core.config import RegistryConfig
from ra3core.errors import UserError
from ra3core.evaluation import gate
from ra3core.evaluation.gate import Measured
from tasks.versions import Decision, Registry, Unreachable, judge, numbers

DEFAULTS = RegistryConfig()
SHOWN = ("arm", "preset", "seed", "git_commit", "data.digest", "artifact.digest")


def promote(root: Path, version: str | None = None, model: str = DEFAULTS.model, force: bool = False) -> Decision:
    """Show a version (the newest by default) beside the champion, and move the alias if the gate says so.

    force: move it in any case, and record that. Raises UserError, one sentence, when the alias does not move although
    the version is not champion yet, for an unknown version or model, and when MLflow does not answer.
    """
    database = root / "mlflow" / "mlflow.db"
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri and not database.is_file():
        raise UserError(f"no model {model} is registered: nothing has been run in {root}")
    try:
        return _promote(Registry(uri or f"sqlite:///{database}", model), version, force)
    except Unreachable as error:
        raise UserError(str(error)) from error


def _promote(registry: Registry, version: str | None, force: bool) -> Decision:
    versions = {str(one.version): one for one in registry.versions()}
    if not versions:
        raise UserError(f"no model {registry.model} is registered at {registry.uri}: a finished run registers its own")
    if version is not None and version not in versions:
        raise UserError(f"{registry.model} has no version {version}, expected one of {', '.join(versions)}")
    candidate = versions[version] if version is not None else list(versions.values())[-1]
    this, champion = str(candidate.version), registry.champion()
    new = registry.measured(candidate)
    if champion is None:
        show(registry.model, [(candidate, new)])
        return _moved(registry, Decision(registry.model, "first", this))
    against = str(champion.version)
    if against == this:
        show(registry.model, [(candidate, new)])
        return _said(Decision(registry.model, "same", this, against))
    old = registry.measured(champion)
    show(registry.model, [(champion, old), (candidate, new)])
    try:
        pair = comparable(new, old, against)
    except UserError as error:
        if not force:
            raise UserError(
                f"{registry.model} version {this} is not promoted: {error}; --force moves it anyway"
            ) from error
        return _moved(registry, Decision(registry.model, "forced", this, against, reason=f"by hand, although {error}"))
    settings = registry.results(candidate)
    level, resamples = settings.get("level", DEFAULTS.level), settings.get("resamples", DEFAULTS.resamples)
    decision = judge(registry.model, this, against, new, pair, level, resamples)
    if decision.moved:
        return _moved(registry, decision)
    if not force:
        raise UserError(f"{decision.sentence}; --force moves it anyway".replace(".;", ";"))
    assert decision.comparison is not None
    shown = numbers(decision.comparison, f"version {against}")
    reason = f"by hand, although it is not shown to beat version {against}: {shown}"
    return _moved(registry, Decision(registry.model, "forced", this, against, decision.comparison, reason))


def comparable(new: Sequence[Measured], old: Sequence[Measured], champion: str) -> list[Measured]:
    """The champion's results on the benchmarks of `new`, in their order. Raises UserError that names what differs."""
    if not new:
        raise UserError("it keeps no results")
    by_name = {one.benchmark: one for one in old}
    found = []
    for one in new:
        other = by_name.get(one.benchmark)
        if other is None:
            raise UserError(f"version {champion} has no results on {one.benchmark}")
        if (difference := one.differs(other)) is not None:
            raise UserError(f"its results and those of version {champion} differ in {difference}")
        found.append(other)
    return found


def show(model: str, versions: Sequence[tuple[ModelVersion, Sequence[Measured]]]) -> None:
    """A column a version: where it comes from, and the share of samples that passed on every benchmark."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for version, _ in versions:
        table.add_column(f"{model} version {version.version}" + (", champion" if version.aliases else ""))
    for name in SHOWN:
        table.add_row(name, *(version.tags.get(name, "–")[:16] for version, _ in versions))
    benchmarks = dict.fromkeys(one.benchmark for _, found in versions for one in found)
    for benchmark in benchmarks:
        table.add_row(f"{benchmark}, {gate.MODE}", *(_share(found, benchmark) for _, found in versions))
    Console(highlight=False, soft_wrap=True).print(table)


def _share(found: Sequence[Measured], benchmark: str) -> str:
    rates = next((one.rates() for one in found if one.benchmark == benchmark), [])
    return f"{100 * sum(rates) / len(rates):.1f} % of {len(rates)} problems" if rates else "–"


def _moved(registry: Registry, decision: Decision) -> Decision:
    registry.record(decision, None)
    return _said(decision)


def _said(decision: Decision) -> Decision:
    print(decision.sentence)
    return decision
