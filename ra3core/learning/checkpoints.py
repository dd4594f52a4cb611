"""Checkpoints of training that any layout can go on from: one process, several, weights whole or sharded (FSDP).

What is written is whole and named after the model's parameters: trainable weights, AdamW's state of each, the
generators of random numbers, and what the caller adds. Where tensors are sharded, every process takes part in
gathering them; the first one writes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

T = TypeVar("T", bound=torch.nn.Module)


def save(
    scratch: Path,
    step: int,
    model: torch.nn.Module,
    optimizer: Any,
    first: bool,
    also: Callable[[Path], None],
) -> None:
    """Write the checkpoint of a step, which replaces the one before; called by every process.

    also: given the folder, adds files. Written aside and renamed: a kill leaves the one before.
    """
    weights: dict[str, Tensor] = {}
    states: dict[str, dict[str, Tensor]] = {}
    for name, parameter in trainable(model).items():
        state = {key: whole(value) for key, value in optimizer.state.get(parameter, {}).items()}
        weight = whole(parameter)
        if first:
            weights[name], states[name] = weight.contiguous(), state
    if not first:
        return
    scratch.mkdir(parents=True, exist_ok=True)
    temporary = scratch / "checkpoint.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(weights, temporary / "weights.safetensors")
    torch.save(states, temporary / "optimizer.pt")
    torch.save(_generators(), temporary / "generators.pt")
    also(temporary)
    temporary.rename(scratch / f"checkpoint-{step:08d}")
    for older in sorted(scratch.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(older)


def latest(scratch: Path) -> Path | None:
    """The folder of the latest checkpoint; none where there is none."""
    return max(scratch.glob("checkpoint-*"), default=None)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def restore_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """The trainable weights, in place."""
    weights = load_file(checkpoint / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(_like(parameter, weights[name]))


def restore_optimizer(checkpoint: Path, model: torch.nn.Module, optimizer: Any) -> None:
    """AdamW's state of every trainable parameter; a count of steps stays on the CPU, as AdamW keeps it."""
    states = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
    for name, parameter in trainable(model).items():
        optimizer.state[parameter] = {
            key: value if value.dim() == 0 else _like(parameter, value) for key, value in states[name].items()
        }


def restore_generators(checkpoint: Path) -> None:
    """The generators of random numbers that libraries share."""
    state = torch.load(checkpoint / "generators.pt", map_location="cpu", weights_only=True)
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])  # there may be others than then
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name; sharded, those that the optimiser knows.

    After a pass without gradient FSDP leaves some modules with whole copies in their place.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether processes hold parts of its parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on the CPU; of one that is sharded every process asks at the same time."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()


def unsharded(model: T, make: Callable[[], T]) -> T:
    """The model, or if it is sharded a whole one on the CPU: `make` gives an equal one for its weights."""
    if not is_sharded(model):
        return model
    target = make()
    copy_whole(model, target)
    return target


@torch.no_grad()
def copy_whole(model: torch.nn.Module, target: torch.nn.Module, only_trainable: bool = False) -> None:
    """Copy a model's parameters, sharded or not, into an equal model that is whole; called by every process."""
    found = dict(target.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or not only_trainable:
            value = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            found[name].copy_(value)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """A whole tensor where the parameter is, and sharded as it is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


def _generators() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)),
        "python": random.getstate(),
    }
