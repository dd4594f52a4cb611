"""Figures of the analysis stage (ra3core/analysis): functions from its plain data, in the report's look.

Drawn with ra3core.report.figures.draw. `arms` are (arm, analysis.json's content) in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ra3core.report.figures import INK, WIDTH
from ra3core.report.style import BY_NAME, Arm

Measured = Sequence[tuple[Arm, Mapping[str, Any]]]

MEAN, BEST = "#D55E00", "#E69F00"


def gain_curve(gains: Mapping[str, Any]) -> Figure:
    """The distribution of gains, and think rate and cost as functions of c. gains: "gains" of analysis.json."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    curve, proposed, distribution = gains["curve"], gains["proposed"], gains["distribution"]
    looks = {"mean": (MEAN, "-", "mean of the group"), "best": (BEST, (0, (5, 1.6)), "best of the group")}
    for name, (color, line, label) in looks.items():
        left.plot(distribution[name], [100 * x for x in distribution["share"]], color=color, linestyle=line)
        rate = [100 * x for x in curve[name]["think_rate"]]
        middle.plot(curve["c"], rate, color=color, linestyle=line, label=label)
        middle.fill_between(
            curve["c"],
            [100 * x for x in curve[name]["low"]],
            [100 * x for x in curve[name]["high"]],
            color=color,
            alpha=0.16,
            linewidth=0,
        )
        right.plot(curve["c"], curve[name]["tokens"], color=color, linestyle=line)
    left.axvline(0, color="#6A6A6A", linewidth=0.9)
    left.set_title("Gain of a rationale")
    left.set_xlabel("at most this gain, nats")
    left.set_ylabel("boundaries")
    left.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    low, high = distribution["mean"][2], distribution["best"][-2]
    left.set_xlim(low, max(high, 1e-3))
    middle.axhline(100 * proposed["target"], color="#6A6A6A", linewidth=0.8, linestyle=(0, (2, 2)))
    middle.errorbar(
        [proposed["c"]],
        [100 * proposed["think_rate"]],
        xerr=[[max(0.0, proposed["c"] - proposed["low"])], [max(0.0, proposed["high"] - proposed["c"])]],
        color=INK,
        marker="o",
        markersize=5,
        capsize=2.5,
        linestyle="none",
        label=f"c = {proposed['c']:.2g} for {100 * proposed['target']:.0f} %",
    )
    middle.set_title("Think rate")
    middle.set_ylabel("boundaries that think")
    middle.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    middle.set_ylim(bottom=0)
    plain = right.axhline(gains["plain_tokens"], color="#6A6A6A", linewidth=0.9, linestyle=(0, (2, 2)))
    right.set_title("Cost")
    right.set_ylabel("tokens a demonstration")
    for axes in (middle, right):
        axes.set_xlabel("think penalty c, nats")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks([0, 0.5, 1, 3, 10], ["0", "0.5", "1", "3", "10"])
        axes.set_xlim(0, curve["c"][-1])
        axes.margins(x=0.02)
    handles, labels = middle.get_legend_handles_labels()
    figure.legend([*handles, plain], [*labels, "without rationales"], loc="outside lower center", ncols=4)
    return figure


def action_sets(arms: Measured) -> Figure:
    """Effective action-set sizes at the same line boundaries, a row an arm."""
    panels = (
        ("Next line", "perplexity", lambda actions: actions["lines"]["all"]["perplexity"]),
        ("Line given intent", "perplexity", lambda actions: actions["lines"]["given_intent"]["perplexity"]),
        ("Rationales", "perplexity", lambda actions: actions["lines"]["rationale"]["perplexity"]),
        ("Expert's token", "share inside the nucleus", lambda actions: actions["expert"]["covered"]),
    )
    figure = Figure(figsize=(WIDTH, 0.95 + 0.27 * len(arms)), layout="constrained")
    every_axes = figure.subplots(1, len(panels), sharey=True)
    for axes, (title, unit, of) in zip(every_axes, panels, strict=True):
        for y, (arm, found) in enumerate(arms):
            estimate = of(found["actions"])
            axes.errorbar(
                [estimate["value"]],
                [y],
                xerr=[[estimate["value"] - estimate["low"]], [estimate["high"] - estimate["value"]]],
                color=arm.color,
                marker=arm.marker,
                markersize=5,
                elinewidth=1.2,
                capsize=2,
                linestyle="none",
            )
        axes.set_title(title)
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
    every_axes[2].set_xscale("log")
    every_axes[2].set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    every_axes[2].minorticks_off()
    every_axes[3].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    first: Axes = every_axes[0]
    first.set_yticks(range(len(arms)), [arm.label for arm, _ in arms])
    first.set_ylim(len(arms) - 0.5, -0.5)
    first.tick_params(axis="y", length=0)
    return figure


