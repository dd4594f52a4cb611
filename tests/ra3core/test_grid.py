"""Sweeps that ship parse, and a grid varies one axis at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ra3core.config import PRESETS, load
from ra3core.errors import UserError
from ra3core.grid import CENTRE, read_grid


@pytest.mark.parametrize("path", sorted((PRESETS / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_parses(path: Path) -> None:
    points = read_grid(path).points()
    centre = points[CENTRE, ""]
    assert len(points) > 3
    assert {"ra3", "best_of_g"} <= set(centre.arms.mid_trained)
    for (axis, value), config in points.items():
        assert axis == CENTRE or config != centre, f"{axis} {value} is the centre once more"


def grid(folder: Path, text: str) -> Path:
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def test_one_axis_at_a_time(tmp_path: Path) -> None:
    text = """
    preset: smoke
    seeds: 2
    settings: {bootstrap.samples: 3}
    axes:
      e_step.group_size: [2, 4]
      width: [{base.hidden_size: 16, base.intermediate_size: 32}]
    """
    points = read_grid(grid(tmp_path, text)).points(["rounds=2"])
    common = ["seeds=2", "bootstrap.samples=3", "rounds=2"]
    assert points == {
        (CENTRE, ""): load("smoke", common),
        ("e_step.group_size", "2"): load("smoke", [*common, "e_step.group_size=2"]),
        ("e_step.group_size", "4"): load("smoke", [*common, "e_step.group_size=4"]),
        ("width", "base.hidden_size=16, base.intermediate_size=32"): load(
            "smoke", [*common, "base.hidden_size=16", "base.intermediate_size=32"]
        ),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {}", r"grid.yaml: axes: dictionary should have at least 1 item"),
        ("axes: {rounds: []}", r"grid.yaml: axes.rounds: list should have at least 1 item"),
        ("axes: {rounds: [2, 2]}", r"axes.rounds: 2 is listed twice, expected each once"),
        ("axes: {rounds: [2, 1]}", r"axes.rounds: 1 is point centre once more, expected another value"),
        ("axes: {rounds: [2, 2.0]}", r"axes.rounds: 2.0 is point rounds 2 once more"),
        ("axes: {round: [1]}", r"grid.yaml: axes.round: demo with seeds=1 round=1: unknown key round; expected one of"),
        ("axes: {rounds: [0]}", r"grid.yaml: axes.rounds: .*rounds: .*greater than 0, found 0"),
        ("axes: {w: [{e_step.widow: 1}]}", r"grid.yaml: axes.w: .*unknown key e_step.widow; expected one of .*window"),
        ("axes: {e_step.window: 3}", r"grid.yaml: axes.e_step.window: input should be a valid list, found 3$"),
        ("preset: smoke", r"grid.yaml: axes: field required$"),
        ("axis: {rounds: [1]}", r"grid.yaml: unknown key axis; expected one of preset, seeds, settings, axes$"),
        ("", r"grid.yaml: expected a mapping of preset, seeds, settings, axes, found None$"),
        ("{preset: nope, axes: {rounds: [2]}}", r"grid.yaml: preset 'nope': expected one of"),
        ("axes: {rounds: [2, 2024-01-01]}", r"grid.yaml: axes.rounds: .*text.*, found rounds=2024-01-01 \(date\)$"),
        ("axes: {w: [{rounds: [2024-01-01]}]}", r"grid.yaml: axes.w: .*, found rounds=\[datetime.date"),
        ("{settings: {name: 2024-01-01}, axes: {rounds: [2]}}", r"grid.yaml: settings: .*, found name=2024-01-01"),
        ("[", r"grid.yaml: not valid YAML"),
    ],
)
def test_bad_grids(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_grid(grid(tmp_path, text)).points()
    with pytest.raises(UserError, match="cannot be read"):
        read_grid(tmp_path / "none.yaml")
