"""GPUs, and how long work takes on one: arithmetic, bandwidth, or the calls themselves, whichever takes longest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ra3core.compute import READ, TRAINED
from ra3core.plan.shapes import Shape
from ra3core.plan.work import Work

MIB = 2**20
USABLE = 0.94  # of a GPU's memory: the rest is the driver's context and what the allocator cannot use
LAYER_SECONDS = 0.7e-3
"""Of one layer of one pass, however few tokens: Python and launches. A pass of 28 layers is never below 20 ms."""


@dataclass(frozen=True)
class Gpu:
    """memory: MiB, as the driver says. bfloat16, float32: peak operations a second, dense; float32 as PyTorch
    multiplies by default, without TF32. bandwidth: bytes a second. The vendor's figures."""

    name: str
    memory: int
    bfloat16: float
    float32: float
    bandwidth: float

    @property
    def usable(self) -> float:
        """Bytes that a stage may take."""
        return USABLE * self.memory * MIB


GPUS: Mapping[str, Gpu] = {
    "h200": Gpu("H200 SXM 141 GB", 143_771, 989e12, 67e12, 4.8e12),
    "h100": Gpu("H100 SXM 80 GB", 81_559, 989e12, 67e12, 3.35e12),
    "a100-80": Gpu("A100 SXM 80 GB", 81_920, 312e12, 19.5e12, 2.04e12),
    "a100-40": Gpu("A100 SXM 40 GB", 40_960, 312e12, 19.5e12, 1.56e12),
    "l40s": Gpu("L40S 48 GB", 46_068, 362e12, 91.6e12, 0.864e12),
    "rtx4090": Gpu("RTX 4090 24 GB", 24_564, 165e12, 82.6e12, 1.01e12),
}


@dataclass(frozen=True)
class Machine:
    """devices: stages that run at a time, one each. utilisation: share of the peak that training and teacher-forced
    passes reach. bandwidth: share of the bandwidth that decoding reaches. price: of one device for an hour."""

    gpu: Gpu
    devices: int = 1
    utilisation: float = 0.4
    bandwidth: float = 0.6
    price: float | None = None


def operations(work: Work, shape: Shape, lora: bool, recomputed: bool = False) -> float:
    """6 a parameter for a trained token (4 where only adapters are trained: the weights' own gradients are left out), 2
    for any other, and attention's. recomputed: layers are run a second time for their gradient, 2 more."""
    trained = (TRAINED - READ if lora else TRAINED) + (READ if recomputed else 0)
    other = work.read - work.spared + work.written
    own = shape.parameters * (trained * work.trained + READ * other)
    return own + shape.attention_operations(work.context) * (trained / READ * work.trained + other)


def seconds(work: Work, shape: Shape, lora: bool, width: int, machine: Machine, recomputed: bool = False) -> float:
    """Of a stage on one device. width: bytes a number."""
    peak = machine.gpu.bfloat16 if width == 2 else machine.gpu.float32
    teacher_forced = work.trained + work.read - work.spared
    share = teacher_forced / max(teacher_forced + work.written, 1)
    arithmetic = operations(work, shape, lora, recomputed) / (machine.utilisation * peak)
    call = LAYER_SECONDS * shape.layers
    backward = 2 * work.trained / max(teacher_forced, 1)  # a backward pass takes two forward ones
    passes = max(share * arithmetic, call * work.passes * (1 + backward))
    moved = width * shape.parameters + work.rows * work.context * shape.cache_bytes(width)
    step = max(moved / (machine.bandwidth * machine.gpu.bandwidth), call)
    return passes + max((1 - share) * arithmetic, work.steps * step)


def wall(stages: Sequence[tuple[str, float, Sequence[str]]], devices: int) -> float:
    """Seconds until the last stage is over: each takes one device as soon as one is free and its inputs are there.

    stages: name, seconds, names of stages that it waits for; in an order in which they may start.
    """
    ends: dict[str, float] = {}
    free = [0.0] * devices
    waiting = list(stages)
    while waiting:
        ready = [
            (max((ends[i] for i in needs), default=0.0), n)
            for n, (_, _, needs) in enumerate(waiting)
            if all(i in ends for i in needs)
        ]
        starts, place = min(ready)
        name, duration, _ = waiting.pop(place)
        slot = min(range(devices), key=free.__getitem__)
        if duration == 0:  # found in the store, or no work for a device
            ends[name] = starts
            continue
        ends[name] = free[slot] = max(starts, free[slot]) + duration
    return max(ends.values(), default=0.0)
