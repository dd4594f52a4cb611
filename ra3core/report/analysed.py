"""What the analysis stages measured of the arms' models (docs/analysis.md), as a section of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import fmean
from typing import Any

from ra3core.report import analysis_figures as figures
from ra3core.report.blocks import Block, Cell, Heading, Row, Table
from ra3core.report.inputs import Run
from ra3core.report.pictures import picture
from ra3core.report.stages import ABSENT
from ra3core.report.style import ARMS, Arm

ANALYSIS = "analysis_"

Content = Mapping[str, Any]
Found = Mapping[Arm, Mapping[int, Content]]
"""Arm -> seed -> analysis.json."""


def analysed(run: Run) -> list[Block]:
    """Action sets, intents, gains and ELBO; nothing for a run without analysis.

    Tables are means over seeds; a figure shows the first seed, and its caption says so.
    """
    found: dict[Arm, dict[int, Content]] = {}
    for arm in ARMS:
        stages = run.stages.get(f"{ANALYSIS}{arm.name}", {})
        contents = {seed: stages[seed].json("analysis.json") for seed in sorted(stages)}
        if contents := {seed: content for seed, content in contents.items() if content is not None}:
            found[arm] = contents
    if not found:
        return []
    blocks: list[Block] = [Heading("What mid-training did to the models", "analysis"), _action_sets(found)]
    first = [(arm, next(iter(contents.values()))) for arm, contents in found.items()]
    blocks.append(
        picture(
            "action-sets",
            lambda: figures.action_sets(first),
            "Effective action sets at the same line boundaries, with 95 % intervals over demonstrations. A small set "
            "is worth something with the expert's token in it.",
            "Perplexities of next lines, of lines given the intent and of rationales, and coverage, by arm",
            1,
        )
    )
    if intents := {arm: of for arm, of in found.items() if "intents" in next(iter(of.values()))["planning"]}:
        blocks += [
            _intents(intents),
            picture(
                "planning",
                lambda: figures.planning(first),
                "Durations of intents, the iterations of value iteration that the theorem calls enough, and the steps "
                "that RLVR took to levels of reward. Iterations and steps are not the same unit.",
                "Histogram of durations, bars of predicted iterations, curves of steps to a level",
                1,
            ),
        ]
    for arm, content in first:
        if "gains" in content:
            blocks.append(_gains(arm, content["gains"]))
    for arm, content in first:
        if content.get("elbo"):
            blocks.append(
                picture(
                    f"elbo-{arm.name}",
                    partial(figures.elbo, content["elbo"]),
                    f"The temporal ELBO of held-out demonstrations and its terms, before and after each E-step of "
                    f"{arm.label}; dashed: what the M-step between two rounds did.",
                    "ELBO, reconstruction, cost of thinking and number of thinks, by round",
                    1,
                )
            )
    return blocks


def _action_sets(found: Found) -> Table:
    columns: dict[str, Callable[[Content], float]] = {
        "next line": lambda one: one["lines"]["all"]["perplexity"]["value"],
        "line given intent": lambda one: one["lines"]["given_intent"]["perplexity"]["value"],
        "rationales": lambda one: one["lines"]["rationale"]["perplexity"]["value"],
        "next token": lambda one: one["token"]["perplexity"]["value"],
        "nucleus of tokens": lambda one: one["token"]["nucleus"]["value"],
        "expert's token in it (%)": lambda one: 100 * one["expert"]["covered"]["value"],
        "thinks (%)": lambda one: 100 * one["think"]["value"],
    }
    return Table(
        "action-sets",
        "Effective action sets at line boundaries of held-out demonstrations: perplexities (the number of equally "
        "likely actions), the least number of tokens that hold 90 % of the mass, how often the expert's is among them, "
        "and the probability to think. Means over seeds, lowest to highest below.",
        ("Arm", "seeds", *columns),
        tuple(_row(arm, of, columns.values(), lambda one: one["actions"]) for arm, of in found.items()),
    )


def _intents(found: Found) -> Table:
    columns: dict[str, Callable[[Content], float]] = {
        "rationales": lambda one: one["abstractions"]["rationales"],
        "abstractions": lambda one: one["abstractions"]["abstractions"],
        "nine tenths are": lambda one: one["abstractions"]["nine_tenths_of_all"],
        "lines, τ": lambda one: one["planning"]["intents"]["lines"],
        "γ̄": lambda one: one["planning"]["intents"]["mean"]["gamma_bar"],
        "iterations": lambda one: one["planning"]["intents"]["mean"]["iterations"],
        "of single lines": lambda one: one["planning"]["primitive"]["iterations"],
        "gain (nats)": lambda one: one["abstractions"]["gain"],
        "help (%)": lambda one: 100 * one["abstractions"]["helps"],
    }
    return Table(
        "intents",
        "The abstractions that demonstrations were annotated with: how many rationales, how many different ones, how "
        "many of these make nine tenths of all; mean duration τ, the discount γ̄ of an intent and the iterations that "
        "the theorem calls enough with it, and with single lines; mean gain in log-likelihood of the lines governed, "
        "and the share that gain anything. Means over seeds, lowest to highest below.",
        ("Arm", "seeds", *columns),
        tuple(_row(arm, of, columns.values(), lambda one: one) for arm, of in found.items()),
    )


def _row(
    arm: Arm,
    contents: Mapping[int, Content],
    columns: Iterable[Callable[[Content], float]],
    part: Callable[[Content], Content],
) -> Row:
    cells = [Cell(arm.label), Cell(str(len(contents)))]
    for of in columns:
        values = [value for one in contents.values() if (value := of(part(one))) is not None]
        if not values:
            cells.append(Cell(ABSENT))
            continue
        spread = f"{_short(min(values))} to {_short(max(values))}" if len(values) > 1 else ""
        cells.append(Cell(_short(fmean(values)), spread))
    return Row(tuple(cells), color=arm.color)


def _gains(arm: Arm, gains: Content) -> Block:
    proposed = gains["proposed"]
    target = f"{100 * proposed['target']:.0f}"
    if proposed["at_zero"] < proposed["target"]:
        found = f"out of reach: {100 * proposed['at_zero']:.0f} % think at c = 0"
    else:
        found = f"c = {proposed['c']:.2g} [{proposed['low']:.2g}, {proposed['high']:.2g}]"
    return picture(
        f"gains-{arm.name}",
        lambda: figures.gain_curve(gains),
        f"{arm.label}: what a rationale gains at each line boundary, think rate and tokens of a demonstration as "
        f"functions of the penalty c, each boundary alone. A think rate of {target} % is {found}.",
        "Distribution of gains; think rate and tokens over c",
        1,
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
