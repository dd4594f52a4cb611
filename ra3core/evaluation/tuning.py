"""Tuning: which learning rate of a grid an arm gets, from its evaluations on the validation tasks.

The paper tells of no tuning by arm. Here every arm has the same grid, the same validation tasks and seeds, and as many
samples (an E-step's rate is tuned besides, where there is one), and what is compared afterwards is each arm at its
best. The rule is fixed: the highest mean pass@1 over the tuning seeds (of each seed: the mean over tasks), ties to the
smaller rate.

Alone: `tune(TuneConfig(setting=..., values=[...], seeds=[...]), Context(inputs={"value_1_seed_7": folder, ...}, ...))`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ra3core.arms import TuneConfig
from ra3core.errors import UserError
from ra3core.stage import Context, Metrics

GRID = "grid.json"


def role(value: int, seed: int) -> str:
    """The input with the evaluation at the grid's value number `value`, from 1, trained with a seed."""
    return f"value_{value}_seed_{seed}"


def tune(config: TuneConfig, context: Context) -> Metrics:
    """Choose; inputs are folders with results.json, one a value and seed (`role`).

    Writes grid.json: setting, chosen, and a row a value: value, pass_at_1, by_seed (seed -> pass@1). Metrics: chosen,
    pass_at_1 (of the chosen), grid (value -> pass@1). Raises UserError when evaluations are missing or of other tasks.
    """
    tasks: set[frozenset[str]] = set()
    rows: list[dict[str, Any]] = []  # pass@1 in fractions: in floats, counts of the same mean may differ
    for number, value in enumerate(config.values, start=1):
        by_seed: dict[str, Fraction] = {}
        for seed in config.seeds:
            counts = _counts(context.inputs[role(number, seed)] / "results.json")
            tasks.add(frozenset(counts))
            by_seed[str(seed)] = statistics.mean(Fraction(passed, samples) for samples, passed in counts.values())
        rows.append({"value": value, "pass_at_1": statistics.mean(by_seed.values()), "by_seed": by_seed})
    if len(tasks) > 1:
        raise UserError(f"{config.setting}: the grid's evaluations are of different tasks, expected the same for all")
    best = choose(rows)
    content = {"setting": config.setting, "chosen": best["value"], "grid": rows}
    (context.out / GRID).write_text(json.dumps(content, indent=1, default=float) + "\n")
    return {
        "chosen": best["value"],
        "pass_at_1": float(best["pass_at_1"]),
        "grid": {f"{row['value']:g}": float(row["pass_at_1"]) for row in rows},
        "tokens": 0,
        "train_tokens": 0,
    }


def choose(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the highest pass@1; of equal ones that of the smaller value."""
    return min(rows, key=lambda row: (-row["pass_at_1"], row["value"]))


def _counts(path: Path) -> dict[str, Sequence[int]]:
    """Task -> (samples, passed), decoded freely."""
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected the results of an evaluation")
    return json.loads(path.read_text())["per_task"]["free"]
