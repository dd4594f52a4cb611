"""Contexts encoded once and continued many times.

A group of rollouts shares its context, and so do the two answers to "act or think?". `encode` runs the contexts
through the model once (left-padded); `Prefix.select` repeats their cache for each continuation; `continue_with` runs
the continuations only. Everything is differentiable, through the cache too. For the embedded model the cache holds the
attention's keys and values and the convolution's last inputs; any model whose cache can be reordered works.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionLayer

from ra3core.lm.head import NO_TOKEN, Distribution, Predictions, predict
from ra3core.lm.lines import Tokens

BUDGET = {"cpu": 2**27, "cuda": 2**31}
"""Logits (tokens x vocabulary) that one pass may hold."""

MOST = {"cpu": 2048, "cuda": 8192}
"""Tokens of one pass: on a CPU few are as fast as many, and rows of one length are padded less."""

KEPT = 0.75  # once fewer of a cache's rows are needed, the others are dropped: copying it costs less than running them

ROOM = 32  # tokens of room at least that a buffer of keys and values is given


class _RoomyLayer(DynamicLayer):
    """Keys and values in buffers with room to spare: a new token is written behind the old ones, which stay in place.

    transformers' own layer copies everything for every token. While gradients are recorded it does here too, since a
    buffer that is written again would take back what the backward pass needs.
    """

    _buffers: tuple[Tensor, ...] = ()
    _views: tuple[Tensor, ...] = ()  # of the buffers, as they were handed out last

    @classmethod
    def of(cls, layer: DynamicLayer) -> _RoomyLayer:
        """A layer with the content of another, and no buffers yet."""
        made = cls()
        vars(made).update(vars(layer), _buffers=(), _views=())
        return made

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() or self.keys is None or self.values is None:
            return super().update(key_states, value_states, *args, **kwargs)
        old = self.keys, self.values
        begin, end = old[0].shape[-2], old[0].shape[-2] + key_states.shape[-2]
        if not self._current or end > self._buffers[0].shape[-2]:
            room = end + max(ROOM, end // 2)
            self._buffers = tuple(x.new_empty((*x.shape[:-2], room, x.shape[-1])) for x in old)
            for buffer, x in zip(self._buffers, old, strict=True):
                buffer[..., :begin, :] = x
        for buffer, x in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., begin:end, :] = x
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Copies the room too, so that the next token is written without another copy."""
        if not self._current:
            super().reorder_cache(beam_idx)  # type: ignore[arg-type]
            return
        end = self._views[0].shape[-2]
        self._buffers = tuple(buffer.index_select(0, beam_idx) for buffer in self._buffers)
        self._show(end)

    @property
    def _current(self) -> bool:
        """Whether the content is what the buffers hold."""
        return len(self._views) == 2 and self._views[0] is self.keys and self._views[1] is self.values

    def _show(self, end: int) -> None:
        keys, values = (buffer[..., :end, :] for buffer in self._buffers)
        self.keys, self.values = self._views = keys, values


