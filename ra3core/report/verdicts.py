"""The rule by which a difference is called shown, and how numbers are written in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ra3core.report.blocks import Verdict

LABELS: dict[Verdict, str] = {"shown": "Shown", "not shown": "Not shown", "against": "Against the paper"}
NBSP = "\N{NO-BREAK SPACE}"


def verdict(low: float, high: float, direction: int = 1) -> Verdict:
    """What the 95 % interval [low, high] of a difference says about a claim that it is above zero (direction 1) or
    below (-1): shown if the whole interval lies on that side, against if on the other, else not shown.

    Bounds that are not known (nan: one seed, or seeds all alike, of a figure that only seeds give an interval) show
    nothing.
    """
    if isnan(low) or isnan(high):
        return "not shown"
    if direction < 0:
        low, high = -high, -low
    return "shown" if low > 0 else "against" if high < 0 else "not shown"


def label(found: Verdict, seeds: int) -> str:
    """The badge. With one seed the claim is about these models alone, and the badge says so."""
    return LABELS[found] if found == "not shown" else badge(LABELS[found], seeds)


def badge(text: str, seeds: int) -> str:
    """What a badge says of something found over so many seeds."""
    return f"{text}, 1 seed" if seeds == 1 else text


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """A signed difference of shares in points of percent."""
    return signed(100 * difference, 1)


def signed(value: float, digits: int) -> str:
    """With its sign, a real minus among them."""
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(low: float, high: float, digits: int, seeds: int) -> str:
    """ "95 % interval a to b", or why there is none (nan): one seed, or seeds that are all alike."""
    if isnan(low):
        return f"{'' if seeds == 1 else 'the same in each of '}{seeds_in_words(seeds)}, so that there is no interval"
    return f"95{NBSP}% interval {signed(low, digits)} to {signed(high, digits)}"


def seeds_in_words(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def enumerate_in_words(parts: Sequence[str]) -> str:
    *head, last = parts
    return f"{'; '.join(head)} and {last}" if head else last
