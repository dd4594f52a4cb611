"""The paper's figures that are no curves: 2 (a demonstration), 6 (the think penalty), 7 (distilled comments); and which
of its seven figures and the table a run cannot give, and what each would take."""

from __future__ import annotations

from collections.abc import Sequence

from ra3core.config import EMBEDDED, ReportConfig
from ra3core.errors import UserError
from ra3core.report import paper_figures
from ra3core.report.blocks import Block, Cell, Example, Heading, Paragraph, Picture, Row, Table, match_rationales
from ra3core.report.figures import Point
from ra3core.report.findings import MAIN, findings
from ra3core.report.inputs import PAPER_KS, TUNE, Run
from ra3core.report.pictures import picture, score_point
from ra3core.report.scores import Average, Contender
from ra3core.report.stages import ABSENT
from ra3core.report.style import BY_NAME
from ra3core.report.sweep import MEASURES, effect, penalty
from ra3core.report.verdicts import seeds_in_words
from ra3core.statistics import Estimate

ORIGINS = ("base", "ntp", "distilled", "shuffled", "ra3")
"""Arms of figure 7: whose rationales a model is trained on."""

SHARED = ("corpus", "rlvr_tasks", "validation", "suite")
NEEDED = {
    "e_step_reward": "Figure 1 (E-step reward) needs e_step_1.",
    "demonstration": "Figure 2 (a demonstration before and after) needs a bootstrap that wrote a rationale.",
    "m_step": "Figure 3 (M-step cross-entropy) needs the M-steps of RA3 and NTP.",
    "mid_training": "Figure 4 (score during mid-training) needs evaluations of a mid-trained model.",
    "rlvr": "Figure 5 (RLVR curves) needs RLVR from at least one model.",
    "think_penalty": "Figure 6 (effect of c) needs runs that differ in e_step.think_penalty (a sweep).",
    "distilled": "Figure 7 (distilled comments) needs evaluations of the arms distilled and ra3.",
}


def examples(config: ReportConfig, run: Run) -> list[Block]:
    """Demonstrations before and after annotation, the first of them as the paper's figure 2."""
    stage = f"bootstrap_{run.rounds}"
    source = next((runs[min(runs)] for name, runs in run.stages.items() if name == stage), None)
    found = source.json("examples.json") if source else None
    if source is None or not found or config.examples == 0:
        return []
    blocks: list[Block] = [Heading("Demonstrations before and after annotation", "examples")]
    if all(one["before"] == one["after"] for one in found):
        blocks.append(Paragraph(f"`{source.name}` wrote no rationale: the demonstrations are as they were."))
    else:
        blocks.append(
            Paragraph(
                f"The first {min(config.examples, len(found))} demonstrations of `{source.name}` that got a rationale, "
                "not picked by eye. Expert lines are copied byte for byte; marked lines are the policy's."
            )
        )
    shown = []
    for one in found[: config.examples]:
        before, after = one["before"].rstrip("\n").split("\n"), one["after"].rstrip("\n").split("\n")
        try:
            rationales = match_rationales(before, after)
        except ValueError as error:
            raise UserError(f"{source.folder / 'examples.json'}: {one['id']}: {error}") from error
        shown.append(Example(f"`{one['id']}`", tuple(before), tuple(after), rationales))
    if shown[0].rationale_lines:
        first, written = shown[0], len(shown[0].rationale_lines)
        blocks.append(
            picture(
                "demonstration",
                lambda: paper_figures.demonstration(first.before, first.after, first.rationale_lines),
                f"**The paper's figure 2.** The demonstration {first.title} before and after bootstrapping: {written} "
                f"rationale{'s' if written > 1 else ''} among {len(first.before)} lines of the expert's, which are "
                f"unchanged. Bold, with a bar: written by the policy of seed {source.seed}.",
                "A demonstration and the same with rationales, side by side",
            )
        )
    return [*blocks, *shown]


