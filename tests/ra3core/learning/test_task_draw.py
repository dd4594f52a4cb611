"""Which tasks are drawn, and how the record of their visits changes that."""

from __future__ import annotations

from ra3core.config import RLVRConfig
from ra3core.corpora.demonstrations import Task
from ra3core.learning.task_draw import TaskDraw, draw

TASKS = [Task(f"t{i}", "", "f", ()) for i in range(10)]
REWARDS = {"t0": [1.0, 1.0], "t1": [0.0, 0.0]}  # always solved, never solved; the others now and then
DOWNSAMPLE = RLVRConfig(prompts=4, zero_variance="downsample", zero_variance_share=0.25)


def visited(drawing: TaskDraw, steps: int) -> list[list[str]]:
    """The tasks of so many steps, by id."""
    found = []
    for _ in range(steps):
        tasks = drawing.next()
        drawing.record(tasks, [REWARDS.get(task.id, [0.0, 1.0]) for task in tasks])
        found.append([task.id for task in tasks])
    return found


def test_kept_tasks_are_drawn_as_if_nothing_were_recorded() -> None:
    found = visited(TaskDraw(TASKS, RLVRConfig(prompts=4), seed=3), 20)
    assert found == [[task.id for task in draw(TASKS, 4, 3, step)] for step in range(1, 21)]


def test_tasks_without_variance_are_drawn_less_often() -> None:
    drawing = TaskDraw(TASKS, DOWNSAMPLE, seed=0)
    counts = {task.id: 0 for task in TASKS}
    for step in visited(drawing, 500):
        for task in step:
            counts[task] += 1
    mixed = counts["t5"]
    assert all(abs(counts[task.id] - mixed) <= 1 for task in TASKS[2:])  # still in permutations
    for task in ("t0", "t1"):
        assert 0.18 < counts[task] / mixed < 0.33  # a quarter, and the first two visits


def test_a_task_that_turns_mixed_is_drawn_again() -> None:
    drawing = TaskDraw(TASKS[:1], DOWNSAMPLE.model_copy(update={"prompts": 1}), seed=0)
    figures = [
        drawing.record(drawing.next(), [rewards]) for rewards in ([1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0])
    ]
    assert drawing.visits == {"t0": "ppmf"}
    assert [one["always_solved"] for one in figures] == [0, 1, 0, 0]
    assert [one["passed_over"] > 0 for one in figures] == [False, False, True, False]
    assert [one["all_pass"] for one in figures] == [1, 1, 0, 0] and figures[3]["all_fail"] == 1


def test_solved_once_and_failed_once_is_neither() -> None:
    drawing = TaskDraw(TASKS[:1], DOWNSAMPLE.model_copy(update={"prompts": 1}), seed=0)
    first, last = (drawing.record(drawing.next(), [rewards]) for rewards in ([1.0, 1.0], [0.0, 0.0]))
    assert last["always_solved"] == last["never_solved"] == first["always_solved"] == 0
    drawing.next()
    assert drawing.passed_over == 0


def test_a_resumed_run_draws_what_it_would_have_drawn() -> None:
    whole = TaskDraw(TASKS, DOWNSAMPLE, seed=1)
    expected = visited(whole, 40)
    first = TaskDraw(TASKS, DOWNSAMPLE, seed=1)
    begun = visited(first, 15)
    resumed = TaskDraw(TASKS, DOWNSAMPLE, 1, first.place, dict(first.visits))
    assert begun + visited(resumed, 25) == expected
    assert resumed.visits == whole.visits
