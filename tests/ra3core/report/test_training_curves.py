from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ra3core.report.training import _against_tokens


def _run(*seeds: list[tuple[int, int, float]]) -> Any:
    runs = {
        n: SimpleNamespace(rows=[{"step": step, "tokens": tokens, "held_out": value} for step, tokens, value in seed])
        for n, seed in enumerate(seeds)
    }
    return SimpleNamespace(stages={"ntp": runs})


def test_one_seed_is_drawn_as_it_was_logged():
    curve = _against_tokens(_run([(0, 0, 2.0), (5, 1_000_000, 1.0), (10, 3_000_000, 0.5)]), "ntp", "held_out")
    assert curve is not None
    assert curve.steps.tolist() == pytest.approx([0, 1, 3])
    assert curve.values.tolist() == [[2.0, 1.0, 0.5]]


def test_a_last_round_begins_behind_the_tokens_of_those_before():
    curve = _against_tokens(_run([(0, 0, 2.0), (5, 1_000_000, 1.0)]), "ntp", "held_out", before=2_000_000)
    assert curve is not None
    assert curve.steps.tolist() == pytest.approx([2, 3])


def test_seeds_of_different_lengths_keep_all_their_points():
    short = [(0, 0, 2.0), (5, 1_000_000, 1.0), (10, 2_000_000, 0.5)]
    long = [(0, 0, 4.0), (11, 2_000_000, 3.0), (22, 4_000_000, 1.5)]
    curve = _against_tokens(_run(short, long), "ntp", "held_out")
    assert curve is not None
    assert curve.steps.tolist() == pytest.approx([0, 1.5, 3])
    assert np.allclose(curve.values, [[2.0, 1.0, 0.5], [4.0, 3.0, 1.5]])


def test_a_stage_that_never_trained_has_no_curve():
    assert _against_tokens(_run([(0, 0, 2.0)]), "ntp", "held_out") is None
    assert _against_tokens(_run(), "ntp", "held_out") is None
