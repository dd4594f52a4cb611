"""Artifacts of a pipeline run with the shapes and magnitudes of a real one, but invented numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STEPS = (2, 3, 4, 5)
HARDER = {2: 1.0, 3: 0.8, 4: 0.55, 5: 0.2}
RATES = {
    # arm: pass rate on the easiest tasks, decoding free, comments banned, first comment forced
    "base": (0.42, 0.36, 0.62),
    "ntp": (0.55, 0.54, 0.58),
    "ntp_compute": (0.56, 0.55, 0.57),
    "ra3_no_rl": (0.78, 0.40, 0.80),
    "ra3": (0.86, 0.42, 0.87),
    "ntp_rlvr": (0.61, 0.60, 0.60),
    "ra3_rlvr": (0.93, 0.45, 0.93),
}
CONTROLS = {
    "ntp_flops": (0.56, 0.55, 0.57),
    "no_thinking": (0.55, 0.54, 0.58),
    "shuffled": (0.50, 0.41, 0.52),
    "distilled": (0.74, 0.40, 0.76),
    "brite": (0.70, 0.41, 0.72),
    "best_of_g": (0.77, 0.40, 0.79),
    "ra3_sampled": (0.76, 0.40, 0.79),
}
"""Further arms, of runs with `controls`; each has RLVR as well."""
BEFORE = '''def f(xs):
    """Steps: A) keep only the numbers above 1; D) sort in rising order. Run A, then D."""
    kept = []
    for x in xs:
        if x > 1:
            kept.append(x)
    out = sorted(kept)
    return out
'''
AFTER = '''def f(xs):
    """Steps: A) keep only the numbers above 1; D) sort in rising order. Run A, then D."""
    # A) keep only the numbers above 1
    kept = []
    for x in xs:
        if x > 1:
            kept.append(x)
    # D) sort in rising order
    out = sorted(kept)
    return out
'''


@dataclass
class Recipe:
    """What to invent. rates: arm -> (free, banned, forced). missing: stages (an arm's evaluation goes with it)."""

    seeds: Sequence[int] = (0, 1, 2)
    rates: Mapping[str, tuple[float, float, float]] = field(default_factory=lambda: dict(RATES))
    missing: Iterable[str] = ()
    rounds: int = 1
    tasks: int = 40  # per number of steps
    seed_spread: float = 0.02
    samples: int = 4  # per task
    controls: bool = False


@pytest.fixture(scope="session")
def write_artifacts() -> Callable[..., dict[str, Path]]:
    """Call it with a folder and a Recipe's fields; returns Context.inputs."""
    return lambda folder, **options: write_run(folder / "artifacts", Recipe(**options))


@pytest.fixture
def artifacts(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Call it with a Recipe's fields; returns Context.inputs."""
    return lambda **options: write_run(tmp_path / "artifacts", Recipe(**options))


@pytest.fixture
def add_artifact() -> Callable[..., Path]:
    """`write_artifact`, for stages that a Recipe does not know."""
    return write_artifact


def write_run(root: Path, recipe: Recipe) -> dict[str, Path]:
    """Write every stage of every seed below `root`."""
    inputs: dict[str, Path] = {}
    last = f"m_step_{recipe.rounds}"
    for seed in recipe.seeds:
        rng = np.random.default_rng(seed)
        shift = rng.normal(0, recipe.seed_spread)

        def put(
            stage: str,
            seconds: float,
            config: dict[str, Any],
            metrics: dict[str, Any],
            files: Mapping[str, str],
            **parents: str,
        ) -> None:
            if stage not in recipe.missing:
                digests = {role: digest_of(parent, seed) for role, parent in parents.items()}  # noqa: B023
                folder = write_artifact(root, stage, seed, seconds, config, metrics, files, digests)  # noqa: B023
                inputs[f"{stage}/{seed}"] = folder  # noqa: B023

        def put_m_step(
            stage: str, seconds: float, tokens: int, code: float, nats: float, rationale: float, on: str
        ) -> None:
            config, metrics = {"epochs": 2}, _tokens(tokens) | _held_out(rng, code, nats)  # noqa: B023
            files = {"metrics.jsonl": _m_step(rng, code, nats, rationale, tokens)}  # noqa: B023
            put(stage, seconds, config, metrics, files, model="base", demonstrations=on)

        def put_rlvr(stage: str, seconds: float, start: float, end: float, think: float, model: str) -> None:
            files = {"metrics.jsonl": _rlvr(rng, start, end, think)}  # noqa: B023
            put(stage, seconds, {"steps": 40}, _tokens(1_900_000, 700_000), files, model=model, tasks="rlvr_tasks")

        counts = {"documents": 24000, "removed": 41, "largest_overlap_kept": 0.4, "overlap_histogram": [1, 2]}
        checked = {
            **counts,
            "removed_by": {"prompt": 1, "plan": 30, "overlap": 10},
            "examples": [{"task": "eval-2-0000"}],
        }
        rule = {"ngram": 13, "max_overlap": 0.5}
        both = {"rule": rule, "corpora": {"web": checked, "outlines": checked}}
        put("corpus", 2.1, {"source": "embedded"}, {"removed": 82}, {"decontamination.json": json.dumps(both)})
        for stage in ("demonstrations", "rlvr_tasks"):
            content = {"rule": rule, "corpora": {stage: checked}}
            put(stage, 2.1, {"source": "embedded"}, {"removed": 41}, {"decontamination.json": json.dumps(content)})
        put("base", 262.0, {"model": None}, _tokens(7_400_000) | {"parameters": 421_376}, {}, corpus="corpus")
        put_m_step("ntp", 41.0, 812_000, 0.132, 21.0, 0.0, "demonstrations")
        put_m_step("ntp_compute", 131.0, 2_610_000, 0.131, 20.9, 0.0, "demonstrations")
        for r in range(1, recipe.rounds + 1):
            put(
                f"e_step_{r}",
                57.0,
                {"think_penalty": 0.3},
                _tokens(1_050_000, 310_000) | {"elbo_before": _elbo(-31.0, 1.2), "elbo_after": _elbo(-27.5, 2.4)},
                {"metrics.jsonl": _e_step(rng)},
            )
            examples = [{"id": f"demo-{i:05d}", "before": BEFORE, "after": AFTER} for i in range(4)]
            put(
                f"bootstrap_{r}",
                31.0,
                {"samples": 1},
                _tokens(640_000, 0) | _annotation(1.4),
                {"examples.json": json.dumps(examples)},
            )
            put_m_step(f"m_step_{r}", 52.0, 950_000, 0.119, 20.5, 0.31, f"bootstrap_{r}")
        put("bootstrap_no_rl", 30.0, {"samples": 1}, _tokens(640_000, 0) | _annotation(0.9), {})
        put_m_step("ra3_no_rl", 51.0, 930_000, 0.124, 20.8, 0.35, "bootstrap_no_rl")
        put_rlvr("ntp_rlvr", 92.0, 0.27, 0.33, 0.01, "ntp")
        put_rlvr("ra3_rlvr", 108.0, 0.52, 0.61, 0.21, last)
        rates_of = dict(recipe.rates)
        for arm, rates in CONTROLS.items() if recipe.controls else ():
            put_m_step(arm, 50.0, 940_000, 0.128, 20.9, 0.3, "demonstrations")
            put_rlvr(f"{arm}_rlvr", 95.0, rates[0] / 2, rates[0] / 2 + 0.1, 0.1, arm)
            rates_of |= {arm: rates, f"{arm}_rlvr": tuple(min(1.0, rate + 0.06) for rate in rates)}
        if recipe.controls and seed == recipe.seeds[0]:
            for arm, chosen in (("ntp", 0.001), ("ra3", 0.002)):
                grid = {"0.001": 0.31 if chosen == 0.001 else 0.4, "0.002": 0.29 if chosen == 0.001 else 0.45}
                metrics = {"chosen": chosen, "pass_at_1": max(grid.values()), "grid": grid}
                put(f"tune_{arm}", 0.1, {"setting": "m_step.learning_rate"}, metrics, {})
            grid = {"chosen": 0.0001, "pass_at_1": 0.5, "grid": {"0.0001": 0.5, "0.001": 0.4}}
            put("tune_ra3_e_step", 0.1, {"setting": "e_step.learning_rate"}, grid, {})
        for arm, rates in rates_of.items():
            model = last if arm == "ra3" else arm
            if model not in recipe.missing:
                put(
                    f"evaluate_{arm}",
                    11.0,
                    {"k": [1, 4], "samples": recipe.samples},
                    _tokens(210_000, 0),
                    _evaluation(rng, rates, shift, recipe.tasks, recipe.samples),
                )
    return inputs


def write_artifact(
    root: Path,
    stage: str,
    seed: int,
    seconds: float,
    config: dict[str, Any],
    metrics: dict[str, Any],
    files: Mapping[str, str],
    inputs: Mapping[str, str] | None = None,
) -> Path:
    """One artifact folder with its manifest; `inputs`: role -> digest."""
    folder = root / stage / str(seed)
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    digest = digest_of(stage, seed)
    manifest = {
        "stage": stage,
        "key": digest[::-1],
        "seed": seed,
        "config": config,
        "inputs": dict(inputs or {}),
        "code": "c" * 64,
        "files": {},
        "metrics": metrics,
        "seconds": seconds + seed,
        "created": f"2025-11-21T08:{10 + seed:02d}:00.000+00:00",
        "digest": digest,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def digest_of(stage: str, seed: int) -> str:
    """What stands for an artifact's content."""
    return hashlib.sha256(f"{stage}/{seed}".encode()).hexdigest()


def _held_out(rng: np.random.Generator, code: float, nats: float) -> dict[str, float]:
    """The M-step's final figures."""
    return {
        "held_out_code": code + rng.normal(0, 0.0015),
        "held_out": code + rng.normal(0, 0.0015),
        "held_out_nats": nats + rng.normal(0, 0.2),
    }


def _tokens(tokens: int, trained: int | None = None) -> dict[str, float]:
    return {"tokens": tokens, "train_tokens": tokens if trained is None else trained, "peak_memory_mb": 742.0}


def _elbo(reconstruction: float, thinks: float) -> dict[str, float]:
    terms = {"reconstruction": reconstruction, "think_cost": 0.3 * thinks, "elbo": reconstruction - 0.3 * thinks}
    return terms | {"bernoulli_kl": 4.1, "rationale_nats": 2.2, "thinks_per_demonstration": thinks}


def _annotation(gain: float) -> dict[str, float]:
    figures = {"annotated_lines": 0.19, "thinks_per_demonstration": 2.4, "rationale_tokens": 8.1, "segment_lines": 4.6}
    return figures | {"gain": gain, "unterminated": 0.01, "references": 900, "matches_reference": 0.83}


def _rows(rows: Iterable[Mapping[str, float]]) -> str:
    return "".join(json.dumps(dict(row)) + "\n" for row in rows)


def _e_step(rng: np.random.Generator) -> str:
    rise = 1 - np.exp(-np.arange(100) / 18)
    return _rows(
        {
            "step": i,
            "reward": -6.4 + 1.7 * r + rng.normal(0, 0.35),
            "gain": 0.3 + 1.4 * r + rng.normal(0, 0.25),
            "think_rate": 0.06 + 0.13 * r + rng.normal(0, 0.012),
            "rationale_tokens": 6 + 3 * r + rng.normal(0, 0.3),
            "segment_lines": 9 - 4.2 * r + rng.normal(0, 0.3),
            "entropy": 0.8 - 0.35 * r + rng.normal(0, 0.03),
        }
        for i, r in enumerate(rise)
    )


def _m_step(rng: np.random.Generator, code: float, nats: float, rationale: float, tokens: int) -> str:
    steps = tokens // 4500
    rows = []
    for step in range(steps + 1):
        row = {"step": step, "tokens": step * 4500, "train_loss": 0.2}
        if step % max(1, steps // 10) == 0:
            fall = np.exp(-step / 45)
            row |= {"held_out_code": code + 0.09 * fall + rng.normal(0, 0.0015)}
            row |= {"held_out": code + 0.09 * fall + rng.normal(0, 0.0015)}
            row |= {"held_out_nats": nats + 9 * fall + rng.normal(0, 0.2)}
            if rationale:
                row |= {"held_out_rationale": rationale + 0.4 * fall}
        rows.append(row)
    return _rows(rows)


def _rlvr(rng: np.random.Generator, start: float, end: float, think: float) -> str:
    rows = []
    for step in range(1, 41):
        share = step / 40
        row = {"step": step, "reward": start + (end - start) * share + rng.normal(0, 0.035), "seconds": 3.0}
        row |= {"think_rate": 12 * max(0.0, think * (1 + 0.2 * share) + rng.normal(0, 0.004))}
        if step % 10 == 0:
            row |= {"held_out_pass": start + (end - start) * share + rng.normal(0, 0.015)}
        rows.append(row)
    return _rows(rows)


def _evaluation(
    rng: np.random.Generator, rates: Sequence[float], shift: float, tasks: int, samples_each: int
) -> dict[str, str]:
    """results.json and samples.jsonl; how hard a task is does not depend on arm or seed."""
    hardness = np.random.default_rng(7).normal(0, 0.12, size=(len(STEPS), tasks))
    per_task: dict[str, dict[str, list[int]]] = {}
    samples = []
    for mode, rate in zip(("free", "banned", "forced"), rates, strict=True):
        per_task[mode] = {}
        for row, steps in enumerate(STEPS):
            for i in range(tasks):
                task = f"eval-{steps}-{i:04d}"
                chance = float(np.clip(rate * HARDER[steps] + (shift + hardness[row, i]) * (0 < rate < 1), 0, 1))
                passed = rng.random(samples_each) < chance
                per_task[mode][task] = [samples_each, int(passed.sum())]
                for ok in passed:
                    completion = "    # A) keep\n    return xs" if rate > 0.7 and mode != "banned" else "    return xs"
                    category = "passed" if ok else str(rng.choice(["wrong_answer", "wrong_answer", "error", "syntax"]))
                    samples.append(
                        {"task_id": task, "steps": steps, "mode": mode, "completion": completion}
                        | {"passed": bool(ok), "category": category}
                    )
    return {"results.json": json.dumps({"per_task": per_task}), "samples.jsonl": _rows(samples)}
