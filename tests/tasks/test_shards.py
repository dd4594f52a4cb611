"""What is submitted for a number of shards, and which artifacts meet in the merge."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from flows import environment
from ra3core.artifacts import Artifact, Store
from ra3core.config import BenchmarkConfig, BootstrapConfig, BootstrapShard, RunConfig, RuntimeConfig, load
from ra3core.errors import UserError


@pytest.fixture(scope="module")
def in_flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """in_flow(body) calls a function in a Prefect flow, with a server of its own."""
    root = tmp_path_factory.mktemp("prefect")
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PREFECT_HOME", str(root))
        stack.enter_context(environment.prefect_api(root))()
        from prefect import flow
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
            yield lambda body: flow(body, name="shards", validate_parameters=False)()
            environment._send_what_waits()
    os.environ.clear()
    os.environ.update(before)


class Recorded:
    """A session that builds nothing: it remembers what it was asked for, and answers with an artifact of that name."""

    def __init__(self, shards: int, *overrides: str, failing: str = "") -> None:
        self.config: RunConfig = load("smoke", list(overrides))
        self.runtime = RuntimeConfig(shards=shards)
        self.failing = failing
        self.asked: dict[str, SimpleNamespace] = {}

    def stage(
        self,
        kind: str,
        function: Any,
        config: BaseModel,
        inputs: Mapping[str, Artifact],
        *,
        label: str,
        seed: int,
        rank: int = 0,
        shards: Sequence[Artifact] = (),
        part_of: tuple[str, str] | None = None,
    ) -> Any:
        from prefect.states import Completed

        if label == self.failing:
            raise UserError(f"{label} failed")
        sources = {role: artifact.stage for role, artifact in inputs.items()}
        sources |= {f"shard_{number}": shard.stage for number, shard in enumerate(shards, 1)}
        found = SimpleNamespace(
            kind=kind, function=function.__name__, config=config, inputs=sources, seed=seed, rank=rank, part_of=part_of
        )
        self.asked[label] = found
        return Completed(data=made(label))

    def submit(self, task: Any, *arguments: Any, **options: Any) -> Any:
        return task.prefect.submit(self, *arguments, **options)

    def made(self, *stage: Any) -> None:
        """Nothing is there."""


def made(name: str) -> Artifact:
    return Store.external(name, Path(name), digest=name)


BOOTSTRAP = {"policy": "policy", "likelihood": "likelihood", "demonstrations": "demonstrations"}


def annotate(in_flow: Callable[[Callable[[], Any]], Any], session: Any) -> Artifact:
    from prefect import task

    from tasks.bootstrap import submit_bootstrap

    def body() -> Artifact:
        policy = task(made, persist_result=False).submit("policy")
        merged, shards = submit_bootstrap(session, 7, "b", policy, made("likelihood"), made("demonstrations"), rank=2)
        assert len(shards) == (session.runtime.shards if session.runtime.shards > 1 else 0)
        for shard in shards:
            shard.result()
        return merged.result()

    return in_flow(body)


def test_one_shard_is_the_plain_stage(in_flow: Callable[[Callable[[], Any]], Any]) -> None:
    session = Recorded(1)
    assert annotate(in_flow, session).stage == "b"
    (plain,) = session.asked.values()
    assert (plain.kind, plain.function, plain.inputs, plain.seed, plain.rank) == (
        "bootstrap",
        "bootstrap",
        BOOTSTRAP,
        7,
        2,
    )
    assert plain.config == session.config.bootstrap


def test_shards_are_mapped_and_merged_in_order(in_flow: Callable[[Callable[[], Any]], Any]) -> None:
    session = Recorded(3, "e_step.think_penalty=.inf")
    assert annotate(in_flow, session).stage == "b"
    assert len(session.asked) == 4
    settings = session.config.bootstrap.model_copy(update={"think_penalty": float("inf")})
    for number in (1, 2, 3):
        shard = session.asked[f"b:shard_{number}_of_3"]
        assert (shard.kind, shard.function, shard.inputs) == ("annotate_shard", "annotate_shard", BOOTSTRAP)
        assert (shard.seed, shard.rank, shard.part_of) == (7, 2, ("bootstrap", "b"))
        assert shard.config == BootstrapShard(**settings.model_dump(), shard=number, shards=3)
    merged = session.asked["b"]
    assert (merged.kind, merged.function) == ("bootstrap", "bootstrap")
    assert merged.inputs == BOOTSTRAP | {f"shard_{number}": f"b:shard_{number}_of_3" for number in (1, 2, 3)}
    assert type(merged.config) is BootstrapConfig and merged.config == settings


def test_a_failed_shard_is_told_and_nothing_is_merged(in_flow: Callable[[Callable[[], Any]], Any]) -> None:
    session = Recorded(2, failing="b:shard_2_of_2")
    with pytest.raises(UserError, match=r"^b:shard_2_of_2 failed$"):
        annotate(in_flow, session)
    assert "b" not in session.asked


def test_evaluation(in_flow: Callable[[Callable[[], Any]], Any]) -> None:
    config = BenchmarkConfig(benchmark="humaneval", modes=["free"])

    def evaluated(shards: int) -> Recorded:
        from tasks.evaluate import submit_evaluate

        session: Any = Recorded(shards)

        def body() -> None:
            merged, parts = submit_evaluate(session, 7, "e", made("model"), made("tasks"), config, rank=3)
            assert merged.result().stage == "e"
            assert [part.result().stage for part in parts] == [
                f"e:shard_{number}_of_{shards}" for number in range(1, shards + 1) if shards > 1
            ]

        in_flow(body)
        return session

    (plain,) = evaluated(1).asked.values()
    assert (plain.kind, plain.config, plain.inputs, plain.seed, plain.rank) == (
        "evaluate",
        config,
        {"model": "model", "tasks": "tasks"},
        7,
        3,
    )
    asked = evaluated(2).asked
    assert asked.keys() == {"e", "e:shard_1_of_2", "e:shard_2_of_2"}
    shard, merged = asked["e:shard_2_of_2"], asked["e"]
    assert (shard.kind, shard.function, shard.part_of) == ("evaluate_shard", "evaluate_shard", ("evaluate", "e"))
    assert shard.config.model_dump() == config.model_dump() | {"shard": 2, "shards": 2}
    assert (merged.kind, merged.function, merged.config) == ("evaluate", "evaluate", config)
    assert merged.inputs == plain.inputs | {"shard_1": "e:shard_1_of_2", "shard_2": "e:shard_2_of_2"}
