"""The training stages as tests launch them: with passes so small that every process has some, and a sudden end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from ra3core.config import EStepConfig, MStepConfig, RLVRConfig
from ra3core.learning import e_step, m_step, rlvr, training
from ra3core.lm import prefix
from ra3core.stage import Context, Metrics

STOP = 3  # the step after which an interrupted stage ends
SMALL = {"cpu": 96}  # tokens of a pass


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


def pretend() -> None:
    """FSDP on CPUs, which accelerate would ignore: it is told that these are GPUs, and then which device to use."""
    plugin = {"VERSION": "2", "AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP", "RESHARD_AFTER_FORWARD": "true"}
    os.environ.update({f"FSDP_{name}": value for name, value in plugin.items()})
    os.environ.update({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_TORCH_DEVICE": "cpu"})
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


def _named(how: str, stage: Callable[[Any, Context], Metrics], section: type) -> Callable[[Any, Context], Metrics]:
    """The stage, whole or half (up to STOP), under FSDP or not."""

    def run(config: Any, context: Context) -> Metrics:
        if "sharded" in how:
            pretend()
        if "half" in how:
            interrupt(context)
        with patch.dict(prefix.MOST, SMALL), patch.dict(training.PASS_TOKENS, SMALL):
            return stage(config, context)

    run.__annotations__["config"] = section
    return run


for _how in ("whole", "half", "whole_sharded", "half_sharded"):
    globals()[f"{_how}_m_step"] = _named(_how, m_step.m_step, MStepConfig)
    globals()[f"{_how}_e_step"] = _named(_how, e_step.e_step, EStepConfig)
    globals()[f"{_how}_rlvr"] = _named(_how, rlvr.rlvr, RLVRConfig)
