"""The flows over fake stages: refreshing, retrying, giving up, what Prefect shows, the flows beside the pipeline."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from uuid import uuid4

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from ra3core.artifacts import Store
from ra3core.errors import UserError
from tasks.runner import StageError


@pytest.fixture(scope="module")
def first(run_pipeline):
    return run_pipeline()


def created(checkout: Path) -> dict[Path, str]:
    return {a.path: a.manifest.created for a in Store(checkout / "artifacts").artifacts()}


def rebuilt(checkout: Path, before: dict[Path, str]) -> list[str]:
    """Kinds of the stages that were built since, those that are new included."""
    return sorted(path.parent.name for path, when in created(checkout).items() if before.get(path) != when)


@pytest.mark.parametrize(
    ("refresh", "kinds"),
    [(["e_step"], ["e_step"]), (["ntp/0", "ra3_rlvr"], ["m_step", "rlvr"]), (["evaluate"], ["evaluate"] * 7)],
)
def test_refresh_builds_those_stages_again_and_no_others(checkout, first, run_pipeline, refresh, kinds) -> None:
    before = created(checkout)
    run_pipeline(refresh=refresh)
    # equal bytes came out, so nothing that follows is built again; the report names the new runs
    assert rebuilt(checkout, before) == sorted([*kinds, "report"])


def test_refresh_of_what_is_no_stage_is_refused(first, run_pipeline) -> None:
    with pytest.raises(UserError, match="--refresh mstep: expected a stage, or stage/seed, out of corpus, "):
        run_pipeline(refresh=["mstep"])


@pytest.fixture
def behave(checkout):
    """behave("9 kill"): what the fake stages do at a seed."""
    file = checkout / "behave"
    yield file.write_text
    file.unlink(missing_ok=True)


def test_a_stage_whose_process_is_killed_is_tried_again_from_its_checkpoint(checkout, first, run_flow, behave) -> None:
    from flows.pipeline import mid_training

    behave("5 kill")  # every stage of seed 5 dies once
    outcome = run_flow(mid_training, "seed=5")
    assert outcome.built > 10


def test_a_stage_that_takes_too_long_is_ended(checkout, first, run_pipeline, behave) -> None:
    behave("6 sleep")
    started = time.monotonic()
    with pytest.raises(StageError, match=r"took longer than 1\.2 s"):
        run_pipeline("seed=6", settings={"stage_minutes": 0.02})
    assert time.monotonic() - started < 40  # the fakes would sleep a minute each


def test_mid_training_is_the_pipeline_without_rlvr(checkout, first, run_flow) -> None:
    from flows.pipeline import mid_training

    before = created(checkout)
    outcome = run_flow(mid_training)
    assert rebuilt(checkout, before) == ["report"]
    reported = set(json.loads(outcome.page.read_text()))
    assert "m_step_1/0" in reported and not any("rlvr" in name for name in reported)


def test_a_sweep_builds_what_its_points_share_once(checkout, first, run_flow) -> None:
    from flows.sweep import sweep

    before = created(checkout)
    found = run_flow(sweep, penalties=[0.4, 0.8], seeds=1)
    assert set(found) == {"0.4", "0.8"}
    kinds = rebuilt(checkout, before)
    assert (kinds.count("e_step"), kinds.count("base"), kinds.count("report")) == (2, 0, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["arms.mid_trained=[ntp]", "arms.rlvr=[]"],
            "arms.mid_trained: a sweep over think penalties shows RA3's pass@1 on the embedded suite, expected ra3",
        ),
        (["evaluation.benchmarks=humaneval"], "evaluation.benchmarks: .*, expected embedded in the list"),
    ],
)
def test_a_sweep_without_what_it_shows_is_refused_ahead_of_everything(checkout, run_flow, overrides, message) -> None:
    from flows.sweep import sweep

    before = created(checkout)
    with pytest.raises(UserError, match=message):
        run_flow(sweep, *overrides, penalties=[0.4])
    assert rebuilt(checkout, before) == []


def test_a_grid_is_swept_and_summed_up(checkout, first, run_flow, tmp_path) -> None:
    from flows.sweep import grid_sweep

    (tmp_path / "rl.yaml").write_text("preset: smoke\naxes:\n  e_step.kl: [0.1, 0.2]\n  bootstrap.window: [3]\n")
    before = created(checkout)
    file = run_flow(grid_sweep, grid=str(tmp_path / "rl.yaml"))
    assert file == checkout / "reports" / "sweep-rl" / "points.json"
    points = json.loads(file.read_text())
    assert [(p["axis"], p["value"]) for p in points] == [
        ("centre", ""),
        ("e_step.kl", "0.1"),
        ("e_step.kl", "0.2"),
        ("bootstrap.window", "3"),
    ]
    assert points[2]["settings"]["e_step"]["kl"] == 0.2
    assert "e_step.kl 0.2" in (file.parent / "sweep.md").read_text() and (file.parent / "sweep.html").is_file()
    assert all(point["results"]["ra3"]["free"]["value"] == 0.5 for point in points)
    kinds = rebuilt(checkout, before)
    assert (kinds.count("e_step"), kinds.count("base")) == (2, 0)  # the centre and the data are there
    before = created(checkout)
    run_flow(grid_sweep, grid=str(tmp_path / "rl.yaml"))
    assert rebuilt(checkout, before) == []
    with pytest.raises(UserError, match=r"tuning.seeds: a sweep varies settings at given learning rates"):
        tuning = ("tuning.seeds=[9]", "tuning.m_step_learning_rates=[0.1]", "tuning.tasks=1")
        run_flow(grid_sweep, *tuning, grid=str(tmp_path / "rl.yaml"))


def test_what_a_grid_leaves_is_json_and_of_one_sweep(tmp_path, monkeypatch) -> None:
    from flows import sweep
    from ra3core.config import load, parse

    def strict(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    config = load("smoke", ["e_step.think_penalty=.inf"])
    settings = sweep._as_json(config)
    assert parse(settings) == config
    rows = [
        {"axis": "centre", "value": "", "settings": settings, "results": {}, "differences": {}, "low": float("nan")}
    ]
    folder = tmp_path / "sweep-rl"
    sweep._write("rl", rows, folder)
    [found] = json.loads((folder / "points.json").read_text(), parse_constant=strict)
    assert found["settings"]["e_step"]["think_penalty"] == "Infinity" and found["low"] is None
    (folder / "effects.png").touch()  # of an earlier sweep that had a comparison

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    before = (folder / "points.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(sweep, "write_page", broken)
        sweep._write("rl", [{**rows[0], "value": "new"}], folder)
    assert (folder / "points.json").read_bytes() == before and (folder / "effects.png").exists()
    sweep._write("rl", rows, folder)
    assert {file.name for file in tmp_path.rglob("*")} == {"sweep-rl", "points.json", "sweep.html", "sweep.md"}


def test_tuned_rates_reach_the_arms_and_the_trials_are_runs_of_their_own(checkout, first, run_pipeline) -> None:
    """With fakes every trial is as good as the other, so the smaller rate is chosen."""
    tuning = ("tuning.seeds=[9]", "tuning.m_step_learning_rates=[0.02, 0.01]", "tuning.tasks=1")
    before = created(checkout)
    outcome = run_pipeline(*tuning)
    reported = set(json.loads(outcome.page.read_text()))
    assert {"tune_ntp/0", "tune_ra3/0", "validation/0"} <= reported
    assert not any(name.endswith("/9") for name in reported)
    kinds = rebuilt(checkout, before)
    assert (kinds.count("tune"), kinds.count("base")) == (4, 1)
    rates = {
        artifact.manifest.config["learning_rate"]
        for artifact in Store(checkout / "artifacts").artifacts()
        if artifact.stage == "m_step" and artifact.manifest.seed == 0 and artifact.path not in before
    }
    assert rates == {0.01}
    before = created(checkout)
    run_pipeline(*tuning)
    assert rebuilt(checkout, before) == []


def test_sharded_stages_are_merged_to_what_unsharded_ones_are(checkout, first, run_pipeline) -> None:
    before = created(checkout)
    run_pipeline(settings={"shards": 2})
    assert rebuilt(checkout, before) == []  # all is there: the number of shards decides no result
    run_pipeline("bootstrap.window=4", settings={"shards": 2})
    kinds = rebuilt(checkout, before)
    assert (kinds.count("annotate_shard"), kinds.count("bootstrap")) == (4, 2)
    assert {"evaluate_shard", "evaluate"} < set(kinds)
    assert set(kinds).isdisjoint({"base", "e_step", "corpus"})
    before = created(checkout)
    run_pipeline("bootstrap.window=4")
    assert rebuilt(checkout, before) == []


def test_a_runtime_from_a_form_keeps_the_root_of_the_worker(checkout, monkeypatch) -> None:
    from flows import environment
    from ra3core.config import RuntimeConfig

    monkeypatch.setenv("RA3_ROOT", str(checkout))
    monkeypatch.setenv("RA3_THREADS", "3")
    chosen = environment.chosen(RuntimeConfig.model_validate({"root": ".", "workers": 1}))
    assert (chosen.root, chosen.workers, chosen.threads) == (checkout.resolve(), 1, 3)


def test_a_sweep_refreshes_what_its_points_share_once(checkout, first, run_flow) -> None:
    from flows.sweep import sweep

    client = MlflowClient(f"sqlite:///{checkout}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("ra3")
    assert experiment is not None

    def built() -> int:
        return len(client.search_runs([experiment.experiment_id], "attributes.run_name = 'base/0'"))

    before = built()
    run_flow(sweep, penalties=[0.4, 0.8], seeds=1, refresh=["base"])
    assert built() == before + 1


def test_rlvr_and_evaluation_of_a_given_model(checkout, first, run_flow, tmp_path) -> None:
    from flows.single import evaluation, rlvr

    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    scores = run_flow(rlvr, model=str(model))
    assert set(scores) == {"model", "rlvr"}
    assert set(scores["rlvr"]["embedded"]) == {"free, pass@1"}
    before = created(checkout)
    again = run_flow(evaluation, model=str(model))
    assert again == {"model": scores["model"]}
    assert rebuilt(checkout, before) == []
    with pytest.raises(UserError, match=r"model: .* has no config.json"):
        run_flow(evaluation, model=str(checkout))


def artifacts_of_last_run() -> dict[str, object]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    async def read():
        async with get_client() as client:
            (run, *_) = await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
            mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
            return {artifact.key: artifact for artifact in await client.read_artifacts(artifact_filter=mine)}

    return asyncio.run(read())


def test_prefect_shows_results_progress_report_and_a_link(first, run_pipeline) -> None:
    outcome = run_pipeline()
    shown = artifacts_of_last_run()
    assert {"mlflow-run", "progress", "results", "humaneval", "report"} <= set(shown)
    assert shown["progress"].data == 100.0
    (_, base, *_), *_ = [(row["arm"], row["all"]) for row in json.loads(shown["results"].data)]
    assert base == "50.0 [40.0, 60.0]"
    assert "/#/experiments/" in shown["mlflow-run"].data
    assert str(outcome.page) in shown["report"].data


def test_a_run_whose_process_was_killed_is_marked_crashed(checkout, first, run_pipeline) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from flows import liveness
    from flows.pipeline import pipeline

    with get_client(sync_client=True) as client:
        dead, living = (client.create_flow_run(pipeline, parameters={}, state=Running()) for _ in range(2))
        folder = checkout / ".cache" / "flows"
        for run in (dead.id, living.id, uuid4()):  # the last is of no run that the server knows
            (folder / f"{liveness._server()}.{run}.lock").touch()
        with FileLock(folder / f"{liveness._server()}.{living.id}.lock"):
            run_pipeline()
        assert client.read_flow_run(dead.id).state_name == "Crashed"
        assert client.read_flow_run(living.id).state_name == "Running"
    assert [file.name.split(".")[1] for file in folder.glob("*.lock")] == [str(living.id)]
