"""The suite as a stage, for a run whose sizes are not those of data/ (`suite: generated`; docs/data.md)."""

from __future__ import annotations

from ra3core.config import DataConfig
from ra3core.corpora.suite.generate import generate
from ra3core.stage import Context, Metrics


def generate_suite(config: DataConfig, context: Context) -> Metrics:
    """The files of data/ in an artifact, the same bytes for the same section. Metrics: rows of each."""
    return generate(config, context.out, context.log)
