"""The result of a run on a terminal: a compact table and the findings, from the report stage's own metrics.

Imports neither torch nor matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ra3core.report.style import ARMS
from ra3core.stage import Metrics

SHORT_MODES = {"banned": "banned #", "forced": "forced #"}
_LOOK: dict[str, Any] = {
    "title_justify": "left",
    "title_style": "bold",
    "box": None,
    "header_style": "dim",
    "pad_edge": False,
}
STYLES = {"shown": "bold green", "not shown": "dim", "against": "bold red", "fact": "bold blue"}


def render(metrics: Metrics) -> RenderableType:
    """What `rich.print` shows of `report`'s metrics: pass@1 by arm, one line a comparison, then other benchmarks."""
    parts: list[RenderableType] = [table(metrics)] if metrics["results"] else []
    if metrics["claims"]:
        parts.append(Padding(claims(metrics), (1, 0, 0, 0)))
    if metrics["differences"]:
        parts.append(Padding(statements(metrics), (1, 0, 0, 0)))
    parts += [Padding(benchmark(one), (1 if parts else 0, 0, 0, 0)) for one in metrics["benchmarks"].values()]
    return Group(*parts)


def table(metrics: Metrics) -> Table:
    """pass@1 in percent: by number of steps, over all tasks with interval, and under the other decoding modes."""
    results: dict[str, dict[str, dict[str, float]]] = metrics["results"]
    by_steps: dict[str, dict[str, float]] = metrics["by_steps"]
    steps = sorted({number for found in by_steps.values() for number in found}, key=int)
    modes = [mode for mode in SHORT_MODES if any(mode in found for found in results.values())]
    title = "pass@1 in percent, 95 % intervals" + (", by steps of the plan" if steps else "")
    view = Table(title=title, **_LOOK)
    view.add_column("", no_wrap=True)
    for number in steps:
        view.add_column(number, justify="right", style="dim", no_wrap=True)
    view.add_column("all tasks", justify="right", no_wrap=True)
    for mode in modes:
        view.add_column(SHORT_MODES[mode], justify="right", style="dim", no_wrap=True)
    for arm in ARMS:
        found = results.get(arm.name)
        if found is None:
            continue
        name = Text.assemble(("■ ", arm.color), arm.short)
        row: list[Any] = [name, *(_percent(by_steps.get(arm.name, {}).get(number)) for number in steps)]
        row.append(_interval(found.get("free")))
        row += [_percent(found[mode]["value"] if mode in found else None) for mode in modes]
        view.add_row(*row)
    return view


def benchmark(one: Mapping[str, Any]) -> RenderableType:
    """A benchmark's figures in percent, by arm, below its name and convention."""
    scores: dict[str, dict[str, dict[str, float]]] = one["scores"]
    titles = list(dict.fromkeys(title for found in scores.values() for title in found))
    head = Text(f"{one['name']} ({one['variant']}), percent, 95 % intervals", style="bold")
    view = Table(**_LOOK)
    view.add_column("", no_wrap=True)
    for title in titles:
        view.add_column(title, justify="right", no_wrap=True)
    for arm in ARMS:
        if arm.name in scores:
            name = Text.assemble(("■ ", arm.color), arm.short)
            view.add_row(name, *(_interval(scores[arm.name].get(title)) for title in titles))
    return Group(head, view)


def claims(metrics: Metrics) -> Table:
    """One line for each of the paper's claims, and what it rests on."""
    view = Table(title="The paper's claims", **_LOOK)
    view.add_column("", style="bold", no_wrap=True)
    view.add_column("")
    for one in metrics["claims"]:
        view.add_row(one["label"].lower(), one["sentence"])
    return view


def statements(metrics: Metrics) -> Table:
    """One line a comparison: its difference in points of percent with the interval, and the verdict."""
    view = Table(title="Differences in pass@1, points of percent, paired 95 % intervals", **_LOOK)
    view.add_column("", no_wrap=True)
    view.add_column("difference", justify="right", no_wrap=True)
    view.add_column("")
    for one in metrics["differences"].values():
        interval = f" [{_points(one['low'])}, {_points(one['high'])}]"
        numbers = Text.assemble((_points(one["value"]), "bold"), (interval, "dim"))
        view.add_row(one["comparison"], numbers, Text(one["label"].lower(), style=STYLES[one["verdict"]]))
    return view


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _interval(score: dict[str, float] | None) -> Text:
    if score is None:
        return Text("–")
    return Text.assemble(
        (f"{100 * score['value']:.1f}", "bold"), (f" [{100 * score['low']:.1f}, {100 * score['high']:.1f}]", "dim")
    )
