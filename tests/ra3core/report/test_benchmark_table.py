"""Benchmarks beside the embedded suite: a table of their own, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.console import Console

from flows.results import headline
from ra3core.config import ReportConfig
from ra3core.report import tables, terminal
from ra3core.report.inputs import load
from ra3core.report.report import report
from ra3core.report.scores import benchmarks
from ra3core.stage import Context, Metrics

Inputs = dict[str, Path]

ARMS = {"base": 2, "ntp": 6, "ra3": 18}  # of 20 tasks
VARIANTS = {"humaneval": "zero-shot, 20 tasks", "mbpp-plus:x": "zero-shot, 20 tasks with further tests"}


@pytest.fixture
def with_benchmarks(artifacts: Callable[..., Inputs]) -> Inputs:
    """Two seeds of the pipeline with two more benchmarks, for three arms."""
    inputs = artifacts(seeds=(0, 1), tasks=5)
    return inputs | others(next(iter(inputs.values())).parent.parent)


def others(root: Path) -> Inputs:
    inputs = {}
    for name, variant in VARIANTS.items():
        for seed in (0, 1):
            for arm, right in ARMS.items():
                folder = root / "evaluate" / f"{arm}-{name}-{seed}".replace(":", "-")
                folder.mkdir(parents=True)
                counts = {f"t{i}": [1, int(i < right)] for i in range(20)}
                results = {"benchmark": name, "variant": variant, "per_task": {"free": counts}}
                if "plus" in name:
                    results["per_task_base"] = {"free": {f"t{i}": [1, 1] for i in range(20)}}
                (folder / "results.json").write_text(json.dumps(results))
                sample = {"task_id": "t0", "steps": 0, "mode": "free", "completion": "", "category": "passed"}
                (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
                (folder / "manifest.json").write_text(json.dumps(manifest(seed)))
                inputs[f"evaluate_{arm}:{name.replace(':', '-')}/{seed}"] = folder
    return inputs


def manifest(seed: int) -> Mapping[str, object]:
    config = {"k": [1]}
    digests = {"key": "0" * 64, "code": "c" * 64, "digest": "1" * 64, "inputs": {}, "files": {}, "metrics": {}}
    times = {"seconds": 1.0, "created": "2025-11-21T08:10:00.000+00:00"}
    return {"stage": "evaluate", "seed": seed, "config": config, **digests, **times}


def render(inputs: Inputs, out: Path) -> Metrics:
    out.mkdir()
    return report(ReportConfig(resamples=200), Context(inputs, out, out / "scratch"))


def test_a_table_of_arms_and_benchmarks(with_benchmarks: Inputs) -> None:
    table = tables.benchmarks(benchmarks(load(with_benchmarks), 200))
    assert table.columns == ("Arm", "humaneval pass@1", "mbpp-plus:x base pass@1", "mbpp-plus:x pass@1")
    found = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in table.rows}
    assert found == {
        "Base model": ["10.0", "100.0", "10.0"],
        "NTP, data-matched": ["30.0", "100.0", "30.0"],
        "RA3": ["90.0", "100.0", "90.0"],
    }
    assert {row.cells[0].text: row.cells[1].mark for row in table.rows}["RA3"] == "▲"
    assert all(row.cells[1].detail.startswith("[") for row in table.rows)
    for variant in VARIANTS.values():
        assert variant in table.caption


def test_the_page_the_markdown_and_the_terminal_show_it(with_benchmarks: Inputs, tmp_path: Path) -> None:
    metrics = render(with_benchmarks, tmp_path / "out")
    for file in ("report.html", "report.md"):
        text = (tmp_path / "out" / file).read_text()
        assert "Other benchmarks" in text and "zero-shot, 20 tasks with further tests" in text
        assert "Evaluation on mbpp-plus-x: RA3" in text
    console = Console(width=120)
    with console.capture() as capture:
        console.print(terminal.render(json.loads(json.dumps(metrics))))
    shown = capture.get()
    assert "humaneval (zero-shot, 20 tasks)" in shown
    assert "90.0 [" in shown


def test_the_main_results_are_the_embedded_suites(with_benchmarks: Inputs, tmp_path: Path) -> None:
    alone = {name: folder for name, folder in with_benchmarks.items() if ":" not in name}
    both, one = render(with_benchmarks, tmp_path / "both"), render(alone, tmp_path / "one")
    for part in ("results", "by_steps", "differences"):
        assert both[part] == one[part]
    assert one["benchmarks"] == {}


def test_metrics_of_a_benchmark_sort_together(with_benchmarks: Inputs, tmp_path: Path) -> None:
    flat = headline(render(with_benchmarks, tmp_path / "out"))
    assert flat["humaneval/pass_at_1/ra3"] == 0.9
    assert flat["mbpp-plus-x/base_pass_at_1/ra3"] == 1.0
    assert flat["humaneval/pass_at_1_low/ra3"] <= 0.9 <= flat["humaneval/pass_at_1_high/ra3"]
    assert "pass_at_1/ra3/free/all" in flat


def test_without_the_embedded_suite_there_is_the_table_and_no_claim(tmp_path: Path) -> None:
    metrics = render(others(tmp_path / "artifacts"), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "were evaluated on the embedded suite, so that nothing is claimed" in page
    assert "humaneval pass@1" in page
    assert "No model was evaluated" not in page
    assert metrics["results"] == {}
    console = Console(width=120)
    with console.capture() as capture:
        console.print(terminal.render(metrics))
    assert capture.get().startswith("humaneval (zero-shot")
