"""What holds for every benchmark: names, the files that rows come from, the embedded suite."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Task, Test, write_tasks
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import humaneval, humaneval_plus, mbpp, mbpp_plus
from ra3core.evaluation.benchmarks.files import read_hub, read_jsonl, read_rows, unique
from ra3core.verifier import Verifier

FIELDS = {"name": str, "count": int, "share": float, "tests": list}
ROW = {"name": "a", "count": 1, "share": 0, "tests": []}


@pytest.mark.parametrize("module", [humaneval, humaneval_plus, mbpp, mbpp_plus])
def test_no_stop_sequence_cuts_a_comment(module: object) -> None:
    assert not any("\n#".startswith(stop) or stop.startswith("\n#") for stop in module.STOP)  # type: ignore[attr-defined]


def test_unknown_benchmarks_and_variants_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of embedded, humaneval"):
        benchmarks.load("humanevil")
    for name in ("humaneval", "humaneval+", "mbpp+", "embedded"):
        with pytest.raises(UserError, match="it has no variants"):
            benchmarks.load(f"{name}:x", tmp_path)
    with pytest.raises(UserError, match="expected one of 3-shot, sanitized, all"):
        benchmarks.load("mbpp:4-shot", tmp_path)
    with pytest.raises(UserError, match="expected the folder"):
        benchmarks.load("embedded")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz"])
def test_rows_from_every_kind_of_file(tmp_path: Path, name: str) -> None:
    rows = [ROW, {**ROW, "name": "b\u2028c"}]
    text = (
        json.dumps(rows)
        if ".json" in name[-8:] and "jsonl" not in name
        else "".join(json.dumps(row, ensure_ascii=False) + "\n\n" for row in rows)
    )
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert read_rows(tmp_path / name, FIELDS) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(ROW) + "\n{broken\n", "rows.jsonl: line 2 is not JSON"),
        (json.dumps(ROW) + "\n\n[1]\n", "line 3 is not a JSON object"),
        ("[" * 100_000 + "\n", "line 1 is not JSON"),
        (json.dumps({**ROW, "name": None}) + "\n", "line 1 has no text in field 'name'"),
        (json.dumps({**ROW, "count": True}) + "\n", "line 1 has no integer in field 'count'"),
        (json.dumps({**ROW, "share": "x"}) + "\n", "line 1 has no number in field 'share'"),
        (json.dumps({k: v for k, v in ROW.items() if k != "tests"}) + "\n", "line 1 has no list in field 'tests'"),
        ("\n", "no tasks"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(path, FIELDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("{}", "not a JSON array"), ("[1]", "row 1 is not a JSON object"), ("[]", "no tasks")],
)
def test_malformed_arrays_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(path, FIELDS)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / "none.jsonl", FIELDS)
    for content in (b"not gzip", gzip.compress(b"x" * 999)[:20], gzip.compress(b"\xff")):
        (tmp_path / "rows.jsonl.gz").write_bytes(content)
        with pytest.raises(UserError, match="not a readable file"):
            list(read_jsonl(tmp_path / "rows.jsonl.gz", ["name"]))
    with pytest.raises(UserError, match="'a' occurs twice"):
        unique(["a", "b", "a"], "file")


def test_rows_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
        if name == "far":
            raise ConnectionError("no\nnetwork")
        assert (name, config) == ("here", "full")
        return [ROW] if split == "test" else [{**ROW, "count": "1"}]

    monkeypatch.setattr("datasets.load_dataset", loaded)
    assert read_hub("here", FIELDS, "full") == [ROW]
    with pytest.raises(UserError, match="here: train row 1 has no integer in field 'count'"):
        read_hub("here", FIELDS, "full", ("test", "train"))
    with pytest.raises(UserError, match=r"far: cannot be loaded from the hub, pass a file with --data \(no network\)"):
        read_hub("far", FIELDS)


def test_embedded_tasks_are_judged_strictly(tmp_path: Path) -> None:
    task = Task("t", 'def f(a):\n    """Add."""', "f", (Test(([1],), [2]),), steps=2)
    write_tasks([task], tmp_path / "evaluation_tasks.parquet")
    benchmark = benchmarks.load("embedded", tmp_path)
    (problem,) = benchmark.problems
    assert (problem.id, problem.steps) == ("t", 2)
    bodies = ["\n    # add one\n    return [x + 1 for x in a]\n", "\n    return [x + 1.0 for x in a]\n"]
    whole = "def f(a):\n    return [2]\n"
    with Verifier(VerifierConfig()) as verifier:
        verdicts = verifier.judge(benchmark.program(problem, body) for body in bodies)
        assert [v.passed for v in verdicts] == [True, False]
        assert verifier.judge([benchmark.solution(problem, whole)])[0].passed
