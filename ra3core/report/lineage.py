"""What an arm cost: the stages that lead to its model, found by the digests that manifests give of their inputs.

No list of stages is kept here, so that an arm made in another way is counted as it was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from ra3core.report.inputs import TUNE, Run, StageRun
from ra3core.report.style import BY_NAME

MATCHED = "matched"
"""Inputs of these roles say how many tokens to match: the arm does not need what made them."""


@dataclass(frozen=True)
class Spent:
    """Wall time in seconds and tokens that models processed; of these trained on. Mean over seeds."""

    seconds: float
    tokens: float
    train_tokens: float


@dataclass(frozen=True)
class Cost:
    """Of one arm. total: every stage that leads to its model, the base model's among them. beyond_base: without those
    that lead to the base model. stages: their names, parents first."""

    total: Spent
    beyond_base: Spent
    stages: tuple[str, ...]


def ancestors(run: Run, stage: str, seed: int) -> list[StageRun]:
    """The artifacts that one descends from and itself, parents first.

    Where several have the digest that is looked for (arms may come out alike), the one an arm's name asks for is
    taken, else the first in the pipeline's order. What is not in the run, such as a base model of the user's, has none.
    """
    here = [
        one
        for name in run.ordered
        if not name.startswith(TUNE)
        for one in run.stages[name].values()
        if one.seed == seed or seed not in run.stages[name]  # what all seeds share is made for the first one
    ]
    found: dict[str, StageRun] = {}

    def visit(this: StageRun) -> None:
        if this.name in found:
            return
        arm = BY_NAME.get(this.stage)
        wanted = run.stage_of(arm.start) if arm is not None and arm.after_rl else ""
        for role, digest in this.manifest.inputs.items():
            candidates = [one for one in here if one.manifest.digest == digest]
            if candidates and not role.startswith(MATCHED):
                visit(next((one for one in candidates if one.stage == wanted), candidates[0]))
        found[this.name] = this

    visit(run.stages[stage][seed])
    return list(found.values())


def costs(run: Run) -> dict[str, Cost]:
    """Every arm whose model the run made -> what it cost."""
    found = {}
    for arm in BY_NAME:
        stage = run.stage_of(arm)
        if stage not in run.stages:
            continue
        lines = {seed: ancestors(run, stage, seed) for seed in sorted(run.stages[stage])}
        bases = {
            seed: {one.name for one in ancestors(run, "base", seed)} if seed in run.stages.get("base", {}) else set()
            for seed in lines
        }
        beyond = {seed: [one for one in line if one.name not in bases[seed]] for seed, line in lines.items()}
        names = dict.fromkeys(one.stage for line in lines.values() for one in line)
        found[arm] = Cost(_mean(list(lines.values())), _mean(list(beyond.values())), tuple(names))
    return found


def _mean(lines: list[list[StageRun]]) -> Spent:
    return Spent(
        fmean(sum(one.manifest.seconds for one in line) for line in lines),
        fmean(sum(one.metric("tokens") or 0.0 for one in line) for line in lines),
        fmean(sum(one.metric("train_tokens") or 0.0 for one in line) for line in lines),
    )
