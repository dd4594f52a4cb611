"""The registry in a real SQLite store, with a tiny real model; results are invented so that the gate is known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import registered_runs
from mlflow import MlflowClient
from prefect.states import Completed
from registered_runs import NAME, PROMPT, Evaluated, World, passed

from ra3core.artifacts import content_digest
from ra3core.errors import UserError
from tasks import registry, versions
from tasks.registry import register
from tasks.tracking import write_link
from tasks.versions import CHAMPION, Decision, Registry, Unreachable

ALL, NONE = passed([4] * 30), passed([0] * 30)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def world(tmp_path: Path, empty_database: Path) -> World:
    (tmp_path / "mlflow").mkdir()
    for file in empty_database.parent.iterdir():  # the write-ahead log belongs to it
        shutil.copy(file, tmp_path / "mlflow")
    return World(tmp_path)


@pytest.fixture
def no_child(monkeypatch) -> None:
    """Packages are made in this process, as folders of the same files; one test makes a real one."""

    class Here:
        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None: ...
        def run(self, function, config, context, sink) -> None:
            context.out.mkdir()
            model = context.inputs["model"] / "model"
            (context.out / "model").mkdir()
            for file in model.iterdir():
                (context.out / "model" / file.name).write_bytes(file.read_bytes())
            (context.out / "README.md").write_text(config.card)
            (context.out / "results.json").write_text(config.results)

    monkeypatch.setattr(registry, "Runner", Here)


def decide(world: World, made, **settings: Any) -> Decision:
    with world.session(**settings) as session:
        decision = register(session, made, world.report, "abc")
    assert decision is not None
    return decision


def champion(world: World) -> str | None:
    aliases = MlflowClient(tracking_uri=world.uri).get_registered_model(NAME).aliases
    return str(aliases[CHAMPION]) if CHAMPION in aliases else None


def test_first_then_better_then_not_shown(world: World, no_child) -> None:
    first = decide(world, world.run(1, passed([4] * 10 + [0] * 20)))
    assert (first.verdict, first.version, champion(world)) == ("first", "1", "1")

    second = decide(world, world.run(2, ALL))
    assert (second.verdict, second.version, second.champion, champion(world)) == ("better", "2", "1", "2")
    assert "difference +66.7 points" in second.sentence and "30 problems (embedded)" in second.sentence

    third = decide(world, world.run(3, ALL))
    assert (third.verdict, third.version, champion(world)) == ("not shown", "3", "2")
    assert third.sentence.startswith(f"{NAME} version 2 stays champion, {NAME} version 3 is not shown to beat it")


def test_the_decision_is_on_the_version_and_on_the_run(world: World, no_child) -> None:
    decide(world, world.run(1, NONE))
    with world.session() as session:
        decision = register(session, world.run(2, ALL), world.report, "abc")
        run_id = session.tracking.run_id
    assert decision is not None and decision.comparison is not None
    client = MlflowClient(tracking_uri=world.uri)
    tags = client.get_model_version(NAME, "2").tags
    assert tags["gate.verdict"] == "better" and tags["gate.sentence"] == decision.sentence
    assert (tags["gate.difference"], tags["gate.bound"], tags["gate.level"]) == ("1", "1", "0.95")
    run = client.get_run(run_id)
    assert run.data.metrics["registry/bound"] == 1.0 and run.data.metrics["registry/problems"] == 30
    assert run.data.tags["registry.version"] == "2" and run.data.tags["registry.verdict"] == "better"


def test_a_version_says_where_it_comes_from(world: World, no_child) -> None:
    made = world.run(1, ALL)
    with world.session() as session:
        write_link(made["ra3_rlvr/0"].path, session.tracking.uri, "run-of-rlvr")
        register(session, made, world.report, "abc")
    version = MlflowClient(tracking_uri=world.uri).get_model_version(NAME, "1")
    final = made["ra3_rlvr/0"]
    assert version.tags["artifact.digest"] == final.digest
    assert version.tags["model.digest"] == content_digest(final.path / "model")
    assert version.tags["data.digest"] == "data-a" and version.tags["git_commit"] == "abc"
    parents = {name: version.tags[f"parent.{name}"] for name in ("data", "base/0", "m_step_1/0", "demonstrations/0")}
    assert parents == {name: made[name].digest for name in parents}
    assert version.tags["run.ra3_rlvr/0"] == "run-of-rlvr"
    assert "pass@1 on embedded: 100.0 %" in version.description


def test_an_equal_model_is_not_registered_again(world: World, no_child, monkeypatch) -> None:
    decide(world, world.run(1, NONE))
    decide(world, world.run(2, ALL))
    monkeypatch.setattr(registry, "Runner", None)  # nothing is packaged any more
    again = decide(world, world.run(2, ALL))
    assert (again.verdict, again.version, champion(world)) == ("same", "2", "2")
    tags = MlflowClient(tracking_uri=world.uri).get_model_version(NAME, "2").tags
    assert (tags["gate.verdict"], tags["gate.difference"]) == ("better", "1")  # what made it champion stays
    loser = decide(world, world.run(1, NONE))
    assert (loser.verdict, loser.version, champion(world)) == ("not shown", "1", "2")
    assert len(Registry(world.uri, NAME).versions()) == 2


@pytest.mark.parametrize("change", [{"data": "data-b"}, {"temperature": 0.8}])
def test_a_champion_that_was_measured_otherwise_is_measured_again(
    world: World, no_child, monkeypatch, change: dict[str, Any]
) -> None:
    """With its own results (none solved) it would lose; on the new tasks it solves as many as the new model."""
    asked: list[Any] = []

    def again(session, seed, label, model, tasks, config):
        asked.append((label, model.digest, tasks.digest, config.temperature, config.modes))
        found = Evaluated(counts=ALL, temperature=config.temperature)
        inputs = {"model": model, "tasks": tasks}
        artifact, _ = session.store.build("evaluate", registered_runs.evaluation, found, inputs)
        return Completed(data=artifact)

    monkeypatch.setattr(registry, "evaluate", SimpleNamespace(fn=again))
    old = world.run(1, NONE)
    decide(world, old)
    made = world.run(2, ALL, **change)
    temperature = made["evaluate_ra3_rlvr/0"].manifest.config["temperature"]
    decision = decide(world, made, evaluation={"temperature": temperature})
    assert (decision.verdict, champion(world)) == ("not shown", "1")
    expected = ("evaluate_champion", old["ra3_rlvr/0"].digest, made["data"].digest, temperature, ["free"])
    assert asked == [expected]
    fetched = world.root / "artifacts" / "external" / f"registered-{old['ra3_rlvr/0'].digest[:16]}" / "model"
    assert content_digest(fetched) == content_digest(old["ra3_rlvr/0"].path / "model")


def test_a_champion_whose_files_were_changed_stays_uncompared(world: World, no_child) -> None:
    decide(world, world.run(1, NONE))
    version = Registry(world.uri, NAME).versions()[0]
    weights = Path(version.source.removeprefix("file://")) / "model" / "model.safetensors"
    weights.write_bytes(b"other weights")
    decision = decide(world, world.run(2, ALL, data="data-b"))
    assert (decision.verdict, decision.version, champion(world)) == ("not compared", "2", "1")
    assert "are not those that were registered" in decision.sentence


def test_a_failing_evaluation_of_the_champion_leaves_it_where_it_is(world: World, no_child, monkeypatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise UserError("the weights cannot be read")

    monkeypatch.setattr(registry, "evaluate", SimpleNamespace(fn=fails))
    decide(world, world.run(1, NONE))
    made = world.run(2, NONE)
    decide(world, made)
    tags = MlflowClient(tracking_uri=world.uri).get_model_version(NAME, "2").tags
    assert (tags["gate.verdict"], tags["gate.difference"]) == ("not shown", "0")
    decision = decide(world, world.run(2, ALL, data="data-b"))
    assert decision.verdict == "not compared" and "the weights cannot be read" in decision.sentence
    tags = MlflowClient(tracking_uri=world.uri).get_model_version(NAME, "2").tags
    assert (tags["gate.verdict"], tags["gate.difference"]) == ("not compared", "")  # no number of another comparison


def test_a_champion_of_another_run_meanwhile_is_compared_too(world: World, no_child, monkeypatch) -> None:
    decide(world, world.run(1, NONE))
    decide(world, world.run(2, ALL))
    client = MlflowClient(tracking_uri=world.uri)
    client.set_registered_model_alias(NAME, CHAMPION, "1")
    original, moved = registry.judge, []

    def judge(*arguments: Any) -> Decision:
        if not moved:
            moved.append(client.set_registered_model_alias(NAME, CHAMPION, "2"))
        return original(*arguments)

    monkeypatch.setattr(registry, "judge", judge)
    decision = decide(world, world.run(3, passed([4] * 15 + [0] * 15)))
    assert (decision.verdict, decision.champion, champion(world)) == ("not shown", "2", "2")


def test_without_a_server_the_run_goes_on(world: World, no_child) -> None:
    made = world.run(1, ALL)
    with world.session() as session:
        session.tracking.uri = "http://127.0.0.1:9"
        decision = register(session, made, world.report, "abc")
    assert decision is not None and decision.verdict == "not registered" and not decision.moved
    assert "http://127.0.0.1:9 does not answer" in decision.sentence and "same command" in decision.sentence
    assert decide(world, made).verdict == "first"


def test_a_run_is_found_by_the_id_that_it_had_while_the_server_was_away(world: World, no_child, tmp_path: Path) -> None:
    local = "local-" + "0" * 32
    found = Registry(world.uri, NAME)
    (tmp_path / "package").mkdir()
    with pytest.raises(Unreachable, match="has not been sent this run yet"):
        found.add(local, tmp_path / "package", {}, "")
    with world.session() as session:
        client = MlflowClient(tracking_uri=world.uri)
        client.set_tag(session.tracking.run_id, versions.LOCAL_RUN, local)
        assert found.add(local, tmp_path / "package", {}, "").run_id == session.tracking.run_id


def test_turned_off_and_an_arm_that_was_not_trained(world: World, no_child) -> None:
    made = world.run(1, ALL)
    with world.session(enabled=False) as session:
        assert register(session, made, world.report, "abc") is None
    del made["ra3_rlvr/0"]
    decision = decide(world, made)
    assert decision.verdict == "not registered" and "trained no ra3_rlvr" in decision.sentence


# a real one

LOAD = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
generate = mlflow.transformers.load_model(f"models:/{sys.argv[2]}@champion")
print("@@" + repr(generate(sys.argv[3], max_new_tokens=8, do_sample=False)[0]["generated_text"]))
"""


