"""The artifacts of a run, by stage and seed, as the report reads them.

`Context.inputs` maps "stage/seed" (and "data") to artifact folders. Any of them may be absent: the report then leaves
out what depends on it and says so. Points of a sweep over the think penalty c stand beside, as "c=0.05 stage/seed".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ra3core.artifacts import MANIFEST, Manifest
from ra3core.config import EMBEDDED
from ra3core.errors import UserError
from ra3core.report.style import ARMS, MID_TRAINING
from ra3core.stage import METRICS_FILE, read_metrics

EVALUATE = "evaluate_"
PAPER_KS = (1, 5)
TUNE = "tune_"
E_STEP = "_e_step"  # tune_ra3_e_step: the E-step's rate
SAMPLE = frozenset({"task_id", "steps", "mode", "completion", "category"})
"""Of a line of samples.jsonl, what is read here."""
ORDER = ("corpus", "demonstrations", "rlvr_tasks", "base")
"""Stages ahead of every arm, in the order in which tables list them."""


@dataclass(frozen=True)
class StageRun:
    """One artifact: what a stage made with one seed."""

    stage: str
    seed: int
    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.seed}"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Step-wise metrics; none if the stage logs none."""
        path = self.folder / METRICS_FILE
        return read_metrics(path) if path.is_file() else []

    def metric(self, name: str) -> float | None:
        """A summary figure of the manifest, if the stage gave it."""
        value = self.manifest.metrics.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def json(self, file: str) -> Any | None:
        """A JSON file of the artifact; None where the stage writes no such file."""
        path = self.folder / file
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}: not valid JSON (line {error.lineno}), expected what {self.stage} wrote"
            ) from error


