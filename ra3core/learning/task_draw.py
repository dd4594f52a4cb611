"""Which tasks a step of RLVR trains on, and how their visits went.

A group of completions that all pass or all fail has no gradient: its rollouts were for nothing. So every visit of a
task is recorded, and tasks that were solved always or never in their last visits can be drawn less often: in the order
of the permutations, each such place is passed over unless a coin of that place says otherwise. A task that turns mixed
again is drawn as before. Nothing but seed and record decides, so a resumed run draws what it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy

from ra3core.config import RLVRConfig
from ra3core.corpora.demonstrations import Task

ALL_PASS, ALL_FAIL, MIXED = "p", "f", "m"


def draw(tasks: Sequence[Task], count: int, seed: int, step: int) -> list[Task]:
    """The `count` tasks of a step, from 1: consecutive places in permutations of all tasks, drawn from the seed."""
    return [at(tasks, seed, place) for place in range((step - 1) * count, step * count)]


def at(tasks: Sequence[Task], seed: int, place: int) -> Task:
    """The task at a place of the permutations, one after the other."""
    epoch, position = divmod(place, len(tasks))
    return tasks[int(numpy.random.default_rng([seed, epoch]).permutation(len(tasks))[position])]


class TaskDraw:
    """Draws the tasks of each step, in order, and keeps the record.

    visits: task id -> a letter a visit, what a checkpoint keeps with `place`, the next one in the permutations.
    """

    def __init__(
        self, tasks: Sequence[Task], config: RLVRConfig, seed: int, place: int = 0, visits: dict[str, str] | None = None
    ) -> None:
        self.tasks, self.config, self.seed = tasks, config, seed
        self.place = place
        self.visits: dict[str, str] = {} if visits is None else visits
        self.passed_over = 0  # places, for the last draw

    def next(self) -> list[Task]:
        """The tasks of the next step."""
        drawn: list[Task] = []
        self.passed_over = 0
        while len(drawn) < self.config.prompts:
            task = at(self.tasks, self.seed, self.place)
            if self._wanted(task):
                drawn.append(task)
            else:
                self.passed_over += 1
            self.place += 1
        return drawn

    def record(self, tasks: Iterable[Task], groups: Iterable[Sequence[float]]) -> dict[str, float]:
        """Note the rewards of each task's group; the step's figures.

        all_pass, all_fail: share of its groups. always_solved, never_solved: share of the tasks visited so far that
        were, in all of their last visits. passed_over: places in the permutations, before those that were drawn.
        """
        letters = []
        for task, rewards in zip(tasks, groups, strict=True):
            flat = min(rewards) == max(rewards)
            letters.append((ALL_PASS if rewards[0] > 0 else ALL_FAIL) if flat else MIXED)
            self.visits[task.id] = self.visits.get(task.id, "") + letters[-1]
        seen = [self._settled(task) for task in self.visits]
        return {
            "all_pass": letters.count(ALL_PASS) / len(letters),
            "all_fail": letters.count(ALL_FAIL) / len(letters),
            "always_solved": seen.count(ALL_PASS) / len(seen),
            "never_solved": seen.count(ALL_FAIL) / len(seen),
            "passed_over": float(self.passed_over),
        }

    def _settled(self, task: str) -> str | None:
        """The letter that all of a task's last visits have; None when they differ or are too few."""
        last = self.visits.get(task, "")[-self.config.zero_variance_visits :]
        enough = len(last) == self.config.zero_variance_visits and len(set(last)) == 1
        return last[0] if enough and last[0] != MIXED else None

    def _wanted(self, task: Task) -> bool:
        if self.config.zero_variance == "keep" or self._settled(task.id) is None:
            return True
        coin = numpy.random.default_rng([self.seed, 1, self.place + 1]).random()
        return bool(coin < self.config.zero_variance_share)
