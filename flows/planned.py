"""What `ra3 run --dry-run` prints: a plan as tables, with rich on a terminal and plain elsewhere, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from flows.planning import Plan, Row, plan
from ra3core.config import RuntimeConfig, load
from ra3core.errors import UserError
from ra3core.plan.machines import GPUS, MIB, Machine
from ra3core.plan.memory import Memory

GIB = 1024 * MIB
DTYPES = {4: "float32", 2: "bfloat16"}

BASES = {
    "run": "run: measured, when the stage ran (read: written ones among them)",
    "data": "data: from counts of its data in the store",
    "settings": "settings: from settings alone",
    "cap": "cap: at most, every text as long as it may be",
    "assumed": "assumed: from assumed mean lengths and rates of thinking (docs/plan.md)",
}


def command(
    preset: str,
    overrides: Sequence[str],
    runtime: RuntimeConfig,
    refresh: Sequence[str],
    machine: Machine,
    parameters: float | None,
    as_json: bool,
) -> None:
    """`ra3 run --dry-run`. parameters: of a model whose shape is not known. Raises UserError."""
    if parameters is not None and parameters < 1:
        raise UserError(f"--parameters {parameters:g}: expected a number of parameters, such as 3e9")
    config = load(preset, overrides)
    made = plan(
        config,
        runtime,
        refresh,
        machine,
        None if parameters is None else round(parameters),
        lambda further: load(preset, [*overrides, *further]),
    )
    if as_json:
        print(json.dumps(values(made), indent=1))
    else:
        show(made, config.base.model or "a model of its own")


def machine_of(
    gpu: str | None, gpus: int | None, utilisation: float | None, price: float | None, device: str
) -> Machine:
    """What the options describe. device: as a run is given it; a GPU for each that it names. Raises UserError."""
    name = (gpu or "h100").lower()
    if name not in GPUS:
        raise UserError(f"--gpu {gpu}: expected one of {', '.join(GPUS)}")
    for option, value in (("--gpus", gpus), ("--utilisation", utilisation), ("--price", price)):
        if value is not None and value <= 0:
            raise UserError(f"{option} {value}: expected a number above 0")
    if utilisation is not None and utilisation > 1:
        raise UserError(f"--utilisation {utilisation}: expected a share of the peak, at most 1")
    return Machine(GPUS[name], gpus or len(device.split(",")), utilisation or Machine.utilisation, price=price)


def show(plan: Plan, model: str) -> None:
    """Print a plan. model: what the run starts from."""
    gpu = plan.machine.gpu
    print(
        f"Plan of {plan.name}: {model}, {plan.shape.parameters:,} parameters ({plan.found}).\n"
        "Computed, not measured, from the configuration, the store and stated assumptions (docs/plan.md).\n"
    )
    _table(
        ["stage", "seeds", "state", "trained", "read", "written", "tokens from", "FLOP", "GPU time"],
        [_stage(label, group) for label, group in _grouped(plan.rows)],
        left=3,
    )
    bases = {row.work.basis for row in plan.rows if row.work.tokens}
    print("", *(line for name, line in BASES.items() if name in bases), sep="\n  ")
    if plan.kept:
        print("  base: a kept checkpoint is there, and is copied if it was made by this very recipe")
    print("  report: made anew at the end, in seconds\n")
    if plan.memories:
        print(f"Memory of one device, {DTYPES[plan.width]}; {_bytes(gpu.usable)} of {gpu.name} are usable")
        names = [field.name for field in fields(Memory)]
        rows = [
            [
                *(kind, *(_bytes(getattr(each, name)) for name in names), _bytes(each.total)),
                "fits" if each.total <= gpu.usable else "does not fit",
            ]
            for kind, each in plan.memories.items()
        ]
        _table(["stage", *names, "total", ""], rows, left=1)
        print()
    for one in plan.advice:
        way = "no setting of this version makes it fit"
        if one.settings:
            way = f"with {' '.join(f'--set {setting}' for setting in one.settings)} it takes {_bytes(one.after)}"
        other = f"; it fits on --gpu {one.gpu}" if one.gpu else "; nor does it fit on any --gpu known here"
        print(f"Does not fit: {one.stage} takes {_bytes(one.bytes)}; {way}{other}.")
    for name, file in plan.missing.items():
        print(
            f"Missing: evaluation.benchmarks: {name}: {file}: no such file (docs/benchmarks.md says where it is from)."
        )
    print(*_totals(plan), sep="\n")


def _totals(plan: Plan) -> list[str]:
    machine, gpu, run = plan.machine, plan.machine.gpu, plan.to_run
    cached = sum(row.state == "cached" for row in plan.rows)
    peak = gpu.bfloat16 if plan.width == 2 else gpu.float32
    lines = [
        f"Stages: {len(plan.rows)}, of which {cached} are cached"
        + (f" and {len(run)} are to run." if run else ", and nothing is left to run."),
    ]
    if not run:
        return lines
    lines += [
        f"Tokens to run: {_short(sum(row.work.trained for row in run))} trained, "
        f"{_short(sum(row.work.read for row in run))} read, {_short(sum(row.work.written for row in run))} written; "
        f"{sum(row.operations for row in run):.3g} floating-point operations.",
        f"Disk: {plan.disk / 1e9:,.3g} GB stay in the store, up to {plan.scratch / 1e9:,.3g} GB of checkpoints while "
        "stages run.",
        f"Time: {_time(plan.device_seconds)} of one {gpu.name}, {_time(plan.wall_seconds)} with {machine.devices}; at "
        f"{machine.utilisation:.0%} of {peak / 1e12:,.4g} TFLOP/s ({DTYPES[plan.width]}, dense) and, decoding, "
        f"{machine.bandwidth:.0%} of {gpu.bandwidth / 1e12:.3g} TB/s; the judging of programs is left out.",
    ]
    if plan.cost is not None and machine.price is not None:
        lines.append(
            f"Cost: {plan.cost:,.2f}, at {machine.price:,.2f} a GPU hour, all {machine.devices} of them to the end."
        )
    return lines


def values(plan: Plan) -> dict[str, Any]:
    """Everything, for machines. Bytes, seconds, operations; tokens as computed."""
    return {
        "name": plan.name,
        "computed": True,
        "parameters": plan.shape.parameters,
        "shape": {**asdict(plan.shape), "found": plan.found},
        "machine": asdict(plan.machine),
        "usable_memory": plan.machine.gpu.usable,
        "dtype": DTYPES[plan.width],
        "stages": [
            {
                "name": row.name,
                "kind": row.kind,
                "seed": row.seed,
                "state": row.state,
                "shared_with": row.shared,
                "tokens": {**asdict(row.work), "tokens": row.work.tokens},
                "operations": row.operations,
                "seconds": row.seconds,
                "memory": None if row.memory is None else {**asdict(row.memory), "total": row.memory.total},
                "disk": row.disk,
                "checkpoints": row.scratch,
                "waits_for": list(row.needs),
            }
            for row in plan.rows
        ],
        "does_not_fit": [asdict(one) for one in plan.advice],
        "missing": plan.missing,
        "kept_base": plan.kept,
        "disk": plan.disk,
        "checkpoints": plan.scratch,
        "device_seconds": plan.device_seconds,
        "wall_seconds": plan.wall_seconds,
        "cost": plan.cost,
    }


def _grouped(rows: Iterable[Row]) -> Iterable[tuple[str, list[Row]]]:
    """Rows that differ in their seed alone, in the place of the first, and what they are called; and evaluations of
    all models that take the same."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row.shared and " " in row.label:  # a trial of the tuning shares what precedes its own setting
            continue
        shared = row.shared and row.shared.rpartition("/")[0]
        arm, colon, benchmark = row.label.partition(":")
        same: object = (colon, benchmark, row.work) if row.kind == "evaluate" and row.runs else arm + colon + benchmark
        groups.setdefault((row.kind, same, row.state, shared, row.work.basis), []).append(row)
    for group in groups.values():
        labels = list(dict.fromkeys(row.label for row in group))
        _, colon, benchmark = labels[0].partition(":")
        yield labels[0] if len(labels) == 1 else f"evaluate{colon}{benchmark}, {len(labels)} models", group


