"""The page of a grid sweep: what RA3 gains at every point, and the gain against what the base model can already do.

The paper varies c and the size of the model; this page takes any axis of `ra3 sweep FILE` (docs/comparison.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ra3core.plotting import INK, WIDTH
from ra3core.report import markdown, page
from ra3core.report.blocks import Block, Cell, Document, Heading, Paragraph, Picture, Row, Statement, Statements, Table
from ra3core.report.figures import Point, legend, lengths_of_error
from ra3core.report.pictures import picture, point
from ra3core.report.stages import ABSENT
from ra3core.report.style import BY_NAME, MID_TRAINING, MODES
from ra3core.report.verdicts import badge, enumerate_in_words, label, percent, signed, verdict

COMPARED = tuple(arm.name for arm in MID_TRAINING if arm.name not in ("base", "ra3"))
"""Arms that RA3 is held against, at the points that have them."""
COMPETENCE = ("free", "forced")
ACROSS = 4
"""Panels side by side."""

Summary = Mapping[str, Any]
"""A point as points.json has it: axis, value, settings, results, by_steps, differences, benchmarks."""


def write_page(name: str, rows: Sequence[Summary], folder: Path) -> None:
    """Write sweep.html, sweep.md and the figures as PNG and SVG. rows: the points, the centre first."""
    document = _document(name, rows)
    for block in document.blocks:
        if isinstance(block, Picture):
            (folder / f"{block.name}.png").write_bytes(block.png)
            (folder / f"{block.name}.svg").write_bytes(block.svg)
    (folder / "sweep.html").write_text(page.render(document), encoding="utf-8")
    (folder / "sweep.md").write_text(markdown.render(document), encoding="utf-8")


def title(row: Summary) -> str:
    """What a point is called in tables and figures."""
    return f"{row['axis']} {row['value']}".strip()


def _document(name: str, rows: Sequence[Summary]) -> Document:
    compared = [arm for arm in COMPARED if any(_difference(row, arm) for row in rows)]
    seeds = rows[0]["settings"]["seeds"]
    facts = (("Points", str(len(rows))), ("Seeds of every point", str(seeds)), ("Preset", rows[0]["settings"]["name"]))
    blocks: list[Block] = [Heading("Findings", "findings")]
    if compared:
        comparisons = sum(_difference(row, arm) is not None for row in rows for arm in compared)
        blocks += [
            Statements(tuple(_statement(arm, rows, seeds) for arm in compared)),
            Paragraph(_caution(seeds, comparisons), note=True),
            _effects(rows, compared, seeds),
            *_competence(rows, compared, seeds),
        ]
    else:
        blocks += [
            Paragraph("Nothing is compared: no point has RA3 and another mid-trained arm on the embedded suite.")
        ]
    return Document(f"Sweep: {name}", "One axis at a time around the centre.", facts, (*blocks, _table(rows, compared)))


def _caution(seeds: int, comparisons: int) -> str:
    """What the intervals cover, and what a count of points is not."""
    if seeds == 1:
        covered = (
            "Intervals are those of each point's report, 95 % over problems alone. With one seed they do not cover "
            "another base model, other demonstrations or another order of training, which may well move a difference "
            f"further: what is shown is about these models. Nor are they corrected for {comparisons} comparisons."
        )
    else:
        covered = (
            "Intervals are those of each point's report, 95 % over seeds and problems, and not corrected for "
            f"{comparisons} comparisons: one in twenty without any effect is called shown or against."
        )
    return (
        f"{covered} Points are not independent: where their settings agree they share base models and other models, "
        'and with these their luck: "at n of m points" is not n findings.'
    )


def _statement(arm: str, rows: Sequence[Summary], seeds: int) -> Statement:
    """At how many points RA3 is shown ahead of an arm, at which behind, and which points do not tell."""
    found = [(title(row), one) for row in rows if (one := _difference(row, arm))]
    absent = [title(row) for row in rows if not _difference(row, arm)]
    verdicts = [(name, verdict(one.low, one.high)) for name, one in found]
    ahead, behind = ([name for name, said in verdicts if said == kind] for kind in ("shown", "against"))
    values = [one.value for _, one in found]
    text = (
        f"RA3 is shown ahead of {BY_NAME[arm].label} at {len(ahead)} of {len(found)} points"
        + (f" ({enumerate_in_words(ahead)})" if 0 < len(ahead) < len(found) else "")
        + (f", behind at {len(behind)} ({enumerate_in_words(behind)})" if behind else ", behind at none")
        + f"; the differences go from {signed(min(values), 1)} to {signed(max(values), 1)} points of percent"
        + (f"; not compared where one of the two was not run: {enumerate_in_words(absent)}." if absent else ".")
    )
    overall = "shown" if len(ahead) == len(found) else "against" if len(behind) == len(found) else "not shown"
    depends = overall == "not shown" and (ahead or behind)
    return Statement(overall, badge("Depends", seeds) if depends else label(overall, seeds), text)


def _difference(row: Summary, arm: str) -> Point | None:
    """RA3's at a point; None where one of the two was not run."""
    one = row["differences"].get(f"ra3_{arm}")
    return point(one["value"], one["low"], one["high"]) if one else None


