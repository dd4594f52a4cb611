"""A grid of settings in a YAML file, for `ra3 sweep`: what is varied around a preset, one axis at a time.

    preset: demo
    seeds: 3
    settings: {bootstrap.samples: 6}             # of every point
    axes:
      e_step.group_size: [2, 6, 12]              # a setting and its values
      width:                                     # a name, and settings that change together
        - {base.hidden_size: 64, base.intermediate_size: 168}

The points are the preset as it is with `settings`, and each value of each axis alone: effects, not interactions, for
the sum of the axes' lengths instead of their product.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from ra3core.config import RunConfig, load
from ra3core.errors import UserError
from ra3core.section import Positive, Section

CENTRE = "centre"
"""The point at which nothing is changed."""


class Grid(Section):
    """A sweep's file."""

    preset: str = "demo"
    seeds: Positive = 1
    settings: dict[str, Any] = Field(default={})
    axes: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]

    def points(self, overrides: Sequence[str] = ()) -> dict[tuple[str, str], RunConfig]:
        """(axis, value as text) -> configuration, the centre first. overrides: of every point, as `load` takes them.

        Raises UserError naming what does not go; a configuration that is there already would count twice.
        """
        common = [f"seeds={self.seeds}", *_overrides(self.settings), *overrides]
        found = {(CENTRE, ""): load(self.preset, common)}
        for axis, values in self.axes.items():
            for value in values:
                changes = value if isinstance(value, dict) else {axis: value}
                text = ", ".join(f"{name}={one}" for name, one in changes.items()) if changes is value else f"{value}"
                if (axis, text) in found:
                    raise UserError(f"axes.{axis}: {text} is listed twice, expected each once")
                config = load(self.preset, [*common, *_overrides(changes)])
                if same := next((place for place, one in found.items() if one == config), None):
                    there = " ".join(same).strip()
                    raise UserError(f"axes.{axis}: {text} is point {there} once more, expected another value")
                found[axis, text] = config
        return found


def read_grid(path: Path) -> Grid:
    """Raises UserError, one sentence, for a file that is no grid."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected the YAML file of a grid") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "grid"
        raise UserError(f"{path}: {where}: {first['msg'][0].lower() + first['msg'][1:]}") from error


def _overrides(changes: dict[str, Any]) -> list[str]:
    """Settings as `ra3core.config.load` takes them."""
    return [f"{name}={json.dumps(value)}" for name, value in changes.items()]
