"""The corpus stages on a small suite with contaminated documents planted in it."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import CorpusConfig, DataConfig
from ra3core.corpora.demonstrations import (
    Demonstration,
    read_demonstrations,
    read_rows,
    read_tasks,
    write_demonstrations,
    write_rows,
    write_tasks,
)
from ra3core.corpora.draw import draw
from ra3core.corpora.prepare import prepare_corpus, prepare_demonstrations, prepare_rlvr_tasks
from ra3core.corpora.suite.generate import generate
from ra3core.errors import UserError
from ra3core.stage import Context, StageLog

SMALL = DataConfig(web_documents=300, outlines=100, demonstrations=80, rlvr_tasks=24, evaluation_tasks=5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite, with one evaluation prompt planted into each training file."""
    folder = tmp_path_factory.mktemp("data")
    generate(SMALL, folder)
    leaked = read_tasks(folder / "evaluation_tasks.parquet")[0]
    for name in ("web", "outlines"):
        rows = read_rows(folder / f"{name}.parquet")
        write_rows([*rows[:50], {"text": leaked.prompt + "\n    return a\n"}, *rows[50:]], folder / f"{name}.parquet")
    demonstrations = read_demonstrations(folder / "demonstrations.parquet")
    planted = Demonstration("leak", leaked.prompt, ("    return a",), (0,))
    write_demonstrations([planted, *demonstrations], folder / "demonstrations.parquet")
    write_tasks([*read_tasks(folder / "rlvr_tasks.parquet"), leaked], folder / "rlvr_tasks.parquet")
    return folder


def context(data: Path, out: Path, seed: int = 0) -> tuple[Context, list[str]]:
    """A stage's context and the messages it logs."""
    messages: list[str] = []

    def sink(event: dict[str, Any]) -> None:
        if event["event"] == "message":
            messages.append(event["text"])

    out.mkdir()
    return Context({"data": data}, out, out / "scratch", seed=seed, log=StageLog(sink=sink)), messages


def report(out: Path, name: str) -> dict[str, Any]:
    return json.loads((out / "decontamination.json").read_text())["corpora"][name]


def test_corpus(data: Path, tmp_path: Path) -> None:
    stage, _ = context(data, tmp_path / "out")
    metrics = prepare_corpus(CorpusConfig(), stage)
    for name, count in (("web", metrics["documents"]), ("outlines", metrics["outlines"])):
        before = Counter(row["text"] for row in read_rows(data / f"{name}.parquet"))
        after = Counter(row["text"] for row in read_rows(stage.out / f"{name}.parquet"))
        summary = report(stage.out, name)
        assert summary["removed"] >= 1 and summary["removed_by"]["prompt"] == 1
        assert after.total() == count == summary["rechecked"] == before.total() - summary["removed"]
        assert not after - before
    assert metrics["removed"] == report(stage.out, "web")["removed"] + report(stage.out, "outlines")["removed"]
    assert metrics["tokens"] > 10_000


def test_evaluation_plans_of_the_suite_never_occur(data: Path, tmp_path: Path) -> None:
    stage, _ = context(data, tmp_path / "out")
    prepare_corpus(CorpusConfig(), stage)
    rule = json.loads((stage.out / "decontamination.json").read_text())["rule"]
    assert rule["evaluation_plans"] == rule["evaluation_tasks"] == len(read_tasks(data / "evaluation_tasks.parquet"))
    for name in ("web", "outlines"):
        assert report(stage.out, name)["removed_by"]["plan"] == 0  # the planted one is found as a prompt


def test_demonstrations(data: Path, tmp_path: Path) -> None:
    drawn: dict[str, list[Demonstration]] = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        stage, messages = context(data, tmp_path / name, seed)
        metrics = prepare_demonstrations(CorpusConfig(demonstrations=30), stage)
        drawn[name] = read_demonstrations(stage.out / "demonstrations.parquet")
        assert metrics["demonstrations"] == len(drawn[name]) == 30
        assert metrics["available"] + metrics["removed"] + metrics["skipped"].get("duplicate", 0) == 81
        assert not messages and "leak" not in {d.id for d in drawn[name]}
    assert drawn["a"] == drawn["b"]
    assert (tmp_path / "a/demonstrations.parquet").read_bytes() == (tmp_path / "b/demonstrations.parquet").read_bytes()
    assert {d.id for d in drawn["a"]} != {d.id for d in drawn["c"]}
    everything = {d.id: d for d in read_demonstrations(data / "demonstrations.parquet")}
    assert all(everything[d.id] == d for d in drawn["a"])


