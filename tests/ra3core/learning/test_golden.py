"""Golden values: small seeded runs of every stage give the losses, rewards and texts that are kept in golden.json.

An optimisation may change the order of a summation and nothing else. Texts, counts and verdicts are compared exactly,
floats with a tolerance that another order of summation stays within and one hundredth of a learning rate does not
(both are tests below). Half of the runs are on the demo's own base model.

After a change that is meant to change results: ``RA3_GOLDEN=write pytest tests/ra3core/learning/test_golden.py`` renews
the file; its diff belongs into the same commit, with the reason. Should only a text, and what follows from it, differ
on a machine with other instructions, a draw was on the edge: the first difference is that draw, and every loss before
it still agrees. Then the change is innocent when the test passes without it on the same machine.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from ra3core.config import (
    BaseConfig,
    BenchmarkConfig,
    BootstrapConfig,
    DataConfig,
    Section,
    VerifierConfig,
    load,
)
from ra3core.corpora.demonstrations import (
    annotate,
    read_annotated,
    read_demonstrations,
    read_tasks,
    write_annotated,
    write_tasks,
)
from ra3core.corpora.suite.generate import generate
from ra3core.evaluation.evaluate import SAMPLES, evaluate
from ra3core.learning.bootstrap import bootstrap
from ra3core.learning.e_step import e_step
from ra3core.learning.m_step import m_step
from ra3core.learning.pretrain import pretrain
from ra3core.learning.rlvr import rlvr
from ra3core.lm.models import load_model
from ra3core.stage import METRICS_FILE, Context, Metrics, StageLog, read_metrics

GOLDEN = Path(__file__).with_name("golden.json")
BASE = Path(__file__).resolve().parents[3] / "configs" / "base" / "0"
RELATIVE = 2e-4  # another order of summation and other instructions change up to 5e-5
ABSOLUTE = {"trained": 1e-6}  # of how far a weight moved, which a learning rate shows in
OTHERWISE = 3e-5  # gains and losses are small differences of large log-likelihoods

DEMO = load("demo")
LIMITS = VerifierConfig(cpu_seconds=1)
PRETRAIN = BaseConfig(
    hidden_size=32, intermediate_size=64, heads=2, outline_steps=3, web_tokens=5_000, batch_size=16, warmup_steps=2
)
M_STEP = DEMO.m_step.model_copy(update={"epochs": 1, "batch_size": 8, "held_out": 0.1})
E_STEP = DEMO.e_step.model_copy(update={"iterations": 3, "warmup_iterations": 1, "demonstrations": 4})
REUSED = E_STEP.model_copy(update={"epochs": 2, "kl": 0.1, "normalise": "token", "window": 3, "rationale_tokens": 6})
BOOTSTRAP = BootstrapConfig(samples=3, batch_size=16)
RLVR = DEMO.rlvr.model_copy(
    update={"steps": 2, "prompts": 6, "group_size": 4, "held_out": 4, "eval_every": 2, "verifier": LIMITS}
)
RLVR_REUSED = RLVR.model_copy(update={"epochs": 2, "kl": 0.5, "held_out": 0})
EVALUATION = BenchmarkConfig(limit=2, samples=2, k=[1, 2], max_new_tokens=200, verifier=LIMITS)

RUNS: dict[str, tuple[Callable[[Any, Context], Metrics], Section, dict[str, str]]] = {
    "pretrain": (pretrain, PRETRAIN, {"corpus": "data"}),
    "m_step": (m_step, M_STEP, {"model": "base", "demonstrations": "data"}),
    "m_step_annotated": (m_step, M_STEP, {"model": "base", "demonstrations": "commented"}),
    "e_step": (e_step, E_STEP, {"model": "base", "demonstrations": "data"}),
    "e_step_reused": (e_step, REUSED, {"model": "thinking", "demonstrations": "data"}),
    "bootstrap": (bootstrap, BOOTSTRAP, {"policy": "thinking", "likelihood": "base", "demonstrations": "data"}),
    "rlvr": (rlvr, RLVR, {"model": "base", "tasks": "easy"}),
    "rlvr_reused": (rlvr, RLVR_REUSED, {"model": "base", "tasks": "easy"}),
    "evaluate": (evaluate, EVALUATION, {"model": "base", "tasks": "data"}),
}
"""name -> stage, its section, and its inputs' names -> folders of `inputs`."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """base: the demo's model; data: the suite, small; easy: its tasks of two steps, which the base can solve;
    commented: its demonstrations, their references as rationales; thinking: the base after an M-step on these."""
    root = tmp_path_factory.mktemp("golden")
    folders = {name: root / name for name in ("data", "easy", "commented", "thinking")} | {"base": BASE}
    config = DataConfig(web_documents=300, outlines=60, demonstrations=40, rlvr_tasks=9, evaluation_tasks=16)
    generate(config, folders["data"])
    plain = read_demonstrations(folders["data"] / "demonstrations.parquet")
    for name in ("easy", "commented", "thinking"):
        folders[name].mkdir()
    tasks = [task for task in read_tasks(folders["data"] / "evaluation_tasks.parquet") if task.steps == 2]
    write_tasks(tasks, folders["easy"] / "rlvr_tasks.parquet")
    write_annotated([annotate(d, d.reference) for d in plain], folders["commented"] / "annotated.parquet")
    given = {"model": BASE, "demonstrations": folders["commented"]}
    m_step(M_STEP.model_copy(update={"epochs": 2}), Context(given, folders["thinking"], root / "scratch"))
    return folders


def run(name: str, inputs: dict[str, Path], folder: Path, threads: int = 1, **changed: Any) -> dict[str, Any]:
    """What the stage returned, logged and wrote, times left out; `changed` replaces values of its section."""
    stage, config, names = RUNS[name]
    out = folder / "out"
    out.mkdir()
    given = {input_: inputs[of] for input_, of in names.items()}
    log = StageLog(out / METRICS_FILE)
    context = Context(given, out, folder / "scratch", threads=threads, log=log)
    found: dict[str, Any] = {"metrics": stage(config.model_copy(update=changed), context)}
    if (out / METRICS_FILE).is_file():
        found["rows"] = read_metrics(out / METRICS_FILE)
    if (out / "annotated.parquet").is_file():
        found["rationales"] = [one.rationales for one in read_annotated(out / "annotated.parquet")]
    elif (out / "examples.json").is_file():
        found["examples"] = json.loads((out / "examples.json").read_text())
    if (out / SAMPLES).is_file():
        samples = [json.loads(line) for line in (out / SAMPLES).read_text().splitlines()]
        found["samples"] = [[one[key] for key in ("task_id", "category", "tokens", "completion")] for one in samples]
    if (out / "model").is_dir():
        found["trained"] = _travelled(out / "model", given["model"] / "model" if "model" in given else None)
    return json.loads(json.dumps(_without_times(found)))


def _travelled(model: Path, start: Path | None) -> dict[str, float]:
    """How far training moved each weight matrix: the Euclidean norm of its change, from zero without a start."""
    ends = load_model(model).state_dict()
    starts = load_model(start).state_dict() if start else {}
    return {
        name: float((end.double() - starts[name].double() if start else end.double()).norm())
        for name, end in ends.items()
    }


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not str(k).endswith(("seconds", "per_second"))}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def differences(found: Any, golden: Any, place: str = "") -> Iterator[str]:
    """Where two results differ: floats by more than the tolerance, whole numbers (counts) and texts at all."""
    if isinstance(found, dict) and isinstance(golden, dict) and found.keys() == golden.keys():
        for key in golden:
            yield from differences(found[key], golden[key], f"{place}.{key}")
    elif isinstance(found, list) and isinstance(golden, list) and len(found) == len(golden):
        for index, (one, other) in enumerate(zip(found, golden, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif isinstance(found, float) and isinstance(golden, float) and (not golden.is_integer() or abs(golden) < 1):
        absolute = ABSOLUTE.get(place.split(".")[1], OTHERWISE)
        if not math.isclose(found, golden, rel_tol=RELATIVE, abs_tol=absolute):
            yield f"{place}: {found!r}, expected {golden!r}"
    elif found != golden:
        yield f"{place}: {found!r}, expected {golden!r}"


def write(golden: dict[str, dict[str, Any]]) -> None:
    """The file, a line for each row, so that a diff is readable."""

    def lines(value: Any, depth: int) -> str:
        if depth == 0 or not value or not isinstance(value, (dict, list)):
            return json.dumps(value, sort_keys=True)
        if isinstance(value, dict):
            inner = [f"{json.dumps(key)}: {lines(value[key], depth - 1)}" for key in sorted(value)]
        else:
            inner = [lines(one, depth - 1) for one in value]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        return f"{opening}\n" + ",\n".join(inner) + f"\n{closing}"

    GOLDEN.write_text(lines(golden, 3) + "\n")


def kept(name: str) -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())[name]


@pytest.mark.parametrize("name", RUNS)
def test_results_are_those_that_are_kept(name: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    found = run(name, inputs, tmp_path)
    if os.environ.get("RA3_GOLDEN") == "write":
        write({**(json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}), name: found})
    assert list(differences(found, kept(name))) == []


@pytest.mark.parametrize("name", ["m_step", "e_step"])
def test_another_order_of_summation_passes(name: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        found = run(name, inputs, tmp_path)
    assert found != kept(name)
    assert list(differences(found, kept(name))) == []


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("m_step", "learning_rate", 1.01 * M_STEP.learning_rate),
        ("e_step", "learning_rate", 1.01 * E_STEP.learning_rate),
        ("e_step", "std_floor", 1.01 * E_STEP.std_floor),
        ("e_step", "window", E_STEP.window - 1),
        ("e_step", "max_grad_norm", 0.99 * E_STEP.max_grad_norm),
        ("e_step_reused", "kl", 1.01 * REUSED.kl),
        ("bootstrap", "window", BOOTSTRAP.window - 1),
        ("rlvr", "learning_rate", 1.01 * RLVR.learning_rate),
    ],
)
def test_a_change_of_the_method_is_seen(
    name: str, setting: str, value: float, inputs: dict[str, Path], tmp_path: Path
) -> None:
    assert any(differences(run(name, inputs, tmp_path, **{setting: value}), kept(name)))
