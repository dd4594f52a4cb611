"""The report's figures.

Every figure has its units on the axes, an arm looks the same in all of them (style.py), and lines differ in style and
marker as well as in colour. A band is the mean plus and minus one standard error over seeds; with one seed there is
none. Where curves are smoothed the unsmoothed mean lies pale behind, but for panels that show every seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from ra3core.plotting import INK, WIDTH
from ra3core.plotting import Make as Make
from ra3core.plotting import draw as draw
from ra3core.report.inputs import Curve
from ra3core.report.style import Arm

MOST_BESIDE = 10  # arms in panels side by side; more of them stand one above the other
SEED_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class Line:
    """A curve of one arm."""

    arm: Arm
    curve: Curve


@dataclass(frozen=True)
class Panel:
    """One pair of axes with curves. y: label with its unit. percent: the values are shares. log: of the y axis.
    each_seed: every seed's curve, thin, in place of the band."""

    title: str
    y: str
    lines: Sequence[Line]
    x: str = "step"
    percent: bool = False
    smooth: bool = False
    from_zero: bool = False
    each_seed: bool = False
    log: bool = False


@dataclass(frozen=True)
class Point:
    """A value with its interval, all in points of percent."""

    value: float
    low: float
    high: float


def curves(panels: Sequence[Panel], height: float = 2.4) -> Figure:
    """Panels side by side, four in two rows of `height`, with one legend below, as far as they show the same arms."""
    rows = 2 if len(panels) > 3 else 1
    size = WIDTH if len(panels) > 1 else WIDTH * 0.62, height * rows
    figure = Figure(figsize=size, layout="constrained")
    every_axes = figure.subplots(rows, len(panels) // rows, squeeze=False).flat
    for axes, panel in zip(every_axes, panels, strict=True):
        _panel(axes, panel)
    legend(figure, figure.axes)
    return figure


def _panel(axes: Axes, panel: Panel) -> None:
    scale = 100.0 if panel.percent else 1.0
    for line in panel.lines:
        whole = line.curve.smooth() if panel.smooth else line.curve
        look = {"color": line.arm.color, "linestyle": line.arm.line}
        if len(whole.steps) <= 30:
            look |= {"marker": line.arm.marker, "markersize": 3.6}
        for raw, curve in zip(line.curve.rounds(), whole.rounds(), strict=True):
            if panel.smooth and len(raw.steps) >= 40 and not (panel.each_seed and len(raw.values) > 1):
                axes.plot(raw.steps, raw.mean * scale, color=line.arm.color, alpha=0.22, linewidth=0.7)
            axes.plot(curve.steps, curve.mean * scale, **look)
            if len(curve.values) > 1 and panel.each_seed:
                for one, style in zip(curve.values, cycle(SEED_STYLES), strict=False):
                    axes.plot(curve.steps, one * scale, color="#7A7A7A", linewidth=0.8, linestyle=style, zorder=1.5)
            elif len(curve.values) > 1:
                low, high = curve.mean - curve.standard_error, curve.mean + curve.standard_error
                axes.fill_between(curve.steps, low * scale, high * scale, color=line.arm.color, alpha=0.16, linewidth=0)
        several = panel.each_seed and len(line.curve.values) > 1
        axes.plot([], [], label=f"{line.arm.label}, mean" if several else line.arm.label, **look)
        if several:
            axes.plot([], [], color="#7A7A7A", linewidth=0.8, label="each seed")
        for start in line.curve.starts:
            axes.axvline(start - 0.5, color="#B0B0B0", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    long = any(len(line.curve.steps) and line.curve.steps[-1] > 6 for line in panel.lines)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=long, steps=[1, 2, 5, 10]))
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
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
    widths = [max(2, len(arms)) for _, arms in panels]
    if sum(widths) > MOST_BESIDE:
        figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * len(panels)), layout="constrained")
        every_axes = figure.subplots(len(panels), 1, squeeze=False, sharey=True)[:, 0]
    else:
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        every_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, width_ratios=widths)[0]
    for axes, (title, arms) in zip(every_axes, panels, strict=True):
        step = 0.72 / max(1, len(arms))
        for index, (arm, points) in enumerate(arms):
            offset = (index - (len(arms) - 1) / 2) * step
            present = [(x + offset, points[group]) for x, group in enumerate(groups) if group in points]
            axes.errorbar(
                [x for x, _ in present],
                [p.value for _, p in present],
                yerr=lengths_of_error(p for _, p in present),
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
    for axes in every_axes if sum(widths) > MOST_BESIDE else every_axes[:1]:
        axes.set_ylabel(y)
    legend(figure, every_axes)
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
                xerr=lengths_of_error([point]),
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
            xerr=lengths_of_error([point]),
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


def lengths_of_error(points: Iterable[Point]) -> list[list[float]]:
    """Lengths below and above, as errorbar wants them."""
    found = list(points)
    return [[max(0.0, p.value - p.low) for p in found], [max(0.0, p.high - p.value) for p in found]]


def legend(figure: Figure, every_axes: Iterable[Axes]) -> None:
    """One legend below all panels, each label once, in as many columns as the longest label leaves room for."""
    entries: dict[str, Any] = {}
    for axes in every_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if len(entries) > 1:
        column = 0.62 + 0.06 * max(map(len, entries))  # inches: handle and padding, and a character
        columns = min(max(1, int(figure.get_figwidth() / column)), 4, len(entries))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)
