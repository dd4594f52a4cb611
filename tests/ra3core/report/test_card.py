"""The model card, from artifacts with the shapes of a real run."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ra3core.artifacts import MANIFEST, Artifact, Manifest, Store
from ra3core.config import RunConfig
from ra3core.report.card import Ancestor, Facts, headline, licence_of, licences, lineage, model_card, summary


@pytest.fixture
def facts(write_artifacts: Callable[..., dict[str, Path]], tmp_path: Path) -> Callable[..., Facts]:
    """facts(config values, **fields of the recipe): of a new run each time"""
    runs = itertools.count()

    def make(values: dict[str, Any] | None = None, arm: str = "ra3_rlvr", seed: int = 0, **recipe: Any) -> Facts:
        made = {name: opened(path) for name, path in write_artifacts(tmp_path / f"run-{next(runs)}", **recipe).items()}
        made["data"] = Store.external("data", tmp_path, "d" * 32)
        config = RunConfig.model_validate({"report": {"resamples": 200}, **(values or {})})
        return Facts("ra3", arm, seed, config, made, {"ra3_rlvr/0": "run-1"}, "abc123")

    return make


def opened(path: Path) -> Artifact:
    return Artifact(path, Manifest.model_validate_json((path / MANIFEST).read_bytes()))


def rewrite(artifact: Artifact, **values: Any) -> Artifact:
    return Artifact(artifact.path, artifact.manifest.model_copy(update=values))


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_head_is_what_hubs_read(facts) -> None:
    found = facts()
    head = yaml.safe_load(model_card(found).split("---\n")[1])
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == (
        "apache-2.0",
        "transformers",
        "text-generation",
    )
    result = head["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "embedded"
    assert result["metrics"][0]["value"] == pytest.approx(headline(found)["embedded"].value, abs=1e-4)


def test_results_are_this_seeds_own_and_the_recipes_over_all(facts) -> None:
    one, three = facts(seeds=(0,)), facts(seeds=(0, 1, 2))
    assert headline(one)["embedded"] == headline(three)["embedded"]  # other seeds do not change this model's score
    assert headline(one)["embedded"].seeds == 1
    assert "over 3 seeds" not in section(model_card(one), "Results")
    results = section(model_card(three), "Results")
    assert "The recipe over 3 seeds" in results
    row = next(line for line in results.splitlines() if line.startswith("| RA3, then RLVR"))
    score = headline(three)["embedded"]
    assert f"{100 * score.value:.1f}" in row and "[" in row
    for control in ("NTP, data-matched", "NTP, compute-matched", "RA3 without E-step RL", "NTP, then RLVR"):
        assert f"| {control}" in results
    assert "comments banned" in results and "first comment forced" in results


def test_the_results_are_the_counts(facts, tmp_path: Path) -> None:
    """pass@1 of the arm is the mean of c / n of its results.json."""
    found = facts(seeds=(0,))
    counts = json.loads((found.made["evaluate_ra3_rlvr/0"].path / "results.json").read_text())["per_task"]["free"]
    expected = sum(c / n for n, c in counts.values()) / len(counts)
    score = headline(found)["embedded"]
    assert score.value == pytest.approx(expected) and score.low < expected < score.high
    assert f"pass@1 on embedded: {100 * expected:.1f} % [" in summary(found)


def test_data_settings_limits_and_use(facts) -> None:
    card = model_card(facts({"e_step": {"window": 7}}))
    assert "d" * 32 in section(card, "Data") and "24,000" in section(card, "Data") and "41" in section(card, "Data")
    settings = yaml.safe_load(section(card, "Settings").split("```yaml\n")[1].split("```")[0])
    assert settings["e_step"]["window"] == 7 and "report" not in settings
    assert 'load_model("models:/ra3@champion")' in section(card, "Use")
    assert "toy by design" in section(card, "Limits") and "promoted by the same evaluation tasks" in card
    assert "2509.25810" in section(card, "Citation")


def test_a_run_without_evaluations_says_so(facts) -> None:
    found = facts(rates={})
    assert "Nothing was evaluated." in section(model_card(found), "Results")


def test_lineage_follows_digests_through_all_parents(facts) -> None:
    found = facts()
    made = dict(found.made)
    digest = {name: artifact.digest for name, artifact in made.items()}
    made["base/0"] = rewrite(made["base/0"], inputs={"corpus": digest["corpus/0"]})
    made["m_step_1/0"] = rewrite(
        made["m_step_1/0"], inputs={"model": digest["base/0"], "demonstrations": digest["demonstrations/0"]}
    )
    made["ra3_rlvr/0"] = rewrite(made["ra3_rlvr/0"], inputs={"model": digest["m_step_1/0"], "other": "f" * 64})
    names = ["corpus/0", "base/0", "demonstrations/0", "m_step_1/0", "ra3_rlvr/0"]
    assert lineage(made, "ra3_rlvr/0") == [Ancestor(name, digest[name]) for name in names]
    shown = section(model_card(Facts("ra3", "ra3_rlvr", 0, found.config, made, found.runs, "abc123")), "Lineage")
    assert "`abc123`" in shown and "`run-1`" in shown and all(f"`{digest[name]}`" in shown for name in names)
    assert digest["ntp/0"] not in shown  # no ancestor


def test_ra3_is_what_leaves_the_last_round(facts) -> None:
    found = facts({"rounds": 2}, arm="ra3", rounds=2)
    assert found.stage == "m_step_2" and found.model is found.made["m_step_2/0"]
    assert "# ra3: RA3\n" in model_card(found)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: mit\ntags: [a]\n---\n# A model\n"}, "mit"),
        ({"README.md": "# no head\n", "LICENSE": "\n  Apache License\nmore"}, "Apache License (LICENSE)"),
        ({"README.md": "---\n: [broken\n---\n", "LICENSE.txt": "BSD"}, "BSD (LICENSE.txt)"),
        ({"COPYING": ""}, "not known"),
        ({}, "not known"),
    ],
)
def test_the_licence_that_a_folder_states(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == expected
    assert licence_of(tmp_path / "nowhere") == "not known"


def test_a_users_base_model_and_corpus_are_named_with_their_licences(facts, tmp_path: Path) -> None:
    base, code = tmp_path / "their-model" / "model", tmp_path / "their-code"
    for folder in (base, code):
        folder.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: llama3\n---\n")
    found = facts({"base": {"model": str(base)}, "corpus": {"source": f"python:{code}"}})
    made = {**found.made, "base/0": Store.external("base", base.parent, "b" * 64)}
    found = Facts("ra3", "ra3_rlvr", 0, found.config, made, {}, None)
    parts = dict(licences(found))
    assert parts["Base model model"] == "llama3" and parts["Demonstrations python:their-code"] == "not known"
    card = model_card(found)
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"
    assert "was not checked against the evaluation tasks" in section(card, "Limits")
    before_settings = card.split("## Settings")[0]
    assert str(tmp_path) not in before_settings  # where it lay says nothing to others
    assert "git commit `not known`" in section(card, "Lineage")


def test_a_card_needs_no_torch_and_no_figures() -> None:
    code = "import sys, ra3core.report.card; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'mlflow')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_task_set_is_named_with_its_licence(facts, tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("MIT License\n")
    (tmp_path / "set.jsonl").write_text("")
    values = {"rlvr_tasks": {"source": f"file:{tmp_path / 'set.jsonl'}"}}
    found = facts(values)
    assert licences(found)[-1] == ("RLVR tasks file:set.jsonl", "MIT License (LICENSE)")
    card = model_card(found)
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "other"
    assert "`file:set.jsonl`" in section(card, "Data")
    before = facts(values, arm="ra3")
    assert all("RLVR" not in part for part, _ in licences(before)) and "set.jsonl" not in section(
        model_card(before), "Data"
    )
