"""How those of the paper's figures are drawn that are no curves: a demonstration, progress over tokens, points over
think penalties, and scores of a few arms side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ra3core.report.figures import INK, WIDTH, Point, legend, lengths_of_error
from ra3core.report.style import Arm

_LINE = 0.155  # inches a line of code
_COLUMNS = 56  # characters of code a column holds


def demonstration(before: Sequence[str], after: Sequence[str], rationales: frozenset[int]) -> Figure:
    """A demonstration and the same annotated, line beside line; rationales are bold, with a bar at their left."""
    rows: list[tuple[str, str, bool]] = []
    left = iter(before)
    for position, line in enumerate(after):
        written = position in rationales
        rows += _wrapped("" if written else next(left), line, written)
    height = _LINE * (len(rows) + 2.2)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(height / _LINE, 0)
    text = {"family": "DejaVu Sans Mono", "fontsize": 6.6, "va": "center", "color": INK}
    for x, title in ((0.012, "Before: the expert's lines"), (0.512, "After: the same lines, and rationales")):
        axes.text(x, 0.9, title, va="center", color=INK, fontsize=8.5, weight="bold")
    axes.axhline(1.6, color="#8A8A8A", linewidth=0.7)
    axes.axvline(0.5, color="#D0D0D0", linewidth=0.7)
    for y, (old, new, written) in enumerate(rows, start=2):
        axes.text(0.012, y + 0.2, old, **text)
        axes.text(0.512, y + 0.2, new, weight="bold" if written else "normal", **text)
        if written:
            axes.add_patch(_bar(0.503, y - 0.3))
    return figure


def _wrapped(old: str, new: str, written: bool) -> list[tuple[str, str, bool]]:
    """A row as rows that fit their columns."""
    parts = [textwrap.wrap(x, _COLUMNS, drop_whitespace=False, subsequent_indent="      ") or [""] for x in (old, new)]
    count = max(map(len, parts))
    lines = [part + [""] * (count - len(part)) for part in parts]
    return [(a, b, written and bool(b)) for a, b in zip(*lines, strict=True)]


def _bar(x: float, y: float) -> Rectangle:
    return Rectangle((x, y), 0.004, 1.0, color=INK, linewidth=0)


@dataclass(frozen=True)
class Path:
    """An arm over mid-training: values at millions of training tokens."""

    arm: Arm
    points: Sequence[tuple[float, Point]]


def progress(paths: Sequence[Path], x: str, y: str) -> Figure:
    """Values with intervals, joined from the base model on."""
    figure = Figure(figsize=(WIDTH * 0.72, 3.0), layout="constrained")
    axes = figure.subplots()
    for path in paths:
        axes.errorbar(
            [tokens for tokens, _ in path.points],
            [point.value for _, point in path.points],
            yerr=lengths_of_error(point for _, point in path.points),
            color=path.arm.color,
            linestyle=path.arm.line,
            marker=path.arm.marker,
            markersize=4.6,
            elinewidth=1.0,
            capsize=2.0,
            label=path.arm.label,
        )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    legend(figure, [axes])
    return figure


def effect(names: Sequence[str], panels: Sequence[tuple[str, Sequence[Point | None]]], color: str) -> Figure:
    """One panel a measure, one position a think penalty (`names`), with intervals."""
    figure = Figure(figsize=(WIDTH if len(panels) > 1 else WIDTH * 0.5, 2.3), layout="constrained")
    for axes, (y, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        there = [(x, point) for x, point in enumerate(points) if point is not None]
        axes.errorbar(
            [x for x, _ in there],
            [point.value for _, point in there],
            yerr=lengths_of_error(point for _, point in there),
            color=color,
            marker="^",
            markersize=4.6,
            linestyle=(0, (1, 1.2)),
            elinewidth=1.1,
            capsize=2.5,
        )
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.4, len(names) - 0.6)
        axes.set_xlabel("think penalty c (nats)")
        axes.set_ylabel(y)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=0)
    return figure


def side_by_side(arms: Sequence[Arm], groups: Mapping[str, Mapping[str, Point]], y: str) -> Figure:
    """Scores with intervals. groups: label along x -> arm's name -> value."""
    figure = Figure(figsize=(WIDTH * 0.72, 2.8), layout="constrained")
    axes = figure.subplots()
    step = 0.6 / max(1, len(arms))
    for index, arm in enumerate(arms):
        offset = (index - (len(arms) - 1) / 2) * step
        there = [(x + offset, found[arm.name]) for x, found in enumerate(groups.values()) if arm.name in found]
        axes.errorbar(
            [x for x, _ in there],
            [point.value for _, point in there],
            yerr=lengths_of_error(point for _, point in there),
            color=arm.color,
            marker=arm.marker,
            markersize=6,
            linestyle="none",
            elinewidth=1.2,
            capsize=2.5,
            label=arm.label,
        )
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(y)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    legend(figure, [axes])
    return figure
