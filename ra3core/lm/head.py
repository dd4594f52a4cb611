"""Log-probabilities without all logits: a model's output layer is run over its last hidden states in tiles.

    log pi(x_i | x_<i) = l_i[x_i] - log sum_v exp l_i[v],    l_i = f(W h_i)

A pass of n tokens has n x vocabulary logits, and a loss holds several copies of them: with a vocabulary of 150,000 more
than the layers themselves. Here h (n x hidden) is kept, and W, f and what is asked of the logits are computed for some
tokens at a time; the backward pass computes each tile again. Passes with few logits (TILE) are run whole, as ever.

f is what an architecture does to W h: nothing, a soft cap (Gemma) or a scale (Cohere, Granite). Which one is found out
once for every model, by a test of the model itself with hidden states so long that each would show (`_transform`); a
model that does anything else, that does not call its output layer as a module, or that is sharded (FSDP gathers weights
around whole calls of the model alone) is run with all its logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

TILE = {"cpu": 2**24, "cuda": 2**28}
"""Logits (tokens x vocabulary) that are held at once; a pass with no more than that is not cut."""

NO_TOKEN = -100  # target without a token

LARGE = 1000.0  # size of the logits on which a model is tested

Read = Callable[[Tensor, slice, int], tuple[Tensor, ...]]
"""Reads logits (rows, width, vocabulary) of these rows of a pass, from this column on: tensors (rows, width)."""

Distribution = Callable[[Tensor, slice, int], Tensor]
"""From such logits to those of the distribution that is meant."""


class Predictions:
    """What a pass predicts: logits, computed where and when they are read.

    states: (rows, columns, hidden), with `head` from them to logits; or, without it, the logits (rows, columns,
    vocabulary) themselves. Column k of a row predicts token k after its context.
    """

    def __init__(self, states: Tensor, head: Callable[[Tensor], Tensor] | None = None, tile: int | None = None) -> None:
        """tile: tokens whose logits are held at once; none: all."""
        self.states, self._head, self._tile = states, head, tile

    def logits(self, states: Tensor) -> Tensor:
        """Of some of the states (.., hidden): (.., vocabulary)."""
        return states if self._head is None else self._head(states)

    def select(self, rows: Sequence[int]) -> Predictions:
        """Those of some rows, in this order."""
        return Predictions(self.states[list(rows)], self._head, self._tile)

    def read(self, width: int, function: Read) -> tuple[Tensor, ...]:
        """What the function makes of the first `width` columns, each (rows, width), put together from tiles."""
        states = self.states[:, :width]
        rows, columns = states.shape[:2]
        if self._tile is None or rows * columns <= self._tile:
            return function(self.logits(states), slice(0, rows), 0)
        high, wide = max(1, self._tile // columns), min(columns, self._tile)
        found = []
        for r, part in enumerate(states.split(high)):
            place = slice(r * high, r * high + len(part))
            tiles = [
                self._again(lambda h, place=place, c=c: function(self.logits(h), place, c * wide), tile)
                for c, tile in enumerate(part.split(wide, 1))
            ]
            found.append([torch.cat(same, 1) for same in zip(*tiles, strict=True)])
        return tuple(torch.cat(same) for same in zip(*found, strict=True))

    def at(self, rows: Sequence[int], columns: Sequence[int], function: Callable[[Tensor], Tensor]) -> Tensor:
        """What the function makes of the logits (places, vocabulary) of single places: (places, ..)."""
        states = self.states[list(rows), list(columns)]
        if self._tile is None or len(states) <= self._tile:
            return function(self.logits(states))
        parts = [self._again(lambda h: function(self.logits(h)), part) for part in states.split(self._tile)]
        return torch.cat(parts)

    def log_probs(
        self, targets: Tensor, distribution: Distribution | None = None, counted: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p, in nats, of the targets (rows, width), 0 where there is none (-100); and entropies of that shape.

        distribution: whose probabilities are meant; the model's own without one. counted: where entropies are wanted
        (nats, without gradient; logits of -inf count as probability 0); 0 elsewhere.
        """

        def function(logits: Tensor, rows: slice, start: int) -> tuple[Tensor, Tensor]:
            columns = slice(start, start + logits.shape[1])
            here = targets[rows, columns]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            if distribution is not None:
                logits = distribution(logits, rows, start)
            losses = cross_entropy(logits.flatten(0, 1), here.flatten(), ignore_index=NO_TOKEN, reduction="none")
            with torch.no_grad():  # last: a tile that is computed again for its gradient stops ahead of it
                entropies = torch.zeros(here.shape, dtype=logits.dtype, device=logits.device)
                if counted is not None and bool((mask := counted[rows, columns]).any()):
                    entropies[mask] = torch.special.entr(logits.detach()[mask].softmax(-1)).sum(-1)
            return -losses.view(here.shape), entropies

        log_probs, entropies = self.read(targets.shape[1], function)
        return log_probs, entropies

    def _again(self, function: Callable[[Tensor], Any], states: Tensor) -> Any:
        """The function of a tile; while gradients are recorded, the backward pass computes it once more."""
        return checkpoint(function, states, use_reentrant=False) if torch.is_grad_enabled() else function(states)


