"""The flow over fake stages: what is built, what is reused, what fails, and what MLflow and Prefect hold afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.planning import plan
from ra3core.artifacts import Store
from ra3core.config import RuntimeConfig, load
from ra3core.errors import UserError
from ra3core.plan.machines import GPUS, Machine
from tasks.runner import StageError
from tasks.versioning import dvc_digest

SHARED = {"corpus/0", "rlvr_tasks/0"}
STAGES = SHARED | {
    f"{stage}/0"
    for stage in (
        *("base", "demonstrations", "e_step_1", "bootstrap_1", "m_step_1", "ntp", "ntp_compute"),
        *("bootstrap_no_rl", "ra3_no_rl", "ntp_rlvr", "ra3_rlvr"),
        *(f"evaluate_{a}" for a in ("base", "ntp", "ntp_compute", "ra3", "ra3_no_rl", "ntp_rlvr", "ra3_rlvr")),
    )
}


class Runs:
    """The runs that a body starts in MLflow: `with Runs(root) as runs: ...; runs.parent, runs.children`."""

    def __init__(self, root: Path) -> None:
        self.client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}")

    def _all(self) -> dict:
        experiment = self.client.get_experiment_by_name("ra3")
        return (
            {run.info.run_id: run for run in self.client.search_runs([experiment.experiment_id])} if experiment else {}
        )

    def __enter__(self) -> Runs:
        self._before = set(self._all())
        return self

    def __exit__(self, *_) -> None:
        new = [run for id, run in self._all().items() if id not in self._before]
        self.parent = next(run for run in new if "mlflow.parentRunId" not in run.data.tags)
        self.children = {run.info.run_name: run for run in new if "mlflow.parentRunId" in run.data.tags}


@pytest.fixture(scope="module")
def first(checkout, run_pipeline):
    """The first run, its outcome and its MLflow runs."""
    with Runs(checkout) as runs:
        outcome = run_pipeline()
    return outcome, runs


def test_every_arm_of_the_comparison_is_built_from_the_right_inputs(checkout, first) -> None:
    outcome, runs = first
    assert set(runs.children) == STAGES | {"report/0"}
    # `data` was there; evaluate_ra3_rlvr and others may share an artifact, but no two arms here have equal inputs
    assert (outcome.built, outcome.reused) == (len(STAGES) + 1, 1)

    made_from = {
        name: {
            role.removeprefix("input."): value.split()[0] for role, value in run.data.tags.items() if "input." in role
        }
        for name, run in runs.children.items()
    }
    digest = {name: run.data.tags["artifact.digest"] for name, run in runs.children.items()}
    assert made_from["e_step_1/0"] == {"model": digest["base/0"], "demonstrations": digest["demonstrations/0"]}
    assert made_from["bootstrap_1/0"] == {
        "policy": digest["e_step_1/0"],
        "likelihood": digest["base/0"],
        "demonstrations": digest["demonstrations/0"],
    }
    assert made_from["m_step_1/0"] == {"model": digest["base/0"], "demonstrations": digest["bootstrap_1/0"]}
    assert made_from["ntp/0"] == {"model": digest["base/0"], "demonstrations": digest["demonstrations/0"]}
    assert made_from["bootstrap_no_rl/0"]["policy"] == digest["base/0"]
    assert made_from["ra3_no_rl/0"] == {"model": digest["base/0"], "demonstrations": digest["bootstrap_no_rl/0"]}
    assert made_from["ra3_rlvr/0"]["model"] == made_from["evaluate_ra3/0"]["model"] == digest["m_step_1/0"]
    assert made_from["evaluate_ra3_rlvr/0"]["model"] == digest["ra3_rlvr/0"]
    reported = json.loads(outcome.page.read_text())
    assert set(reported) == STAGES | {"data"}


def test_its_plan_finds_every_stage_in_the_store(checkout, first, small_data) -> None:
    """`ra3 run --dry-run` composes the same keys as the run did."""

    def found(*overrides: str) -> dict[str, str]:
        def reload(further):
            return load("smoke", [*small_data, *overrides, *further])

        made = plan(reload(()), RuntimeConfig(root=checkout), (), Machine(GPUS["h100"]), None, reload)
        return {row.name: row.state for row in made.rows}

    assert found() == dict.fromkeys(STAGES, "cached")
    changed = {name: state for name, state in found("rlvr.steps=3").items() if state != "cached"}
    assert changed == {
        **dict.fromkeys(("ntp_rlvr/0", "ra3_rlvr/0"), "to run"),
        **dict.fromkeys(("evaluate_ntp_rlvr/0", "evaluate_ra3_rlvr/0"), "after its inputs"),
    }


def test_compute_matched_control_gets_the_tokens_that_ra3_spent(first) -> None:
    _, runs = first
    assert runs.children["ntp_compute/0"].data.params["token_budget"] == "200"  # 100 each in E-step and bootstrap
    annotated = runs.children["bootstrap_1/0"].data.tags["artifact.digest"]  # what the M-step adds is counted there
    assert runs.children["ntp_compute/0"].data.tags["input.matched_1"].split()[0] == annotated
    assert runs.children["ntp/0"].data.params["token_budget"] == "None"


def test_decoding_modes(first) -> None:
    _, runs = first
    modes = {name: run.data.params["modes"] for name, run in runs.children.items() if name.startswith("evaluate")}
    assert modes["evaluate_ra3/0"] == "['free', 'banned', 'forced']"
    assert modes["evaluate_ra3_rlvr/0"] == modes["evaluate_ra3_no_rl/0"] == "['free']"


def test_mlflow_holds_what_a_comparison_needs(checkout, first) -> None:
    _, runs = first
    parent = runs.client.get_run(runs.parent.info.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["pass_at_1/ra3/free/all"] == 0.5
    assert parent.data.metrics["pass_at_1/ntp/free/steps_3"] == 0.3
    assert parent.data.params["e_step.think_penalty"] == "0.3"
    assert parent.data.tags["seed"] == "0"
    (dataset,) = [entry.dataset for entry in parent.inputs.dataset_inputs]
    assert dataset.digest == dvc_digest(checkout / "data")
    artifacts = {entry.path for entry in runs.client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"config.yaml", "report"}

    e_step = runs.children["e_step_1/0"]
    history = runs.client.get_metric_history(e_step.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]
    assert e_step.data.metrics["final/tokens"] == 100
    assert Path(e_step.data.tags["model.path"], "config.json").is_file()
    assert e_step.info.status == "FINISHED"
    weights = [path for path in (checkout / "mlflow").rglob("*") if path.suffix in (".safetensors", ".parquet")]
    assert weights == []


def test_second_run_reuses_every_stage_and_links_to_the_runs_that_made_them(checkout, first, run_pipeline) -> None:
    outcome, runs = first
    with Runs(checkout) as again:
        second = run_pipeline()
    assert (second.built, second.reused) == (0, outcome.built + 1)
    assert again.children == {}
    links = {key: value for key, value in again.parent.data.tags.items() if key.startswith("stage.")}
    assert links == {f"stage.{name}": run.info.run_id for name, run in runs.children.items()}
    assert second.page == outcome.page
    assert (checkout / "reports" / "latest").resolve() == outcome.page.parent


def test_prefect_shows_reused_stages_as_cached(first, run_pipeline) -> None:
    run_pipeline()
    from prefect.client.orchestration import get_client  # not before the fixture has settled Prefect's settings
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    async def names() -> list[str]:
        async with get_client() as client:
            (run, *_) = await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
            of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
            return [task.state_name or "" for task in await client.read_task_runs(flow_run_filter=of_run)]

    deadline = time.monotonic() + 30  # states reach the database through events
    while (found := asyncio.run(names())).count("Cached") < len(STAGES) + 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found.count("Cached") == len(found) == len(STAGES) + 2


def test_a_changed_section_rebuilds_its_stage_and_what_follows(checkout, first, run_pipeline) -> None:
    with Runs(checkout) as runs:
        run_pipeline("e_step.think_penalty=0.7")
    ra3 = {f"{stage}/0" for stage in ("e_step_1", "bootstrap_1", "m_step_1", "ra3_rlvr", "evaluate_ra3", "report")}
    # ntp_compute counts its tokens on the new annotations
    assert set(runs.children) == ra3 | {"evaluate_ra3_rlvr/0", "ntp_compute/0", "evaluate_ntp_compute/0"}


def test_a_damaged_artifact_is_built_again(checkout, first, run_pipeline) -> None:
    _, runs = first
    folder = Path(runs.children["ntp/0"].data.tags["artifact.path"])
    (folder / "model" / "config.json").write_text("damaged")
    with Runs(checkout) as again:
        run_pipeline()
    # the same bytes came out, so nothing that follows is rebuilt; the report names the new run
    assert set(again.children) == {"ntp/0", "report/0"}


def test_seeds_share_the_data_and_one_report(checkout, first, run_pipeline) -> None:
    with Runs(checkout) as runs:
        outcome = run_pipeline(seeds=2)
    assert set(runs.children) == {name.replace("/0", "/1") for name in STAGES - SHARED} | {"report/0"}
    assert runs.children["base/1"].data.tags["seed"] == "1"
    assert set(json.loads(outcome.page.read_text())) == (
        STAGES | {name.replace("/0", "/1") for name in STAGES - SHARED} | {"data"}
    )


def test_rounds_go_on_from_the_last_m_step(checkout, first, run_pipeline) -> None:
    with Runs(checkout) as runs:
        run_pipeline("rounds=2")
    first_m_step = first[1].children["m_step_1/0"].data.tags["artifact.digest"]
    second = runs.children["e_step_2/0"].data.tags
    assert second["input.model"].split()[0] == first_m_step
    assert runs.children["ntp/0"].data.params["epochs"] == "2"
    assert runs.children["ntp_compute/0"].data.params["token_budget"] == "400"
    assert {"input.matched_1", "input.matched_2"} <= set(runs.children["ntp_compute/0"].data.tags)
    m_step_2 = runs.children["m_step_2/0"].data.tags["artifact.digest"]
    assert runs.children["evaluate_ra3/0"].data.tags["input.model"].split()[0] == m_step_2


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def one():\n    """ One """\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
ARMS = ("base", "ntp", "ntp_compute", "ra3", "ra3_no_rl", "ntp_rlvr", "ra3_rlvr")


def test_every_arm_is_evaluated_on_every_benchmark(checkout, first, run_pipeline, tmp_path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps(HUMANEVAL) + "\n")
    benchmarks = f"evaluation.benchmarks=[embedded, {{name: humaneval, data: {file}, limit: 1}}]"
    with Runs(checkout) as runs:
        outcome = run_pipeline(benchmarks)
    evaluations = {f"evaluate_{arm}:humaneval/0" for arm in ARMS}
    held_against_it = {"corpus/0", "demonstrations/0", "rlvr_tasks/0"}  # as before, so that nothing is trained again
    assert set(runs.children) == evaluations | held_against_it | {"report/0"}  # the embedded suite's are there
    assert evaluations <= set(json.loads(outcome.page.read_text()))
    params = runs.children["evaluate_ra3:humaneval/0"].data.params
    assert (params["benchmark"], params["modes"], params["temperature"]) == ("humaneval", "['free']", "0.0")
    assert (params["samples"], params["limit"], params["k"]) == ("1", "1", "[1]")
    tags = runs.children["evaluate_ra3:humaneval/0"].data.tags
    assert tags["input.model"].split()[0] == first[1].children["m_step_1/0"].data.tags["artifact.digest"]
    home = Path(tags["input.tasks"].split()[1])
    assert (home / "data.jsonl").resolve() == file
    assert runs.parent.data.metrics["humaneval/pass_at_1/ra3"] == 0.5

    moved = file.rename(tmp_path / "renamed.jsonl")  # the same content is the same benchmark
    with Runs(checkout) as again:
        run_pipeline(benchmarks.replace(str(file), str(moved)))
    assert set(again.children) == {"report/0"}  # it shows the settings
    moved.write_text(json.dumps({**HUMANEVAL, "test": HUMANEVAL["test"].replace("== 1", "== 2")}) + "\n")
    with Runs(checkout) as changed:
        run_pipeline(benchmarks.replace(str(file), str(moved)))
    assert set(changed.children) >= evaluations


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("humanevil", "benchmark 'humanevil': expected one of embedded, humaneval"),
        ("{name: humaneval, data: /no/such.jsonl}", "humaneval: /no/such.jsonl: no such file"),
        ("{name: humaneval, data: README.md}", "README.md: line 1 is not JSON"),
        ("{name: humaneval, data: FILE, samples: 3}", "humaneval: 3 samples of greedy decoding are all the same"),
    ],
)
def test_a_benchmark_that_cannot_be_loaded_costs_no_training(
    checkout, first, run_pipeline, tmp_path, monkeypatch, entry, message
) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps(HUMANEVAL) + "\n")
    (tmp_path / "README.md").write_text("no benchmark")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run_pipeline(f"evaluation.benchmarks=[embedded, {entry.replace('FILE', str(file))}]", "m_step.batch_size=7")


def test_what_does_not_depend_on_a_failed_stage_is_finished(checkout, first, run_pipeline) -> None:
    with Runs(checkout) as runs, pytest.raises(UserError, match=r"^e_step.window is 13, expected another number$"):
        run_pipeline("e_step.window=13", "m_step.batch_size=5")
    assert runs.parent.info.status == "FAILED"
    assert runs.parent.data.tags["error"] == "e_step.window is 13, expected another number"
    assert runs.children["e_step_1/0"].info.status == "FAILED"
    finished = {name for name, run in runs.children.items() if run.info.status == "FINISHED"}
    lanes = {"ntp", "ntp_rlvr", "ra3_no_rl"}
    assert finished == {f"{stage}/0" for lane in lanes for stage in (lane, f"evaluate_{lane}")}


def test_a_bug_is_not_taken_for_a_user_error(checkout, first, run_pipeline) -> None:
    with pytest.raises(StageError, match="a bug in the E-step"):
        run_pipeline("e_step.window=14")
    assert all(not artifact.path.name.startswith(".") for artifact in Store(checkout / "artifacts").artifacts())


def test_a_model_of_the_users_is_the_base_and_is_not_copied(checkout, first, run_pipeline, tmp_path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with Runs(checkout) as runs:
        run_pipeline(f"base.model={folder}")
    assert "base/0" not in runs.children
    path = Path(runs.children["ntp/0"].data.tags["input.model"].split()[1])
    assert (path / "model").resolve() == folder
    (folder / "config.json").write_text('{"changed": true}')
    with Runs(checkout) as again:
        run_pipeline(f"base.model={folder}")
    assert "ntp/0" in again.children


def test_edited_demonstrations_make_new_ones(checkout, first, run_pipeline, tmp_path) -> None:
    (tmp_path / "a.py").write_text("def f(x):\n    y = x\n    return y\n")
    with Runs(checkout) as runs:
        run_pipeline(f"corpus.source=python:{tmp_path}")
    assert {"collection/0", "demonstrations/0", "ntp/0"} <= set(runs.children)
    (tmp_path / "a.py").write_text("def f(x):\n    y = x + 1\n    return y\n")
    with Runs(checkout) as again:
        run_pipeline(f"corpus.source=python:{tmp_path}")
    assert set(again.children) == {"collection/0"}  # whose fake has the same bytes for every source: nothing follows
