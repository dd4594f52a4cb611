"""What does not fit a GPU, and the settings with which it would: each is tried on the plan itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ra3core.config import RunConfig
from ra3core.plan.machines import GPUS, Machine

if TYPE_CHECKING:
    from flows.planning import Row


@dataclass(frozen=True)
class Advice:
    """What does not fit; settings (--set) with which it does, and what it takes then; and a GPU on which it fits as it
    is. Empty and none where there is none."""

    stage: str
    bytes: float
    settings: tuple[str, ...]
    after: float
    gpu: str | None


def advise(
    rows: Sequence[Row], config: RunConfig, machine: Machine, at: Callable[[Sequence[str]], Mapping[str, Row]]
) -> Iterator[Advice]:
    """For the largest stage of every kind that does not fit: the first settings of a list with which it does."""
    usable = machine.gpu.usable
    largest: dict[str, Row] = {}
    for row in rows:
        if row.runs and row.memory and row.memory.total > usable:
            known = largest.setdefault(row.kind, row)
            if known.memory and row.memory.total > known.memory.total:
                largest[row.kind] = row
    for kind, row in largest.items():
        tried: list[str] = []
        after = row.memory.total if row.memory else 0.0
        for setting in _settings(kind, config):
            name = setting.partition("=")[0]
            attempt = [*(one for one in tried if not one.startswith(f"{name}=")), setting]
            changed = at(attempt).get(row.name)
            if changed is None or changed.memory is None or changed.memory.total >= after:
                continue
            tried, after = attempt, changed.memory.total
            if after <= usable:
                break
        total = row.memory.total if row.memory else 0.0
        larger = [(gpu.usable, name) for name, gpu in GPUS.items() if gpu.usable >= total]
        yield Advice(
            row.name, total, tuple(tried) if after <= usable else (), after, min(larger)[1] if larger else None
        )


def _settings(kind: str, config: RunConfig) -> list[str]:
    """What makes a stage smaller, in the order in which to try: what changes the result least comes first."""

    def halves(name: str, value: int, least: int = 1) -> list[str]:
        found = []
        while (value := value // 2) >= least:
            found.append(f"{name}={value}")
        return found

    match kind:
        case "m_step":
            return [
                "m_step.gradient_checkpointing=true",
                *halves("m_step.batch_size", config.m_step.batch_size, 4),
                "m_step.lora.rank=16",
                *halves("m_step.max_tokens", config.m_step.max_tokens, 256),
            ]
        case "e_step":
            return [
                "e_step.gradient_checkpointing=true",
                *halves("e_step.demonstrations", config.e_step.demonstrations, 4),
                "e_step.lora.rank=16",
                *halves("e_step.states", config.e_step.states, 2),
            ]
        case "rlvr":
            return [
                "rlvr.gradient_checkpointing=true",
                *halves("rlvr.batch_size", config.rlvr.batch_size, 8),
                "rlvr.lora.rank=16",
                *halves("rlvr.group_size", config.rlvr.group_size, 4),
                *halves("rlvr.max_new_tokens", config.rlvr.max_new_tokens, 128),
            ]
        case "bootstrap":
            return halves("bootstrap.batch_size", config.bootstrap.batch_size)
        case "evaluate":
            return halves("evaluation.batch_size", config.evaluation.batch_size)
        case "base":
            return ["base.gradient_checkpointing=true", *halves("base.batch_size", config.base.batch_size)]
    return []
