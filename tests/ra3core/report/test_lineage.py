"""What an arm cost, by the digests of its stages' inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ra3core.report.costs import arm_costs
from ra3core.report.inputs import load
from ra3core.report.lineage import ancestors, costs

Inputs = dict[str, Path]


def edit(made: Inputs, name: str, **changes: object) -> None:
    path = made[name] / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def digest(inputs: Inputs, name: str) -> str:
    return json.loads((inputs[name] / "manifest.json").read_text())["digest"]


def chained(inputs: Inputs) -> Inputs:
    """RA3's stages as they follow each other."""
    of = {stage: digest(inputs, f"{stage}/0") for stage in ("base", "demonstrations", "e_step_1")}
    edit(inputs, "e_step_1/0", inputs={"model": of["base"], "demonstrations": of["demonstrations"]})
    edit(inputs, "bootstrap_1/0", inputs={"policy": of["e_step_1"], "demonstrations": of["demonstrations"]})
    return inputs


def test_an_arm_costs_the_stages_that_lead_to_it(artifacts: Callable[..., Inputs]) -> None:
    run = load(chained(artifacts(seeds=(0,), rates={})))
    assert [one.stage for one in ancestors(run, "ra3_rlvr", 0)] == (
        ["corpus", "base", "demonstrations", "e_step_1", "bootstrap_1", "m_step_1", "rlvr_tasks", "ra3_rlvr"]
    )
    found = costs(run)
    assert found["ntp"].stages == ("corpus", "base", "demonstrations", "ntp")
    assert found["ntp"].beyond_base.train_tokens == 812_000
    assert found["ntp"].total.train_tokens == 812_000 + 7_400_000
    assert found["ra3"].beyond_base.seconds == 2.1 + 57 + 31 + 52
    assert found["base"].beyond_base.seconds == 0


def test_what_a_budget_was_copied_from_is_not_paid_for(artifacts: Callable[..., Inputs]) -> None:
    inputs = chained(artifacts(seeds=(0,), rates={}))
    own = {"model": digest(inputs, "base/0"), "demonstrations": digest(inputs, "demonstrations/0")}
    edit(inputs, "ntp_compute/0", inputs={**own, "matched_1": digest(inputs, "bootstrap_1/0")})
    assert "e_step_1" not in costs(load(inputs))["ntp_compute"].stages


def test_of_two_arms_that_came_out_alike_rlvr_started_from_its_own(artifacts: Callable[..., Inputs]) -> None:
    inputs = chained(artifacts(seeds=(0,), rates={}))
    edit(inputs, "ntp/0", digest=digest(inputs, "m_step_1/0"))
    assert "m_step_1" in costs(load(inputs))["ra3_rlvr"].stages


def test_seeds_share_what_is_made_once(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1), rates={})
    shared = digest(inputs, "rlvr_tasks/0")
    del inputs["rlvr_tasks/1"]
    edit(inputs, "ntp_rlvr/1", inputs={"model": digest(inputs, "ntp/1"), "tasks": shared})
    assert "rlvr_tasks" in [one.stage for one in ancestors(load(inputs), "ntp_rlvr", 1)]


def test_the_table_has_a_row_an_arm(artifacts: Callable[..., Inputs]) -> None:
    table = arm_costs(load(chained(artifacts(seeds=(0,), rates={}))))
    assert table is not None
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in table.rows}
    assert rows["NTP, data-matched"] == ["43", "307", "812 k", "8.21 M", "812 k", "8.21 M"]
    assert set(rows) == {
        "Base model",
        "NTP, data-matched",
        "NTP, compute-matched",
        "RA3 without E-step RL",
        "RA3",
        "NTP, then RLVR",
        "RA3, then RLVR",
    }
