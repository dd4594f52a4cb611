"""`ra3 evaluate`: one model on one benchmark, outside the pipeline."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ra3core.config import EvaluationConfig, RuntimeConfig
from ra3core.evaluation.evaluate import evaluate_benchmark
from ra3core.stage import Context, StageLog
from tasks.display import Display


def evaluate_model(model: str, data: Path, config: EvaluationConfig, out: Path | None, runtime: RuntimeConfig) -> None:
    """Sample, grade, print pass@k with its interval; samples.jsonl and results.json go to `out`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{config.benchmark}-{model}").strip("-.")
    out = out or runtime.root / "reports" / name
    with Display() as display, display.stage(config.benchmark) as show:
        log = StageLog(sink=show)
        context = Context({}, out, out, threads=runtime.threads, device=runtime.device, log=log)
        results = evaluate_benchmark(model, config.benchmark, data, config, out, context)
    table = Table(box=None)
    for column in ("", "tasks", "pass@k in percent", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    scores = results["free"]["all"]
    for k in config.k:
        score = scores[f"pass@{k}"]
        value, low, high = (f"{100 * score[part]:.1f}" for part in ("value", "low", "high"))
        table.add_row(f"pass@{k}", str(scores["n_tasks"]), value, f"[{low}, {high}]")
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"Samples and results: {out}", soft_wrap=True)
