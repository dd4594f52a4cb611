"""The paper's table and seven figures: all there when the run has what they take, else named with what they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ra3core.config import ReportConfig
from ra3core.report.blocks import Picture
from ra3core.report.inputs import load
from ra3core.report.paper import NEEDED, distilled, gaps
from ra3core.report.report import report
from ra3core.report.scores import Average, Contender, Scores
from ra3core.report.style import AFTER_RLVR, ARMS, MID_TRAINING
from ra3core.report.sweep import effect
from ra3core.report.tables import paper, tuning
from ra3core.report.verdicts import points
from ra3core.stage import Context

Inputs = dict[str, Path]


def swept(write: Callable[..., Inputs], folder: Path) -> Inputs:
    """A run with every arm, and three points of a sweep beside it."""
    inputs = write(folder / "run", seeds=(0, 1, 2), controls=True, samples=6, tasks=6)
    for c, rate in (("0.01", 0.8), ("0.05", 0.86), ("inf", 0.5)):
        point = write(folder / c, seeds=(0, 1), rates={"ra3": (rate, 0.4, 0.8)}, tasks=6)
        inputs |= {f"c={c} {name}": path for name, path in point.items()}
    return inputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Inputs, Path]:
    folder = tmp_path_factory.mktemp("paper")
    inputs = swept(request.getfixturevalue("write_artifacts"), folder)
    out = folder / "out"
    report(ReportConfig(resamples=100), Context(inputs=inputs, out=out, scratch=out))
    return inputs, out


def test_all_figures_of_the_paper(whole: tuple[Inputs, Path]) -> None:
    _, out = whole
    text = (out / "report.md").read_text()
    for number, name in enumerate(NEEDED, start=1):
        assert f"**The paper's figure {number}.**" in text, name
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.svg").is_file()
    assert "What is missing" not in text


def test_every_figure_says_over_how_many_seeds(whole: tuple[Inputs, Path]) -> None:
    _, out = whole
    captions = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("**Figure ")]
    assert len(captions) == 12
    for caption in captions:
        assert "3 seeds." in caption or "2 seeds a point" in caption or "of seed 0" in caption, caption


def test_numbers_hold_what_the_page_shows(whole: tuple[Inputs, Path]) -> None:
    inputs, out = whole
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["seeds"] == [0, 1, 2]
    score = Average.of(load(inputs), 100).score(Contender("distilled"), 5)
    assert score is not None
    assert numbers["scores"]["distilled"]["average"]["free"]["pass@5"]["value"] == score.value
    assert set(numbers["scores"]) == {arm.name for arm in ARMS} - {
        *("base_rlvr", "ntp_compute_rlvr", "ra3_no_rl_rlvr"),
    }
    assert {one["claim"] for one in numbers["claims"]} == {"cross_entropy", "pass_at_1", "rlvr"}
    assert numbers["comparisons"]["ra3_brite"]["seeds"] == 3
    less_ntp = numbers["scores"]["ra3"]["average"]["free"]["pass@1"]["less_ntp"]
    assert less_ntp["value"] == numbers["comparisons"]["ra3_ntp"]["difference"] and less_ntp["seeds"] == 3
    assert "less_ntp" not in numbers["scores"]["ntp"]["embedded"]["free"]["pass@1"]  # NTP itself
    assert "less_ntp" not in numbers["scores"]["ra3"]["embedded"]["banned"]["pass@1"]
    four = Scores(load(inputs), 100).difference(Contender("ra3_rlvr"), Contender("ntp_rlvr"), 5, 4)
    assert four is not None and numbers["by_steps"]["ra3_rlvr"]["4"]["pass@5"]["less_ntp"]["low"] == four.low
    assert numbers["comments"]["ra3"] == 1 and numbers["stages"]["ntp"]["tokens"] == 812_000
    assert len(numbers["e_step"]["gain"]["by_seed"]) == 3
    assert set(numbers["think_penalty"]) == {"0.01", "0.05", "∞"}
    assert numbers["rlvr"]["ra3_rlvr"]["mean"]["final"]["seeds"] == 3
    adds = numbers["scores"]["distilled_rlvr"]["average"]["free"]["pass@1"]["value"]
    adds -= numbers["scores"]["distilled"]["average"]["free"]["pass@1"]["value"]
    assert numbers["rlvr_gains"]["distilled_rlvr"]["adds"]["value"] == pytest.approx(adds)
    assert numbers["rlvr_gains"]["ra3_rlvr"]["more_to_ra3"] is None
    assert numbers["tuning"]["ntp"] == {
        "setting": "m_step.learning_rate",
        "grid": {"0.001": 0.31, "0.002": 0.29},
        "chosen": 0.001,
    }
    assert f"{100 * score.value:.1f}" in (out / "table.md").read_text()


def test_a_run_without_says_what_each_figure_takes(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = {name: path for name, path in artifacts(seeds=(0,), tasks=5).items() if name == "evaluate_ra3/0"}
    config = ReportConfig(resamples=50, notes=["Run x is RUNNING."])
    report(config, Context(inputs=inputs, out=tmp_path / "out", scratch=tmp_path))
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Run x is RUNNING." in text
    for sentence in NEEDED.values():
        assert sentence in text


def test_rounds_that_were_evaluated_are_on_the_way(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    made = artifacts(seeds=(0,), rounds=2, tasks=5)
    kept = ("base/0", "m_step_1/0", "m_step_2/0", "evaluate_base/0", "evaluate_ra3/0")
    inputs = {name: made[name] for name in kept} | {"evaluate_m_step_1/0": made["evaluate_ra3/0"]}
    report(ReportConfig(resamples=50), Context(inputs=inputs, out=tmp_path / "out", scratch=tmp_path))
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Models on the way: RA3." in text


def test_seeds_that_lack_a_stage_are_named(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1, 2), tasks=5)
    for name in ("corpus/1", "corpus/2", "ra3_rlvr/1", "evaluate_ra3_rlvr/1"):
        del inputs[name]
    assert gaps(load(inputs)) == ["Of seed 1 absent: ra3_rlvr, evaluate_ra3_rlvr."]


def test_the_table_has_the_papers_columns(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0, 1), samples=5, tasks=5))
    table = paper(run, Average.of(run, 50))
    assert table.columns == ("Model", "seeds", "embedded pass@1", "pass@5", "− NTP (points)", "h")
    assert [row.cells[0].text for row in table.rows] == [arm.label for arm in ARMS if arm.name in run.evaluations]
    fewer = load(artifacts_of(run))
    assert "needs five samples" in paper(fewer, Average.of(fewer, 50)).caption


def artifacts_of(run) -> Inputs:
    """The same run with four of its five samples: pass@5 is not to be had."""
    for seeds in run.stages.values():
        for one in seeds.values():
            path = one.folder / "results.json"
            if path.is_file():
                results = json.loads(path.read_text())
                for tasks in results["per_task"].values():
                    for task, (_, passed) in tasks.items():
                        tasks[task] = [4, min(4, passed)]
                path.write_text(json.dumps(results))
    return {one.name: one.folder for seeds in run.stages.values() for one in seeds.values()}


def add_benchmark(inputs: Inputs, arm: str, seed: int, passed: int) -> None:
    """Benchmark x of two tasks, of whose four samples so many pass."""
    other = inputs[f"evaluate_{arm}/{seed}"].parent / f"other-{seed}"
    other.mkdir()
    for file in inputs[f"evaluate_{arm}/{seed}"].iterdir():
        other.joinpath(file.name).write_text(file.read_text())
    results = {"benchmark": "x", "variant": "", "per_task": {"free": {"t": [4, passed], "u": [4, passed]}}}
    (other / "results.json").write_text(json.dumps(results))
    inputs[f"evaluate_{arm}:x/{seed}"] = other


def test_figure_7_says_of_the_average_what_it_shows(artifacts: Callable[..., Inputs]) -> None:
    rates = {"ra3": (1.0, 1.0, 1.0), "distilled": (0.0, 0.0, 0.0)}
    inputs = artifacts(seeds=(0, 1), rates=rates, tasks=3)
    for seed in (0, 1):
        add_benchmark(inputs, "ra3", seed, 1)
        add_benchmark(inputs, "distilled", seed, 3)
    run = load(inputs)
    average = Average.of(run, 50)
    _, figure = distilled(run, average)
    difference = average.difference(Contender("ra3"), Contender("distilled"))
    assert isinstance(figure, Picture) and difference is not None
    assert f"{points(difference.value)} points" in figure.caption and "2 seeds, 14 tasks" in figure.caption
    assert "mean over the benchmarks (embedded and x)" in figure.caption and "generator's own" in figure.caption
    file = inputs["demonstrations/1"] / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["config"]["source"] = "python:/code"
    file.write_text(json.dumps(manifest))
    _, figure = distilled(load(inputs), average)
    assert isinstance(figure, Picture) and "(here those that the demonstrations came with)" in figure.caption


def test_the_average_weighs_benchmarks_the_same(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1), rates={"ra3": (1.0, 1.0, 1.0)}, tasks=3)
    for seed in (0, 1):
        add_benchmark(inputs, "ra3", seed, 1)
    average = Average.of(load(inputs), 50)
    alone = average.suites["embedded"].score(Contender("ra3"))
    both = average.score(Contender("ra3"))
    assert alone is not None and both is not None
    assert both.value == pytest.approx((alone.value + 0.25) / 2)
    assert both.tasks == alone.tasks + 2


def test_a_point_of_a_sweep_without_rationales_has_no_length(
    tmp_path: Path, write_artifacts: Callable[..., Inputs]
) -> None:
    inputs = swept(write_artifacts, tmp_path)
    for seed in (0, 1):
        path = inputs[f"c=inf bootstrap_1/{seed}"] / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["metrics"] |= {"rationale_tokens": 0.0, "annotated_lines": 0.0}
        path.write_text(json.dumps(manifest))
    first, _, last = effect(load(inputs), 50)
    assert set(first.found) == {"rationale_tokens", "annotated_lines", "pass_at_1"}
    assert set(last.found) == {"annotated_lines", "pass_at_1"} and last.found["annotated_lines"].value == 0


def test_intervals_of_a_point_end_where_shares_and_lengths_do(
    tmp_path: Path, write_artifacts: Callable[..., Inputs]
) -> None:
    inputs = swept(write_artifacts, tmp_path)
    for seed, (length, share) in enumerate([(1.0, 0.2), (9.0, 0.9)]):
        path = inputs[f"c=0.01 bootstrap_1/{seed}"] / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["metrics"] |= {"rationale_tokens": length, "annotated_lines": share}
        path.write_text(json.dumps(manifest))
    found = effect(load(inputs), 50)[0].found
    assert (found["annotated_lines"].low, found["annotated_lines"].high) == (0, 100)
    assert found["rationale_tokens"].low == 0 and found["rationale_tokens"].high > 9


def test_the_tuned_value_is_marked(artifacts: Callable[..., Inputs]) -> None:
    table = tuning(load(artifacts(seeds=(0, 1), controls=True, rates={}, tasks=2)))
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells] == (
        ["NTP, data-matched", "m_step.learning_rate", "–", "31.0 ←", "29.0", "0.001"]
    )
    named = [[cell.text for cell in row.cells][:2] for row in table.rows]
    assert named[1:] == [["RA3", "m_step.learning_rate"], ["RA3", "e_step.learning_rate"]]
    assert tuning(load(artifacts(seeds=(3,), rates={}))) is None


def test_arms_can_be_told_apart_in_grey() -> None:
    looks = [(arm.marker, str(arm.line)) for arm in MID_TRAINING]
    assert len(set(looks)) == len(looks)
    assert len({arm.color for arm in ARMS}) == len(ARMS)
    assert all(arm.differs for arm in MID_TRAINING if arm.name != "ra3")
    assert [arm.start for arm in AFTER_RLVR] == [arm.name for arm in MID_TRAINING]
