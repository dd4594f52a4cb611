"""`ra3 report` over runs in a real SQLite store: whole, unfinished, of a sweep, and from a folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from flows.reporting import report_on
from ra3core.artifacts import Artifact, Store
from ra3core.config import RunConfig, Section
from ra3core.errors import UserError
from ra3core.report.pooling import Recorded
from ra3core.stage import Context, Metrics
from tasks.recorded import recorded
from tasks.tracking import Tracking


class Evaluated(Section):
    """passed: of two samples of each of four tasks."""

    passed: int
    k: tuple[int, ...] = (1,)


def evaluate(config: Evaluated, context: Context) -> Metrics:
    tasks = [f"t{i}" for i in range(4)]
    content = {"per_task": {"free": {task: [2, config.passed] for task in tasks}}}
    (context.out / "results.json").write_text(json.dumps(content))
    samples = [
        {"task_id": task, "steps": 2, "mode": "free", "completion": "return", "category": "passed"}
        for task in tasks * 2
    ]
    (context.out / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    return {"tokens": 10}


ARMS = {"base": 0, "ntp": 1, "ra3": 2}


def build(root: Path, arm: str, seed: int) -> Artifact:
    return Store(root / "artifacts").build("evaluate", evaluate, Evaluated(passed=ARMS[arm]), {}, seed=seed)[0]


def track(
    root: Path, name: str, seeds: range, c: float = 0.3, flow: str = "pipeline", parent: str = "", end: bool = True
) -> Tracking:
    """A pipeline run as `ra3 run` leaves it, with evaluations of three arms; not ended, its last stage has failed."""
    config = RunConfig().model_dump(mode="json")
    config["e_step"]["think_penalty"], config["report"]["resamples"] = c, 50
    tags = {"flow": flow, "seed": str(seeds[0]), "seeds": str(len(seeds))}
    tracking = Tracking(root)
    tracking.start(name, {}, tags | ({"mlflow.parentRunId": parent} if parent else {}), yaml.safe_dump(config))
    labels = [(arm, seed) for seed in seeds for arm in ARMS]
    for arm, seed in labels if end else labels[:-1]:
        made = build(root, arm, seed)
        with tracking.stage(f"evaluate_{arm}/{seed}", {}, {"stage": "evaluate"}, {}) as stage:
            stage.done(made.metrics, made.path, made.digest, False)
        tracking.link(f"evaluate_{arm}/{seed}", stage.run_id)
    if end:
        tracking.finish({})
    else:
        with pytest.raises(RuntimeError), tracking.stage("evaluate_ra3/1", {}, {"stage": "evaluate"}, {}):
            raise RuntimeError("out of memory")
    return tracking


@pytest.fixture
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Recorded:
    track(tmp_path, "demo-1", range(1))
    (found,) = recorded(tmp_path, "demo-1")
    return found


def test_a_run_is_found_by_name_and_by_id(tmp_path: Path) -> None:
    tracking = track(tmp_path, "demo-1", range(2))
    (by_name,), (by_id,) = recorded(tmp_path, "demo-1"), recorded(tmp_path, tracking.run_id)
    assert by_name == by_id
    assert set(by_name.stages) == {f"evaluate_{arm}/{seed}" for arm in ARMS for seed in (0, 1)}
    assert by_name.notes == ()
    page, metrics, notes = report_on(["demo-1"], None, tmp_path)
    assert page == tmp_path / "reports" / "runs" / "demo-1" / "report.html" and page.is_file()
    assert metrics["results"]["ra3"]["free"]["value"] == 1.0 and notes == []
    assert by_name.runs["evaluate_ra3/1"] in page.read_text()


def test_an_unfinished_run_says_what_it_lacks(tmp_path: Path) -> None:
    track(tmp_path, "demo-1", range(2), end=False).close()
    page, _, notes = report_on(["demo-1"], None, tmp_path)
    assert notes == [
        "Run demo-1 is RUNNING: this page has the stages that it finished.",
        "Stages of demo-1 that are not finished: evaluate_ra3/1 (failed).",
    ]
    text = page.with_suffix(".md").read_text()
    assert all(note in text for note in notes) and "Of seed 1 absent: evaluate_ra3." in text


def test_artifacts_that_are_gone_or_changed_are_absent(tmp_path: Path, one: Recorded) -> None:
    (one.stages["evaluate_ntp/0"] / "manifest.json").unlink()
    path = one.stages["evaluate_ra3/0"] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "0" * 64}))
    (found,) = recorded(tmp_path, "demo-1")
    assert set(found.stages) == {"evaluate_base/0"}
    gone, changed = found.notes
    assert "evaluate_ntp/0" in gone and "is gone" in gone
    assert "evaluate_ra3/0" in changed and "built again since" in changed


def test_runs_of_other_seeds_are_pooled(tmp_path: Path) -> None:
    track(tmp_path, "demo-1", range(1))
    track(tmp_path, "demo-2", range(1, 3))
    page, _, _ = report_on(["demo-1", "demo-2"], tmp_path / "out", tmp_path)
    assert json.loads((page.parent / "numbers.json").read_text())["seeds"] == [0, 1, 2]


def test_a_sweep_is_its_points(tmp_path: Path) -> None:
    sweep = Tracking(tmp_path)
    sweep.start("sweep-1", {}, {"flow": "sweep", "seed": "0", "seeds": "1"}, "")
    for c in (0.05, 0.3):
        track(tmp_path, f"point-{c}", range(1), c, "point of a sweep", sweep.run_id)
    sweep.finish({})
    page, _, _ = report_on(["sweep-1"], None, tmp_path)
    numbers = json.loads((page.parent / "numbers.json").read_text())
    assert set(numbers["think_penalty"]) == {"0.05", "0.3"}
    assert (page.parent / "think_penalty.png").is_file()


def test_a_folder_of_artifacts_is_read_through_its_report(tmp_path: Path, one: Recorded) -> None:
    from ra3core.config import ReportConfig
    from ra3core.report.report import report

    store = Store(tmp_path / "artifacts")
    inputs = {f"evaluate_{arm}/0": build(tmp_path, arm, 0) for arm in ARMS}
    page, _ = store.build("report", report, ReportConfig(resamples=50, commit="abc"), inputs)
    for folder in (tmp_path / "artifacts", page.path):
        (found,) = recorded(tmp_path, str(folder))
        assert found.stages == one.stages and found.commit == "abc"
    published = tmp_path / "reports" / f"demo-{page.key[:8]}"
    published.mkdir(parents=True)
    (published / "report.html").touch()
    (published.parent / "latest").symlink_to(published.name)
    for name in ("latest", published.name, str(published)):
        written, _, _ = report_on([name], tmp_path / "out", tmp_path)
        assert json.loads((written.parent / "numbers.json").read_text())["seeds"] == [0]
    inputs["evaluate_ra3/0"].path.rename(tmp_path / "away")
    (found,) = recorded(tmp_path, str(tmp_path / "artifacts"))
    assert found.notes == (f"Not in {tmp_path / 'artifacts'} any more: evaluate_ra3/0.",)


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing has been tracked at sqlite"):
        recorded(tmp_path, "demo-1")
    tracking = track(tmp_path, "demo-1", range(1))
    track(tmp_path, "twice", range(1))
    track(tmp_path, "twice", range(1))
    stage = tracking.links["evaluate_ra3/0"]
    for name, message in (
        ("nothing", "expected the id or the name of a run"),
        ("it's", "expected the id or the name of a run"),
        ("0" * 32, "expected the id or the name of a run"),
        ("twice", "2 runs have this name, expected an id"),
        (stage, "is the run of one stage, expected the pipeline's: demo-1"),
        (str(tmp_path / "mlflow"), "expected a folder of artifacts with a report in it"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            recorded(tmp_path, name)
        assert "\n" not in str(raised.value)


def test_other_peoples_files_are_not_removed(tmp_path: Path) -> None:
    track(tmp_path, "demo-1", range(1))
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="expected a new folder"):
        report_on(["demo-1"], out, tmp_path)
    assert (out / "thesis.tex").is_file()
    (out / "thesis.tex").unlink()
    report_on(["demo-1"], out, tmp_path)
    (out / "old_figure.png").write_text("from an earlier report")
    report_on(["demo-1"], out, tmp_path)
    assert not (out / "old_figure.png").exists() and not list(tmp_path.glob(".mine*"))
