"""Every number of the report as JSON, under names that other programs can rely on. Shares are shares, not percent;
what is not known is null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from ra3core.config import ReportConfig
from ra3core.report.claims import Evidence
from ra3core.report.findings import Finding
from ra3core.report.inputs import TUNE, Run
from ra3core.report.lineage import costs
from ra3core.report.mid_training import course
from ra3core.report.rl import Courses, measure
from ra3core.report.scores import Average, Contender, Difference, Score
from ra3core.report.style import ARMS
from ra3core.report.sweep import effect, penalty
from ra3core.statistics import LEVEL


def numbers(
    config: ReportConfig,
    run: Run,
    average: Average,
    evidence: Sequence[Evidence],
    found: Sequence[Finding],
    courses: Courses,
) -> dict[str, Any]:
    """seeds; level of the intervals. scores: arm -> benchmark or "average" -> mode -> k -> score. comparisons and
    claims: with verdicts and sentences. m_step: arm -> seed -> final figures. mid_training: arm -> scores by tokens
    trained on. rlvr: arm -> seeds and means. costs: arm -> seconds and tokens. tuning: arm -> grid and choice.
    think_penalty: c -> measure -> estimate."""
    rlvr_names = [
        "start",
        "final",
        "area",
        *(f"{kind}:{r}" for r in config.pass_rates for kind in ("steps", "minutes")),
    ]
    return plain(
        {
            "seeds": list(run.seeds),
            "level": LEVEL,
            "resamples": config.resamples,
            "missing": config.notes,
            "scores": {arm.name: one for arm in ARMS if (one := _scores(run, average, arm.name))},
            "comparisons": {one.comparison.name: _finding(one) for one in found},
            "claims": [{**asdict(one), "statement": _said(one.statement.text)} | _verdict(one) for one in evidence],
            "m_step": {
                arm: {
                    str(seed): {n: v for n, v in one.manifest.metrics.items() if n.startswith(("held_out", "train"))}
                    for seed, one in run.stages[run.stage_of(arm)].items()
                }
                for arm in run.trained
            },
            "mid_training": {
                arm: [{"tokens": one.tokens, **asdict(one.score)} for one in course(run, average, arm)]
                for arm in run.trained
            },
            "rlvr": {
                arm: {
                    "by_seed": {str(seed): asdict(one) for seed, one in seeds.items()},
                    "mean": {name: asdict(measure(seeds, name)) for name in rlvr_names},
                }
                for arm, seeds in courses.items()
            },
            "costs": {arm: asdict(one) for arm, one in costs(run).items()},
            "tuning": {
                stage.removeprefix(TUNE): {
                    "setting": one.manifest.config.get("setting"),
                    "grid": one.manifest.metrics.get("grid"),
                    "chosen": one.manifest.metrics.get("chosen"),
                }
                for stage in run.ordered
                if stage.startswith(TUNE)
                for one in run.stages[stage].values()
            },
            "think_penalty": {penalty(one.c): asdict(one) for one in effect(run, config.resamples)},
        }
    )


def plain(value: Any) -> Any:
    """The same with names as text and null for what is no finite number, as JSON has it."""
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _scores(run: Run, average: Average, arm: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, suite in average.suites.items():
        modes = sorted({mode for one in suite.evaluations.get(arm, {}).values() for mode in one.counts})
        for mode in modes:
            scores = {f"pass@{k}": suite.score(Contender(arm, mode), k) for k in suite.ks}
            found.setdefault(name, {})[mode] = {k: asdict(one) for k, one in scores.items() if isinstance(one, Score)}
    whole = {f"pass@{k}": average.score(Contender(arm), k) for k in average.ks}
    if any(whole.values()):
        found["average"] = {"free": {k: asdict(one) for k, one in whole.items() if isinstance(one, Score)}}
    return found


def _finding(one: Finding) -> dict[str, Any]:
    difference: Difference = one.difference
    return {
        "first": {"arm": one.comparison.first.arm, "mode": one.comparison.first.mode, "pass@1": difference.first},
        "second": {"arm": one.comparison.second.arm, "mode": one.comparison.second.mode, "pass@1": difference.second},
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "cohens_h": difference.h,
        "by_seed": list(difference.per_seed),
        "seeds": difference.seeds,
        "tasks": difference.tasks,
        "verdict": one.statement.verdict,
        "sentence": _said(one.statement.text),
    }


def _verdict(one: Evidence) -> dict[str, Any]:
    return {"verdict": one.statement.verdict, "seeds": len(one.per_seed)}


def _said(text: str) -> str:
    return text.replace("**", "")
