"""The score along mid-training: which models are on whose way, and after how many tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ra3core.config import ReportConfig
from ra3core.report.inputs import load
from ra3core.report.mid_training import course, tokens_before
from ra3core.report.report import report
from ra3core.report.scores import Average, Contender
from ra3core.report.stages import stage_title
from ra3core.stage import ON_THE_WAY, Context

Inputs = dict[str, Path]


@pytest.fixture
def watched(artifacts: Callable[..., Inputs]) -> Inputs:
    """Two rounds and seeds; NTP and RA3 with a model half way through each M-step, which scores as another arm does."""
    inputs = artifacts(seeds=(0, 1), rounds=2, tasks=5)
    for seed in (0, 1):
        for stage in ("ntp", "m_step_1", "m_step_2"):
            file = inputs[f"{stage}/{seed}"] / "manifest.json"
            manifest = json.loads(file.read_text())
            manifest["metrics"][ON_THE_WAY] = {"1_of_2": manifest["metrics"]["train_tokens"] // 2 + 10 * seed}
            file.write_text(json.dumps(manifest))
        inputs[f"evaluate_ntp_at_1_of_2/{seed}"] = inputs[f"evaluate_base/{seed}"]
        inputs[f"evaluate_m_step_1_at_1_of_2/{seed}"] = inputs[f"evaluate_ntp/{seed}"]
        inputs[f"evaluate_m_step_1/{seed}"] = inputs[f"evaluate_ra3_no_rl/{seed}"]
        inputs[f"evaluate_m_step_2_at_1_of_2/{seed}"] = inputs[f"evaluate_ra3_no_rl/{seed}"]
    return inputs


def test_every_model_stands_at_the_tokens_behind_it(watched: Inputs) -> None:
    run = load(watched)
    average = Average.of(run, 50)
    base, ntp, no_rl, ra3 = (average.score(Contender(arm)) for arm in ("base", "ntp", "ra3_no_rl", "ra3"))
    found = course(run, average, "ntp")
    assert [one.tokens for one in found] == [0, 406_005, 812_000]
    assert [one.score for one in found] == [base, base, ntp]
    found = course(run, average, "ra3")
    assert [one.tokens for one in found] == [0, 475_005, 950_000, 1_425_005, 1_900_000]
    assert [one.score for one in found] == [base, ntp, no_rl, no_rl, ra3]
    assert len(course(run, average, "ntp_compute")) == 2
    assert (tokens_before(run, "ra3"), tokens_before(run, "ntp")) == (950_000, 0)
    assert course(run, average, "brite") == []


def test_the_report_says_of_whom_the_course_is_known(watched: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = report(ReportConfig(resamples=50), Context(inputs=watched, out=out, scratch=tmp_path))
    text = (out / "report.md").read_text()
    assert "Of an arm with rounds the last, after the tokens of those before it." in text  # figure 3
    assert "Models on the way: NTP, RA3. Of the other arms only models before and after" in text
    assert not any("_at_" in arm for arm in metrics["results"])
    numbers = json.loads((out / "numbers.json").read_text())["mid_training"]
    assert len(numbers["ra3"]) == 5 and numbers["ntp"][1]["tokens"] == 406_005
    assert stage_title("evaluate_m_step_1_at_1_of_2", load(watched)) == (
        "Evaluation: RA3: M-step, round 1, after 1/2 of its steps"
    )


def test_without_models_on_the_way_the_lines_are_a_guide(artifacts: Callable[..., Inputs], tmp_path: Path) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    report(ReportConfig(resamples=50), Context(inputs=inputs, out=tmp_path / "out", scratch=tmp_path))
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Only models before and after mid-training were evaluated" in text
