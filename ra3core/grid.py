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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, PrivateAttr, ValidationError

from ra3core.config import RunConfig, explanation, load
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
    _file: Path | None = PrivateAttr(None)

    def points(self, overrides: Sequence[str] = ()) -> dict[tuple[str, str], RunConfig]:
        """(axis, value as text) -> configuration, the centre first. overrides: of every point, as `load` takes them.

        Raises UserError naming what does not go; a configuration that is there already would count twice.
        """
        with self._in("settings"):
            settings = _overrides(self.settings)
        with self._in():
            common = [f"seeds={self.seeds}", *settings, *overrides]
            found = {(CENTRE, ""): load(self.preset, common)}
        for axis, values in self.axes.items():
            with self._in(f"axes.{axis}"):
                for value in values:
                    changes = value if isinstance(value, dict) else {axis: value}
                    pairs = ", ".join(f"{name}={one}" for name, one in changes.items())
                    text = pairs if changes is value else f"{value}"
                    if (axis, text) in found:
                        raise UserError(f"{text} is listed twice, expected each once")
                    config = load(self.preset, [*common, *_overrides(changes)])
                    if same := next((place for place, one in found.items() if one == config), None):
                        there = " ".join(same).strip()
                        raise UserError(f"{text} is point {there} once more, expected another value")
                    found[axis, text] = config
        return found

    @contextmanager
    def _in(self, *where: str) -> Iterator[None]:
        """Errors of the body name the file, and the place in it."""
        try:
            yield
        except UserError as error:
            file = [] if self._file is None else [str(self._file)]
            raise UserError(": ".join([*file, *where, str(error)])) from error


def read_grid(path: Path) -> Grid:
    """Raises UserError, one sentence, for a file that is no grid."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected the YAML file of a grid") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of {', '.join(Grid.model_fields)}, found {values!r}")
    try:
        grid = Grid.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {explanation(error, Grid)}") from error
    grid._file = path
    return grid


def _overrides(changes: dict[str, Any]) -> list[str]:
    """Settings as `ra3core.config.load` takes them. Raises UserError for what YAML has beyond JSON, such as a date."""
    found = []
    for name, value in changes.items():
        try:
            found.append(f"{name}={json.dumps(value)}")
        except (TypeError, ValueError) as error:  # ValueError: a list within itself
            what = "expected numbers, text, lists and sections of them"
            raise UserError(f"{what}, found {name}={value} ({type(value).__name__})") from error
    return found
