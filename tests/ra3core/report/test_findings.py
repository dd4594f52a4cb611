"""Sentences follow the data: shown, not shown, against the paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ra3core.report.findings import DECODING, MAIN, findings, not_run, order, uncertainty
from ra3core.report.inputs import load
from ra3core.report.scores import Scores

Inputs = dict[str, Path]
LOW, HIGH = (0.2, 0.2, 0.2), (0.9, 0.9, 0.9)


def scores_of(inputs: Inputs) -> Scores:
    return Scores(load(inputs), resamples=300)


@pytest.mark.parametrize(
    ("ra3", "ntp", "verdict", "words"),
    [
        (HIGH, LOW, "shown", "RA3 solves more tasks than NTP on the same demonstrations:"),
        (LOW, LOW, "not shown", "That RA3 solves more tasks than NTP on the same demonstrations is not shown:"),
        (LOW, HIGH, "against", "RA3 solves fewer tasks than NTP on the same demonstrations:"),
    ],
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_verdict_flips_with_the_data(
    artifacts: Callable[..., Inputs], ra3: tuple, ntp: tuple, verdict: str, words: str, seeds: tuple[int, ...]
) -> None:
    scores = scores_of(artifacts(rates={"base": LOW, "ntp": ntp, "ra3": ra3}, seeds=seeds))
    found = {finding.comparison.name: finding for finding in findings(scores, MAIN)}
    assert set(found) == {"ra3_ntp", "ntp_base"}
    finding = found["ra3_ntp"]
    assert finding.statement.verdict == verdict
    label = {"shown": "Shown", "not shown": "Not shown", "against": "Against the paper"}[verdict]
    assert finding.statement.label == (label if len(seeds) > 1 or verdict == "not shown" else f"{label}, 1 seed")
    assert ("1 seed" in finding.statement.text) == (len(seeds) == 1)
    assert words in finding.statement.text
    assert finding.difference.low <= finding.difference.value <= finding.difference.high
    assert ("by seed" in finding.statement.text) == (len(seeds) > 1)
    assert len(finding.difference.per_seed) == len(seeds)


@pytest.mark.parametrize(
    ("base", "ntp", "ra3", "verdict"),
    [
        (0.1, 0.4, 0.9, "shown"),
        (0.4, 0.4, 0.9, "not shown"),
        (0.9, 0.2, 0.9, "against"),
        (0.1, 0.9, 0.4, "against"),
    ],
)
def test_order_of_the_paper(
    artifacts: Callable[..., Inputs], base: float, ntp: float, ra3: float, verdict: str
) -> None:
    rates = {name: (rate,) * 3 for name, rate in (("base", base), ("ntp", ntp), ("ra3", ra3))}
    statement = order(findings(scores_of(artifacts(rates=rates)), MAIN))
    assert statement is not None and statement.verdict == verdict


def test_the_order_speaks_of_the_seeds_that_it_rests_on(artifacts: Callable[..., Inputs]) -> None:
    rates = {name: (rate,) * 3 for name, rate in (("base", 0.1), ("ntp", 0.4), ("ra3", 0.9), ("brite", 0.9))}
    inputs = artifacts(seeds=(0, 1), rates=rates)
    del inputs["evaluate_brite/1"]
    statement = order(findings(scores_of(inputs), MAIN))
    assert statement is not None and statement.label == "Shown"  # BRiTE's one seed has no part in it
    del inputs["evaluate_base/1"]
    statement = order(findings(scores_of(inputs), MAIN))
    assert statement is not None and statement.label == "Shown, 1 seed"


def test_no_order_without_all_three(artifacts: Callable[..., Inputs]) -> None:
    assert order(findings(scores_of(artifacts(rates={"ntp": LOW, "ra3": HIGH})), MAIN)) is None


def test_comparisons_beside_the_paper_are_facts_not_claims(artifacts: Callable[..., Inputs]) -> None:
    rates = {"base": (0.1, 0.1, 0.9), "ntp": (0.5, 0.5, 0.5), "ra3": (0.5, 0.1, 0.5)}
    inputs = artifacts(rates=rates)
    found = {finding.comparison.name: finding.statement for finding in findings(scores_of(inputs), DECODING)}
    assert (found["ra3_base_forced"].verdict, found["ra3_base_forced"].label) == ("fact", "Fewer")
    assert (found["ra3_own_comments"].verdict, found["ra3_own_comments"].label) == ("fact", "More")
    assert (found["ra3_ntp_forced"].verdict, found["ra3_ntp_forced"].label) == ("not shown", "No difference shown")
    one_seed = {name: path for name, path in inputs.items() if name.endswith("/0")}
    labels = {finding.comparison.name: finding.statement.label for finding in findings(scores_of(one_seed), DECODING)}
    assert (labels["ra3_base_forced"], labels["ra3_own_comments"]) == ("Fewer, 1 seed", "More, 1 seed")


def test_one_seed_says_what_its_intervals_do_not_cover(artifacts: Callable[..., Inputs]) -> None:
    assert "problems only" in uncertainty(load(artifacts(seeds=(4,))))


def test_several_seeds_say_that_intervals_cover_seeds(artifacts: Callable[..., Inputs]) -> None:
    text = uncertainty(load(artifacts(seeds=(0, 1, 2))))
    assert "3 seeds" in text and "over seeds" in text


def test_nothing_missing_nothing_said(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0,), tasks=5))
    arms = {"mid_trained": ["ntp", "ntp_compute", "ra3_no_rl", "ra3"], "rlvr": ["ntp", "ra3"]}
    assert not_run(run, {"arms": arms}) is None


def test_arms_that_the_settings_ask_for_are_missed(artifacts: Callable[..., Inputs]) -> None:
    run = load(artifacts(seeds=(0,), tasks=5))
    sentence = not_run(run, {"arms": {"mid_trained": ["ntp", "brite", "shuffled"], "rlvr": ["base"]}})
    assert sentence == (
        "Not run, and absent from every table and figure: Shuffled rationales and BRiTE (horizon 1). "
        "RLVR was not run from: Base model."
    )


def test_difference_uses_common_seeds(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1, 2), rates={"ntp": LOW, "ra3": HIGH})
    del inputs["evaluate_ntp/1"]
    scores = scores_of(inputs)
    (finding,) = findings(scores, MAIN)
    assert len(finding.difference.per_seed) == 2


def test_seeds_that_share_a_base_model_are_said_to(artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0, 1), tasks=5)
    assert "with its own base model and demonstrations." in uncertainty(load(inputs))
    path = inputs["base/1"] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["digest"] = json.loads((inputs["base/0"] / "manifest.json").read_text())["digest"]
    path.write_text(json.dumps(manifest))
    assert "with its own demonstrations, all from the same base model." in uncertainty(load(inputs))
