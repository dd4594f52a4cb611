"""What the scripts of bench/ share: a figure with its peer, contenders in turns, CPU time, a table, a file.

A figure is the median of several runs with the lowest and the highest beside it. Contenders run in turns (first,
second, first, second, ...), so that a slow minute of the machine hits both, and the figure that is kept from change to
change is the ratio: it means the same on another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # CPU seconds of one thread are what is compared
os.environ.setdefault("HF_HUB_OFFLINE", "1")

CHECKOUT = Path(__file__).resolve().parent.parent

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Figure:
    """One measurement: `values` of the repeats in `unit`, and those of the peer on the same work, in the same run.

    name: "script/what". better: whether higher or lower values are. A figure without a peer has no ratio.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    better: Better
    peer: str | None = None
    peer_values: tuple[float, ...] = ()
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer, medians; none without a peer."""
        if self.peer is None:
            return None
        peer = statistics.median(self.peer_values)
        return self.value / peer if self.better == "higher" else peer / self.value


def cpu_seconds() -> float:
    """User and system time of this process and of its finished children."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def in_turns(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, tuple[float, ...]]:
    """What each contender returned in each repeat; they run one after the other, `repeats` times over."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            found[name].append(run())
    return {name: tuple(values) for name, values in found.items()}


def options(description: str | None, repeats: int = 3) -> argparse.ArgumentParser:
    """The options of every script."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


def finish(figures: Sequence[Figure], file: Path | None) -> None:
    """Print the table and write the file."""
    print(table(figures))
    if file is not None:
        file.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def read(file: Path) -> list[Figure]:
    """The figures of a file that `finish` wrote."""
    return [
        Figure(**{**row, "values": tuple(row["values"]), "peer_values": tuple(row["peer_values"])})
        for row in json.loads(file.read_text())
    ]


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table: medians, lowest to highest, and the ratio to the peer."""
    rows = ["| figure | here | peer | ratio | |", "|---|---|---|---|---|"]
    for figure in figures:
        peer = f"{figure.peer}: {_spread(figure.peer_values)}" if figure.peer else ""
        ratio = f"**{figure.ratio:.2f}**" if figure.ratio is not None else ""
        rows.append(f"| {figure.name} ({figure.unit}) | {_spread(figure.values)} | {peer} | {ratio} | {figure.note} |")
    return "\n".join(rows)


def _spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.4g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.4g} to {max(values):.4g})"
