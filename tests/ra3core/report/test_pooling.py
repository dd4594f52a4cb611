"""Which runs make one report, and which are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import RunConfig
from ra3core.errors import UserError
from ra3core.report.pooling import Recorded, pooled

Inputs = dict[str, Path]


def run(name: str, stages: Mapping[str, Path], commit: str = "aaa", **changes: Any) -> Recorded:
    """A run with the default settings but for `changes` (dotted names with __)."""
    config = RunConfig().model_dump(mode="json")
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        target = config
        for section in sections:
            target = target[section]
        target[key] = value
    return Recorded(
        name, config, commit, dict(stages), {stage: f"id-{stage}" for stage in stages}, (f"Note on {name}.",)
    )


@pytest.fixture
def seeds(artifacts: Callable[..., Inputs]) -> tuple[Inputs, Inputs]:
    """Stages of seeds 0 and 1, by seed."""
    inputs = artifacts(seeds=(0, 1), rates={})
    return tuple({name: path for name, path in inputs.items() if name.endswith(f"/{s}")} for s in (0, 1))  # pyright: ignore


def test_seeds_are_pooled(seeds: tuple[Inputs, Inputs]) -> None:
    config, inputs = pooled(
        [run("one", seeds[0]), run("two", seeds[1], seed=1, registry__enabled=False, report__examples=7)]
    )
    assert inputs == seeds[0] | seeds[1]
    assert config.settings["seed"] == 0 and "report" not in config.settings
    assert config.mlflow_runs["ntp/1"] == "id-ntp/1"
    assert config.notes == ["Note on one.", "Note on two."]
    assert config.examples == 3  # the first run's


def test_other_settings_are_refused_by_name(seeds: tuple[Inputs, Inputs]) -> None:
    other = run("two", seeds[1], seed=1, m_step__learning_rate=0.5, rounds=3)
    with pytest.raises(
        UserError, match=r"one and two differ in m_step.learning_rate \(0.001, 0.5\) and 1 more; expected"
    ):
        pooled([run("one", seeds[0]), other])


def test_the_same_seed_with_other_content_is_refused(seeds: tuple[Inputs, Inputs]) -> None:
    clash = {"ntp/0": seeds[1]["ntp/1"]}
    with pytest.raises(UserError, match="one and two both have ntp/0, with different content"):
        pooled([run("one", seeds[0]), run("two", clash)])
    again = {"ntp/0": seeds[0]["ntp/0"]}
    assert pooled([run("one", seeds[0]), run("two", again)])[1] == seeds[0]


def test_think_penalties_stand_side_by_side(seeds: tuple[Inputs, Inputs]) -> None:
    first, second = run("one", seeds[0]), run("two", seeds[0], e_step__think_penalty=float("inf"))
    config, inputs = pooled([first, second])
    assert inputs["ntp/0"] == inputs["c=0.3 ntp/0"] == inputs["c=inf ntp/0"]
    assert "All but the figure on c is about c = 0.3, the first run given." in config.notes


def test_commits_that_differ_are_said(seeds: tuple[Inputs, Inputs]) -> None:
    config, _ = pooled([run("one", seeds[0]), run("two", seeds[1], "bbb")])
    assert config.commit == "aaa" and "The runs are of different commits: aaa, bbb." in config.notes


def test_nothing_finished_is_no_report() -> None:
    with pytest.raises(UserError, match="one: no stage is finished yet"):
        pooled([run("one", {})])
