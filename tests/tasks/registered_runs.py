"""Runs with a tiny real model and invented results, for the registry's tests: artifacts as the pipeline's stages leave
them, in a store, with manifests that name their inputs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ra3core.artifacts import Artifact, Store
from ra3core.config import RunConfig, RuntimeConfig, Section
from ra3core.stage import Context, Metrics
from tasks.display import Display
from tasks.session import Session
from tasks.tracking import Tracking

NAME = "ra3-test"
PROMPT = "def f(xs):\n"


class Wanted(Section):
    """Files to write, and for a model the seed of its weights."""

    files: dict[str, str] = Field(default={})
    weights: int | None = None


class Evaluated(Section):
    """What stands in the manifest of an evaluation, and what it found: task -> [n, c] when decoding free."""

    benchmark: str = "embedded"
    limit: int | None = None
    samples: int = 4
    temperature: float = 0.5
    top_p: float = 1.0
    max_new_tokens: int = 320
    k: list[int] = Field(default=[1])
    modes: list[str] = Field(default=["free"])
    verifier: dict[str, Any] = Field(default={})
    counts: dict[str, list[int]] = Field(default={})


def write(config: Wanted, context: Context) -> Metrics:
    for name, text in config.files.items():
        (context.out / name).write_text(text)
    if config.weights is not None:
        save_tiny_model(context.out / "model", config.weights)
    return {"tokens": 10}


def evaluation(config: Evaluated, context: Context) -> Metrics:
    samples = [
        {"task_id": task, "steps": 2, "mode": "free", "completion": "    return xs", "passed": i < c, "category": "x"}
        for task, (n, c) in config.counts.items()
        for i in range(n)
    ]
    (context.out / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (context.out / "results.json").write_text(json.dumps({"per_task": {"free": config.counts}}))
    return {}


def save_tiny_model(folder: Path, seed: int) -> None:
    """A random Lfm2 of a few thousand parameters with its tokenizer."""
    import torch
    from transformers import Lfm2Config, Lfm2ForCausalLM

    from ra3core.lm.models import save_model
    from ra3core.lm.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([PROMPT + "    # keep\n    return [x for x in xs if x > 0]\n"] * 3, min_count=2)
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_model(Lfm2ForCausalLM(config).eval(), tokenizer, folder)


def passed(rates: Sequence[int], n: int = 4) -> dict[str, list[int]]:
    """Task -> [n, c], a task each of `rates`."""
    return {f"eval-2-{i:04d}": [n, c] for i, c in enumerate(rates)}


class World:
    """A checkout's root with a store of artifacts and an MLflow database."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "artifacts")
        self.uri = f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
        self.report = Store.external("report", root, "r" * 64)

    def run(
        self, weights: int, counts: Mapping[str, list[int]], data: str = "data-a", **settings: Any
    ) -> dict[str, Artifact]:
        """The artifacts of a run whose final model has these weights and results. settings: of its evaluation."""
        (self.root / "data").mkdir(exist_ok=True)
        made = {"data": Store.external("data", self.root / "data", data)}

        def put(name: str, config: BaseModel, function: Any = write, **inputs: Artifact) -> Artifact:
            made[f"{name}/0"], _ = self.store.build(name.partition("_")[0], function, config, inputs)
            return made[f"{name}/0"]

        removed = {"corpora": {"demonstrations": {"documents": 100, "removed": 7}}}
        shown = put("demonstrations", Wanted(files={"decontamination.json": json.dumps(removed)}), data=made["data"])
        base = put("base", Wanted(files={"base": "0"}))
        trained = put("m_step_1", Wanted(files={"m_step": "1"}), model=base, demonstrations=shown)
        final = put("ra3_rlvr", Wanted(weights=weights), model=trained)
        tasks = made["data"]
        put("evaluate_base", Evaluated(counts=passed([0] * len(counts))), evaluation, model=base, tasks=tasks)
        put("evaluate_ra3_rlvr", Evaluated(counts=dict(counts), **settings), evaluation, model=final, tasks=tasks)
        return made

    @contextmanager
    def session(self, evaluation: Mapping[str, Any] | None = None, **registry: Any) -> Iterator[Session]:
        """A pipeline run of its own; evaluation, registry: its sections."""
        values: dict[str, Any] = {"name": "test", "evaluation": {**(evaluation or {})}}
        values["registry"] = {"model": NAME, "resamples": 2000, **registry}
        config = RunConfig.model_validate(values)
        with Display(io.StringIO()) as display:
            session = Session(config, RuntimeConfig(root=self.root), Tracking(self.root), display)
            with session:
                session.tracking.start("test", {}, {"preset": "test"}, "name: test\n")
                yield session
                session.tracking.fail("stop")
