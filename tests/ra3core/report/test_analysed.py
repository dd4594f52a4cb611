"""The analysis stages' section: invented figures of the shape of analysis.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ra3core.config import ReportConfig
from ra3core.report.analysed import analysed
from ra3core.report.blocks import Picture, Table
from ra3core.report.inputs import load
from ra3core.report.report import report
from ra3core.stage import Context


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value}


def content(size: float, annotated: bool, reachable: bool = True) -> dict[str, Any]:
    lines = {
        kind: {"perplexity": estimate(size + k)} for k, kind in enumerate(("all", "given_intent", "act", "rationale"))
    }
    predicted = {"gamma_bar": 0.82, "iterations": 22.3}
    found: dict[str, Any] = {
        "actions": {
            "think": estimate(0.2),
            "token": {"perplexity": estimate(1.3), "nucleus": estimate(1.2)},
            "expert": {"covered": estimate(0.9)},
            "lines": lines,
        },
        "planning": {"primitive": {"gamma_bar": 0.95, "iterations": 106.0}},
    }
    if not annotated:
        return found
    found["planning"] |= {
        "intents": {"lines": 4.0, "histogram": {"1": 3, "4": 9}, "mean": predicted, "sup": predicted},
        "mixed": predicted,
    }
    found["abstractions"] = {
        "rationales": 5509,
        "abstractions": 55,
        "nine_tenths_of_all": 38,
        "gain": 1.04,
        "helps": 0.66,
    }
    curve = {"think_rate": [0.4, 0.1], "low": [0.3, 0.0], "high": [0.5, 0.2], "tokens": [120.0, 105.0]}
    found["gains"] = {
        "distribution": {"share": [0.0, 0.25, 0.5, 0.75, 1.0], "mean": [-3, -2, -1, 0, 1], "best": [-2, -1, 0, 1, 2]},
        "curve": {"c": [0.0, 1.0], "mean": curve, "best": curve},
        "plain_tokens": 100.0,
        "proposed": {
            "c": 0.4,
            "low": 0.2,
            "high": 0.9,
            "target": 0.3,
            "think_rate": 0.3,
            "at_zero": 0.4 if reachable else 0.2,
        },
    }
    terms = {"elbo": -48.0, "reconstruction": -47.0, "think_cost": 1.0, "thinks_per_demonstration": 2.0}
    found["elbo"] = [{"round": 1, "before": terms, "after": terms}]
    return found


@pytest.fixture
def inputs_of(tmp_path, artifacts, add_artifact):
    """Inputs of a report over two seeds, whose target think rate is reachable or not."""
    return lambda reachable=True: made(tmp_path / "more", artifacts(seeds=(0, 1)), add_artifact, reachable)


def made(folder, inputs, add_artifact, reachable):
    for seed in (0, 1):
        for arm, annotated in (("base", False), ("ra3", True)):
            text = json.dumps(content(1.5 + seed, annotated, reachable))
            name = f"analysis_{arm}"
            files = {"analysis.json": text}
            inputs[f"{name}/{seed}"] = add_artifact(folder, name, seed, 9.0, {}, {"tokens": 10}, files)
    return inputs


def test_tables_are_means_over_seeds_and_figures_say_that_they_are_one_seed(inputs_of):
    blocks = analysed(load(inputs_of()))
    sets, intents = (block for block in blocks if isinstance(block, Table))
    assert [row.cells[0].text for row in sets.rows] == ["Base model", "RA3"]
    assert [cell.plain for cell in sets.rows[0].cells[1:3]] == ["2", "2 1.5 to 2.5"]
    assert " ".join(cell.text for cell in intents.rows[0].cells) == "RA3 2 5509 55 38 4 0.82 22.3 106 1.04 66"
    pictures = {block.name: block for block in blocks if isinstance(block, Picture)}
    assert set(pictures) == {"action-sets", "planning", "gains-ra3", "elbo-ra3"}
    assert all(picture.caption.endswith("1 seed.") for picture in pictures.values())
    assert "is c = 0.4 [0.2, 0.9]" in pictures["gains-ra3"].caption


def test_a_think_rate_out_of_reach_is_said_to_be(inputs_of):
    blocks = analysed(load(inputs_of(reachable=False)))
    [caption] = [block.caption for block in blocks if isinstance(block, Picture) and block.name == "gains-ra3"]
    assert "out of reach: 20 % think at c = 0" in caption and "c = 0.4" not in caption


def test_the_report_has_the_section_only_where_something_was_analysed(tmp_path, inputs_of):
    inputs = inputs_of()
    for name, those in (("with", inputs), ("without", {k: v for k, v in inputs.items() if "analysis" not in k})):
        out = tmp_path / name
        report(ReportConfig(resamples=50), Context(inputs=those, out=out, scratch=tmp_path / "scratch"))
        assert ("What mid-training did to the models" in (out / "report.md").read_text()) is (name == "with")
