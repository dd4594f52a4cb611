"""dvc.yaml over fake stages: it declares what stages read, its artifacts are the flow's, its runs are in MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from flows import dvc_stage
from flows.dvc_stage import NAMES, Pipeline, place
from flows.environment import CHECKOUT
from ra3core import fingerprint
from ra3core.artifacts import Store, load_artifact
from ra3core.config import PRESETS, DataConfig, RunConfig, load
from ra3core.stage import StageLog

SMALL_DATA = (
    "data.web_documents=60",
    "data.outlines=20",
    "data.demonstrations=40",
    "data.rlvr_tasks=6",
    "data.evaluation_tasks=3",
)
"""As the flow over the fakes has it (conftest.py)."""
PARENT = "mlflow.parentRunId"
FILLED_IN = {"rlvr": {"verifier"}, "evaluation": {"verifier"}, "report": {"settings", "commit", "mlflow_runs", "notes"}}
MODULES = {
    **dict.fromkeys(("corpus", "demonstrations", "rlvr_tasks"), "corpora/prepare.py"),
    "base": "learning/pretrain.py",
    "e_step": "learning/e_step.py",
    **dict.fromkeys(("bootstrap", "bootstrap_no_rl"), "learning/bootstrap.py"),
    **dict.fromkeys(("m_step", "ntp", "ntp_compute", "ra3_no_rl"), "learning/m_step.py"),
    **dict.fromkeys(("ntp_rlvr", "ra3_rlvr"), "learning/rlvr.py"),
    **dict.fromkeys((name for name in NAMES if name.startswith("evaluate@")), "evaluation/evaluate.py"),
    "report": "report/report.py",
}


def declared() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, each item of a foreach for itself."""
    stages = {}
    for name, stage in yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"].items():
        if "foreach" not in stage:
            stages[name] = stage
            continue
        for key, item in stage["foreach"].items():
            text = json.dumps(stage["do"]).replace("${key}", key).replace("${item}", item)
            stages[f"{name}@{key}"] = json.loads(text)
    return stages


def write_params(folder: Path, *overrides: str) -> RunConfig:
    """params.yaml of the smoke preset with small data, as the flow over the fakes has it."""
    config = load("smoke", [*SMALL_DATA, *overrides])
    (folder / "params.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return config


class Client:
    """What MLflow has of a checkout."""

    def __init__(self, root: Path) -> None:
        self.client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}")

    def runs(self) -> list:
        """Newest first."""
        experiment = self.client.get_experiment_by_name("ra3")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id]))


