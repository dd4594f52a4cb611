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
from ra3core.report.style import BY_NAME, MODES
from ra3core.report.verdicts import LABELS, enumerate_in_words, percent, points, verdict

COMPARED = ("ntp", "ntp_compute", "best_of_g", "ra3_no_rl")
"""Arms that RA3 is held against, where every point has them."""
COMPETENCE = ("free", "forced")

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
    compared = [arm for arm in COMPARED if all(f"ra3_{arm}" in row["differences"] for row in rows)]
    seeds = rows[0]["settings"]["seeds"]
    facts = (("Points", str(len(rows))), ("Seeds of every point", str(seeds)), ("Preset", rows[0]["settings"]["name"]))
    blocks: list[Block] = [Heading("Findings", "findings")]
    if compared:
        blocks += [Statements(tuple(_statement(arm, rows) for arm in compared))]
        blocks += [
            Paragraph(
                "Intervals are those of each point's report, 95 % over seeds and problems, and not corrected for "
                f"{len(rows) * len(compared)} comparisons: one in twenty without any effect is called shown or "
                "against.",
                note=True,
            ),
            _effects(rows, compared, seeds),
            _competence(rows, compared, seeds),
        ]
    return Document(f"Sweep: {name}", "One axis at a time around the centre.", facts, (*blocks, _table(rows, compared)))


def _statement(arm: str, rows: Sequence[Summary]) -> Statement:
    """At how many points RA3 is ahead of an arm, and at which behind."""
    found = {title(row): row["differences"][f"ra3_{arm}"] for row in rows}
    verdicts = {name: verdict(one["low"], one["high"]) for name, one in found.items()}
    ahead, behind = ([n for n, said in verdicts.items() if said == kind] for kind in ("shown", "against"))
    values = [one["value"] for one in found.values()]
    text = (
        f"RA3 is ahead of {BY_NAME[arm].label} at {len(ahead)} of {len(rows)} points"
        + (f" ({enumerate_in_words(ahead)})" if 0 < len(ahead) < len(rows) else "")
        + (f", behind at {len(behind)} ({enumerate_in_words(behind)})" if behind else ", behind at none")
        + f"; the differences go from {points(min(values))} to {points(max(values))} points of percent."
    )
    overall = "shown" if len(ahead) == len(rows) else "against" if len(behind) == len(rows) else "not shown"
    label = LABELS[overall] if overall != "not shown" else "Depends" if ahead or behind else LABELS[overall]
    return Statement(overall, label, text)


def _difference(row: Summary, arm: str) -> Point:
    one = row["differences"][f"ra3_{arm}"]
    return point(one["value"], one["low"], one["high"])


def _effects(rows: Sequence[Summary], compared: Sequence[str], seeds: int) -> Picture:
    def make() -> Figure:
        figure = Figure(figsize=(WIDTH, 1.0 + 0.2 * len(rows)), layout="constrained")
        panels = figure.subplots(1, len(compared), sharey=True, squeeze=False)[0]
        for axes, arm in zip(panels, compared, strict=True):
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.axvline(
                _difference(rows[0], arm).value, color=BY_NAME[arm].color, linewidth=0.8, linestyle=(0, (2, 2))
            )
            for place, row in enumerate(rows):
                one = _difference(row, arm)
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
        panels[0].set_yticks(range(len(rows)), [title(row) for row in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        return figure

    caption = (
        "RA3's difference in pass@1 at every point, with 95 % intervals; filled: the interval excludes zero; dashed: "
        "the centre's."
    )
    return picture("effects", make, caption, "Differences in pass@1 at every point of the sweep", seeds)


def _competence(rows: Sequence[Summary], compared: Sequence[str], seeds: int) -> Picture:
    """Gain against competence: pass@1 of the base model, and where it was measured with its first comment forced."""
    modes = [mode for mode in COMPETENCE if all(mode in row["results"]["base"] for row in rows)]

    def make() -> Figure:
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        for axes, mode in zip(panels, modes, strict=True):
            axes.axhline(0, color=INK, linewidth=0.8)
            for arm in compared:
                found = [(100 * row["results"]["base"][mode]["value"], _difference(row, arm)) for row in rows]
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

    caption = "RA3's difference in pass@1 against the base model's own pass@1, a mark for every point of the sweep."
    return picture("competence", make, caption, "Gain of RA3 against the base model's competence", seeds)


def _table(rows: Sequence[Summary], compared: Sequence[str]) -> Table:
    arms = [arm for arm in ("base", "ntp", "ntp_compute", "best_of_g", "ra3_no_rl", "ra3") if _everywhere(arm, rows)]
    found = []
    for row in rows:
        scores = [percent(row["results"][arm]["free"]["value"]) for arm in arms]
        gains = [_difference(row, arm) for arm in compared]
        spans = [Cell(f"{g.value:+.1f}", f"[{g.low:+.1f}, {g.high:+.1f}]") for g in gains]
        found.append(Row((Cell(title(row)), *map(Cell, scores), *spans)))
    columns = ("point", *(BY_NAME[arm].short for arm in arms), *(f"RA3 − {BY_NAME[arm].short}" for arm in compared))
    return Table("points", "pass@1 in percent, decoding free, and RA3's differences.", columns, tuple(found))


def _everywhere(arm: str, rows: Sequence[Summary]) -> bool:
    return all("free" in row["results"].get(arm, {}) for row in rows)
