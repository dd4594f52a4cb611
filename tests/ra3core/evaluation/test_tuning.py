"""The rule by which a learning rate is chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ra3core.arms import TuneConfig
from ra3core.errors import UserError
from ra3core.evaluation.tuning import choose, role, tune
from ra3core.stage import Context

CONFIG = TuneConfig(setting="m_step.learning_rate", values=[1e-3, 2e-3], seeds=[7, 8])


def trials(folder: Path, passed: dict[tuple[int, int], list[int]]) -> Context:
    """Evaluations with passed samples of ten by task, for (value number, seed)."""
    inputs = {}
    for (number, seed), counts in passed.items():
        inputs[role(number, seed)] = place = folder / f"{number}-{seed}"
        place.mkdir()
        per_task = {f"t{i}": [10, c] for i, c in enumerate(counts)}
        (place / "results.json").write_text(json.dumps({"per_task": {"free": per_task, "banned": {}}}))
    (folder / "out").mkdir()
    return Context(inputs, folder / "out", folder / "scratch")


def test_the_best_mean_over_seeds_is_chosen(tmp_path: Path) -> None:
    context = trials(tmp_path, {(1, 7): [10, 0], (1, 8): [0, 0], (2, 7): [4, 2], (2, 8): [5, 3]})
    metrics = tune(CONFIG, context)
    assert metrics["chosen"] == 2e-3
    assert metrics["pass_at_1"] == pytest.approx(0.35)
    assert metrics["grid"] == {"0.001": pytest.approx(0.25), "0.002": pytest.approx(0.35)}
    grid = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert (grid["setting"], grid["chosen"]) == ("m_step.learning_rate", 2e-3)
    assert grid["grid"][0]["by_seed"] == {"7": 0.5, "8": 0.0}


def test_ties_go_to_the_smaller_rate() -> None:
    rows = [{"value": v, "pass_at_1": p} for v, p in ((4e-3, 0.5), (1e-3, 0.5), (2e-3, 0.5), (5e-4, 0.4))]
    assert choose(rows)["value"] == 1e-3


def test_a_tie_is_one_whatever_its_counts_sum_to_in_floats(tmp_path: Path) -> None:
    context = trials(tmp_path, {(1, 7): [3, 0], (1, 8): [0, 3], (2, 7): [1, 2], (2, 8): [2, 1]})  # .1 + .2 > .3
    metrics = tune(CONFIG, context)
    assert metrics["chosen"] == 1e-3
    assert set(metrics["grid"].values()) == {0.15}


def test_trials_on_different_tasks_are_refused(tmp_path: Path) -> None:
    context = trials(tmp_path, {(1, 7): [1], (1, 8): [1], (2, 7): [1], (2, 8): [1, 1]})
    with pytest.raises(UserError, match="the grid's evaluations are of different tasks"):
        tune(CONFIG, context)


def test_a_trial_without_results_is_refused(tmp_path: Path) -> None:
    context = trials(tmp_path, {(1, 7): [1], (1, 8): [1], (2, 7): [1], (2, 8): [1]})
    (tmp_path / "2-8" / "results.json").unlink()
    with pytest.raises(UserError, match="expected the results of an evaluation"):
        tune(CONFIG, context)
