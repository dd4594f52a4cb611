"""The paper's three claims: judged by the data, by one rule, and never over seeds that are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from ra3core.config import ReportConfig
from ra3core.report.blocks import Statement, Verdict
from ra3core.report.claims import Evidence, summaries
from ra3core.report.inputs import load
from ra3core.report.report import measured
from ra3core.report.verdicts import LABELS, verdict

Inputs = dict[str, Path]
LOW, HIGH = (0.2, 0.2, 0.2), (0.9, 0.9, 0.9)


def evidence_of(inputs: Inputs) -> dict[tuple[str, str], Evidence]:
    config = ReportConfig(resamples=300)
    return {(one.claim, one.name): one for one in measured(config, load(inputs)).evidence}


def set_metric(inputs: Inputs, name: str, metric: str, value: float) -> None:
    path = inputs[name] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"][metric] = value
    path.write_text(json.dumps(manifest))


def set_rlvr(inputs: Inputs, name: str, rates: dict[int, float]) -> None:
    """An RLVR log with held-out pass rates at some steps."""
    rows = [{"step": step, "held_out_pass": rate} for step, rate in rates.items()]
    (inputs[name] / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("low", "high", "direction", "said"),
    [
        (0.1, 0.2, 1, "shown"),
        (-0.1, 0.2, 1, "not shown"),
        (0.0, 0.2, 1, "not shown"),
        (-0.2, -0.1, 1, "against"),
        (-0.2, -0.1, -1, "shown"),
        (0.1, 0.2, -1, "against"),
        (nan, nan, 1, "not shown"),
    ],
)
def test_the_rule(low: float, high: float, direction: int, said: str) -> None:
    assert verdict(low, high, direction) == said


def test_cross_entropy_is_judged_on_each_kind_of_token(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(rates={})
    for seed, (ra3, ntp) in enumerate([(4.9, 4.0), (5.1, 4.1), (5.0, 4.0)]):
        set_metric(inputs, f"m_step_1/{seed}", "held_out_nats", ra3)
        set_metric(inputs, f"ntp/{seed}", "held_out_nats", ntp)
    found = evidence_of(inputs)
    code, whole = found["cross_entropy", "held_out_code"], found["cross_entropy", "held_out_nats"]
    assert code.statement.verdict == "shown" and "nats per code token" in code.statement.text
    assert whole.statement.verdict == "against" and "RA3's M-step ends above NTP" in whole.statement.text
    # differences .9, 1, 1: mean 29/30, s = .0577, t(2) = 4.3027
    assert (whole.first, whole.second) == pytest.approx((5.0, 12.1 / 3))
    assert (whole.value, whole.low) == pytest.approx((29 / 30, 29 / 30 - 4.3027 * 0.057735 / 3**0.5), abs=1e-4)
    assert whole.effect_size == pytest.approx(29 / 30 / 0.057735, abs=1e-2)
    assert "3 seeds" in whole.statement.text and "by seed +0.90, +1.00, +1.00" in whole.statement.text
    assert summaries(list(found.values()))[0].label == "Mixed"


def test_one_seed_claims_nothing_that_seeds_have_to_show(artifacts: Callable[..., Inputs]) -> None:
    found = evidence_of(
        artifacts(seeds=(0,), rates={"ntp_compute": LOW, "ra3": HIGH, "ntp_rlvr": LOW, "ra3_rlvr": HIGH})
    )
    for (claim, name), one in found.items():
        if claim == "cross_entropy" or "pass_at_1" not in (claim, name.rpartition(":")[2]):
            assert one.statement.label == "Not shown" and "1 seed, so that there is no interval" in one.statement.text
    assert found["pass_at_1", "ntp_compute"].statement.label == "Shown, 1 seed"
    assert [one.label for one in summaries(list(found.values()))] == ["Not shown", "Shown, 1 seed", "In part, 1 seed"]
    assert "1 seed, 160 tasks" in found["pass_at_1", "ntp_compute"].statement.text


@pytest.mark.parametrize(("ra3", "ntp", "label"), [(HIGH, LOW, "Shown"), (LOW, HIGH, "Against the paper")])
def test_pass_at_1_against_compute_matched_ntp(
    artifacts: Callable[..., Inputs], ra3: tuple, ntp: tuple, label: str
) -> None:
    one = evidence_of(artifacts(rates={"ntp_compute": ntp, "ra3": ra3}))["pass_at_1", "ntp_compute"]
    assert one.statement.label == label
    assert ("RA3 is above NTP (compute)" in one.statement.text) == (label == "Shown")
    assert one.effect == "Cohen's h" and (one.effect_size > 0) == (one.value > 0)


def test_rlvr_is_judged_by_height_and_by_speed(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts()
    for seed, arrives in enumerate((10, 20, 10)):
        rates = {step: 0.6 if step >= arrives else 0.4 for step in (0, 10, 20, 40)}
        set_rlvr(inputs, f"ra3_rlvr/{seed}", rates)
    found = evidence_of(inputs)
    for name in ("ntp:pass_at_1", "ntp:final", "ntp:area", "ntp:steps:0.5"):
        assert found["rlvr", name].statement.verdict == "shown", name
    assert "reaches 50\N{NO-BREAK SPACE}% of held-out tasks sooner" in found["rlvr", "ntp:steps:0.5"].statement.text
    assert ("rlvr", "ntp:steps:0.75") not in found  # nobody gets there


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        ([("shown", 3), ("shown", 3)], "Shown"),
        ([("not shown", 1), ("not shown", 3)], "Not shown"),
        ([("against", 3), ("against", 1)], "Against the paper, 1 seed"),
        ([("shown", 3), ("not shown", 1)], "In part"),
        ([("not shown", 3), ("shown", 1)], "In part, 1 seed"),
        ([("not shown", 3), ("against", 3)], "Against in part"),
        ([("shown", 3), ("against", 1), ("not shown", 3)], "Mixed, 1 seed"),
    ],
)
def test_the_badge_of_a_claim_says_what_its_parts_do(
    artifacts: Callable[..., Inputs], parts: list[tuple[Verdict, int]], label: str
) -> None:
    one = next(iter(evidence_of(artifacts(seeds=(0,), rates={}, tasks=1)).values()))
    made = [replace(one, per_seed=(0.0,) * seeds, statement=Statement(said, LABELS[said], "")) for said, seeds in parts]
    assert summaries(made)[0].label == label


def test_seeds_that_all_arrive_at_one_step_show_nothing(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(rates={})
    for seed in (0, 1, 2):
        set_rlvr(inputs, f"ra3_rlvr/{seed}", {0: 0.1, 10: 0.6, 20: 0.6})
        set_rlvr(inputs, f"ntp_rlvr/{seed}", {0: 0.1, 10: 0.1, 20: 0.6})
    one = evidence_of(inputs)["rlvr", "ntp:steps:0.5"]
    assert (one.value, one.statement.verdict) == (-10, "not shown")
    assert "−10.0 (the same in each of 3 seeds, so that there is no interval; seeds that" in one.statement.text


def test_a_rate_that_a_model_starts_with_is_no_evidence_of_speed(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1), rates={})
    for seed, start in enumerate((0.6, 0.4)):
        set_rlvr(inputs, f"ra3_rlvr/{seed}", {0: start, 10: 0.6, 20: 0.8})
        set_rlvr(inputs, f"ntp_rlvr/{seed}", {0: 0.1, 10: 0.1, 20: 0.55})
    steps = {name for _, name in evidence_of(inputs) if name.startswith("ntp:steps")}
    assert steps == {"ntp:steps:0.75"}  # one seed of RA3's has .25 and .5 before the first step


def test_a_claim_without_evidence_is_not_measured(artifacts: Callable[..., Inputs]) -> None:
    said = summaries(list(evidence_of(artifacts(rates={}, missing=("ntp_rlvr", "ra3_rlvr"))).values()))
    assert [one.label for one in said][1:] == ["Not measured", "Not measured"]
