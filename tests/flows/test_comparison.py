"""What a run is composed of, without running any of it."""

from __future__ import annotations

from pathlib import Path

from dry import Asked, DrySession, at_once

from flows.comparison import comparison
from ra3core.config import RunConfig, RuntimeConfig, load
from tasks.evaluate import asked

DEMO = {
    "corpus/0": "641d49227ea6",
    "rlvr_tasks/0": "926533b4e993",
    "base/0": "066e464e83f2",
    "demonstrations/0": "9805d3342be5",
    "e_step_1/0": "6f00ee252f00",
    "bootstrap_1/0": "4a54c37fba32",
    "m_step_1/0": "1c7819e2029c",
    "ntp/0": "c9cabc6f774b",
    "ntp_compute/0": "155a1ab06cef",
    "bootstrap_no_rl/0": "eb0e0b5bb4e7",
    "ra3_no_rl/0": "62870cd6559d",
    "ntp_rlvr/0": "2eb4d7de5056",
    "ra3_rlvr/0": "a32f5f8d36d9",
    "evaluate_base/0": "68117fc7f102",
    "evaluate_ntp/0": "09426b7046ef",
    "evaluate_ntp_compute/0": "4c342c8f61b2",
    "evaluate_ra3/0": "1a076cf3040c",
    "evaluate_ra3_no_rl/0": "92d19c65e24c",
    "evaluate_ntp_rlvr/0": "04a95fbab44d",
    "evaluate_ra3_rlvr/0": "4f357854d1c1",
}
"""The demo's stages with what decides their keys beside code and data, as they were when it was last measured."""


def composed(config: RunConfig) -> dict[str, Asked]:
    """ "label/seed" -> stage; those of the tuning's trials behind the title of their point."""
    session = DrySession(config, RuntimeConfig(root=Path("/nowhere")))
    with at_once():
        comparison(session, asked(config, Path("/nowhere")), session.point, rl=True)
    return session.asked


def test_the_demo_runs_what_it_ran() -> None:
    """A change here is a demo that takes other time, and stages in users' stores that are made again."""
    found = {name: one.digest for name, one in composed(load("demo")).items()}
    assert found == DEMO
