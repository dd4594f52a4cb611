"""Python types that JSON lost, learnt from pairs of a JSON value and the Python value that it was made of.

MBPP+ holds its base inputs twice: as JSON and, in the asserts that they were taken from, as Python literals. What stood
behind the lists and texts at one place there stands behind them in the plus inputs too. `Shape` knows such a place: an
argument, the items of a list, the keys or the values of an object.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

_CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset, dict)


class Shape:
    """What JSON values at one place were made of.

    Where pairs disagree, or there is none, values stay as JSON has them. deep: but lists inside what became tuples,
    deeper than any pair goes, become tuples too.
    """

    def __init__(self, deep: bool = False) -> None:
        self.deep = deep
        self.lists: set[type] = set()
        self.empty: set[type] = set()  # of empty lists: an empty dict may be among sets
        self.texts: set[type] = set()

    @cached_property
    def items(self) -> Shape:
        return Shape(self.deep)

    @cached_property
    def keys(self) -> Shape:
        return Shape(self.deep)

    @cached_property
    def values(self) -> Shape:
        return Shape(self.deep)

    def learn(self, value: Any, original: Any) -> None:
        """Take a pair into account."""
        if isinstance(value, list):
            (self.lists if value else self.empty).add(type(original))
            if isinstance(original, list | tuple):
                for pair in zip(value, original, strict=False):
                    self.items.learn(*pair)
        elif isinstance(value, dict) and isinstance(original, dict):
            for (key, item), (original_key, original_item) in zip(value.items(), original.items(), strict=False):
                self.keys.learn(key, original_key)
                self.values.learn(item, original_item)
        elif isinstance(value, str):
            self.texts.add(type(original))

    def restore(self, value: Any, outer: type = list) -> Any:
        """The Python value; raises ValueError or TypeError when this one cannot be of the learnt type.

        outer: what a list becomes that no pair tells of.
        """
        if isinstance(value, list):
            kind = _only(self.lists) if self.lists or self.empty else outer
            inner = [self.items.restore(item, tuple if kind is tuple and self.deep else list) for item in value]
            return (_only(self.empty) if not value and self.empty else kind)(inner)
        if isinstance(value, dict):
            return {self.keys.restore(key): self.values.restore(item) for key, item in value.items()}
        if isinstance(value, str) and self.texts and self.texts <= {int, float, complex}:
            number: Callable[[str], Any] = complex if complex in self.texts else float
            return number(value)
        return value


def _only(kinds: set[type]) -> type:
    """The one container among `kinds`, or a list when there are more or none."""
    return next(iter(kinds)) if len(kinds) == 1 and kinds <= set(_CONTAINERS) else list
