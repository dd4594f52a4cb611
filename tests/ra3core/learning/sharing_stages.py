"""The training stages as tests launch them: with passes so small that every process has some, and a sudden end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ra3core.config import EStepConfig, MStepConfig, RLVRConfig
from ra3core.learning import e_step, m_step, rlvr, training
from ra3core.lm import prefix
from ra3core.stage import Context, Metrics

STOP = 3  # the step after which an interrupted stage ends

torch.set_num_threads(1)
prefix.MOST["cpu"] = 96
training.PASS_TOKENS["cpu"] = 96


class Interrupted(Exception):
    pass


def interrupt(context: Context) -> None:
    """Make the stage end when it logs the step."""
    sink = context.log.sink

    def stop(event: dict[str, Any]) -> None:
        sink(event)
        if event["event"] == "metrics" and event["step"] == STOP:
            raise Interrupted

    context.log.sink = stop


def whole_m_step(config: MStepConfig, context: Context) -> Metrics:
    return m_step.m_step(config, context)


def half_m_step(config: MStepConfig, context: Context) -> Metrics:
    interrupt(context)
    return m_step.m_step(config, context)


def whole_e_step(config: EStepConfig, context: Context) -> Metrics:
    return e_step.e_step(config, context)


def half_e_step(config: EStepConfig, context: Context) -> Metrics:
    interrupt(context)
    return e_step.e_step(config, context)


def whole_rlvr(config: RLVRConfig, context: Context) -> Metrics:
    return rlvr.rlvr(config, context)


def half_rlvr(config: RLVRConfig, context: Context) -> Metrics:
    interrupt(context)
    return rlvr.rlvr(config, context)


STAGES: dict[str, Callable[[Any, Context], Metrics]] = {
    f"{half}_{name}": globals()[f"{half}_{name}"] for half in ("whole", "half") for name in ("m_step", "e_step", "rlvr")
}
