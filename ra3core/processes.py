"""Several processes that run one stage, started by `accelerate launch`: who does what, what they tell each other.

Every process calls the same stage with the same configuration and inputs and goes through the same steps. Work is
shared out by number (`share`), gradients and sums are added up over all (`sum_gradients`, `sum`), so that every process
holds the same weights and figures; the first one alone writes files and logs. A process that was started alone is the
first of one: for it nothing here costs anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, distributed

from ra3core.errors import UserError
from ra3core.stage import Context, StageLog

PATIENCE = timedelta(hours=2)  # with processes that still sample or judge; a dead one is noticed at once
BUCKET = 2**26  # numbers that are added up at once

T = TypeVar("T")


class Processes:
    """The processes of this stage.

    device: "cpu", or another for the GPUs that the launcher gives each process one of. Raises UserError for FSDP on a
    CPU, which accelerate would leave out without a word, and for its first version.
    """

    def __init__(self, device: str) -> None:
        state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
        self.rank, self.count = state.process_index, state.num_processes
        self.device = device if self.count == 1 or device == "cpu" else str(state.device)
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
            if state.distributed_type == DistributedType.MULTI_CPU:
                raise UserError("RA3_ACCELERATE: FSDP is for GPUs, accelerate ignores it on CPUs; expected DDP")
            if (version := os.environ.get("FSDP_VERSION", "1")) != "2":
                raise UserError(f"RA3_ACCELERATE: expected fsdp_version: 2, found {version}")

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def local(self) -> int:
        """How many of them run on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.count > 1 else 1

    def share(self, count: int, work: Callable[[int], T]) -> list[T]:
        """work(0) .. work(count - 1), each done by one process; every process returns all of them, in order.

        What is returned travels between processes: small objects that pickle.
        """
        own = [work(number) for number in range(self.rank, count, self.count)]
        if self.count == 1:
            return own
        found: list[list[T]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(found, own)
        return [found[number % self.count][number // self.count] for number in range(count)]

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values of all processes added up by name; every process has the same names."""
        parts = self.share(self.count, lambda _: dict(values))
        return {name: sum(part[name] for part in parts) for name in values}

    def mean(self, values: Sequence[float], weights: Sequence[float]) -> float:
        """The weighted mean of the values of all processes; 0 where there are none."""
        weighted = [v * w for v, w in zip(values, weights, strict=True)]
        total = self.sum({"weighted": sum(weighted), "weights": sum(weights)})
        return total["weighted"] / total["weights"] if total["weights"] else 0.0

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes; a process that has none counts as zero.

        Once a step instead of in the backward passes, as DistributedDataParallel does it: how many passes a process
        makes, and how many forward passes lie behind each, is its own affair then.
        """
        if self.count == 1:
            return
        waiting: list[Tensor] = []
        size = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if waiting and (size + parameter.numel() > BUCKET or parameter.grad.dtype != waiting[0].dtype):
                _sum_in_place(waiting)
                waiting, size = [], 0
            waiting.append(parameter.grad)
            size += parameter.numel()
        if waiting:
            _sum_in_place(waiting)


def begin(context: Context) -> Processes:
    """What a stage asks first: its processes. The context gets this process's device; all logs but one fall silent."""
    processes = Processes(context.device)
    context.device = processes.device
    if not processes.first:
        context.log = StageLog()
    return processes


def split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """At most `parts` runs of neighbours, as equal in number as can be, none empty."""
    count = min(parts, len(items))
    edges = [len(items) * n // count for n in range(count + 1)] if count else [0]
    return [items[begin:end] for begin, end in pairwise(edges)]


def _sum_in_place(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))