def test_a_source_with_too_few_gives_all_it_has_and_says_so(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "a.py").write_text("".join(f"def f{i}(x):\n    # why\n    return x + {i}\n\n\n" for i in range(7)))
    stage, messages = context(data, tmp_path / "out")
    metrics = prepare_demonstrations(CorpusConfig(source=f"python:{own}"), stage)
    assert metrics["demonstrations"] == metrics["available"] == 7 and metrics["removed"] == 0
    assert "has 7 demonstrations, fewer than corpus.demonstrations = 1500" in messages[0]
    assert all(d.reference == {0: "why"} for d in read_demonstrations(stage.out / "demonstrations.parquet"))


def test_the_pool_bounds_what_is_read(data: Path, tmp_path: Path) -> None:
    stage, messages = context(data, tmp_path / "out")
    metrics = prepare_demonstrations(CorpusConfig(demonstrations=5, pool=10), stage)
    assert metrics["available"] + metrics["removed"] == 10 and "corpus.pool = 10" in messages[0]


def test_rlvr_tasks(data: Path, tmp_path: Path) -> None:
    stage, _ = context(data, tmp_path / "out")
    metrics = prepare_rlvr_tasks(CorpusConfig(), stage)
    before = read_tasks(data / "rlvr_tasks.parquet")
    after = read_tasks(stage.out / "rlvr_tasks.parquet")
    assert after == [task for task in before if task in after]
    assert len(after) == metrics["tasks"] == len(before) - metrics["removed"] and metrics["removed"] >= 1
    assert not {task.id for task in after} & {task.id for task in read_tasks(data / "evaluation_tasks.parquet")}


def test_everything_contaminated_is_an_error(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    prompt = read_tasks(data / "evaluation_tasks.parquet")[1].prompt
    file.write_text(json.dumps({"prompt": prompt, "lines": ["    return a"]}) + "\n")
    stage, _ = context(data, tmp_path / "out")
    with pytest.raises(UserError, match="every demonstration gives an evaluation task away"):
        prepare_demonstrations(CorpusConfig(source=f"jsonl:{file}"), stage)


def test_missing_data_is_one_sentence(tmp_path: Path) -> None:
    stage, _ = context(tmp_path, tmp_path / "out")
    for prepare in (prepare_corpus, prepare_demonstrations, prepare_rlvr_tasks):
        with pytest.raises(UserError, match="no such file"):
            prepare(CorpusConfig(), stage)


def test_draw_is_a_uniform_sample_that_grows() -> None:
    pool = [Demonstration(str(i), "p", ("x",), (0,)) for i in range(20)]
    assert draw(pool, 15, 3)[:5] == draw(pool, 5, 3)
    assert sorted(d.id for d in draw(pool, 100, 0)) == sorted(d.id for d in pool)
    counts = Counter(d.id for seed in range(600) for d in draw(pool, 5, seed))
    assert counts.total() == 3_000 and all(100 < n < 200 for n in counts.values())  # 150 expected, sd 10.6


def test_speed(data: Path, tmp_path: Path) -> None:
    """24,000 documents within 15 s on one core: what is measured is the CPU time of an eighth of them."""
    large = tmp_path / "large"
    large.mkdir()
    for name in ("outlines", "evaluation_tasks"):
        (large / f"{name}.parquet").write_bytes((data / f"{name}.parquet").read_bytes())
    write_rows(read_rows(data / "web.parquet") * 10, large / "web.parquet")
    stage, _ = context(large, tmp_path / "out")
    start = time.process_time()
    assert prepare_corpus(CorpusConfig(), stage)["documents"] >= 2_900
    assert time.process_time() - start < 15 / 8
