"""Operations, seconds by what bounds them, and the end of a run on several devices."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ra3core.plan.machines import GPUS, LAYER_SECONDS, Machine, operations, seconds, wall
from ra3core.plan.shapes import KNOWN
from ra3core.plan.work import Work

SHAPE = KNOWN["meta-llama/Llama-3.1-8B"]
H100 = Machine(GPUS["h100"])


def test_six_operations_a_trained_parameter_and_two_a_read_one() -> None:
    n = SHAPE.parameters
    assert operations(Work(trained=10), SHAPE, lora=False) == 60 * n
    assert operations(Work(trained=10), SHAPE, lora=True) == 40 * n
    assert operations(Work(read=7, written=3), SHAPE, lora=False) == 20 * n
    assert operations(Work(read=10, spared=4), SHAPE, lora=False) == 12 * n
    attention = operations(Work(trained=1, context=1000), SHAPE, lora=False) / (6 * n) - 1
    assert attention == pytest.approx(3 * 4 * 32 * 4096 * 1000 / (6 * n))


def test_a_large_pass_takes_its_operations() -> None:
    """The M-step of 1 B tokens on an 8 B model, in bfloat16 at 40 %: the 34 hours of docs/performance.md."""
    work = Work(trained=1e9, passes=1e9 / 16_384)
    found = seconds(work, SHAPE, False, 2, H100)
    assert found / 3600 == pytest.approx(33.8, abs=0.3)
    assert seconds(work, SHAPE, False, 2, replace(H100, utilisation=0.8)) == pytest.approx(found / 2)
    assert seconds(work, SHAPE, False, 4, H100) == pytest.approx(found * 989 / 67)


def test_decoding_reads_the_weights_for_every_step() -> None:
    work = Work(written=100 * 32, steps=100, rows=32, context=300)
    moved = 2 * SHAPE.parameters + 32 * 300 * SHAPE.cache_bytes(2)
    one = max(moved / (0.6 * 3.35e12), LAYER_SECONDS * 32)
    assert seconds(work, SHAPE, False, 2, H100) == pytest.approx(100 * one)
    assert seconds(work, SHAPE, False, 4, H100) > 100 * 4 * SHAPE.parameters / (0.6 * 3.35e12)


def test_a_small_pass_takes_its_calls() -> None:
    small = KNOWN["Qwen/Qwen2.5-0.5B"]
    assert seconds(Work(read=10, passes=5), small, False, 2, H100) == pytest.approx(5 * 24 * LAYER_SECONDS)


def test_stages_wait_for_their_inputs_and_for_a_device() -> None:
    stages = [("base", 10.0, ()), ("ntp", 5.0, ("base",)), ("ra3", 8.0, ("base",)), ("evaluate", 1.0, ("ntp",))]
    assert wall(stages, 1) == 24
    assert wall(stages, 2) == 18  # ra3 beside ntp and its evaluation
    assert wall(stages, 8) == 18
    assert wall([("cached", 0.0, ()), ("other", 3.0, ("cached",))], 1) == 3
    assert wall([], 2) == 0
