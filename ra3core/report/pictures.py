"""Figures as blocks of the report, and numbers as figures want them."""

from __future__ import annotations

from ra3core.report import figures
from ra3core.report.blocks import Picture
from ra3core.report.figures import Point
from ra3core.report.scores import Score
from ra3core.report.verdicts import seeds_in_words


def picture(name: str, make: figures.Make, caption: str, alt: str, seeds: int = 0) -> Picture:
    """A drawn figure; its caption ends with the number of seeds behind it, if given."""
    svg, png = figures.draw(make)
    return Picture(name, f"{caption} {seeds_in_words(seeds).capitalize()}." if seeds else caption, alt, svg, png)


def point(value: float, low: float, high: float) -> Point:
    """Shares as points of percent."""
    return Point(100 * value, 100 * low, 100 * high)


def score_point(score: Score) -> Point:
    return point(score.value, score.low, score.high)