@pytest.fixture
def stage(checkout: Path, run_pipeline: Callable, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    """stage(name): as DVC calls it, in `checkout` with fake stages; what it printed on stderr."""
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("RA3_ROOT", str(checkout))

    def call(name: str, code: int = 0) -> str:
        capfd.readouterr()
        found = dvc_stage.main([name])
        printed = capfd.readouterr().err
        assert found == code, printed
        return printed

    return call


# -- what dvc.yaml and params.yaml say ---------------------------------------------------------------------------------


def test_params_are_the_smoke_preset_with_every_key_that_can_be_set() -> None:
    config = load(str(CHECKOUT / "params.yaml"))
    smoke = load(str(PRESETS / "smoke.yaml"))
    values = yaml.safe_load((CHECKOUT / "params.yaml").read_text())
    sections = {param for stage in declared().values() for param in stage["params"] if isinstance(param, str)}
    sections = {param.split(".")[0] for param in sections}
    assert sections >= {"data", "corpus", "base", "e_step", "bootstrap", "m_step", "rlvr", "evaluation", "verifier"}
    for section in (sections | {"report"}) - {"seed"}:
        assert getattr(config, section) == getattr(smoke, section)
        keys = set(type(getattr(smoke, section)).model_fields)
        assert set(values[section]) == keys - FILLED_IN.get(section, set()), section
    assert (config.name, config.seed, config.rounds) == ("dvc", 0, 1)


def test_every_stage_is_called_by_its_name_and_owns_its_folder() -> None:
    stages = declared()
    assert set(stages) == set(NAMES)
    for name, stage in stages.items():
        assert stage["cmd"] == "${stage} " + name
        assert stage["outs"] == [f"pipeline/{place(name)}"]


@pytest.mark.parametrize("name", [name for name in NAMES if name in MODULES])
def test_code_that_decides_a_result_is_a_dependency(name: str) -> None:
    package = fingerprint.PACKAGE
    seen, waiting = set(), [package / MODULES[name]]
    while waiting:
        module = waiting.pop()
        if module not in seen and module.relative_to(package).as_posix() not in fingerprint.PLUMBING:
            seen.add(module)
            waiting += fingerprint._scan(module, package)[1]
    deps = [CHECKOUT / dep for dep in declared()[name]["deps"]]
    assert all(dep.exists() for dep in deps if "pipeline" not in dep.parts)
    modules = {module for module in seen if module != package / "__init__.py"}
    assert [module for module in modules if not any(module.is_relative_to(dep) for dep in deps)] == []


class Spy:
    """A configuration that notes which of its sections are asked for."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self.asked = config, set()

    def __getattr__(self, name: str) -> Any:
        self.asked.add(name)
        return getattr(self._config, name)


class Watched(Pipeline):
    """Notes which inputs are loaded."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.loaded: set[str] = set()

    def input(self, name: str):
        self.loaded.add(name)
        return super().input(name)

    def _evaluated(self):
        for one in super()._evaluated():
            self.loaded.add("evaluate@" + one.label.removeprefix("evaluate_"))
            yield one


def test_a_stage_reads_the_parameters_and_inputs_that_dvc_yaml_names(checkout: Path, stage, tmp_path: Path) -> None:
    config = load("smoke", SMALL_DATA)
    for name in NAMES:
        with dvc_stage.session_of(config, checkout) as session:
            session.config = spy = Spy(config)  # type: ignore[assignment]
            pipeline = Watched(session, tmp_path / "pipeline")
            pipeline.run(name)
        what = declared()[name]
        assert {f"pipeline/{place(one)}" for one in pipeline.loaded} == {
            dep for dep in what.get("deps", []) if dep.startswith("pipeline/")
        }, name
        if name == "report":
            assert what["params"] == [{"params.yaml": None}]
        else:
            asked = spy.asked & (set(RunConfig.model_fields) - {"name"})
            assert {param.split(".")[0] for param in what["params"]} == asked, name


# -- one store, two ways -----------------------------------------------------------------------------------------------


def test_what_the_flow_has_made_is_not_made_again(checkout: Path, run_pipeline, stage) -> None:
    outcome = run_pipeline()
    write_params(checkout)
    before = {run.info.run_id for run in Client(checkout).runs()}
    shutil.rmtree(checkout / "pipeline", ignore_errors=True)
    for name in NAMES[1:]:
        if name == NAMES[1]:
            assert "copied from data/" in stage("data")
        printed = stage(name)
        assert name == "report" or ": reused" in printed, name  # a report tells which runs of MLflow it is about

    store = {(artifact.stage, artifact.key): artifact for artifact in Store(checkout / "artifacts").artifacts()}
    for name in NAMES[1:]:
        folder = checkout / "pipeline" / place(name)
        artifact = load_artifact(folder / "embedded" if name.startswith("evaluate@") else folder)
        made = store[artifact.stage, artifact.key]
        assert artifact.manifest == made.manifest
    assert json.loads((checkout / "pipeline" / "metrics.json").read_text()) == {
        "pass_at_1": {"base": 0.5, "ntp": 0.5, "ra3": 0.5},
        "difference": {"ra3_ntp": 0.1},
    }
    assert (checkout / "pipeline" / "report" / "report.html").read_text() == outcome.page.read_text()
    new = [run for run in Client(checkout).runs() if run.info.run_id not in before]
    (parent,) = [run for run in new if PARENT not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["e_step.window"] == "3"
    assert parent.data.metrics["difference/ra3_ntp"] == 0.1
    links = {name: run for name, run in parent.data.tags.items() if name.startswith("stage.")}
    links.pop("stage.report/0")
    assert len(links) == len(NAMES) - len(["data", "report"]) and set(links.values()) <= before


def test_what_dvc_has_made_the_flow_finds_and_the_report_adopts_its_runs(
    checkout: Path, run_pipeline, stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(checkout, "e_step.kl=0.5")
    monkeypatch.setenv("DVC_EXP_NAME", "spicy-kelp")
    monkeypatch.setenv("DVC_STAGE", "e_step")
    before = {run.info.run_id for run in Client(checkout).runs()}
    for name in NAMES[:-1]:
        stage(name)

    def children() -> dict[str, dict[str, str]]:
        found = [run for run in Client(checkout).runs() if run.info.run_id not in before]
        return {run.info.run_name: run.data.tags for run in found}

    alone = children()
    assert "e_step_1/0" in alone and "ntp/0" not in alone  # NTP does not depend on the E-step
    assert not any(tags.get(PARENT) for tags in alone.values())
    assert alone["e_step_1/0"]["dvc.experiment"] == "spicy-kelp" and alone["e_step_1/0"]["dvc.stage"] == "e_step"
    stage("report")
    adopted = children()
    parents = {tags.get(PARENT) for name, tags in adopted.items() if name in alone}
    assert len(parents) == 1 and parents != {None}

    again = run_pipeline("e_step.kl=0.5")
    assert again.built <= 1  # its report


def test_a_stage_that_fails_leaves_nothing_and_says_why_in_one_sentence(checkout: Path, stage) -> None:
    write_params(checkout)
    for name in ("data", "corpus", "demonstrations", "base"):
        stage(name)
    shutil.rmtree(checkout / "pipeline" / "e_step", ignore_errors=True)
    write_params(checkout, "e_step.window=13")
    printed = stage("e_step", code=2)
    assert printed.splitlines()[-1] == "ra3: e_step.window is 13, expected another number"
    assert not list((checkout / "pipeline").glob("*e_step*"))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "sentence"),
    [
        ("estep", "name: dvc", "ra3: estep: expected a stage of dvc.yaml: data, corpus, "),
        ("e_step", None, "params.yaml: no such file; this command is run by DVC, in the folder of dvc.yaml"),
        ("e_step", "e_step: {window: 0}", "params.yaml: e_step.window: input should be greater than 0, found 0"),
        ("e_step", "rounds: 2", "params.yaml: rounds is 2, expected 1: dvc.yaml lists one round"),
        ("e_step", "seeds: 2", "params.yaml: seeds is 2, expected 1: dvc.yaml lists one seed"),
        ("e_step", "arms: {rlvr: [base]}", "params.yaml: arms: dvc.yaml lists the demo's arms at given rates"),
        ("e_step", "name: dvc", "base: no artifact, expected a folder with a manifest.json; `dvc repro"),
        ("corpus", "name: dvc", "data: no such folder; `dvc repro data` makes it"),
        ("evaluate@ra3", "name: dvc", "m_step: no artifact, "),
        ("report", "name: dvc", "data: no such folder; `dvc repro data` makes it"),
    ],
)
def test_bad_input_is_one_sentence(
    name: str, params: str | None, sentence: str, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RA3_ROOT", str(tmp_path))
    if params is not None:
        (tmp_path / "params.yaml").write_text(params)
    assert dvc_stage.main([name]) == 2
    printed = capfd.readouterr().err.splitlines()
    (line,) = [line for line in printed if " mlflow.store." not in line]  # other tests have set its log level
    assert sentence in line and line.startswith("ra3: ")
    assert not (tmp_path / "pipeline").exists()


# -- data, base, curves ------------------------------------------------------------------------------------------------


def test_data_are_the_accepted_ones_or_made_from_the_section(new_checkout, tmp_path: Path, monkeypatch, capfd) -> None:
    from tasks.versioning import accept, dvc_digest

    root = new_checkout(tmp_path, load("smoke", SMALL_DATA).data)
    monkeypatch.chdir(root)
    monkeypatch.setenv("RA3_ROOT", str(root))
    config = write_params(root)
    (root / "data" / "mine.txt").write_text("the user's own tasks")

    def made() -> str:
        assert dvc_stage.main(["data"]) == 0
        return capfd.readouterr().err

    assert "generated" in made()  # data/ was changed and not accepted
    assert not (root / "pipeline" / "data" / "mine.txt").exists()
    accept(config.data, root, StageLog())
    assert "copied from data/" in made()
    assert dvc_digest(root / "pipeline" / "data") == dvc_digest(root / "data")

    write_params(root, "data.commented=0.9")
    before = dvc_digest(root / "data")
    assert "generated" in made()
    suite = json.loads((root / "pipeline" / "data" / "suite.json").read_text())
    assert DataConfig.model_validate(suite["config"]).commented == 0.9
    assert dvc_digest(root / "data") == before


def test_a_model_of_the_users_is_named_not_copied(checkout: Path, stage, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    model.mkdir()
    (model / "config.json").write_text("{}")
    write_params(checkout, f"base.model={model}")
    for name in ("data", "corpus", "demonstrations", "base", "e_step"):
        stage(name)
    assert [path.name for path in (checkout / "pipeline" / "base").iterdir()] == ["external.json"]
    (model / "config.json").write_text('{"changed": true}')
    assert f"base.model: {model} has changed since" in stage("e_step", code=2)


def test_curves_have_the_steps_that_logged_the_column(tmp_path: Path) -> None:
    rows = [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 1.0, "held_out_pass": 0.25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for column, text in {
        "reward": "step,reward\n1,0.5\n2,1.0\n",
        "held_out_pass": "step,held_out_pass\n2,0.25\n",
        "never": "step,never\n",
    }.items():
        dvc_stage.write_curve(tmp_path / "metrics.jsonl", column, tmp_path / "curves" / f"{column}.csv")
        assert (tmp_path / "curves" / f"{column}.csv").read_text() == text
