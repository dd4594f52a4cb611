"""The report's scores, differences, claims and costs as JSON, under names that other programs can rely on. Shares are
shares, not percent; what is not known is null.

Curves, endings of samples, what E-step, bootstrap and analysis measured, and decontamination are in the artifacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from statistics import fmean
from typing import Any

from ra3core.config import ReportConfig
from ra3core.report.claims import Evidence
from ra3core.report.findings import Finding
from ra3core.report.inputs import TUNE, Run
from ra3core.report.lineage import costs
from ra3core.report.mid_training import course
from ra3core.report.rl import Courses, measure
from ra3core.report.rl_tables import gains
from ra3core.report.scores import Average, Contender, Difference, Score, Scores
from ra3core.report.stages import mean
from ra3core.report.style import ARMS, Arm
from ra3core.report.sweep import effect, penalty
from ra3core.report.tables import against, comments_written
from ra3core.statistics import LEVEL, over_seeds


def numbers(
    config: ReportConfig,
    run: Run,
    scores: Scores,
    average: Average,
    evidence: Sequence[Evidence],
    found: Sequence[Finding],
    courses: Courses,
) -> dict[str, Any]:
    """seeds; level of the intervals. scores: arm -> benchmark or "average" -> mode -> k -> score; decoding free with
    the paired difference to NTP (after RLVR: to NTP, then RLVR). by_steps: arm -> steps of the plan -> k -> the same.
    comments: arm -> lines in a completion. comparisons and claims: with verdicts and sentences. e_step: figure -> its
    rise. m_step: arm -> seed -> final figures. mid_training: arm -> scores by tokens trained on. rlvr: arm -> seeds and
    means. rlvr_gains: arm -> what RLVR adds to its pass@1, and how much more to RA3's. costs: arm -> seconds and
    tokens. stages: stage -> the same of one. tuning: arm -> grid and choice. think_penalty: c -> measure -> estimate.
    """
    rlvr_names = [
        "start",
        "final",
        "area",
        *(f"{kind}:{r}" for r in config.pass_rates for kind in ("steps", "minutes")),
    ]
    evaluated = [arm for arm in ARMS if arm.name in run.evaluations]
    return plain(
        {
            "seeds": list(run.seeds),
            "level": LEVEL,
            "resamples": config.resamples,
            "missing": config.notes,
            "scores": {arm.name: one for arm in ARMS if (one := _scores(average, arm))},
            "by_steps": {
                arm.name: {
                    str(steps): {
                        f"pass@{k}": _score(scores.score(Contender(arm.name), k, steps), against(scores, arm, k, steps))
                        for k in scores.ks
                    }
                    for steps in scores.steps
                }
                for arm in evaluated
            },
            "comments": {arm.name: comments_written(run, arm.name) for arm in evaluated},
            "comparisons": {one.comparison.name: _finding(one) for one in found},
            "claims": [{**asdict(one), "statement": _said(one.statement.text)} | _verdict(one) for one in evidence],
            "e_step": {
                column: asdict(over_seeds(curve.rise)) | {"by_seed": curve.rise}
                for column in ("reward", "gain")
                if (curve := run.curve("e_step_1", column)) is not None
            },
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
            "rlvr_gains": {
                arm: {"adds": asdict(adds), "more_to_ra3": more and asdict(more)}
                for arm, (adds, more) in gains(average).items()
            },
            "costs": {arm: asdict(one) for arm, one in costs(run).items()},
            "stages": {
                stage: {"seconds": fmean(one.manifest.seconds for one in run.stages[stage].values())}
                | {name: mean(run, stage, name) for name in ("tokens", "train_tokens", "peak_memory_mb")}
                for stage in run.ordered
            },
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


def _scores(average: Average, arm: Arm) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, suite in average.suites.items():
        modes = sorted({mode for one in suite.evaluations.get(arm.name, {}).values() for mode in one.counts})
        for mode in modes:
            scores = {
                f"pass@{k}": _score(
                    suite.score(Contender(arm.name, mode), k), against(suite, arm, k) if mode == "free" else None
                )
                for k in suite.ks
            }
            found.setdefault(name, {})[mode] = {k: one for k, one in scores.items() if one}
    whole = {f"pass@{k}": _score(average.score(Contender(arm.name), k), against(average, arm, k)) for k in average.ks}
    if any(whole.values()):
        found["average"] = {"free": whole}
    return found


def _score(score: Score | None, less_ntp: Difference | None) -> dict[str, Any] | None:
    """less_ntp: what the tables' marks are made from."""
    if score is None:
        return None
    if less_ntp is None:
        return asdict(score)
    return asdict(score) | {"less_ntp": {**asdict(less_ntp), "cohens_h": less_ntp.h, "seeds": less_ntp.seeds}}


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
