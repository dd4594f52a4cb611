"""Two processes under a real `accelerate launch` do what one does, and go on from where one has stopped.

A stage is stopped in the middle on one layout and goes on on the other; its figures, step by step, are those of a run
on one process that nobody stopped. So both halves, and the checkpoint between them, are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sharing_stages
import torch

from ra3core.config import DataConfig, Section, VerifierConfig, load
from ra3core.corpora.demonstrations import read_tasks, write_tasks
from ra3core.corpora.suite.generate import generate
from ra3core.launch import Order, run
from ra3core.lm.models import load_model
from ra3core.stage import read_metrics

ROOT = Path(__file__).resolve().parents[3]
DEMO = load("demo")
CONFIGS: dict[str, Section] = {
    "m_step": DEMO.m_step.model_copy(
        update={"epochs": 1, "batch_size": 7, "held_out": 0.1, "checkpoint_steps": 2, "learning_rate": 1e-4}
        | {"snapshots": 1}
    ),
    "e_step": DEMO.e_step.model_copy(
        update={"iterations": 4, "warmup_iterations": 1, "demonstrations": 5, "parts": 3, "checkpoint_iterations": 2}
    ),
    "rlvr": DEMO.rlvr.model_copy(
        update={
            "steps": 4,
            "prompts": 5,
            "parts": 3,
            "group_size": 4,
            "max_new_tokens": 80,
            "std_floor": 0.5,
            "kl": 0.1,
            "held_out": 3,
            "eval_every": 4,
            "checkpoint_steps": 2,
            "verifier": VerifierConfig(cpu_seconds=1),
        }
    ),
}
TOLERANCE = 1e-3  # relative; another order of summation, through four steps of AdamW


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite, small; its tasks of two steps, which the demo's base solves now and then."""
    folder = tmp_path_factory.mktemp("data")
    generate(DataConfig(web_documents=300, outlines=60, demonstrations=40, rlvr_tasks=9, evaluation_tasks=16), folder)
    tasks = [task for task in read_tasks(folder / "evaluation_tasks.parquet") if task.steps == 2]
    write_tasks(tasks, folder / "rlvr_tasks.parquet")
    return folder


def order(name: str, half: str, data: Path, folder: Path) -> Order:
    inputs = {"model": ROOT / "configs" / "base" / "0", "demonstrations": data, "tasks": data}
    config = CONFIGS[name].model_dump(mode="json")
    stage = f"sharing_stages:{half}_{name}"
    return Order(
        stage=stage, config=config, inputs=inputs, out=folder / "out", scratch=folder / "scratch", device="cpu"
    )


def in_one(work: Order) -> None:
    """Run it here; an interrupted stage just ends."""
    if "half" in work.stage:
        with pytest.raises(sharing_stages.Interrupted):
            run(work, lambda event: None)
    else:
        run(work, lambda event: None)


def in_two(work: Order) -> None:
    """Run it under accelerate launch."""
    file = work.out.parent / "order.json"
    file.parent.mkdir(exist_ok=True)
    work.write(file)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
    command += ["--config_file", str(ROOT / "configs" / "accelerate" / "cpu.yaml"), "--module", "ra3core.launch"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run([*command, str(file)], env=environment, capture_output=True, text=True)
    if "half" in work.stage:
        assert ran.returncode != 0
        assert "Interrupted" in ran.stderr
        assert not (work.out / "model").exists()
    else:
        assert ran.returncode == 0, ran.stderr


def figures(folder: Path) -> list[dict[str, float]]:
    rows = read_metrics(folder / "out" / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


def close(found: Any, expected: Any) -> None:
    assert found == pytest.approx(expected, rel=TOLERANCE, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["", "_sharded"], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_agree_and_continue_each_other(name: str, layout: str, data: Path, tmp_path: Path) -> None:
    alone, back, forth = tmp_path / "alone", tmp_path / "back", tmp_path / "forth"
    in_one(order(name, "whole", data, alone))
    in_two(order(name, f"half{layout}", data, back))
    in_one(order(name, "whole", data, back))
    in_one(order(name, "half", data, forth))
    in_two(order(name, f"whole{layout}", data, forth))
    expected = figures(alone)
    assert len({json.dumps(row) for row in expected}) == len(expected) > sharing_stages.STOP
    start = load_model(ROOT / "configs" / "base" / "0" / "model").state_dict()
    models = {file.parent.relative_to(alone) for file in alone.glob("out/**/config.json")}
    assert len(models) == (2 if name == "m_step" else 1)
    for folder in (back, forth):
        found = figures(folder)
        assert [row.keys() for row in found] == [row.keys() for row in expected]
        for row, other in zip(found, expected, strict=True):
            close(row, other)
        for place in models:
            weights = load_model(alone / place).state_dict()
            assert any(not torch.equal(weights[key], start[key]) for key in weights)
            for key, tensor in load_model(folder / place).state_dict().items():
                moved, should = tensor - start[key], weights[key] - start[key]
                assert float((moved - should).norm()) <= 0.05 * float(should.norm()) + 1e-6, (place, key)
