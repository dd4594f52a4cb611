"""The figures of `ra3 theory`, from the results of study.py: bound beside measurement, and the regret's two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ra3core.plotting import INK, WIDTH

BLUE, GREEN, RED, ORANGE, GREY = "#0072B2", "#009E73", "#D55E00", "#E69F00", "#8A8A8A"  # of Okabe and Ito
RULES = {
    "decisions": (RED, "^"),
    "elimination": (BLUE, "o"),
    "keeping": (GREEN, "s"),
}
STORIES = {"long": "Long options", "short": "Single steps", "room": "A room"}
DOTS: dict[str, Any] = {"linestyle": "none", "markersize": 4}
CLOUD: dict[str, Any] = {"linestyle": "none", "markersize": 2.2, "alpha": 0.35, "markeredgewidth": 0}


def pruning(results: dict[str, Any]) -> Figure:
    """Demonstrations against |Z|, |Z_eps|, sigma and delta, each alone on the hardest families, and on random ones."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    rate = results["pruning_rate"]
    titles = {
        "options": ("All options", "|Z|"),
        "size": ("Compact set", r"|Z$_\varepsilon$|"),
        "sigma": ("Share of tasks", r"$\sigma$"),
        "delta": ("Failure probability", r"$\delta$"),
    }
    for axes, (varied, (title, x)) in zip(panels, titles.items(), strict=False):
        rows = rate["sweeps"][varied]
        xs = _column(rows, "x")
        axes.plot(xs, _column(rows, "paper"), color=INK, linestyle=(0, (5, 1.6)), label="the paper's rate")
        for rule, (color, marker) in RULES.items():
            axes.plot(xs, _column(rows, f"{rule}_bound"), color=color, linewidth=1.1, label=f"{rule}: bound")
            axes.plot(xs, _column(rows, rule), color=color, marker=marker, label=f"{rule}: measured", **DOTS)
        _ticks(axes, xs, log=varied != "size")
        if varied == "sigma":
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        if varied in ("sigma", "delta"):
            axes.invert_xaxis()
        _named(axes, title, x, "demonstrations")
    axes, points = panels[4], results["pruning_random"]["points"]
    for rule in ("elimination", "keeping"):
        color, marker = RULES[rule]
        axes.plot(points[f"{rule}_bound"], points[rule], color=color, marker=marker, **CLOUD)
    _diagonal(axes, "Random families", "bound", "demonstrations needed")
    panels[5].axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[5].legend(handles, labels, loc="center")
    return figure


def iteration(results: dict[str, Any]) -> Figure:
    """Iterations against the duration of options, and on random instances."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    panels = figure.subplots(1, 3)
    rows = results["iteration_durations"]["rows"]
    looks = {"garnet": ("options alone", BLUE, "o"), "with_steps": ("options and steps", ORANGE, "v")}
    for name, (label, color, marker) in looks.items():
        _durations(panels[0], rows[name], label, color, marker)
    steps = rows["garnet"]
    panels[0].plot(
        _column(steps, "x"),
        _column(steps, "bound_of_steps"),
        color=RED,
        linestyle=(0, (2, 1.5)),
        label="too low: R$_{max}$ of one step",
    )
    _named(panels[0], "Every step pays", "mean duration, steps", "iterations")
    _durations(panels[1], rows["room"], "walks", BLUE, "o")
    _named(panels[1], "Paid once, at the goal", "duration, steps", "iterations")
    points = results["iteration_random"]["points"]
    panels[2].plot(points["bound"], points["needed"], color=BLUE, marker="o", **CLOUD)
    _diagonal(panels[2], "Random instances", "bound", "iterations needed")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def regret(results: dict[str, Any]) -> Figure:
    """The regret's two parts as demonstrations come in, beside planning in all of Z with as many backups."""
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, (name, title) in zip(panels, STORIES.items(), strict=True):
        found = results[name]["regret"]
        xs, whole = _column(found["rows"], "x"), found["unpruned"]["whole"]
        parts = [[max(0.0, value) for value in _column(found["rows"], part)] for part in ("pruning", "rl")]
        axes.stackplot(xs, *parts, labels=["pruning error", "RL error"], colors=[BLUE, ORANGE], alpha=0.75, linewidth=0)
        axes.axhline(whole, color=INK, linestyle=(0, (5, 1.6)), label="nothing pruned: all RL error")
        _ticks(axes, [x for x in xs if x.bit_count() == 1])
        axes.set_xlim(xs[0], xs[-1])
        axes.set_ylim(0, 1.15 * max(whole, parts[0][0] + parts[1][0]))
        size, options = results[name]["size"], results[name]["options"]
        _named(axes, f"{title}, {size} of {options}", "demonstrations", "regret")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _durations(axes: Axes, rows: Sequence[dict[str, Any]], label: str, color: str, marker: str) -> None:
    """A line for the bound; a mark for the median over tasks, with a bar from the least to the most."""
    xs, middle = _column(rows, "x"), _column(rows, "needed")
    reach = [[row["needed"] - row["least"] for row in rows], [row["most"] - row["needed"] for row in rows]]
    axes.plot(xs, _column(rows, "bound"), color=color, linewidth=1.1, label=f"bound, {label}")
    axes.errorbar(xs, middle, yerr=reach, color=color, marker=marker, label=f"measured, {label}", elinewidth=1, **DOTS)
    _ticks(axes, xs)
    axes.set_yscale("log")


def _ticks(axes: Axes, values: Sequence[float], log: bool = True) -> None:
    """The values themselves along x, every other one where they are many."""
    axes.set_xscale("log" if log else "linear")
    shown = values[:: 1 if len(values) < 6 else 2]
    axes.set_xticks(shown, [f"{value:g}" for value in shown])
    axes.set_xticks([], minor=True)


def _diagonal(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = [axes.get_xlim()[0], axes.get_xlim()[1]]
    axes.plot(ends, ends, color=GREY, linewidth=0.9)
    axes.set_xlim(*ends)
    _named(axes, title, x, y)


def _named(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _column(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]
