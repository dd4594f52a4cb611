"""Figures over graded samples: pass@k with intervals over problems, what programs failed of, comments. No torch.

A benchmark with extra tests (HumanEval+, MBPP+) has two figures: `base`, the original tests alone, and the score
itself, which needs both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ra3core import statistics
from ra3core.corpora.demonstrations import COMMENT

Mode = str


@dataclass(frozen=True)
class Sample:
    """One graded completion, a line of samples.jsonl; nothing in it depends on how fast the machine is.

    tokens: prompt and new tokens that it took. tests_passed: of `tests`, before the first that failed.
    base: whether it passed the benchmark's original tests; None where there are no others.
    """

    task_id: str
    steps: int
    mode: Mode
    sample: int
    completion: str
    tokens: int
    passed: bool = False
    category: str = ""
    detail: str = ""
    weak: bool = False
    tests: int = 0
    tests_passed: int = 0
    base: bool | None = None

    @property
    def comments(self) -> int:
        """Number of comment lines."""
        return sum(line.lstrip().startswith(COMMENT) for line in self.completion.split("\n"))


def scores(counts: Sequence[Sequence[int]], ks: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """{"pass@1": {value, low, high}, .., "n_tasks": n} from (samples, passed) of every task, at least one."""
    samples, passed = ([count[i] for count in counts] for i in (0, 1))
    found: dict[str, Any] = {}
    for k in ks:
        found[f"pass@{k}"] = asdict(statistics.bootstrap(statistics.pass_at_k(samples, passed, k), seed=seed))
    return {**found, "n_tasks": len(counts)}


def summarise(
    samples: Sequence[Sample], ks: Sequence[int], seed: int = 0, head: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """results.json: for each mode pass@k with its interval over problems, over all tasks and by number of steps.

    head: what stands first (the benchmark and its variant).

    {**head, mode: {"all": {"pass@1": {value, low, high}, .., "n_tasks": n}, "base": the same of the original tests,
    "steps=2": {..}, .., "comments": {"lines": comment lines a program, "share": programs with one}, "categories": {..},
    "weak": n}, .., "per_task": {mode: {task_id: [n, c]}}, "per_task_base": the same of the original tests}

    `base` and `per_task_base` are there where the benchmark has further tests.
    """
    results: dict[str, Any] = dict(head or {})
    per_task: dict[str, dict[str, list[int]]] = {}
    per_task_base: dict[str, dict[str, list[int]]] = {}
    for mode in dict.fromkeys(sample.mode for sample in samples):
        mine = [sample for sample in samples if sample.mode == mode]
        steps = {sample.task_id: sample.steps for sample in mine}
        counts = _counts((sample.task_id, sample.passed) for sample in mine)
        groups = {"all": list(counts)}
        if len(set(steps.values())) > 1:
            groups |= {f"steps={n}": [t for t in counts if steps[t] == n] for n in sorted(set(steps.values()))}
        comments = [sample.comments for sample in mine]
        results[mode] = {name: scores([counts[task] for task in tasks], ks, seed) for name, tasks in groups.items()}
        base = _counts((sample.task_id, sample.base) for sample in mine if sample.base is not None)
        if base:
            results[mode]["base"] = scores(list(base.values()), ks, seed)
            per_task_base[mode] = base
        results[mode] |= {
            "comments": {
                "lines": sum(comments) / len(comments),
                "share": sum(n > 0 for n in comments) / len(comments),
            },
            "categories": dict(sorted(Counter(sample.category for sample in mine).items())),
            "weak": sum(sample.weak for sample in mine),
        }
        per_task[mode] = counts
    results["per_task"] = per_task
    return results | ({"per_task_base": per_task_base} if per_task_base else {})


def flat(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The figures that are compared between runs, under names that a tracking server takes and sorts well.

    prefix: of a benchmark's figures, which are those of free decoding: ``humaneval/pass_at_1``.
    """
    figures: dict[str, float] = {}
    for mode in results["per_task"]:
        result, name = results[mode], prefix or mode
        for group, found in result.items():
            for score, interval in found.items() if isinstance(found, dict) else ():
                if score.startswith("pass@"):
                    where = "" if group == "all" else "_" + group.replace("=", "_")
                    figures[f"{name}/pass_at_{score[5:]}{where}"] = interval["value"]
        figures[f"{name}/comment_lines"] = result["comments"]["lines"]
        figures[f"{name}/comment_share"] = result["comments"]["share"]
    return figures


def _counts(outcomes: Any) -> dict[str, list[int]]:
    """Task -> [samples, passed]."""
    counts: dict[str, list[int]] = {}
    for task, passed in outcomes:
        count = counts.setdefault(task, [0, 0])
        count[0] += 1
        count[1] += bool(passed)
    return counts
