"""Scaling: CPU time and peak memory of each stage as demonstrations, model size, G and length grow.

    python bench/scaling.py [--part model] [--results FILE]   every point that FILE does not have yet
    python bench/scaling.py --plot                            docs/images/scaling_time.png and scaling_memory.png
    python bench/scaling.py --quick                           two points a curve: exponents only, nothing kept

Every point runs a stage as the pipeline calls it (bench/limit.py: parts, settings) in a forked process of its own: CPU
seconds of the stage's parts, the process's peak memory less what it held before. An exponent is the slope of a
least-squares line through the logarithms: 1 is proportional.

    demonstrations  what grows with a corpus ahead of the first step: decontamination, reading and tokenising (of
                    E-step and annotation), the M-step's preparations. A step itself does not depend on it.
    model           the demo's model made wider with zeros: the same function, so the same texts at every size; its
                    parameters are the axis
    group           G of the E-step and of RLVR
    length          tokens: of a demonstration (several joined) for M-step, E-step, annotation; of a completion for
                    RLVR (drawn at a temperature at which programs hardly end)

One run a point. Time at these sizes is that of one core and float32; what it says of a large model is in
docs/performance.md.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import CHECKOUT, Figure, finish, options
from limit import inputs, settings, stages, timed
from setting import BASE, data, demo

# isort: split
import datasets
import numpy
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from ra3core.config import CorpusConfig, RunConfig
from ra3core.corpora.demonstrations import (
    Annotated,
    Demonstration,
    annotate,
    read_annotated,
    read_demonstrations,
    write_annotated,
    write_demonstrations,
)
from ra3core.corpora.prepare import prepare_demonstrations
from ra3core.learning.m_step import m_step
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_model, load_tokenizer, save_model
from ra3core.stage import Context, StageLog

RESULTS = CHECKOUT / ".cache" / "bench" / "scaling.json"
IMAGES = CHECKOUT / "docs" / "images"
VALUES = {
    "demonstrations": (2000, 4000, 8000, 16000, 32000),
    "model": (128, 192, 256, 384, 512),  # hidden size
    "group": (2, 4, 8, 16, 32),
    "length": (1, 2, 4, 8),  # demonstrations joined into one
}
QUICK = {"demonstrations": (2000, 8000), "model": (128, 256), "group": (4, 16), "length": (1, 4)}
STAGES = {
    "demonstrations": ("decontamination", "read and tokenise", "m_step, ahead of its first step"),
    "model": ("m_step", "e_step", "annotation", "rlvr"),
    "group": ("e_step", "rlvr"),
    "length": ("m_step", "e_step", "annotation", "rlvr"),
}
AXES = {
    "demonstrations": "demonstrations",
    "model": "parameters",
    "group": "rollouts a group, G",
    "length": "tokens of a sequence",
}
FEW = 32  # demonstrations of a point whose axis is another
COMPLETION = 64  # tokens of a completion of RLVR, times the value of `length`

Point = dict[str, Any]
"""axis, stage, value, x (where it lies on the axis), seconds (part -> CPU seconds), bytes (peak memory)."""


class _Enough(Exception):
    """The stage has done what is measured."""


# -- one point ---------------------------------------------------------------------------------------------------------


def measure(axis: str, stage: str, value: int, folder: Path) -> Point:
    """The point, in this process. folder: what `prepare` made."""
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.manual_seed(0)
    x, seconds = (corpus_point if axis == "demonstrations" else stage_point)(axis, stage, value, folder)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun)
    return {"axis": axis, "stage": stage, "value": value, "x": x, "seconds": seconds, "bytes": grown}


def corpus_point(axis: str, stage: str, value: int, folder: Path) -> tuple[float, dict[str, float]]:
    """What grows with the number of demonstrations."""
    corpus = folder / f"corpus-{value}"
    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        context = Context({"data": corpus, "model": BASE, "demonstrations": corpus}, Path(place), Path(place))
        if stage == "decontamination":
            prepare_demonstrations(CorpusConfig(demonstrations=value, pool=value), context)
        elif stage == "read and tokenise":
            lines = LineTokenizer(load_tokenizer(BASE / "model"))
            kept = [lines.demonstration(d) for d in read_demonstrations(corpus / "demonstrations.parquet")]
            assert len(kept) == value
        else:
            context.log = StageLog(sink=_stop_at_the_first_step)
            with contextlib.suppress(_Enough):
                m_step(demo().m_step, context)
    return value, {stage: time.process_time() - began}


def _stop_at_the_first_step(event: Mapping[str, Any]) -> None:
    if event["event"] == "progress":  # of no step yet
        raise _Enough


def stage_point(axis: str, stage: str, value: int, folder: Path) -> tuple[float, dict[str, float]]:
    """A stage with one thing larger."""
    config, model = small(settings()), folder / "model-128"
    place = folder / "length-1"
    x: float = value
    if axis == "model":
        model = folder / f"model-{value}"
        x = sum(p.numel() for p in load_model(model / "model").parameters())
    elif axis == "group":
        config = _with(config, e_step={"group_size": value}, rlvr={"group_size": value})
    elif stage == "rlvr":
        x = COMPLETION * value
        config = _with(config, rlvr={"max_new_tokens": COMPLETION * value, "temperature": 5.0})
    else:
        place = folder / f"length-{value}"
        x = _mean_tokens(place / "few" / "demonstrations.parquet")
    run, parts = stages(place, config, model)[stage]
    timed(run, parts)
    return x, {part.label: part.seconds[-1] for part in parts if "log" not in part.label}


def small(config: RunConfig) -> RunConfig:
    """Work of seconds: 8 M-steps (they end with a checkpoint), an RLVR step of 6 prompts; no length is too long."""
    return _with(config, m_step={"epochs": 4, "max_tokens": 10**6}, rlvr={"prompts": 6, "max_new_tokens": 128})


def _with(config: RunConfig, **changes: Mapping[str, Any]) -> RunConfig:
    sections = {name: getattr(config, name).model_copy(update=dict(values)) for name, values in changes.items()}
    return config.model_copy(update=sections)


def _mean_tokens(file: Path) -> float:
    lines = LineTokenizer(load_tokenizer(BASE / "model"))
    sizes = [len(lines.demonstration(d).tokens()) for d in read_demonstrations(file)]
    return sum(sizes) / len(sizes)


# -- what the points are made of ---------------------------------------------------------------------------------------


def prepare(axis: str, values: Sequence[int], folder: Path) -> None:
    """Corpora, joined demonstrations, and a policy that writes rationales at every width."""
    if axis == "demonstrations":
        whole = data(folder / "whole", max(values))
        demonstrations = read_demonstrations(whole / "demonstrations.parquet")
        for value in values:
            (folder / f"corpus-{value}").mkdir()
            write_demonstrations(demonstrations[:value], folder / f"corpus-{value}" / "demonstrations.parquet")
            os.link(whole / "evaluation_tasks.parquet", folder / f"corpus-{value}" / "evaluation_tasks.parquet")
        return
    (folder / "start").mkdir()
    inputs(folder / "start")
    stages(folder / "start", settings())["m_step"][0]()
    policy = load_model(folder / "start" / "made" / "m_step" / "model")
    for width in values if axis == "model" else (128,):
        save_model(widened(policy, width), load_tokenizer(BASE / "model"), folder / f"model-{width}" / "model")
    for count in values if axis == "length" else (1,):
        joined_data(folder / "start", folder / f"length-{count}", count)


def joined_data(start: Path, folder: Path, count: int) -> None:
    """A copy of the data with FEW demonstrations, each `count` joined."""
    for name in ("annotated", "few"):
        (folder / name).mkdir(parents=True)
    for file in start.glob("*.parquet"):
        os.link(file, folder / file.name)
    plain = [one.demonstration for one in read_annotated(start / "annotated" / "annotated.parquet")]
    made = [joined([plain[(i + k) % len(plain)] for k in range(count)]) for i in range(FEW)]
    write_annotated(made, folder / "annotated" / "annotated.parquet")
    write_demonstrations([one.demonstration for one in made], folder / "few" / "demonstrations.parquet")


def joined(demonstrations: Sequence[Demonstration]) -> Annotated:
    """One demonstration with the lines of all of them, and their references as rationales."""
    lines: list[str] = []
    boundaries: list[int] = []
    reference: dict[int, str] = {}
    for one in demonstrations:
        boundaries += [len(lines) + t for t in one.boundaries]
        reference |= {len(lines) + t: text for t, text in one.reference.items()}
        lines += one.lines
    first = demonstrations[0]
    return annotate(Demonstration(first.id, first.prompt, tuple(lines), tuple(boundaries), reference), reference)


def widened(model: PreTrainedModel, width: int) -> PreTrainedModel:
    """The same function with `width` channels: more heads and feed-forward units, all new weights zero.

    A norm over more channels, the new ones zero, comes out larger by the root of the ratio: its weights take that back.
    """
    old = model.config.hidden_size
    wide = type(model.config).from_dict(
        {
            **model.config.to_dict(),
            "hidden_size": width,
            "norm_eps": model.config.norm_eps * old / width,
            "intermediate_size": model.config.intermediate_size * width // old,
            "num_attention_heads": model.config.num_attention_heads * width // old,
            "num_key_value_heads": model.config.num_key_value_heads * width // old,
        }
    )
    new = AutoModelForCausalLM.from_config(wide)
    source = dict(model.named_parameters())
    with torch.no_grad():
        for name, target in new.named_parameters():
            target.zero_()
            given = source[name].detach()
            parts = 3 if name.endswith("conv.in_proj.weight") else 1  # three blocks of channels, one below the other
            for into, values in zip(target.chunk(parts), given.chunk(parts), strict=True):
                if given.ndim == 1 and len(given) == old:
                    values = values * math.sqrt(old / width)
                into[tuple(slice(size) for size in values.shape)] = values
        ids = torch.arange(2, 34)[None]
        apart = float((new(input_ids=ids).logits - model(input_ids=ids).logits).abs().max())
    assert apart < 1e-2, f"widened to {width}, the model's logits differ by {apart}"
    return new


# -- all of them -------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], Any]) -> Any:
    """What `work` returns, as JSON from a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as stream:
                json.dump(work(), stream)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("a point failed, see above")
    return json.loads(text)


