"""The real benchmark files, for tests that are skipped where RA3_BENCHMARKS does not name their folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ra3core.evaluation.benchmarks import Benchmark, Problem
from ra3core.verifier import Verifier

FOLDER = Path(os.environ.get("RA3_BENCHMARKS", ""))


def real(name: str) -> Path:
    """A file of that folder; skips the test where there is none."""
    if not os.environ.get("RA3_BENCHMARKS") or not (FOLDER / name).is_file():
        pytest.skip(f"RA3_BENCHMARKS names no folder with {name}")
    return FOLDER / name


def labelled(name: str) -> list[dict[str, Any]]:
    """Rows of a file of programs that are known to be right or wrong."""
    return [json.loads(line) for line in real(name).read_text().splitlines()]


def failing_references(verifier: Verifier, benchmark: Benchmark, problems: Sequence[Problem]) -> Mapping[str, str]:
    """What is said of the reference solutions that do not pass, or only weakly."""
    verdicts = verifier.judge(benchmark.solution(problem, problem.row["reference"]) for problem in problems)
    return {
        problem.id: f"{verdict.category}: {verdict.detail}"
        for problem, verdict in zip(problems, verdicts, strict=True)
        if not verdict.passed or verdict.weak
    }
