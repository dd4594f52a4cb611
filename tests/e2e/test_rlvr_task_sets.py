"""RLVR on a set of tasks with unit tests, from data to report through the command line, at toy size.

The rows are made here; with RA3_BENCHMARKS also those of the real MBPP.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ra3core.artifacts import Artifact, Store
from ra3core.config import PRESETS, load
from ra3core.lm.models import load_tokenizer

pytestmark = pytest.mark.slow

OPTIONS = (
    *("data.web_documents=400", "data.outlines=150", "data.demonstrations=80", "data.evaluation_tasks=3"),
    *("arms.mid_trained=[ntp, ra3]", "arms.rlvr=[ra3]", "arms.every_mode=[]", "arms.during=[ntp, ra3]"),
    *("m_step.snapshots=1", "rlvr_tasks.tasks=8", "rlvr.zero_variance=downsample", "registry.enabled=false"),
)
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def row(number: int, **changes: object) -> dict[str, object]:
    """A task as MBPP has it."""
    return {
        "task_id": number,
        "text": f"Write a function that adds {number} to a number.",
        "code": f"def add_{number}(x):\n    return x + {number}",
        "test_list": [f"assert add_{number}({x}) == {x + number}" for x in (0, 5)],
        "test_setup_code": "",
        **changes,
    }


ROWS = [
    *map(row, range(1, 8)),
    row(8, code="def add_8(x):\n    return x"),
    row(9, test_list=[]),
    row(10, text=row(1)["text"]),
]
"""Seven to learn from; a wrong solution, a task without a test, and a copy."""


def ra3(root: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RA3_ROOT": str(root), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    environment.pop("PREFECT_HOME", None)  # the checkout's own
    line = [str(Path(sys.executable).with_name("ra3")), "run", "--preset", "smoke"]
    line += [word for value in (*OPTIONS, *settings) for word in ("--set", value)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=1200)


def made(root: Path, kind: str) -> list[Artifact]:
    return [artifact for artifact in Store(root / "artifacts").artifacts() if artifact.stage == kind]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> Path:
    root = new_checkout(tmp_path_factory.mktemp("task_sets"), load("smoke", OPTIONS).data)
    (root / "made.jsonl").write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    return root


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept base model, with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(PRESETS / "base" / "0" / "model", folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("source", ["made", "mbpp"])
def test_from_a_set_of_tasks_to_the_report(checkout: Path, source: str) -> None:
    file = checkout / "made.jsonl"
    if source == "mbpp":
        if not os.environ.get("RA3_BENCHMARKS"):
            pytest.skip("RA3_BENCHMARKS names no folder with mbpp.jsonl.gz")
        file = Path(os.environ["RA3_BENCHMARKS"]) / "mbpp.jsonl.gz"
    done = ra3(checkout, f"rlvr_tasks.source=file:{file}")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    tasks = next(one for one in made(checkout, "rlvr_tasks") if one.manifest.config["source"] == f"file:{file.name}")
    trained = next(one for one in made(checkout, "rlvr") if one.manifest.inputs["tasks"] == tasks.digest)
    assert trained.metrics["held_out_tasks"] == 4
    text = (checkout / "reports" / "latest" / "report.md").read_text()
    if source == "made":
        assert "RLVR's tasks: 7 of the 10 rows read of `file:made.jsonl` (format mbpp), asked as a docstring" in text
        assert "left out: 1 duplicate, 1 malformed, 1 reference wrong answer." in text
    assert "Models on the way: NTP, RA3." in text
    again = ra3(checkout, f"rlvr_tasks.source=file:{file}")
    assert "\n0 stages run" in again.stdout, again.stderr


def test_a_chat_model_is_asked_in_its_own_way(checkout: Path, chat_model: Path) -> None:
    done = ra3(
        checkout,
        f"rlvr_tasks.source=file:{checkout / 'made.jsonl'}",
        "rlvr_tasks.prompt=chat",
        f"base.model={chat_model}",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "asked as a chat" in (checkout / "reports" / "latest" / "report.md").read_text()


def test_a_model_that_cannot_chat_is_refused_before_it_is_trained(checkout: Path) -> None:
    before = len(Store(checkout / "artifacts").artifacts())
    done = ra3(checkout, f"rlvr_tasks.source=file:{checkout / 'made.jsonl'}", "rlvr_tasks.prompt=chat", "seed=5")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ra3: rlvr_tasks.prompt: chat, expected docstring")
    assert len(Store(checkout / "artifacts").artifacts()) == before
