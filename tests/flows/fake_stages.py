"""Every stage of the pipeline as a fake of milliseconds; e_step.window = 13 is refused, 14 finds a bug.

What a fake writes is decided by its settings, seed and inputs, benchmarks that are held out aside: they remove nothing.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from ra3core.errors import UserError
from ra3core.stage import Context, Metrics


def _stage(config: Any, context: Context, **metrics: Any) -> Metrics:
    """Logs two steps and writes what decides its result; does as `behave` of the checkout says."""
    _behave(context)
    for step in (1, 2):
        context.log.metrics(step, loss=1.0 / step)
    (context.out / "model").mkdir()
    inputs = {role: folder.name for role, folder in context.inputs.items() if not role.startswith("benchmark_")}
    content = {"config": config.model_dump(mode="json"), "inputs": inputs, "seed": context.seed}
    (context.out / "model" / "config.json").write_text(json.dumps(content, sort_keys=True))
    return {"tokens": 100, "train_tokens": 50, **metrics}


def _behave(context: Context) -> None:
    """A checkout's file `behave`, with a seed and what to do at it: sleep, or kill the process once."""
    file = context.out.parents[3] / "behave"
    if not file.exists():
        return
    seed, what = file.read_text().split()
    if context.seed != int(seed):
        return
    if what == "sleep":
        time.sleep(60)
    elif not (context.scratch / "checkpoint").exists():
        (context.scratch / "checkpoint").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def prepare_corpus(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def collect(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def prepare_demonstrations(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def prepare_rlvr_tasks(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def pretrain(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def e_step(config: Any, context: Context) -> Metrics:
    if config.window == 13:
        raise UserError("e_step.window is 13, expected another number")
    if config.window == 14:
        raise ZeroDivisionError("a bug in the E-step")
    return _stage(config, context)


def bootstrap(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def m_step(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def analysis(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def prepare_validation(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def tune(config: Any, context: Context) -> Metrics:
    return _stage(config, context, chosen=min(config.values))


def rlvr(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def annotate_shard(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def evaluate_shard(config: Any, context: Context) -> Metrics:
    return _stage(config, context)


def evaluate(config: Any, context: Context) -> Metrics:
    assert context.inputs["tasks"].is_dir()
    metrics = _stage(config, context)
    score = {"pass@1": {"value": 0.5, "low": 0.4, "high": 0.6}}
    results = {"per_task": {"free": {"task": [2, 1]}}, "free": {"all": score}}
    (context.out / "results.json").write_text(json.dumps(results))
    return metrics


def report(config: Any, context: Context) -> Metrics:
    """As the real one: three arms' pass@1, one comparison."""
    (context.out / "report.html").write_text(json.dumps(sorted(context.inputs)))
    (context.out / "report.md").write_text("fake")
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    return {
        "results": {arm: {"free": score} for arm in ("base", "ntp", "ra3")},
        "by_steps": {arm: {"2": 0.7, "3": 0.3} for arm in ("base", "ntp", "ra3")},
        "claims": [],
        "differences": {
            "ra3_ntp": {
                "value": 0.1,
                "low": 0.0,
                "high": 0.2,
                "verdict": "shown",
                "label": "Shown",
                "sentence": "Yes.",
                "comparison": "RA3 - NTP",
            }
        },
        "benchmarks": {
            "humaneval": {"name": "humaneval", "variant": "fake", "scores": {"ra3": {"pass@1": {**score, "tasks": 2}}}}
        },
    }
