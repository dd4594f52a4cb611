"""`ra3 abstractions` and `ra3 calibrate`: the rationales of a run, and which think penalty to choose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows import named
from ra3core.config import EStepConfig, RunConfig, RuntimeConfig
from ra3core.corpora.demonstrations import Demonstration, read_annotated
from ra3core.corpora.draw import draw
from ra3core.corpora.snippets import load_demonstrations
from ra3core.errors import UserError
from ra3core.stage import Context, StageLog
from tasks import devices, external
from tasks.display import Display

_CONSOLE = Console(highlight=False, markup=False)
_WIDTH = 40  # of the terminal's bars


def abstractions(name: str, seed: int | None, out: Path | None, config: RunConfig, runtime: RuntimeConfig) -> None:
    """Write the page and the tables of a run's rationales, to `out` or below reports/, and say where."""
    annotated = named.find(name, "bootstrap", runtime.root, seed)
    likelihood = named.input_of(annotated, "likelihood")
    to = out or runtime.root / "reports" / f"abstractions-{annotated.key[:8]}"
    inputs = {"annotated": annotated.path, "likelihood": likelihood.path}
    with Display() as display:
        from ra3core.analysis import analysis  # imports torch

        with display.stage("abstractions") as show, _results(to):
            context = _context(inputs, to, annotated.manifest.seed, runtime, StageLog(sink=show))
            read = read_annotated(annotated.path / "annotated.parquet")
            found = analysis.abstractions(config.analysis, context, read)
    table = Table(box=None, pad_edge=False)
    for column in ("abstraction", "count", "lines", "gain", "helps"):
        table.add_column(column, justify="left" if column == "abstraction" else "right")
    for row in found["first"][:10]:
        gain, helps = (f"{row['gain']:+.2f}", f"{100 * row['helps']:.0f} %") if row["scored"] else ("", "")
        table.add_row(row["text"], str(row["count"]), f"{row['lines']:.1f}", gain, helps)
    _CONSOLE.print(table)
    _say(
        f"{found['rationales']} rationales, {found['abstractions']} abstractions; the {found['half_of_all']} most "
        f"frequent make up half of all. Gain: nats over the governed lines, measured on {found['scored']}."
    )
    _say(f"Page: {to / analysis.PAGE}")
    _say(f"Table: {to / analysis.TABLE}")


def calibrate(
    name: str,
    source: str | None,
    think_rate: float,
    seed: int | None,
    out: Path | None,
    config: RunConfig,
    runtime: RuntimeConfig,
) -> None:
    """Propose c for a target think rate; show the curve, and write it as JSON, PNG and SVG to `out` or below reports/.

    name: a run, or an artifact of an E-step: its policy, likelihood model and settings, and the demonstrations that
    M-steps hold out. Or a model, which is both policy and likelihood model then, as at the beginning of an E-step, on
    demonstrations of `source`.
    """
    if not 0 < think_rate < 1:
        raise UserError(f"--think-rate: expected a share between 0 and 1, found {think_rate:g}")
    settings = config.analysis.model_copy(
        update={"think_rate": think_rate, "e_step": config.e_step, "held_out": config.m_step.held_out}
    )
    of_run = named.is_stage(name, "e_step", runtime.root)
    if of_run:
        if source is not None:
            raise UserError("--demonstrations: a run has its own, expected it with a model only")
        policy = named.find(name, "e_step", runtime.root, seed)
        likelihood, expert = (named.input_of(policy, role) for role in ("model", "demonstrations"))
        settings = settings.model_copy(update={"e_step": EStepConfig.model_validate(policy.manifest.config)})
        first = policy.manifest.seed
    else:
        policy = likelihood = external.model(name, runtime.root, "calibrate")
        first = config.seed if seed is None else seed
    source = external.absolute(source or config.corpus.source)
    decided_by = [policy.digest, likelihood.digest, source, first, settings.model_dump(mode="json")]
    digest = hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:8]
    to = out or runtime.root / "reports" / f"calibration-{digest}"
    with Display() as display:
        from ra3core.analysis import analysis  # imports torch

        with display.stage("calibrate") as show, _results(to):
            if of_run:
                held_out = analysis.held_out_demonstrations(expert.path, settings)
            else:
                held_out = _drawn(source, config, first, runtime.root)
            inputs = {"policy": policy.path, "likelihood": likelihood.path}
            found = analysis.gains(settings, _context(inputs, to, first, runtime, StageLog(sink=show)), held_out)
        from ra3core.report.analysis_figures import gain_curve
        from ra3core.report.figures import draw

        svg, png = draw(lambda: gain_curve(found))
    (to / "calibration.json").write_text(json.dumps(found, indent=1) + "\n")
    (to / "calibration.svg").write_bytes(svg)
    (to / "calibration.png").write_bytes(png)
    _show(found)
    _say(f"Curve: {to / 'calibration.png'}, {to / 'calibration.json'}")


@contextmanager
def _results(folder: Path) -> Iterator[None]:
    """A folder for the body to fill; gone again if it ends in an error with nothing there.

    Raises UserError where a file is in the way.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--out {folder}: a file is in the way, expected a folder or nothing yet") from error
    try:
        yield
    except BaseException:
        if new:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise


def _drawn(source: str, config: RunConfig, seed: int, root: Path) -> list[Demonstration]:
    """As many demonstrations of a source as are measured, drawn as a run with this seed draws them."""
    corpus = config.corpus
    found = islice(load_demonstrations(source, root / "data", corpus.max_lines, corpus.filters), corpus.pool)
    return draw(list(found), config.analysis.demonstrations, seed)


def _show(found: Mapping[str, Any]) -> None:
    """The curve as bars, and the proposal."""
    curve, proposed = found["curve"], found["proposed"]
    table = Table(box=None, pad_edge=False)
    for column in ("c", "thinks", "95 % interval", "tokens", ""):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    rates = curve["mean"]["think_rate"]
    for place in range(0, len(rates), 5):
        low, high, tokens = (curve["mean"][name][place] for name in ("low", "high", "tokens"))
        table.add_row(
            f"{curve['c'][place]:.2f}",
            f"{100 * rates[place]:.1f} %",
            f"[{100 * low:.1f}, {100 * high:.1f}]",
            f"{tokens:.0f}",
            "█" * round(_WIDTH * rates[place]),
        )
    _CONSOLE.print(table)
    _say(
        f"{found['boundaries']} boundaries of {found['demonstrations']} demonstrations of {found['plain_tokens']:.0f} "
        "tokens; thinks: share of boundaries whose rationale gains more than c nats, tokens: a demonstration with them."
    )
    target = 100 * proposed["target"]
    if proposed["at_zero"] < proposed["target"]:
        _say(
            f"A think rate of {target:.0f} % is out of reach: even at c = 0 a rationale gains at only "
            f"{100 * proposed['at_zero']:.1f} % of the boundaries."
        )
    _say(
        f"For a think rate of {target:.0f} %: e_step.think_penalty={proposed['c']:.3g}, 95 % interval "
        f"[{proposed['low']:.3g}, {proposed['high']:.3g}]; thinks at {100 * proposed['think_rate']:.1f} %."
    )


def _context(inputs: Mapping[str, Path], out: Path, seed: int, runtime: RuntimeConfig, log: StageLog) -> Context:
    return Context(inputs, out, out, seed, threads=runtime.threads, device=devices.first(runtime.device), log=log)


def _say(text: str) -> None:
    _CONSOLE.print(text, soft_wrap=True)