@dataclass
class Prefix:
    """Encoded contexts, all but the last token of each: that one starts a continuation, which predicts from it.

    cache: the model's state after them; none when every context is one token long. mask: (rows, width), 0 at padding.
    last: (rows,) the contexts' last tokens.
    """

    cache: Any
    mask: Tensor
    last: Tensor

    def select(self, rows: Sequence[int]) -> Prefix:
        """A copy whose row i is this one's row rows[i]; this one stays as it is."""
        index = torch.tensor(rows, device=self.mask.device)
        cache = self.cache
        if cache is not None:
            cache = copy.copy(cache)
            cache.layers = [copy.copy(layer) for layer in cache.layers]
            for layer in cache.layers:
                for name in ("conv_states", "recurrent_states"):  # of convolution and linear-attention layers
                    if hasattr(layer, name):
                        setattr(layer, name, dict(getattr(layer, name)))
            cache.reorder_cache(index)
        return Prefix(cache, self.mask[index], self.last[index])

    def record(self) -> None:
        """Keep, during the next pass, what `cut` needs."""
        if self.cache is not None:
            self.cache.activate_past_recording()

    def cut(self, passed: int, rows: Sequence[int], contexts: Sequence[Sequence[int]]) -> Prefix | None:
        """The contexts, context i being what row rows[i] begins with, cut within the `passed` tokens run last.

        Those must have been recorded. Attention's keys and values are cut; a convolution's state at a position are its
        last inputs there, all of which are kept by a cache that records, as for decoding that may be taken back.
        None for a model whose cache cannot be cut; this prefix stays as it is.
        """
        if self.cache is None or not _cuttable(self.cache):
            return None
        device, index = self.mask.device, torch.tensor(rows, device=self.mask.device)
        begun = self.mask.shape[1] - passed
        lengths = torch.tensor([len(context) - 1 for context in contexts], device=device)
        kept = lengths - self.mask[index, :begun].sum(1)  # of the tokens run last
        valid = self.mask[index] * (torch.arange(self.mask.shape[1], device=device) < begun + kept[:, None])
        width = int(lengths.max())
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        columns = None  # of keys and values, where they do not stand side by side from the left as they are
        if not torch.equal(valid[:, :width], mask):
            columns = valid.argsort(dim=1, descending=True, stable=True)[:, None, :width, None]
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        for place, layer in enumerate(cache.layers):
            if hasattr(layer, "conv_states"):
                if any(layer.is_recurrent_states_initialized.values()):
                    return None
                layer.record_past, layer.conv_states = False, dict(layer.conv_states)
                for i, states in layer.conv_states.items():
                    size = layer.conv_kernel_size[i]
                    padded = pad(states, (size + passed - states.shape[-1], 0))  # nothing is ahead of a first pass
                    at = kept[:, None] + torch.arange(size, device=device)
                    layer.conv_states[i] = padded[index[:, None], :, at].transpose(1, 2).contiguous()
            else:
                layer.keys, layer.values = (
                    x[index, :, :width]
                    if columns is None
                    else x[index].gather(2, columns.expand(-1, x.shape[1], -1, x.shape[3]))
                    for x in (layer.keys, layer.values)
                )
                cache.layers[place] = _RoomyLayer.of(layer)
        return Prefix(cache, mask, torch.tensor([context[-1] for context in contexts], device=device))


