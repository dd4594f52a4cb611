"""The results of the evaluations: the paper's table, scores by difficulty, decoding and endings."""

from __future__ import annotations

from collections.abc import Sequence

from ra3core.report import figures, tables
from ra3core.report.blocks import Block, Heading, Paragraph
from ra3core.report.figures import Point
from ra3core.report.inputs import Run
from ra3core.report.pictures import picture, score_point
from ra3core.report.scores import Average, Benchmark, Contender, Scores
from ra3core.report.style import AFTER_RLVR, ARMS, MID_TRAINING, MODES, Arm


def results(run: Run, scores: Scores, average: Average, benchmarks: Sequence[Benchmark]) -> list[Block]:
    """The section."""
    blocks: list[Block] = [Heading("Results", "results")]
    if not run.evaluations and not benchmarks:
        return [*blocks, Paragraph("No model was evaluated.")]
    blocks.append(tables.paper(run, average))
    others: list[Block] = [tables.benchmarks(benchmarks)] if benchmarks else []
    if not run.evaluations:
        return [*blocks, *others]
    if others:
        others.insert(0, Heading("Other benchmarks", "benchmarks", level=3))
    blocks += [tables.results(scores, k) for k in scores.ks]
    groups = [*(str(steps) for steps in scores.steps), "all"]
    panels = []
    for title, arms in (("After mid-training", MID_TRAINING), ("After RLVR", AFTER_RLVR)):
        rows = [(arm, _by_group(scores, arm)) for arm in arms if arm.name in run.evaluations]
        if rows:
            panels.append((title, rows))
    blocks.append(
        picture(
            "pass_by_steps",
            lambda: figures.by_steps(panels, groups, "pass@1"),
            "pass@1 by the number of steps of the task's plan, decoding free, with 95 % intervals.",
            "pass@1 of every arm by number of steps",
            len(run.seeds),
        )
    )
    blocks += _decoding(run, scores)
    blocks.append(tables.endings(run))
    return [*blocks, *others]


def _decoding(run: Run, scores: Scores) -> list[Block]:
    modes = [mode for mode in MODES if any(mode in one.counts for s in run.evaluations.values() for one in s.values())]
    rows = [(arm, _by_mode(scores, arm, modes)) for arm in ARMS if run.in_several_modes(arm.name)]
    if not rows:
        return []
    return [
        Heading("Decoding: free, comments banned, first comment forced", "decoding", level=3),
        tables.decoding(run, scores, modes),
        picture(
            "decoding",
            lambda: figures.decoding(rows, MODES, "pass@1, all tasks"),
            "The same models under three ways of decoding, with 95 % intervals: free; `#` banned at the start of a "
            "line; the first line of the answer forced to start with `#`. The token budget is the same.",
            "pass@1 of every arm under three decoding modes",
            len(run.seeds),
        ),
    ]


def _by_group(scores: Scores, arm: Arm) -> dict[str, Point]:
    found = {str(steps): scores.score(Contender(arm.name), steps=steps) for steps in scores.steps}
    found["all"] = scores.score(Contender(arm.name))
    return {group: score_point(score) for group, score in found.items() if score is not None}


def _by_mode(scores: Scores, arm: Arm, modes: Sequence[str]) -> dict[str, Point]:
    found = {mode: scores.score(Contender(arm.name, mode)) for mode in modes}
    return {mode: score_point(score) for mode, score in found.items() if score is not None}
