"""The texts of the benchmarks reach every corpus, and a source of the user's is collected once, from the flow down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dry import Dry

from flows.composition import outside
from ra3core.config import CollectionConfig, RunConfig, RuntimeConfig, load
from ra3core.corpora.held_out import evaluation_index
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import Problem
from ra3core.evaluation.benchmarks.humaneval import HumanEval
from tasks import external
from tasks.evaluate import asked, held_out, held_out_by


def humaneval(path: Path, **changes: Any) -> Path:
    row = {
        "task_id": "HumanEval/0",
        "prompt": "def total(xs):\n    '''Add all numbers of a list and return what they come to.'''\n",
        "entry_point": "total",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
        "canonical_solution": "    result = 0\n    for x in xs:\n        result = result + x\n    return result\n",
    }
    path.write_text(json.dumps(row | changes) + "\n")
    return path


def configured(tmp_path: Path, *overrides: str) -> RunConfig:
    file = tmp_path / "humaneval.jsonl"
    return load("demo", [f"evaluation.benchmarks=[embedded, {{name: humaneval, data: {file}}}]", *overrides])


def test_the_texts_of_the_benchmarks_reach_every_corpus(tmp_path: Path) -> None:
    humaneval(tmp_path / "humaneval.jsonl")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "def f(x):\\n    return x\\n"}\n')
    config = configured(tmp_path, f"corpus.source=jsonl:{rows}")
    dry = Dry(config, RuntimeConfig(root=tmp_path), outside("data", "of the run"), None)
    benchmarks = asked(config, tmp_path)
    dry.compose(benchmarks)
    (texts,) = held_out(benchmarks).values()
    for stage in ("corpus", "rlvr_tasks", "demonstrations", "collection"):
        assert dry.stages[f"{stage}/0"].inputs["benchmark_humaneval"].digest == texts.digest, stage
    collection, drawn = dry.stages["collection/0"], dry.stages["demonstrations/0"]
    assert drawn.inputs["collection"].digest == collection.digest
    assert isinstance(collection.config, CollectionConfig) and "demonstrations" not in collection.config.model_dump()
    assert collection.inputs["source"].digest == external.demonstrations(config.corpus.source).digest  # type: ignore[union-attr]


def test_question_and_solution_are_held_out(tmp_path: Path) -> None:
    """And they alone make the digest: other tests grade other completions, but no corpus is made anew."""
    humaneval(tmp_path / "humaneval.jsonl")
    config = configured(tmp_path)
    (before,) = held_out_by(config, tmp_path).values()
    rows = [json.loads(line) for line in (before.path / "texts.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["HumanEval/0", "HumanEval/0/solution"]
    humaneval(tmp_path / "humaneval.jsonl", test="def check(candidate):\n    assert candidate([]) == 0\n")
    assert [one.digest for one in held_out(asked(config, tmp_path)).values()] == [before.digest]
    humaneval(tmp_path / "humaneval.jsonl", canonical_solution="    return sum(xs)\n")
    (after,) = held_out_by(config, tmp_path).values()
    assert after.digest != before.digest


def test_a_solution_is_held_out_without_its_question(tmp_path: Path) -> None:
    """EvalPlus keeps the two as one program: a copy of the body alone would be less than half of it."""
    question, body = "def total(xs):\n    '''Add all numbers.'''\n", "    result = sum(xs)\n    return result"
    problem = Problem("0", question.strip() + "\n", "total", row={"reference": f"{question}\n{body}\n"})
    benchmark = HumanEval("humaneval", "", [problem])
    assert benchmark.texts() == {"0": problem.prompt, "0/solution": body}


def test_the_embedded_tasks_are_known_without_a_word(tmp_path: Path) -> None:
    assert held_out_by(load("demo"), tmp_path) == held_out(asked(load("demo"), tmp_path)) == {}
    with pytest.raises(UserError, match="no such file"):
        evaluation_index(CollectionConfig(), {"data": tmp_path})


def test_paths_of_a_source_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a-1.jsonl", "a-2.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}\n")
    assert external.absolute("jsonl:a-*.jsonl,b.jsonl") == f"jsonl:{tmp_path}/a-*.jsonl,{tmp_path}/b.jsonl"
    assert external.absolute("hub:owner/name@v1:train") == "hub:owner/name@v1:train"
    with pytest.raises(UserError, match=r"c-\*\.jsonl: no such file, expected a file, a folder, or a pattern of files"):
        external.absolute("jsonl:b.jsonl,c-*.jsonl")