def _effects(rows: Sequence[Summary], compared: Sequence[str], seeds: int) -> Picture:
    across = min(len(compared), ACROSS)
    down = -(-len(compared) // across)

    def make() -> Figure:
        figure = Figure(figsize=(WIDTH, down * (1.0 + 0.2 * len(rows))), layout="constrained")
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        for axes in panels.flat[len(compared) :]:
            axes.set_visible(False)
        for axes, arm in zip(panels.flat, compared, strict=False):
            axes.axvline(0, color=INK, linewidth=0.8)
            if centre := _difference(rows[0], arm):
                axes.axvline(centre.value, color=BY_NAME[arm].color, linewidth=0.8, linestyle=(0, (2, 2)))
            for place, row in enumerate(rows):
                one = _difference(row, arm)
                if one is None:
                    continue
                filled = BY_NAME[arm].color if verdict(one.low, one.high) != "not shown" else "white"
                axes.errorbar(
                    [one.value],
                    [place],
                    xerr=lengths_of_error([one]),
                    color=BY_NAME[arm].color,
                    marker="o",
                    markersize=4.2,
                    markerfacecolor=filled,
                    elinewidth=1.0,
                )
            axes.set_title(f"RA3 − {BY_NAME[arm].short}")
            axes.set_xlabel("points of percent")
            axes.grid(axis="y", visible=False)
        panels[0, 0].set_yticks(range(len(rows)), [title(row) for row in rows])
        panels[0, 0].set_ylim(len(rows) - 0.4, -0.6)
        return figure

    caption = (
        "RA3's difference in pass@1 at every point, with 95 % intervals; filled: the interval excludes zero; dashed: "
        "the centre's."
    )
    return picture("effects", make, caption, "Differences in pass@1 at every point of the sweep", seeds)


def _competence(rows: Sequence[Summary], compared: Sequence[str], seeds: int) -> list[Picture]:
    """Gain against competence: pass@1 of the base model, also with its first comment forced, where it was measured."""
    base = [row["results"].get("base", {}) for row in rows]
    modes = [mode for mode in COMPETENCE if any(mode in scores for scores in base)]
    if not modes:
        return []

    def make() -> Figure:
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        for axes, mode in zip(panels, modes, strict=True):
            axes.axhline(0, color=INK, linewidth=0.8)
            for arm in compared:
                found = [
                    (100 * scores[mode]["value"], one)
                    for row, scores in zip(rows, base, strict=True)
                    if mode in scores and (one := _difference(row, arm))
                ]
                axes.errorbar(
                    [x for x, _ in found],
                    [y.value for _, y in found],
                    yerr=lengths_of_error(y for _, y in found),
                    color=BY_NAME[arm].color,
                    marker=BY_NAME[arm].marker,
                    markersize=4.2,
                    linestyle="none",
                    elinewidth=0.6,
                    label=f"RA3 − {BY_NAME[arm].short}",
                )
            axes.set_xlabel(f"base model, pass@1 ({MODES[mode]}, %)")
        panels[0].set_ylabel("points of percent")
        legend(figure, panels)
        return figure

    caption = "RA3's difference in pass@1 against the base model's own pass@1, a mark for every point that has both."
    return [picture("competence", make, caption, "Gain of RA3 against the base model's competence", seeds)]


def _table(rows: Sequence[Summary], compared: Sequence[str]) -> Table:
    scores = [{arm: modes["free"] for arm, modes in row["results"].items() if "free" in modes} for row in rows]
    arms = [arm.name for arm in MID_TRAINING if any(arm.name in found for found in scores)]
    lines = []
    for row, found in zip(rows, scores, strict=True):
        shares = [Cell(percent(found[arm]["value"]) if arm in found else ABSENT) for arm in arms]
        gains = [_difference(row, arm) for arm in compared]
        spans = [Cell(f"{g.value:+.1f}", f"[{g.low:+.1f}, {g.high:+.1f}]") if g else Cell(ABSENT) for g in gains]
        lines.append(Row((Cell(title(row)), *shares, *spans)))
    columns = ("point", *(BY_NAME[arm].short for arm in arms), *(f"RA3 − {BY_NAME[arm].short}" for arm in compared))
    return Table("points", "pass@1 in percent, decoding free, and RA3's differences.", columns, tuple(lines))