@dataclass(frozen=True)
class Curve:
    """A figure logged along a stage, over seeds.

    steps: (steps,). values: (seeds, steps). starts: first step of each round after the first.
    """

    steps: np.ndarray
    values: np.ndarray
    starts: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        return self.values.mean(axis=0)

    @property
    def standard_error(self) -> np.ndarray:
        """(steps,); zero with one seed, where it is not defined and nothing is drawn."""
        seeds = len(self.values)
        return self.values.std(axis=0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.zeros(len(self.steps))

    @property
    def rise(self) -> list[float]:
        """By how much the mean of the last tenth of the steps is above that of the first, of every seed."""
        part = max(1, len(self.steps) // 10)
        return (self.values[:, -part:].mean(axis=1) - self.values[:, :part].mean(axis=1)).tolist()

    def rounds(self) -> list[Curve]:
        """One curve a round."""
        edges = np.searchsorted(self.steps, self.starts)
        parts = zip(np.split(self.steps, edges), np.split(self.values, edges, axis=1), strict=True)
        return [Curve(steps, values) for steps, values in parts]

    def smooth(self) -> Curve:
        """A centred moving average over about a twentieth of a round, shorter at its ends."""
        values = [_moving_average(one.values, len(one.steps) // 40) for one in self.rounds()]
        return Curve(self.steps, np.concatenate(values, axis=1), self.starts)


@dataclass(frozen=True)
class Evaluation:
    """Graded samples of one arm and one seed.

    counts: mode -> task id -> (samples n, passed c). steps: task id -> steps of its plan.
    categories: mode -> how its samples ended. comments: mode -> comment lines per completion.
    benchmark, variant: what was asked, and by which convention. base: `counts` of the benchmark's original tests alone,
    where it has others.
    """

    counts: Mapping[str, Mapping[str, tuple[int, int]]]
    steps: Mapping[str, int]
    ks: tuple[int, ...]
    categories: Mapping[str, Counter[str]]
    comments: Mapping[str, float]
    benchmark: str = ""
    variant: str = ""
    base: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)


Evaluations = dict[str, dict[int, Evaluation]]
"""Arm -> seed -> graded samples."""


@dataclass(frozen=True)
class Run:
    """All artifacts of a pipeline run: stage -> seed -> artifact.

    points: of a sweep, by think penalty; the run itself is one of them.
    """

    stages: Mapping[str, Mapping[int, StageRun]]
    data: Path | None
    points: Mapping[float, Run] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({seed for runs in self.stages.values() for seed in runs}))

    @property
    def rounds(self) -> int:
        """Rounds of E-step, bootstrap and M-step."""
        numbers = [re.fullmatch(r"(?:e_step|bootstrap|m_step)_(\d+)", stage) for stage in self.stages]
        return max((int(match[1]) for match in numbers if match), default=0)

    @property
    def ordered(self) -> tuple[str, ...]:
        """Stages in the order in which the pipeline runs them."""
        rounds = [f"{kind}_{r}" for r in range(1, self.rounds + 1) for kind in ("e_step", "bootstrap", "m_step")]
        arms = [arm.name for arm in ARMS if arm.name != "base"]
        suffixes = ("", *(f":{benchmark}" for benchmark in self.benchmarks))
        evaluations = [f"{EVALUATE}{name}{suffix}" for suffix in suffixes for name in ("base", *rounds, *arms)]
        choices = [f"{TUNE}{name}{suffix}" for name in arms for suffix in ("", E_STEP)]
        known = [*ORDER, *rounds, *choices, *arms, *evaluations]
        # what arms are made from, such as bootstrap_no_rl, goes ahead of them
        rest = sorted(stage for stage in self.stages if stage not in known)
        first = known.index(arms[0]) - len(arms)
        order = [*known[:first], *(s for s in rest if not s.startswith(EVALUATE)), *known[first:]]
        return tuple(stage for stage in dict.fromkeys([*order, *rest]) if stage in self.stages)

    def stage_of(self, arm: str) -> str:
        """The stage whose model an arm evaluates: RA3 is what leaves the last M-step."""
        return f"m_step_{self.rounds}" if arm == "ra3" else arm

    def curve(self, stage: str, column: str) -> Curve | None:
        """A column of the step-wise metrics over all seeds, at the steps that every seed logged."""
        return _together(list(self._logged(stage, column).values()))

    def rounds_curve(self, kind: str, column: str) -> Curve | None:
        """The curves of a stage kind's rounds ("e_step"), one after the other, over the seeds that have all of them.

        Rounds are the first to the last that any seed came to; none where no seed has the first.
        """
        rounds: list[dict[int, dict[int, float]]] = []
        for r in range(1, self.rounds + 1):
            this = self._logged(f"{kind}_{r}", column)
            seeds = this.keys() & rounds[-1].keys() if rounds else this.keys()
            if not seeds:
                break
            rounds.append({seed: this[seed] for seed in sorted(seeds)})
        steps, values, starts, offset = [], [], [], 0
        for one in rounds:
            curve = _together([one[seed] for seed in rounds[-1]])
            if curve is None:
                return None
            starts.append(offset)
            values.append(curve.values)
            steps.append(curve.steps + offset)
            offset = int(steps[-1][-1]) + 1
        return Curve(np.concatenate(steps), np.concatenate(values, axis=1), tuple(starts[1:])) if rounds else None

    @cached_property
    def evaluations(self) -> Evaluations:
        """The embedded suite's."""
        return self._evaluated.get("", {})

    @cached_property
    def benchmarks(self) -> dict[str, Evaluations]:
        """Those of other benchmarks, by the name that stages have for them."""
        return {name: found for name, found in self._evaluated.items() if name}

    @cached_property
    def _evaluated(self) -> dict[str, Evaluations]:
        found: dict[str, Evaluations] = {}
        for stage, runs in self.stages.items():
            if stage.startswith(EVALUATE):
                arm, _, benchmark = stage.removeprefix(EVALUATE).partition(":")
                seeds = {seed: _evaluation(run) for seed, run in sorted(runs.items())}
                found.setdefault(benchmark, {})[arm] = seeds
        return found

    @property
    def trained(self) -> tuple[str, ...]:
        """Mid-trained arms with a model of their own, in the order of tables."""
        return tuple(arm.name for arm in MID_TRAINING if arm.name != "base" and self.stage_of(arm.name) in self.stages)

    def in_several_modes(self, arm: str) -> bool:
        """Whether an arm was decoded in more than one way."""
        return any(len(one.counts) > 1 for one in self.evaluations.get(arm, {}).values())

    def _logged(self, stage: str, column: str) -> dict[int, dict[int, float]]:
        """Seed -> step -> value of a column of the step-wise metrics, of the seeds that have it."""
        runs = self.stages.get(stage, {})
        found = {s: {row["step"]: row[column] for row in runs[s].rows if column in row} for s in sorted(runs)}
        return {seed: points for seed, points in found.items() if points}


def load(inputs: Mapping[str, Path]) -> Run:
    """Read the manifests of a report's inputs.

    Raises UserError when a name is not "stage/seed" or a folder has no valid manifest.
    """
    stages: dict[float | None, dict[str, dict[int, StageRun]]] = {None: {}}
    data = None
    for name, folder in inputs.items():
        if name == "data":
            data = Path(folder)
            continue
        match = re.fullmatch(r"(?:c=([\d.e+-]+|inf) )?(\w+(?::[\w.-]+)?)/(\d+)", name)
        if not match:
            raise UserError(f"report input {name!r}: expected a name such as ntp/0 (stage/seed)")
        point, stage, seed = None if match[1] is None else float(match[1]), match[2], int(match[3])
        path = Path(folder) / MANIFEST
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file, expected the manifest of {name}") from error
        except ValidationError as error:
            raise UserError(f"{path}: not a valid manifest of {name}") from error
        one = StageRun(stage, seed, Path(folder), manifest)
        stages.setdefault(point, {}).setdefault(stage, {})[seed] = one
    points = {c: Run(found, data) for c, found in stages.items() if c is not None}
    return Run(stages[None], data, dict(sorted(points.items())))


def _together(series: Sequence[Mapping[int, float]]) -> Curve | None:
    """Step -> value of every seed as a curve, at the steps that all have; None where there are none."""
    steps = sorted(set.intersection(*map(set, series))) if series else []
    return Curve(np.array(steps), np.array([[points[s] for s in steps] for points in series])) if steps else None


def _moving_average(values: np.ndarray, half: int) -> np.ndarray:
    """Means over windows of `half` steps to each side, as far as there are; (seeds, steps)."""
    windows = [slice(max(0, i - half), i + half + 1) for i in range(values.shape[1])]
    return np.stack([values[:, window].mean(axis=1) for window in windows], axis=1)


def _evaluation(run: StageRun) -> Evaluation:
    """Counts from results.json; numbers of steps, endings and comments from samples.jsonl."""
    results = run.json("results.json")
    if not isinstance(results, dict) or "per_task" not in results:
        raise UserError(f"{run.folder / 'results.json'}: expected the results of {run.stage} with per_task counts")
    counts, base = _counts(results["per_task"]), _counts(results.get("per_task_base", {}))
    steps: dict[str, int] = {}
    categories: dict[str, Counter[str]] = {mode: Counter() for mode in counts}
    comments: Counter[str] = Counter()
    for sample in _samples(run.folder / "samples.jsonl"):
        mode = sample["mode"]
        steps[sample["task_id"]] = int(sample["steps"])
        categories.setdefault(mode, Counter())[sample["category"]] += 1
        comments[mode] += sum(line.lstrip().startswith("#") for line in sample["completion"].splitlines())
    samples = {mode: sum(category.values()) for mode, category in categories.items()}
    fewest = min((n for tasks in counts.values() for n, _ in tasks.values()), default=0)
    ks = tuple(sorted({k for k in (*PAPER_KS, *run.manifest.config.get("k", [])) if k <= fewest}))
    return Evaluation(
        counts,
        steps,
        ks,
        categories,
        {mode: comments[mode] / n for mode, n in samples.items() if n > 0},
        results.get("benchmark", EMBEDDED),
        results.get("variant", ""),
        base,
    )


def _counts(per_task: Mapping[str, Mapping[str, Sequence[int]]]) -> dict[str, dict[str, tuple[int, int]]]:
    return {mode: {task: (int(n), int(c)) for task, (n, c) in tasks.items()} for mode, tasks in per_task.items()}


def _samples(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected one graded sample a line")
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            sample = json.loads(line)
        except json.JSONDecodeError:
            sample = None
        if not isinstance(sample, dict) or SAMPLE - sample.keys():
            raise UserError(
                f"{path}: line {number} is not a graded sample, expected JSON with {', '.join(sorted(SAMPLE))}"
            )
        found.append(sample)
    return found
