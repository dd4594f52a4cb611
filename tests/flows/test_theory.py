"""`ra3 theory` at small size: the folder it leaves, what it prints, and the same again from the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flows.theory import theory
from ra3core.theory import study
from ra3core.theory.families import garnet
from ra3core.theory.semi_mdp import SemiMDP

PNG = b"\x89PNG\r\n"


def small_story(rng: np.random.Generator) -> study.Results:
    drawn = garnet(rng, 1, tasks=4, options=5)
    family = study.Family(SemiMDP(drawn.model.kernel[0], drawn.model.reward[0]), drawn.weights[0], drawn.start)
    return study.story(rng, family, [f"option {i}" for i in range(5)], largest=5)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "RUNS", 50)
    monkeypatch.setattr(study, "FAILURES", 1)
    monkeypatch.setattr(study, "SURVEYED", 20)
    monkeypatch.setattr(study, "DURATIONS", (1, 8))
    for name in ("long", "short", "room"):
        monkeypatch.setitem(study.PARTS, name, small_story)


def test_the_folder_holds_page_figures_and_numbers(small: None, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "folder"
    theory(out, seed=3)
    printed = capsys.readouterr()
    assert "theory: done in" in printed.err
    page = (out / "theory.md").read_text()
    for title in ("Demonstrations on each rule's hardest family", "Iterations by duration", "Three families closely"):
        assert title in printed.out and f"## {title}" in page
    for name in ("pruning", "iteration", "regret"):
        assert f"({name}.png)" in page
        assert (out / f"{name}.png").read_bytes().startswith(PNG)
    for table in page.split("\n\n"):
        if table.startswith("|"):
            assert len({row.replace(r"\|", "").count("|") for row in table.splitlines()}) == 1
    results = json.loads((out / "theory.json").read_text())
    assert list(results) == ["seed", *study.PARTS]
    assert results["seed"] == 3
    assert [row["x"] for row in results["pruning_rate"]["sweeps"]["size"]] == list(study.SWEEPS["size"])


def test_equal_seeds_give_equal_numbers(small: None) -> None:
    first = study.study(1)
    assert study.study(1) == first
    assert study.study(2) != first