def predict(model: nn.Module, input_ids: Tensor, **inputs: Any) -> tuple[Predictions, Any]:
    """A pass through the model, and what it returned (its `logits` aside).

    inputs: what else its forward is given; logits_to_keep says of how many of the last columns predictions are wanted.
    """
    plain: Any = getattr(model, "module", model)  # of DistributedDataParallel
    rows, columns = input_ids.shape
    columns = inputs.get("logits_to_keep") or columns
    tile = TILE.get(input_ids.device.type, TILE["cpu"]) // int(plain.config.vocab_size)
    head = _head(plain) if rows * columns > tile else None
    if head is None:
        output = model(input_ids=input_ids, **inputs)
        return Predictions(output.logits), output
    with _Capture(_output_layer(plain)) as captured:
        output = model(input_ids=input_ids, **inputs)
    return Predictions(captured.states[0], head, max(1, tile)), output


class _Capture:
    """Keeps what an output layer is given, and lets it run on the last column alone."""

    def __init__(self, layer: nn.Module, replace: Callable[[Tensor], Tensor] | None = None) -> None:
        self.states: list[Tensor] = []
        self._replace = replace
        self._handle = layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not given:  # by name: not a call that is known
            return None
        states = given[0] if self._replace is None else self._replace(given[0])
        self.states.append(states)
        return (states[:, -1:], *given[1:])

    def __enter__(self) -> _Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


_HEADS: WeakKeyDictionary[nn.Module, Callable[[Tensor], Tensor] | None] = WeakKeyDictionary()


def _output_layer(model: nn.Module) -> Any:
    return model.get_output_embeddings()  # pyright: ignore[reportCallIssue]


def _head(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """From hidden states to logits; none for a model of which that is not known."""
    layer = _output_layer(model)
    if layer is None or isinstance(model, FSDPModule):
        return None
    if layer not in _HEADS:
        with torch.autocast(layer.weight.device.type, enabled=False):  # it would keep casts that have no gradient
            _HEADS[layer] = _transform(model)
    transform = _HEADS[layer]
    return None if transform is None else lambda states: transform(layer(states))


@torch.no_grad()
def _transform(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What the model makes of its output layer's results, of what is known to occur; none when it is none of these.

    The model is run on a few tokens, but its hidden states are made so long that logits are up to LARGE: a cap or a
    scale changes them by more than rounding then.
    """
    layer, device = _output_layer(model), next(model.parameters()).device

    def longer(states: Tensor) -> Tensor:
        largest = layer.forward(states).abs().max().float().clamp(min=1e-6)
        return states * (LARGE / largest).to(states.dtype)

    ids = torch.arange(1, 5, device=device)[None] % int(model.config.vocab_size)  # pyright: ignore
    with _Capture(layer, longer) as captured:
        found = model(input_ids=ids, use_cache=False).logits
    if len(captured.states) != 1 or found.shape[:2] != (1, 1):
        return None
    plain = layer(captured.states[0][:, -1:])
    config: Any = model.config
    config = config.get_text_config()
    cap, scale, divisor = (
        getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
    )
    known: list[Callable[[Tensor], Tensor]] = [lambda logits: logits]
    if cap:
        known.append(lambda logits: torch.tanh(logits / cap) * cap)
    if scale:
        known.append(lambda logits: logits * scale)
    if divisor:
        known.append(lambda logits: logits / divisor)
    tolerance = 4 * torch.finfo(found.dtype).eps
    for transform in known:
        if torch.allclose(transform(plain).to(found.dtype), found, rtol=tolerance, atol=tolerance * LARGE * 1e-3):
            return transform
    return None
