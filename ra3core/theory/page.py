"""What `ra3 theory` leaves behind: tables for a terminal, and a folder with theory.md, theory.json and the figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ra3core.plotting import draw
from ra3core.theory import figures


@dataclass(frozen=True)
class Table:
    """columns: titles; the first column is text, the others are figures. note: how to read it, one or two sentences."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str

    def markdown(self) -> str:
        """The table under its title, the note below."""
        rule = ":--|" + "--:|" * (len(self.columns) - 1)
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.columns, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return "\n".join([f"## {self.title}", "", lines[0], f"|{rule}", *lines[1:], "", self.note])


def tables(results: dict[str, Any]) -> list[Table]:
    """Everything measured, in five tables."""
    return [_growth(results), _random(results), _iterations(results), _split(results), _families(results)]


def write(results: dict[str, Any], folder: Path) -> None:
    """theory.md, theory.json and the figures as PNG, in a folder that is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# The theory, measured", f"`ra3 theory --seed {results['seed']}`; definitions: docs/theory.md."]
    for index, table in enumerate(tables(results)):
        parts.append(table.markdown())
        if index in PICTURES:
            name, make, caption = PICTURES[index]
            _, png = draw(lambda make=make: make(results))
            (folder / f"{name}.png").write_bytes(png)
            parts += [f"![{name}: bounds and measurements]({name}.png)", caption]
    (folder / "theory.md").write_text("\n\n".join(parts) + "\n")
    (folder / "theory.json").write_text(json.dumps(results, indent=1) + "\n")


PICTURES = {
    1: (
        "pruning",
        figures.pruning,
        "Demonstrations until every suboptimal set is gone with probability 1 - delta. Lines are bounds, marks are "
        "measured on the rule's hardest family; one variable varies, the others stay. Random families: a dot each.",
    ),
    2: (
        "iteration",
        figures.iteration,
        "Iterations of value iteration until it is within eps of V*. Bars reach from the least to the most over tasks; "
        "the dashed line takes for R_max what one step pays, and is no bound.",
    ),
    4: (
        "regret",
        figures.regret,
        "Regret as demonstrations come in and what they show is kept, planned with as many backups as two iterations "
        "over all options take; the title says how many options make up Z_eps.",
    ),
}
"""By the number of the table that it follows: a picture's name, what draws it, its caption."""


def _growth(results: dict[str, Any]) -> Table:
    rate = results["pruning_rate"]
    rows = [("the paper's rate", "1", "1", "1", "1", "1", "")]
    for rule, found in rate["growth"].items():
        rows.append(
            (
                rule,
                f"{found['slope_in_log_options']:.2f}",
                f"{found['exponent_in_size']:.2f}",
                f"{found['exponent_in_1_over_sigma']:.2f}",
                f"{found['slope_in_log_1_over_delta']:.2f}",
                f"{found['least_of_paper']:.2f} to {found['most_of_paper']:.2f}",
                f"{found['least_of_bound']:.2f} to {found['most_of_bound']:.2f}",
            )
        )
    at = rate["at"]
    return Table(
        "Demonstrations on each rule's hardest family",
        ("rule", "in log |Z|", "in |Z_eps|", "in 1/sigma", "in log 1/delta", "of the rate", "of its bound"),
        rows,
        f"Around |Z| = {at['options']}, |Z_eps| = {at['size']}, sigma = {at['sigma']}, delta = {at['delta']}. "
        "In |Z_eps| and 1/sigma: the fitted exponent; in the logarithms: the fitted slope, the paper's being 1.",
    )


def _random(results: dict[str, Any]) -> Table:
    found = results["pruning_random"]
    rows = [("the paper's rate", str(found["families"]), str(found["violations"]["paper"]), "")]
    for rule, most in found["most_of_bound"].items():
        rows.append((rule, str(found["families"]), str(found["violations"][rule]), f"{most:.2f}"))
    times = results["iteration_random"]
    most = f"{times['most_of_bound']:.2f}"
    rows.append(("value iteration", str(times["instances"]), str(times["violations"]), most))
    return Table(
        "Bounds on random families",
        ("bound", "instances", "violated", "most of it needed"),
        rows,
        f"In {found['survivors_above_eps']} families a set of |Z_eps| options that is not suboptimal costs more than "
        f"eps on average; more than eps + sigma max Delta in {found['survivors_above_bound']}.",
    )


def _iterations(results: dict[str, Any]) -> Table:
    found = results["iteration_durations"]
    walks = {row["x"]: row for row in found["rows"]["room"]}
    rows = []
    for row, joined in zip(found["rows"]["garnet"], found["rows"]["with_steps"], strict=True):
        walk = walks.get(row["x"])
        rows.append(
            (
                str(row["x"]),
                f"{row['contraction']:.3f}",
                f"{row['needed']:g}",
                str(row["bound"]),
                str(row["bound_of_steps"]),
                f"{joined['needed']:g}",
                str(joined["bound"]),
                f"{walk['needed']:g}" if walk else "",
                str(walk["bound"]) if walk else "",
            )
        )
    return Table(
        "Iterations by duration of options",
        ("steps", "g", "needed", "bound", "R_max of a step", "with steps", "bound", "room", "bound"),
        rows,
        f"gamma = {found['gamma']}, eps = {found['eps']}; medians. Where every step pays, a bound with R_max of one "
        "step falls below what is needed; steps among the options keep g at gamma.",
    )


def _split(results: dict[str, Any]) -> Table:
    found = results["regret_random"]
    names = ("largest_residual", "least_pruning", "least_rl", "least_rl_outside")
    return Table(
        "Regret = pruning error + RL error",
        ("tasks", "mean regret", "largest residual", "least pruning error", "least RL error", "outside Z'"),
        [(str(found["tasks"]), f"{found['mean_whole']:.2f}", *(f"{found[name]:.1e}" for name in names))],
        "Both errors are at least zero, but for rounding; the RL error of a policy that leaves Z' can be below.",
    )


def _families(results: dict[str, Any]) -> Table:
    rows = []
    for name, title in figures.STORIES.items():
        found = results[name]
        last = found["regret"]["rows"][-1]
        rows.append(
            (
                title,
                f"{found['size']} of {found['options']}",
                f"{found['eps'] / found['mean_value']:.2f}",
                f"{found['elimination']} ({found['elimination_simulated']})",
                f"{found['elimination_bound']:.0f}",
                str(found["keeping"]),
                f"{found['keeping_bound']:.0f}",
                f"{last['pruning']:.3f} + {last['rl']:.3f}",
                f"{found['regret']['unpruned']['rl']:.3f}",
            )
        )
    return Table(
        "Three families closely",
        ("family", "Z_eps", "eps / V*", "elimination", "bound", "keeping", "bound", "regret, pruned", "unpruned"),
        rows,
        "sigma = 0.1, delta = 0.05. Demonstrations exact, in brackets drawn one by one; regret as pruning + RL error.",
    )
