"""What the task hands to the stage: the run's own sections, and the inputs by role."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from ra3core.artifacts import Store
from ra3core.config import load
from tasks.analysis import analysis


def test_the_run_fills_its_sections_in(tmp_path: Path) -> None:
    config = load("smoke", ["e_step.think_penalty=0.7", "m_step.held_out=0.25", "analysis.lines=5"])
    asked: list[tuple] = []
    session = SimpleNamespace(config=config, stage=lambda *arguments, **options: asked.append((arguments, options)))
    (tmp_path / "x").write_text("")
    model, expert, policy = (Store.external(name, tmp_path) for name in ("m_step", "demonstrations", "e_step"))
    analysis.fn(session, 3, "analysis_ra3", model, expert, {"policy": policy}, rank=2)
    (((kind, _, settings, inputs), options),) = asked
    assert (kind, options) == ("analysis", {"label": "analysis_ra3", "seed": 3, "rank": 2})
    assert settings.e_step == config.e_step and settings.held_out == 0.25 and settings.lines == 5
    assert inputs == {"model": model, "demonstrations": expert, "policy": policy}