def think_penalty(config: ReportConfig, run: Run) -> list[Block]:
    """The paper's figure 6, from the points of a sweep."""
    found = effect(run, config.resamples)
    if not found:
        return []
    names = [penalty(point.c) for point in found]
    panels: list[tuple[str, Sequence[Point | None]]] = []
    for measure, title in MEASURES.items():
        points = [None if (e := p.found.get(measure)) is None else Point(e.value, e.low, e.high) for p in found]
        if any(points):
            panels.append((title, points))
    if not panels:
        return []
    first, last = found[0], found[-1]
    changes = [
        f"{title.split(' (')[0]} {first.found[measure].value:.3g} and {last.found[measure].value:.3g}"
        for measure, title in MEASURES.items()
        if measure in first.found and measure in last.found
    ]
    seeds = " and ".join(dict.fromkeys(seeds_in_words(point.seeds) for point in found))
    sentence = f"At c = {names[0]} and c = {names[-1]}: {'; '.join(changes)}." if changes else ""
    rows = [
        Row((Cell(name), Cell(str(point.seeds)), *(_estimate(point.found.get(measure)) for measure in MEASURES)))
        for name, point in zip(names, found, strict=True)
    ]
    return [
        Heading("Effect of the think penalty", "think-penalty"),
        picture(
            "think_penalty",
            lambda: paper_figures.effect(names, panels, BY_NAME["ra3"].color),
            "**The paper's figure 6.** Effect of the think penalty c: length of the rationales that the last bootstrap "
            "wrote, share of lines that got one, and what RA3 scores; means over seeds with 95 % intervals (Student's; "
            f"of pass@1 the bootstrap's). **{sentence}** {seeds.capitalize()} a point.",
            "Rationale length, share of lines with a rationale and score against the think penalty",
        ),
        Table("think_penalty", "The same in numbers.", ("c (nats)", "seeds", *MEASURES.values()), tuple(rows)),
    ]


def distilled(run: Run, average: Average) -> list[Block]:
    """The paper's figure 7: comments of another author against RA3's own."""
    found = findings(average, [one for one in MAIN if one.name == "ra3_distilled"])
    if not found:
        return []
    arms = [BY_NAME[name] for name in ORIGINS if average.score(Contender(name)) is not None]
    groups: dict[str, dict[str, Point]] = {}
    for k in [k for k in average.ks if k in PAPER_KS or 5 not in average.ks]:
        scores = {arm.name: average.score(Contender(arm.name), k) for arm in arms}
        groups[f"pass@{k}"] = {name: score_point(score) for name, score in scores.items() if score is not None}
    over = f", mean over the benchmarks ({' and '.join(average.suites)})" if len(average.suites) > 1 else ""
    return [
        Heading("Distilled comments", "distilled"),
        picture(
            "distilled",
            lambda: paper_figures.side_by_side(arms, groups, "mean over the benchmarks"),
            "**The paper's figure 7.** Next-token prediction on the demonstrations with comments of another author "
            f"({_author(run)}) against RA3{over}, with 95 % intervals. {found[0].statement.text}",
            "pass@k of NTP, distilled comments and RA3",
            found[0].difference.seeds,
        ),
    ]


def _author(run: Run) -> str:
    """Whose comments the arm distilled is trained on, which the corpus decides."""
    sources = {one.manifest.config.get("source") for one in run.stages.get("demonstrations", {}).values()}
    if sources == {EMBEDDED}:
        return "here the generator's own oracle: as good as comments of that kind can be"
    return "here those that the demonstrations came with"


def missing(run: Run, blocks: Sequence[Block], notes: Sequence[str]) -> list[Block]:
    """What a page does not have, and what it would take. notes: on the run itself, from whoever read it."""
    there = {block.name for block in blocks if isinstance(block, Picture)}
    lines = [*notes, *gaps(run), *(text for name, text in NEEDED.items() if name not in there)]
    if not lines:
        return []
    return [Heading("What is missing", "missing"), *(Paragraph(line) for line in lines)]


def gaps(run: Run) -> list[str]:
    """Stages that some seeds have and others lack, in a sentence a set of seeds. What all seeds share, such as the
    corpus, is made for one of them."""
    lacking: dict[tuple[int, ...], list[str]] = {}
    for stage in run.ordered:
        seeds = tuple(seed for seed in run.seeds if seed not in run.stages[stage])
        if seeds and stage not in SHARED and not stage.startswith(TUNE):
            lacking.setdefault(seeds, []).append(stage)
    return [
        f"Of seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} absent: {', '.join(stages)}."
        for seeds, stages in lacking.items()
    ]


def _estimate(one: Estimate | None) -> Cell:
    if one is None:
        return Cell(ABSENT)
    return Cell(f"{one.value:.2f}", "" if one.low != one.low else f"[{one.low:.2f}, {one.high:.2f}]")
