"""What it costs to annotate a corpus, beside one epoch of next-token prediction (NTP) on the same demonstrations.

    python bench/annotation.py [--demonstrations 240] [--repeats 3] [--json FILE]

Ours is `ra3core.learning.bootstrap` with the demo's settings: everything from reading the file and loading the models
to writing the annotated demonstrations. Left out is the gain of the first four chunks' rationales, measured for the
report: a fixed cost, of no weight in a corpus of thousands. The peer is our own M-step, one epoch over the
demonstrations as they are, nothing held out, likewise as a whole. CPU time is of one thread.

The cost depends on how often the policy thinks, so there is a row for each of three policies:

base     the demo's base model, which hardly thinks on plain demonstrations
half     the base after a short M-step on demonstrations with every other reference comment as rationale
all      the same with every reference comment: it thinks about as often as a policy trained by the demo's E-step

These two stand for E-step policies, which take minutes to train. What a rationale says costs nothing here; where it
stands and how long it is does, and both are printed. The paper (section 5) has the think penalty keep the cost near
NTP's: under 40 % of the lines, rationales under 6 tokens on average.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from figures import Figure, cpu_seconds, finish, in_turns, options  # first: it sets the number of threads
from setting import BASE, demo, demonstrations_and_tasks

import datasets  # isort: skip
import transformers  # isort: skip

from ra3core.corpora.demonstrations import Demonstration, annotate, write_annotated, write_demonstrations
from ra3core.learning import bootstrap as module
from ra3core.learning.bootstrap import bootstrap
from ra3core.learning.m_step import m_step
from ra3core.stage import Context

LESSONS = 160
"""Commented demonstrations that a policy learns to think from: others than those it annotates."""


def policy(demonstrations: Sequence[Demonstration], every: int, folder: Path) -> Path:
    """The base after an epoch on demonstrations of which each `every`-th reference comment is a rationale."""
    commented = [annotate(one, dict(list(one.reference.items())[::every])) for one in demonstrations]
    write_annotated(commented, folder / "annotated.parquet")
    config = demo().m_step.model_copy(update={"epochs": 1, "held_out": 0.0})
    m_step(config, Context({"model": BASE, "demonstrations": folder}, folder, folder / "scratch"))
    return folder


def spent(run: Callable[[Context], dict[str, Any]], inputs: dict[str, Path]) -> tuple[float, dict[str, Any]]:
    """CPU seconds of a stage, and its metrics."""
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as root:
        began = cpu_seconds()
        metrics = run(Context(inputs, Path(root, "out"), Path(root, "scratch")))
        return cpu_seconds() - began, metrics


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--demonstrations", type=int, default=240)
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    module.SCORED_CHUNKS = 0
    config, count = demo(), given.demonstrations
    ntp_config = config.m_step.model_copy(update={"epochs": 1, "held_out": 0.0})
    found, _ = demonstrations_and_tasks(count + LESSONS)
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        root = Path(folder)
        (root / "corpus").mkdir()
        write_demonstrations(found[:count], root / "corpus" / "demonstrations.parquet")
        policies = {"base": BASE}
        for name, every in (("half", 2), ("all", 1)):
            (root / name).mkdir()
            policies[name] = policy(found[count:], every, root / name)
        metrics: dict[str, dict[str, Any]] = {}

        def contender(name: str) -> Callable[[], float]:
            def run() -> float:
                inputs = {"demonstrations": root / "corpus", "likelihood": BASE}
                if name == "ntp":
                    seconds, metrics[name] = spent(
                        lambda context: m_step(ntp_config, context), inputs | {"model": BASE}
                    )
                else:
                    given_to = inputs | {"policy": policies[name]}
                    seconds, metrics[name] = spent(lambda context: bootstrap(config.bootstrap, context), given_to)
                return 1000 * seconds / count

            return run

        values = in_turns({name: contender(name) for name in ("ntp", *policies)}, given.repeats)
    figures = []
    trained = metrics["ntp"]["train_tokens"]
    for name in policies:
        one = metrics[name]
        thinks = f"{one['thinks_per_demonstration']:.2f} rationales a demonstration"
        if one["thinks_per_demonstration"]:
            thinks += f" at {100 * one['annotated_lines']:.0f} % of lines, of {one['rationale_tokens']:.1f} tokens"
        peer = ("NTP epoch", values["ntp"], thinks)
        figures += [
            Figure(f"annotation/CPU a demonstration, {name}", "ms", values[name], "lower", *peer),
            Figure(
                f"annotation/tokens run a demonstration, {name}",
                "tokens",
                (one["tokens"] / count,),
                "lower",
                "NTP epoch",
                (trained / count,),
                "an NTP token is run forward and backward",
            ),
            Figure(
                f"annotation/tokens run, {name}",
                "tokens/CPU s",
                tuple(1000 * one["tokens"] / count / value for value in values[name]),
                "higher",
                "NTP epoch",
                tuple(1000 * trained / count / value for value in values["ntp"]),
            ),
            Figure(
                f"annotation/demonstrations, {name}", "1/CPU s", tuple(1000 / value for value in values[name]), "higher"
            ),
        ]
    finish(figures, given.json)


if __name__ == "__main__":
    main()
