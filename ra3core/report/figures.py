"""The report's figures.

Every figure has its units on the axes, an arm looks the same in all of them (style.py), and lines differ in style and
marker as well as in colour. A band is the mean plus and minus one standard error over seeds; with one seed there is
none, and where curves are smoothed the unsmoothed one lies pale behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ra3core.plotting import INK, WIDTH
from ra3core.plotting import Make as Make
from ra3core.plotting import draw as draw
from ra3core.report.inputs import Curve
from ra3core.report.style import Arm


@dataclass(frozen=True)
class Line:
    """A curve of one arm."""

    arm: Arm
    curve: Curve


@dataclass(frozen=True)
class Panel:
    """One pair of axes with curves. y: label with its unit. percent: the values are shares."""

    title: str
    y: str
    lines: Sequence[Line]
    x: str = "step"
    percent: bool = False
    smooth: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class Point:
    """A value with its interval, all in points of percent."""

    value: float
    low: float
    high: float


def curves(panels: Sequence[Panel], height: float = 2.4) -> Figure:
    """Panels side by side with one legend below, as far as they show the same arms."""
    figure = Figure(figsize=(WIDTH if len(panels) > 1 else WIDTH * 0.62, height), layout="constrained")
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every_axes, panels, strict=True):
        _panel(axes, panel)
    _legend(figure, every_axes)
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    scale = 100.0 if panel.percent else 1.0
    for line in panel.lines:
        whole = line.curve.smooth() if panel.smooth else line.curve
        look = {"color": line.arm.color, "linestyle": line.arm.line}
        if len(whole.steps) <= 30:
            look |= {"marker": line.arm.marker, "markersize": 3.6}
        for raw, curve in zip(line.curve.rounds(), whole.rounds(), strict=True):
            if panel.smooth and len(raw.steps) >= 40:
                axes.plot(raw.steps, raw.mean * scale, color=line.arm.color, alpha=0.22, linewidth=0.7)
            axes.plot(curve.steps, curve.mean * scale, **look)
            if len(curve.values) > 1:
                low, high = curve.mean - curve.standard_error, curve.mean + curve.standard_error
                axes.fill_between(curve.steps, low * scale, high * scale, color=line.arm.color, alpha=0.16, linewidth=0)
        axes.plot([], [], label=line.arm.label, **look)
        for start in line.curve.starts:
            axes.axvline(start - 0.5, color="#B0B0B0", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    if panel.from_zero:
        axes.set_ylim(bottom=0)
    axes.margins(x=0.02)


def by_steps(
    panels: Sequence[tuple[str, Sequence[tuple[Arm, Mapping[str, Point]]]]], groups: Sequence[str], y: str
) -> Figure:
    """Points with intervals, one cluster a group of tasks; panels share the y axis.

    panels: (title, [(arm, group -> value)]). groups: labels along x, the last one is set apart (all tasks).
    """
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    widths = [max(2, len(arms)) for _, arms in panels]
    every_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=widths)[0]
    for axes, (title, arms) in zip(every_axes, panels, strict=True):
        step = 0.72 / max(1, len(arms))
        for index, (arm, points) in enumerate(arms):
            offset = (index - (len(arms) - 1) / 2) * step
            present = [(x + offset, points[group]) for x, group in enumerate(groups) if group in points]
            axes.errorbar(
                [x for x, _ in present],
                [p.value for _, p in present],
                yerr=_arms_of_error(p for _, p in present),
                color=arm.color,
                marker=arm.marker,
                markersize=4.6,
                linestyle="none",
                elinewidth=1.1,
                capsize=1.6,
                label=arm.label,
            )
        if len(groups) > 1:
            axes.axvspan(len(groups) - 1.5, len(groups) - 0.5, color="#F3F3F3", zorder=0, linewidth=0)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.grid(axis="x", visible=False)
        axes.set_title(title)
        axes.set_xlabel("steps of the task's plan")
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    every_axes[0].set_ylim(bottom=0)
    every_axes[0].set_ylabel(y)
    _legend(figure, every_axes)
    return figure


def decoding(rows: Sequence[tuple[Arm, Mapping[str, Point]]], modes: Mapping[str, str], x: str) -> Figure:
    """One line an arm, one marker a decoding mode, joined by a thin rule."""
    figure = Figure(figsize=(WIDTH, 0.85 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    looks = {"free": ("o", "full"), "banned": ("v", "none"), "forced": ("^", "none")}
    used: set[str] = set()
    for y, (arm, points) in enumerate(rows):
        values = [point.value for point in points.values()]
        axes.plot([min(values), max(values)], [y, y], color=arm.color, alpha=0.35, linewidth=2.2)
        for mode, point in points.items():
            marker, fill = looks.get(mode, ("s", "none"))
            height = y + {"banned": -0.16, "forced": 0.16}.get(mode, 0.0)
            axes.errorbar(
                [point.value],
                [height],
                xerr=_arms_of_error([point]),
                color=arm.color,
                marker=marker,
                fillstyle=fill,  # pyright: ignore[reportArgumentType]
                markersize=5.5,
                markeredgewidth=1.2,
                elinewidth=0.9,
                linestyle="none",
            )
            used.add(mode)
    for mode in (mode for mode in modes if mode in used):
        marker, fill = looks.get(mode, ("s", "none"))
        axes.plot([], [], color=INK, marker=marker, fillstyle=fill, linestyle="none", label=modes[mode])  # pyright: ignore[reportArgumentType]
    _named_rows(axes, [arm.label for arm, _ in rows], range(len(rows)))
    axes.set_xlim(left=0)
    axes.set_xlabel(x)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    figure.legend(loc="outside lower center", ncols=len(used), columnspacing=1.6)
    return figure


def differences(groups: Sequence[Sequence[tuple[str, Point, str, Sequence[float]]]], x: str) -> Figure:
    """A forest plot, groups of rows apart. A row: (label, difference, colour, difference of every seed)."""
    rows = [row for group in groups for row in group]
    heights = [
        index + 0.5 * number for number, group in enumerate(groups) for index in _positions(groups, number, group)
    ]
    figure = Figure(figsize=(WIDTH, 0.75 + 0.29 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#6A6A6A", linewidth=0.9)
    for y, (_, point, color, seeds) in zip(heights, rows, strict=True):
        clear = point.low > 0 or point.high < 0
        axes.errorbar(
            [point.value],
            [y],
            xerr=_arms_of_error([point]),
            color=color,
            marker="o",
            markersize=5.5,
            fillstyle="full" if clear else "none",
            elinewidth=1.5,
            capsize=2.5,
        )
        if len(seeds) > 1:
            axes.plot(
                seeds, [y - 0.28] * len(seeds), linestyle="none", marker="|", markersize=4.5, color=color, alpha=0.75
            )
    _named_rows(axes, [label for label, *_ in rows], heights)
    axes.set_xlabel(x)
    axes.margins(x=0.06)
    return figure


def _positions(groups: Sequence[Sequence[object]], number: int, group: Sequence[object]) -> range:
    """Row numbers of a group among all rows."""
    start = sum(len(one) for one in groups[:number])
    return range(start, start + len(group))


def _named_rows(axes: Axes, labels: Sequence[str], heights: Sequence[float]) -> None:
    axes.set_yticks(heights, labels)
    axes.set_ylim(max(heights) + 0.55, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _arms_of_error(points: Iterable[Point]) -> list[list[float]]:
    """Lengths below and above, as errorbar wants them."""
    found = list(points)
    return [[max(0.0, p.value - p.low) for p in found], [max(0.0, p.high - p.value) for p in found]]


def _legend(figure: Figure, every_axes: Iterable[Axes]) -> None:
    """One legend below all panels, each label once."""
    entries: dict[str, Any] = {}
    for axes in every_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if len(entries) > 1:
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=min(4, len(entries)))
