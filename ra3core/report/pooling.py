"""Several recorded runs as the inputs of one report: seeds together, think penalties side by side.

Runs belong together when their configurations agree in everything that decides a result. They may differ in `seed` and
`seeds`, whose stages are then pooled, and in `e_step.think_penalty`, which makes them points of a sweep: the page is
about the first point given, and its figure on c about all. Anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3core.artifacts import MANIFEST, Manifest
from ra3core.config import ReportConfig
from ra3core.errors import UserError

PENALTY = "e_step.think_penalty"
DECIDE_NOTHING = ("name", "seed", "seeds", "report", "registry")
"""Parts of a configuration that change no stage but for its seed."""


@dataclass(frozen=True)
class Recorded:
    """A run as it was found. config: the resolved one. stages: "stage/seed" -> folder of the artifact, of those that
    are finished and there. runs: "stage/seed" -> tracking run. notes: what is not, in sentences."""

    name: str
    config: Mapping[str, Any]
    commit: str | None
    stages: Mapping[str, Path]
    runs: Mapping[str, str]
    notes: tuple[str, ...] = ()


def pooled(records: Sequence[Recorded]) -> tuple[ReportConfig, dict[str, Path]]:
    """The report's settings and inputs (Context.inputs). Raises UserError for runs that do not belong together, and
    when none has a finished stage."""
    first = records[0]
    for other in records[1:]:
        _require_agreement(first, other)
    here = [one for one in records if _penalty(one) == _penalty(first)]
    inputs = _together(here)
    penalties = sorted({_penalty(one) for one in records})
    if len(penalties) > 1:
        for c in penalties:
            point = _together([one for one in records if _penalty(one) == c])
            inputs |= {f"c={c:g} {name}": folder for name, folder in point.items()}
    if not inputs:
        raise UserError(f"{', '.join(one.name for one in records)}: no stage is finished yet, so there is no report")
    commits = list(dict.fromkeys(one.commit for one in here if one.commit))
    notes = [note for one in records for note in one.notes]
    if len(commits) > 1:
        notes.append(f"The runs are of different commits: {', '.join(commits)}.")
    if len(penalties) > 1:
        notes.append(f"All but the figure on c is about c = {_penalty(first):g}, the first run given.")
    own = {name: value for name, value in first.config.get("report", {}).items() if name in _SETTINGS}
    settings = {name: value for name, value in first.config.items() if name != "report"}
    runs = {name: run for one in here for name, run in one.runs.items()}
    filled = {"settings": settings, "commit": commits[0] if commits else None, "mlflow_runs": runs, "notes": notes}
    return ReportConfig.model_validate({**own, **filled}), inputs


_SETTINGS = ("resamples", "examples", "pass_rates")


def _penalty(one: Recorded) -> float:
    return float(one.config.get("e_step", {}).get("think_penalty", 0.0))


def _require_agreement(first: Recorded, other: Recorded) -> None:
    mine, theirs = (_flat({k: v for k, v in one.config.items() if k not in DECIDE_NOTHING}) for one in (first, other))
    differing = sorted(n for n in mine.keys() | theirs.keys() if n != PENALTY and mine.get(n) != theirs.get(n))
    if differing:
        name = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise UserError(
            f"{first.name} and {other.name} differ in {name} ({mine.get(name)!r}, {theirs.get(name)!r}){more}; "
            f"expected runs that differ in their seeds alone, or in {PENALTY}"
        )


def _together(records: Sequence[Recorded]) -> dict[str, Path]:
    """The stages of all; of what several have, any, once its content is the same."""
    found: dict[str, Path] = {}
    owner: dict[str, str] = {}
    for one in records:
        for name, folder in one.stages.items():
            if name not in found:
                found[name], owner[name] = folder, one.name
            elif folder != found[name] and _digest(folder) != _digest(found[name]):
                raise UserError(
                    f"{owner[name]} and {one.name} both have {name}, with different content; expected different seeds"
                )
    return found


def _digest(folder: Path) -> str:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes()).digest


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