def planning(arms: Measured) -> Figure:
    """Durations of intents, the iterations that the theorem predicts from them, and those that RLVR needed."""
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    annotated = [(arm, found["planning"]) for arm, found in arms if "intents" in found["planning"]]
    for arm, found in annotated:
        histogram = {int(lines): count for lines, count in found["intents"]["histogram"].items()}
        total = sum(histogram.values())
        left.plot(
            list(histogram),
            [100 * count / total for count in histogram.values()],
            color=arm.color,
            linestyle=arm.line,
            marker=arm.marker,
            markersize=3.4,
            label=arm.label,
        )
    left.set_title("Lines under an intent")
    left.set_xlabel("lines, τ")
    left.set_ylabel("rationales")
    left.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    rows = [("lines, τ = 1", BY_NAME["base"].color, arms[0][1]["planning"]["primitive"])]
    for arm, found in annotated:
        rows += [(f"{arm.short}, mean", arm.color, found["intents"]["mean"])]
        rows += [(f"{arm.short}, sup", arm.color, found["intents"]["sup"])] if "sup" in found["intents"] else []
        rows += [(f"{arm.short}, mixed", arm.color, found["mixed"])]
    middle.barh(range(len(rows)), [row[2]["iterations"] for row in rows], color=[row[1] for row in rows], height=0.6)
    for y, (_, _, predicted) in enumerate(rows):
        middle.annotate(
            f" {predicted['iterations']:.0f}", (predicted["iterations"], y), va="center", fontsize=7.5, color=INK
        )
    middle.set_yticks(range(len(rows)), [row[0] for row in rows])
    middle.set_ylim(len(rows) - 0.5, -0.5)
    middle.tick_params(axis="y", length=0)
    middle.grid(axis="y", visible=False)
    middle.margins(x=0.16)
    middle.set_title("Predicted")
    middle.set_xlabel("iterations that suffice")
    for arm, found in arms:
        reached = [row for row in found["planning"].get("rlvr", {}).get("reward", []) if row["step"] is not None]
        if reached:
            right.plot(
                [row["step"] for row in reached],
                [100 * row["level"] for row in reached],
                color=arm.color,
                linestyle=arm.line,
                marker=arm.marker,
                markersize=4,
                label=arm.label,
            )
    right.set_title("Needed by RLVR")
    right.set_xlabel("steps to the level")
    right.set_ylabel("training samples that pass")
    right.set_xlim(left=0)
    right.set_ylim(bottom=0)
    right.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    right.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    entries = {
        label: handle for axes in (left, right) for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=3)
    return figure


def elbo(rounds: Sequence[Mapping[str, Any]]) -> Figure:
    """The temporal ELBO and its terms, before and after each round's E-step. rounds: "elbo" of analysis.json."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    panels = (
        ("Temporal ELBO", "elbo", "nats a demonstration"),
        ("Reconstruction", "reconstruction", "nats a demonstration"),
        ("Cost of thinking", "think_cost", "nats a demonstration"),
        ("Thinks", "thinks_per_demonstration", "a demonstration"),
    )
    for axes, (title, name, unit) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for row in rounds:
            axes.plot(
                [row["round"] - 0.18, row["round"] + 0.18],
                [row["before"][name], row["after"][name]],
                color=BY_NAME["ra3"].color,
                marker="o",
                markersize=4,
            )
        for one, following in pairwise(rounds):
            axes.plot(
                [one["round"] + 0.18, following["round"] - 0.18],
                [one["after"][name], following["before"][name]],
                color="#8A8A8A",
                linestyle=(0, (2, 2)),
                linewidth=1,
            )
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.set_xlabel("round")
        axes.set_xticks([row["round"] for row in rounds])
        axes.set_xlim(rounds[0]["round"] - 0.5, rounds[-1]["round"] + 0.5)
        axes.margins(y=0.15)
    return figure