def points(axis: str, values: Sequence[int], known: Sequence[Point], keep: Callable[[Point], None]) -> None:
    """Every point of an axis that is not known yet, given to `keep` as it is measured."""
    have = {(p["axis"], p["stage"], p["value"]) for p in known}
    missing = [(s, v) for s in STAGES[axis] for v in values if (axis, s, v) not in have]
    if not missing:
        return
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as name:
        folder = Path(name)
        forked(lambda: prepare(axis, values, folder))
        for stage, value in missing:
            keep(forked(lambda stage=stage, value=value: measure(axis, stage, value, folder)))


def curves(found: Sequence[Point], axis: str, memory: bool) -> dict[str, tuple[list[float], list[float]]]:
    """Label -> x and y, in order: CPU seconds of each part, or bytes of each stage."""
    made: dict[str, list[tuple[float, float]]] = {}
    for point in found:
        if point["axis"] == axis:
            rows = {point["stage"]: point["bytes"]} if memory else point["seconds"]
            for label, y in rows.items():
                made.setdefault(label, []).append((point["x"], y))
    return {label: tuple(map(list, zip(*sorted(rows), strict=True))) for label, rows in made.items()}  # type: ignore[misc]


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y over log x, least squares."""
    return float(numpy.polyfit(numpy.log(x), numpy.log(y), 1)[0])


def report(found: Sequence[Point]) -> list[str]:
    """Every curve as a line: first and last point, exponent; of the last two points exponent and growth."""
    head = ("axis", "stage", "", "from", "to", "exponent", "of the last two", "each more")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for axis in VALUES:
        for memory in (False, True):
            for label, (x, y) in curves(found, axis, memory).items():
                unit, scale = ("MiB", 2**20) if memory else ("s", 1)
                growth = (y[-1] - y[-2]) / (x[-1] - x[-2])
                row = [AXES[axis], label, "memory" if memory else "time"]
                row += [f"{y[i] / scale:.3g} {unit} at {x[i]:,.0f}" for i in (0, -1)]
                row += [f"{exponent(x, y):.2f}", f"{exponent(x[-2:], y[-2:]):.2f}"]
                row.append(f"{growth:,.0f} bytes" if memory else f"{1e6 * growth:,.3g} us")
                lines.append(f"| {' | '.join(row)} |")
    return lines


def main() -> None:
    """Measure what is missing, or draw what there is."""
    parser = options(__doc__, repeats=1)
    parser.add_argument("--part", choices=VALUES, help="one axis; all by default")
    parser.add_argument("--results", type=Path, default=RESULTS, help="points measured so far")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", action="store_true", help="draw, measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    found: list[Point] = []
    if not given.quick and given.results.is_file():
        found = json.loads(given.results.read_text())

    def keep(point: Point) -> None:
        found.append(point)
        seconds = ", ".join(f"{name} {value:.2f} s" for name, value in point["seconds"].items())
        print(f"{point['axis']} {point['x']:,.0f}: {seconds}; {point['bytes'] / 2**20:.0f} MiB", flush=True)
        if not given.quick:
            given.results.parent.mkdir(parents=True, exist_ok=True)
            temporary = given.results.with_suffix(".tmp")
            temporary.write_text(json.dumps(found, indent=1) + "\n")
            temporary.replace(given.results)

    if given.plot:
        plot(found, IMAGES)
    else:
        for axis in [given.part] if given.part else VALUES:
            points(axis, (QUICK if given.quick else VALUES)[axis], found, keep)
    finish(
        [
            Figure(
                name=f"scaling/{label}, {AXES[axis]}",
                unit=f"times the CPU time for {x[-1] / x[0]:.3g} times as much",
                values=(y[-1] / y[0],),
                better="lower",
                note=f"exponent {exponent(x, y):.2f}",
            )
            for axis in VALUES
            for label, (x, y) in curves(found, axis, memory=False).items()
            if len(x) > 1
        ],
        given.json,
    )
    if not given.quick:
        print("", *report(found), sep="\n")


# -- figures -----------------------------------------------------------------------------------------------------------

LOOKS = {  # colour and marker of every curve
    "m_step": ("#0072B2", "o"),
    "m_step, ahead of its first step": ("#0072B2", "o"),
    "e_step": ("#D55E00", "s"),
    "e_step, annotate": ("#D55E00", "s"),
    "e_step, draw": ("#E69F00", "D"),
    "e_step, score": ("#8C3B00", "v"),
    "e_step, train": ("#CC79A7", "^"),
    "annotation": ("#009E73", "P"),
    "read and tokenise": ("#009E73", "P"),
    "rlvr": ("#5A5A5A", "X"),
    "rlvr, generate": ("#5A5A5A", "X"),
    "rlvr, update": ("#56B4E9", "<"),
    "decontamination": ("#CC79A7", "^"),
}


def plot(found: Sequence[Point], folder: Path) -> None:
    """scaling_time.png and scaling_memory.png: a panel an axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    for memory, name in ((False, "time"), (True, "memory")):
        figure, panels = pyplot.subplots(2, 2, figsize=(11, 8.4), layout="constrained")
        for panel, axis in zip(panels.flat, VALUES, strict=True):
            drawn = curves(found, axis, memory)
            for label in (label for label in LOOKS if label in drawn):
                (x, y), (colour, marker) = drawn[label], LOOKS[label]
                shown = [value / 2**20 for value in y] if memory else y
                text = f"{label}: {exponent(x, y):.2f}"
                panel.loglog(x, shown, color=colour, marker=marker, markersize=5, linewidth=1.4, label=text)
            panel.set_xlabel(AXES[axis])
            panel.set_ylabel("peak memory beyond the start, MiB" if memory else "CPU seconds")
            for side in (panel.xaxis, panel.yaxis):
                side.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                side.set_major_formatter(ticker.FuncFormatter(_plain))
                side.set_minor_locator(ticker.NullLocator())
            low, high = panel.get_ylim()
            panel.set_ylim(low, high * (high / low) ** 0.4)  # room for the legend
            panel.grid(color="#DDDDDD", linewidth=0.6)
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(
                title="exponent",
                loc="upper left",
                alignment="left",
                ncols=2,
                fontsize=8,
                title_fontsize=8,
                frameon=False,
            )
        figure.savefig(folder / f"scaling_{name}.png", dpi=130)
        pyplot.close(figure)


def _plain(value: float, _: int) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,g}"


if __name__ == "__main__":
    main()
