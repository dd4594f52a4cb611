"""The page of a grid sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ra3core.report.grid import COMPARED, write_page


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def row(axis: str, value: str, base: float, gains: dict[str, float], seeds: int = 3) -> dict[str, Any]:
    arms = {"base": base, "ra3": base + 0.2} | {arm: base + 0.2 - gain for arm, gain in gains.items()}
    width = 0.05
    return {
        "axis": axis,
        "value": value,
        "settings": {"seeds": seeds, "name": "demo"},
        "results": {
            arm: {"free": score(v)} | ({"forced": score(v)} if arm == "base" else {}) for arm, v in arms.items()
        },
        "differences": {
            f"ra3_{arm}": {"value": gain, "low": gain - width, "high": gain + width} for arm, gain in gains.items()
        },
    }


ROWS = [
    row("centre", "", 0.12, {"ntp": 0.1, "best_of_g": 0.02}),
    row("base.web_tokens", "2500000", 0.05, {"ntp": 0.12, "best_of_g": -0.09}),
    row("depth", "base.layers=['conv']", 0.2, {"ntp": 0.08, "best_of_g": 0.11}),
]


def markdown(rows: list[dict[str, Any]], folder: Path) -> str:
    write_page("rl", rows, folder)
    return (folder / "sweep.md").read_text()


def test_the_page_says_where_ra3_is_ahead_and_where_behind(tmp_path: Path) -> None:
    text = markdown(ROWS, tmp_path)
    assert "- **Shown.** RA3 is shown ahead of NTP, data-matched at 3 of 3 points, behind at none; " in text
    assert (
        "- **Depends.** RA3 is shown ahead of Best of G, no E-step at 1 of 3 points (depth base.layers=['conv']), "
        "behind at 1 (base.web_tokens 2500000); the differences go from −9.0 to +11.0 points of percent." in text
    )
    assert "not corrected for 6 comparisons: one in twenty without any effect" in text
    assert "Points are not independent" in text
    assert "| base.web_tokens 2500000 | 5.0 | 13.0 | 34.0 | 25.0 | +12.0 [+7.0, +17.0] | -9.0 [-14.0, -4.0] |" in text
    for name in ("effects", "competence"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/svg+xml" in (tmp_path / "sweep.html").read_text()


def test_with_one_seed_every_badge_says_so_and_no_error_rate_is_named(tmp_path: Path) -> None:
    text = markdown([one | {"settings": {"seeds": 1, "name": "demo"}} for one in ROWS], tmp_path)
    assert "- **Shown, 1 seed.** RA3 is shown ahead of NTP" in text
    assert "- **Depends, 1 seed.** RA3 is shown ahead of Best of G" in text
    assert "over problems alone" in text and "corrected for 6 comparisons" in text
    assert "one in twenty" not in text and "over seeds" not in text


def test_a_point_that_lacks_an_arm_is_named(tmp_path: Path) -> None:
    text = markdown([*ROWS[:2], row("depth", "2", 0.2, {"ntp": 0.01})], tmp_path)
    assert "NTP, data-matched at 2 of 3 points" in text
    assert "Best of G, no E-step at 0 of 2 points, behind at 1" in text
    assert "; not compared where one of the two was not run: depth 2." in text
    assert "corrected for 5 comparisons" in text
    assert "| depth 2 | 20.0 | 39.0 | – | 40.0 | +1.0 [-4.0, +6.0] | – |" in text


def test_every_mid_trained_arm_is_compared(tmp_path: Path) -> None:
    centre = row("centre", "", 0.1, {"ntp": 0.1})
    text = markdown([centre, row("depth", "2", 0.2, dict.fromkeys(COMPARED, 0.1))], tmp_path)
    for arm in ("FLOPs-matched", "BRiTE (horizon 1)", "Distilled comments", "Shuffled rationales"):
        assert f"{arm} at 1 of 1 points" in text
    for arm in ("RA3 without selection", "RA3 without thinking", "RA3 without E-step RL"):
        assert f"{arm} at 1 of 1 points" in text


@pytest.mark.parametrize("lost", ["free", "base"])
def test_gain_is_shown_against_the_competence_that_was_measured(tmp_path: Path, lost: str) -> None:
    rows = [row("centre", "", 0.1, {"ntp": 0.1})]
    for one in rows:
        one["results"]["base"] = {"forced": score(0.1)} if lost == "free" else {}
    markdown(rows, tmp_path)
    assert (tmp_path / "competence.png").exists() == (lost == "free")


def test_a_sweep_without_anything_to_compare_says_so(tmp_path: Path) -> None:
    assert "Nothing is compared" in markdown([row("centre", "", 0.1, {})], tmp_path)
