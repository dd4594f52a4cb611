"""The page of a grid sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ra3core.report.grid import write_page


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02}


def row(axis: str, value: str, base: float, gains: dict[str, float], width: float = 0.05) -> dict[str, Any]:
    arms = {"base": base, "ntp": base + 0.1, "best_of_g": base + 0.12, "ra3": base + 0.2}
    return {
        "axis": axis,
        "value": value,
        "settings": {"seeds": 3, "name": "demo"},
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


def test_the_page_says_where_ra3_is_ahead_and_where_behind(tmp_path: Path) -> None:
    write_page("rl", ROWS, tmp_path)
    text = (tmp_path / "sweep.md").read_text()
    assert "- **Shown.** RA3 is ahead of NTP, data-matched at 3 of 3 points, behind at none; " in text
    assert (
        "- **Depends.** RA3 is ahead of Best of G, no E-step at 1 of 3 points (depth base.layers=['conv']), "
        "behind at 1 (base.web_tokens 2500000); the differences go from −9.0 to +11.0 points of percent." in text
    )
    assert "not corrected for 6 comparisons" in text
    assert "| base.web_tokens 2500000 | 5.0 | 15.0 | 17.0 | 25.0 | +12.0 [+7.0, +17.0] | -9.0 [-14.0, -4.0] |" in text
    for name in ("effects", "competence"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/svg+xml" in (tmp_path / "sweep.html").read_text()


def test_an_arm_that_a_point_lacks_is_not_compared(tmp_path: Path) -> None:
    write_page("rl", [*ROWS[:2], row("depth", "2", 0.2, {"ntp": 0.01})], tmp_path)
    text = (tmp_path / "sweep.md").read_text()
    assert "Best of G, no E-step at" not in text and "NTP, data-matched at 2 of 3 points" in text