def _stage(label: str, group: Sequence[Row]) -> list[str]:
    """A line of the first table."""
    first = group[0]
    seeds = ",".join(dict.fromkeys(str(row.seed) for row in group))
    if first.shared is not None:
        return [label, seeds, f"as {first.shared.rpartition('/')[0]}", *[""] * 6]
    trained, read, written = (sum(getattr(row.work, n) for row in group) for n in ("trained", "read", "written"))
    if not trained + read + written:
        return [label, seeds, first.state, *[""] * 6]
    seconds, operations = (sum(getattr(row, name) for row in group) for name in ("seconds", "operations"))
    return [
        *(label, seeds, first.state),
        *(_short(one) if one else "" for one in (trained, read, written)),
        *(first.work.basis, f"{operations:.2g}", _time(seconds) if first.runs else ""),
    ]


def _short(number: float) -> str:
    """A number of tokens in four figures: 1,234, 12.3 k, 1.23 G."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= max(0.9995 * unit, 9999.5):
            return f"{number / unit:#.3g} {letter}".replace(". ", " ")
    return f"{number:,.0f}"


def _time(seconds: float) -> str:
    """In the unit that reads best."""
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.1f} s"


def _bytes(number: float) -> str:
    """In GiB, or in MiB below a tenth of that; nothing for nothing."""
    if not number:
        return ""
    return f"{number / GIB:,.1f} GiB" if number >= GIB / 10 else f"{number / MIB:,.1f} MiB"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> None:
    """Columns side by side, the first `left` of them aligned left."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, name in enumerate(header):
            table.add_column(name, justify="left" if place < left else "right", no_wrap=place == 0)
        for row in rows:
            table.add_row(*row)
        Console(highlight=False, markup=False, emoji=False).print(table)
        return
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    for row in (header, *rows):
        cells = [c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