def encode(model: torch.nn.Module, contexts: Sequence[Sequence[int]]) -> Prefix:
    """Run contexts (each at least one token) through the model; one that another begins with is not run itself.

    Line states of one demonstration are such: the text up to the last of them is run, the others are cut out of it.
    """
    width = max(len(context) for context in contexts) - 1
    texts, places = _longest(contexts)
    if width and len(texts) < len(contexts):
        shared = _encode_shared(model, texts, places, contexts)
        if shared is not None:
            return shared
    device = next(model.parameters()).device
    ids = torch.zeros((len(contexts), width), dtype=torch.long)
    mask = torch.zeros((len(contexts), width), dtype=torch.long)
    for row, context in enumerate(contexts):
        if len(context) > 1:
            ids[row, width - len(context) + 1 :] = torch.tensor(context[:-1])
            mask[row, width - len(context) + 1 :] = 1
    last = torch.tensor([context[-1] for context in contexts], device=device)
    mask = mask.to(device)
    if not width:
        return Prefix(None, mask, last)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids.to(device), attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
    )
    cache = output.past_key_values
    cache.layers = [_RoomyLayer.of(layer) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return Prefix(cache, mask, last)


def _longest(contexts: Sequence[Sequence[int]]) -> tuple[list[Tokens], list[int]]:
    """The contexts that no other one begins with, and for each context the place of one that begins with it."""
    order = sorted(range(len(contexts)), key=lambda i: tuple(contexts[i]), reverse=True)
    texts: list[Tokens] = []
    places = [0] * len(contexts)
    for i in order:  # what begins with a context comes right ahead of it
        context = tuple(contexts[i])
        if not texts or texts[-1][: len(context)] != context:
            texts.append(context)
        places[i] = len(texts) - 1
    return texts, places


def _encode_shared(
    model: torch.nn.Module, texts: Sequence[Tokens], places: Sequence[int], contexts: Sequence[Sequence[int]]
) -> Prefix | None:
    """The contexts cut out of the texts that begin with them; None for a model whose cache cannot be cut."""
    cache = DynamicCache(config=model.config)  # type: ignore[arg-type]
    if not _cuttable(cache):
        return None
    cache.activate_past_recording()
    device = next(model.parameters()).device
    ids = torch.zeros((len(texts), max(map(len, texts))), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    ids = ids.to(device)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return Prefix(cache, torch.ones_like(ids), ids[:, -1]).cut(ids.shape[1], places, contexts)


def _cuttable(cache: Any) -> bool:
    """Whether all of the model's state after a text holds its state after every beginning of it."""
    return all(type(layer) in (DynamicLayer, _RoomyLayer, LinearAttentionLayer) for layer in cache.layers)


def join(prefixes: Sequence[Prefix]) -> Prefix:
    """The rows of prefixes that `Prefix.cut` made, one prefix after the other."""
    width = max(prefix.mask.shape[1] for prefix in prefixes)

    def widened(values: Tensor, dimension: int) -> Tensor:
        ahead = [0, 0] * (values.dim() - 1 - dimension)
        return pad(values, (*ahead, 0, width - values.shape[dimension]))

    first = prefixes[0]
    cache = copy.copy(first.cache)
    cache.layers = []
    for layers in zip(*(prefix.cache.layers for prefix in prefixes), strict=True):
        layer = copy.copy(layers[0])
        if hasattr(layer, "conv_states"):
            layer.conv_states = {i: torch.cat([each.conv_states[i] for each in layers]) for i in layer.conv_states}
        else:
            layer.keys = torch.cat([widened(each.keys, 2) for each in layers])
            layer.values = torch.cat([widened(each.values, 2) for each in layers])
        cache.layers.append(layer)
    mask = torch.cat([widened(prefix.mask, 1) for prefix in prefixes])
    return Prefix(cache, mask, torch.cat([prefix.last for prefix in prefixes]))


class Samples:
    """Sequences drawn token by token after encoded contexts; those that are the same so far are run as one row."""

    def __init__(self, model: torch.nn.Module, prefix: Prefix, rows: Sequence[int]) -> None:
        """rows: where in the prefix, which is used up, each sequence begins."""
        self._model, self._prefix = model, prefix
        self._row = dict(enumerate(rows))  # of every sequence that goes on
        self.leaders = [rows.index(row) for row in range(len(prefix.last))]
        """A sequence of each row."""

    def logits(self) -> Tensor:
        """Logits (rows, vocabulary) of the next token."""
        return next_logits(self._model, self._prefix)

    def rows(self, sequences: Sequence[int]) -> list[int]:
        """The sequences' rows; any row for one that has ended."""
        return [self._row.get(i, 0) for i in sequences]

    def extend(self, chosen: Mapping[int, int]) -> None:
        """Go on with these sequences, each by its token; the others have ended."""
        found: dict[tuple[int, int], int] = {}  # row and token -> the first sequence of what becomes a row
        for i, token in chosen.items():
            found.setdefault((self._row[i], token), i)
        size, parents = len(self._prefix.last), [row for row, _ in found]
        if len(set(parents)) == len(parents) > KEPT * size:  # no row parts, and few end
            last = [0] * size
            for row, token in found:
                last[row] = token
            self._row = {i: self._row[i] for i in chosen}
        else:
            last = [token for _, token in found]
            places = {key: place for place, key in enumerate(found)}
            self._row = {i: places[self._row[i], token] for i, token in chosen.items()}
            self._prefix, self.leaders = self._prefix.select(parents), list(found.values())
        self._prefix.last = torch.tensor(last, device=self._prefix.last.device)


def predictions_after(model: torch.nn.Module, prefix: Prefix, continuations: Sequence[Sequence[int]]) -> Predictions:
    """Predictions (rows, 1 + longest continuation): [r, k] is of token k of continuation r.

    Right-padded, so [r, len(r)] is of the token after it and later entries mean nothing. Uses the prefix up: select
    from it first to keep it.
    """
    width = max(len(tokens) for tokens in continuations)
    ids = torch.zeros((len(continuations), 1 + width), dtype=torch.long)
    for row, tokens in enumerate(continuations):
        ids[row, 1 : 1 + len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    ids = ids.to(prefix.last.device)
    ids[:, 0] = prefix.last
    predictions, output = predict(model, ids, **_advance(prefix, ids))
    prefix.cache = output.past_key_values
    return predictions


def continue_with(model: torch.nn.Module, prefix: Prefix, continuations: Sequence[Sequence[int]]) -> Tensor:
    """The logits (rows, 1 + longest continuation, vocabulary) of `predictions_after`, all at once."""
    predictions = predictions_after(model, prefix, continuations)
    return predictions.logits(predictions.states)


def next_logits(model: torch.nn.Module, prefix: Prefix) -> Tensor:
    """Logits (rows, vocabulary) of the next token. Set `prefix.last` to the tokens chosen, then call it again."""
    ids = prefix.last[:, None]
    output = model(input_ids=ids, **_advance(prefix, ids))
    prefix.cache = output.past_key_values
    return output.logits[:, -1]


def _advance(prefix: Prefix, ids: Tensor) -> dict[str, Any]:
    """What else a pass of these tokens is given; the prefix's mask is that of after it."""
    positions = prefix.mask.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
    prefix.mask = torch.cat([prefix.mask, torch.ones_like(ids)], 1)
    return {
        "attention_mask": prefix.mask,
        "position_ids": positions,
        "past_key_values": prefix.cache,
        "use_cache": True,
    }


def gather_log_probs(
    predictions: Predictions | Tensor,
    tokens: Sequence[Tokens | Sequence[int]],
    distribution: Distribution | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (rows, width) in nats of the tokens that predictions, or logits (rows, >= width, vocabulary),
    are of; also their mask (rows, width), 1.0 at tokens. Log-probabilities of padding are 0.
    """
    found = Predictions(predictions) if isinstance(predictions, Tensor) else predictions
    targets = padded(tokens).to(found.states.device)
    return found.log_probs(targets, distribution)[0], (targets != NO_TOKEN).float()


def padded(tokens: Sequence[Tokens | Sequence[int]]) -> Tensor:
    """Rows of tokens as targets (rows, longest), -100 behind the end of a row."""
    targets = torch.full((len(tokens), max(len(row) for row in tokens)), NO_TOKEN)
    for row, ids in enumerate(tokens):
        targets[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    return targets


def batches(lengths: Sequence[int], model: torch.nn.Module) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first; a padded batch stays within the budget of logits."""
    tokens = _most(model)
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def grouped_batches(
    contexts: Sequence[Sequence[int]],
    lengths: Sequence[Sequence[int]],
    model: torch.nn.Module,
    shared: bool = True,
) -> Iterator[list[int]]:
    """Indices of contexts in batches, of which each context has continuations of these lengths.

    Contexts that are encoded together stay together, those with the longest continuations come first; a batch stays
    within the budget of logits, padding and contexts counted. shared: a context is run once; otherwise ahead of each of
    its continuations.
    """
    tokens = _most(model)
    texts, places = _longest(contexts)
    longest = [0] * len(texts)
    for place, group in zip(places, lengths, strict=True):
        longest[place] = max(longest[place], *group)
    batch: list[int] = []
    encoded: set[int] = set()
    rows = width = deepest = 0
    for i in sorted(range(len(contexts)), key=lambda i: (-longest[places[i]], places[i])):
        place = places[i]
        rows, width = rows + len(lengths[i]), max(width, *lengths[i])
        deepest = max(deepest, len(texts[place]))
        times = len(encoded | {place}) if shared else rows
        if batch and rows * width + times * deepest > tokens:
            yield batch
            batch, encoded = [], set()
            rows, width, deepest = len(lengths[i]), max(lengths[i]), len(texts[place])
        batch.append(i)
        encoded.add(place)
    if batch:
        yield batch


def _most(model: torch.nn.Module) -> int:
    """Tokens of one pass."""
    vocabulary: int = model.config.vocab_size  # type: ignore[union-attr,assignment]
    device = next(model.parameters()).device.type
    return min(MOST.get(device, MOST["cpu"]), BUDGET.get(device, BUDGET["cpu"]) // vocabulary)