def test_a_registered_model_is_loaded_by_its_alias_without_a_network(world: World) -> None:
    made = world.run(1, ALL)
    assert decide(world, made).verdict == "first"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, world.uri, NAME, PROMPT], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout.split("@@")[1]) == generated(made["ra3_rlvr/0"].path / "model")

    source = Path(Registry(world.uri, NAME).versions()[0].source.removeprefix("file://"))
    assert (source / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")
    results = json.loads((source / "results.json").read_text())
    assert results["benchmarks"][0]["problems"] == ALL and results["benchmarks"][0]["tasks"] == "data-a"
    assert "transformers==" in (source / "requirements.txt").read_text()
    assert str(world.root) not in (source / "MLmodel").read_text() + (source / "LICENSE.txt").read_text()
    assert {path.suffix for path in (source / "model").iterdir()} <= {".json", ".safetensors"}
    assert generated(source / "model") == generated(made["ra3_rlvr/0"].path / "model")
    assert not list(world.store.root.glob(".register-*"))


def generated(folder: Path) -> str:
    from ra3core.lm.models import load_model, load_tokenizer

    model, tokenizer = load_model(folder), load_tokenizer(folder)
    tokens = tokenizer(PROMPT, return_tensors="pt")
    out = model.generate(**tokens, max_new_tokens=8, do_sample=False)
    text = tokenizer.decode(out[0][tokens["input_ids"].shape[1] :], skip_special_tokens=True)
    return PROMPT + text
