"""How stages are called in tables, and figures of a stage over its seeds."""

from __future__ import annotations

import re
from statistics import fmean

from ra3core.report.inputs import E_STEP, EVALUATE, TUNE, Run
from ra3core.report.style import BY_NAME

ABSENT = "–"
KINDS = {"e_step": "E-step", "bootstrap": "Bootstrap", "m_step": "M-step"}
TITLES = {
    "corpus": "Web-like corpus",
    "demonstrations": "Demonstrations",
    "rlvr_tasks": "RLVR tasks",
    "validation": "Validation tasks",
    "base": "Base model",
    "bootstrap_no_rl": "Bootstrap by the base policy",
}


def stage_title(stage: str, run: Run) -> str:
    """How a stage is called in tables; one that no table knows by its own name."""
    if stage.startswith(EVALUATE):
        name, _, benchmark = stage.removeprefix(EVALUATE).partition(":")
        return f"Evaluation{' on ' if benchmark else ''}{benchmark}: {_arm(name, run)}"
    if stage.startswith("analysis_"):
        return f"Analysis: {_arm(stage.removeprefix('analysis_'), run)}"
    if stage.startswith(TUNE):
        arm = stage.removeprefix(TUNE)
        return f"Tuning: {_arm(arm.removesuffix(E_STEP), run)}" + (", E-step" if arm.endswith(E_STEP) else "")
    if stage in TITLES:
        return TITLES[stage]
    if stage in BY_NAME:
        arm = BY_NAME[stage]
        return f"RLVR from {BY_NAME[arm.start].short}" if arm.after_rl else f"M-step: {arm.label}"
    return _arm(stage, run)


def _arm(name: str, run: Run) -> str:
    """An arm's label, or a round's or a control's part: bootstrap_2, e_step_brite, brite_round_1, ntp_at_2_of_5."""
    if name in BY_NAME:
        return BY_NAME[name].label
    model, _, share = name.partition("_at_")
    if share:
        return f"{_arm(model, run)}, after {share.replace('_of_', '/')} of its steps"
    whole, _, number = name.partition("_round_")
    round_ = f", round {number}" if number else ""
    if match := re.fullmatch(r"(e_step|bootstrap|m_step)_(\d+)", name):
        return f"RA3: {KINDS[match[1]]}" + (f", round {match[2]}" if run.rounds > 1 else "")
    if match := re.fullmatch(r"(e_step|bootstrap)_(\w+)", whole):
        arm = BY_NAME.get(match[2]) or BY_NAME.get(f"ra3_{match[2]}")
        return f"{KINDS[match[1]]}: {arm.label if arm else match[2]}{round_}"
    return f"M-step: {BY_NAME[whole].label}{round_}" if whole in BY_NAME else name


def mean(run: Run, stage: str, metric: str) -> float | None:
    """A figure of a stage's manifest, mean over its seeds; None where it gives none."""
    values = [value for one in run.stages.get(stage, {}).values() if (value := one.metric(metric)) is not None]
    return fmean(values) if values else None


def count(tokens: float | None) -> str:
    """A number of tokens or parameters with a suffix: 812, 45.1 k, 7.20 M."""
    if tokens is None:
        return ABSENT
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:#.3g}".rstrip(".") + suffix
    return f"{tokens:,.0f}"
