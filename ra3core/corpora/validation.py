"""Validation tasks: what learning rates are chosen on.

They are the last evaluation tasks of every number of steps, which the run's evaluation must leave out: it takes the
first `evaluation.limit`, and a configuration in which the two overlap is refused. So they are drawn like the tasks that
count, no training document holds their plans, and no result sees them. The suite's files stay as they are.
"""

from __future__ import annotations

from ra3core.arms import ValidationConfig
from ra3core.corpora.demonstrations import Task, read_tasks, write_tasks
from ra3core.stage import Context, Metrics

FILE = "evaluation_tasks.parquet"


def prepare_validation(config: ValidationConfig, context: Context) -> Metrics:
    """Cut the tasks of `inputs["data"]`; writes a file of the same name, as evaluation reads it. Metrics: tasks."""
    by_steps: dict[int, list[Task]] = {}
    for task in read_tasks(context.inputs["data"] / FILE):
        by_steps.setdefault(task.steps, []).append(task)
    kept = [task for steps in sorted(by_steps) for task in by_steps[steps][-config.tasks :]]
    write_tasks(kept, context.out / FILE)
    return {"tasks": len(kept), "tokens": 0, "train_tokens": 0}
