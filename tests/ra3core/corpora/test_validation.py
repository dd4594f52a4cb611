"""Validation tasks are those that a limited evaluation leaves out."""

from __future__ import annotations

from pathlib import Path

from ra3core.arms import ValidationConfig
from ra3core.corpora.demonstrations import Task, Test, write_tasks
from ra3core.corpora.validation import prepare_validation
from ra3core.evaluation.benchmarks import embedded
from ra3core.evaluation.evaluate import limited
from ra3core.stage import Context


def test_they_and_the_evaluations_are_all_tasks_and_share_none(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    tests = (Test(([1],), [1]),)
    tasks = [Task(f"eval-{steps}-{n}", f"def f{n}(a):", "f", tests, steps) for steps in (2, 3) for n in range(5)]
    write_tasks(tasks, data / "evaluation_tasks.parquet")
    metrics = prepare_validation(ValidationConfig(tasks=2), Context({"data": data}, out, tmp_path / "scratch"))
    kept = [problem.id for problem in embedded.load(out, "").problems]
    assert kept == ["eval-2-3", "eval-2-4", "eval-3-3", "eval-3-4"]
    assert metrics["tasks"] == 4
    evaluated = {problem.id for problem in limited(embedded.load(data, "").problems, 3)}
    assert evaluated.isdisjoint(kept) and len(evaluated) + len(kept) == len(tasks)
