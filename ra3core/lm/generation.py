"""Batched sampling of completions: temperature, top-p, stop strings and a comment ban.

This is the engine `built-in`; ra3core/lm/engines.py has the others, and how one is chosen. The distribution and the
draws are those of transformers' `generate` with the same settings (a test compares them token for token): its logits
processors, and the race of exponential variables that `torch.multinomial` runs. What is left out is work
(ra3core/lm/prefix.py): a prompt is encoded once for all its samples, samples that are the same so far are run as one, a
new token's keys and values are written beside the old ones instead of copying all, and what has ended leaves the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ra3core.corpora.demonstrations import COMMENT
from ra3core.errors import UserError
from ra3core.lm.lines import Tokens, comment_token_ids, end_token_id, token_texts
from ra3core.lm.prefix import Samples, encode


@dataclass(frozen=True)
class Sampling:
    """How to decode.

    temperature: 0 is greedy. stop: a completion ends before the first of these strings; one that would end it at a
    comment line is refused, since comment lines are what this method adds.
    ban_comments: no token that begins a comment can be drawn.
    """

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    ban_comments: bool = False

    def __post_init__(self) -> None:
        for stop in self.stop:
            if not stop or f"\n{COMMENT}".startswith(stop) or stop.startswith(f"\n{COMMENT}"):
                raise ValueError(f"stop string {stop!r} would end a completion at a comment line")


@dataclass(frozen=True)
class Draw:
    """One completion. tokens: ids, without the stop string or the end token. ended: by one of these, not by the cap.

    log_probs: nats, of each token under the distribution that it was drawn from, and of the end token behind them where
    one was drawn. None where nobody asked, nothing is drawn (greedy decoding), or the engine cannot tell.
    end: the end token that was drawn, of several that a chat model may have; None where a stop string or the cap ended
    it, or the engine cannot tell.
    """

    tokens: list[int]
    ended: bool
    log_probs: tuple[float, ...] | None = None
    end: int | None = None


OnCompletion = Callable[[int, int, Draw], Any]
"""on_completion(prompt, sample, draw): told of each completion as soon as it has ended."""


def generate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    log_probs: bool = False,
    on_completion: OnCompletion | None = None,
) -> list[list[Draw]]:
    """Sampled completions, prompt -> sample -> draw; log_probs: with those of their tokens.

    Sequences of similar length share a batch of `batch_size`. The result depends on `seed`, not on the state of torch's
    generator, which is left as it was. A prompt is at least one token long (ValueError).
    """
    rows = ordered(prompts, samples)
    found: dict[tuple[int, int], Draw] = {}
    endings = Endings.of(model, tokenizer, sampling)
    processors = processors_of(tokenizer, sampling, next(model.parameters()).device)
    with drawing(model, seed):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]

            def finished(
                row: int, tokens: list[int], values: list[float] | None, batch: list[tuple[int, int]] = batch
            ) -> None:
                found[batch[row]] = endings.draw(tokens, values)
                if on_completion is not None:
                    on_completion(*batch[row], found[batch[row]])

            wanted = log_probs and sampling.temperature > 0
            _decode(model, [tuple(prompts[i]) for i, _ in batch], sampling, processors, endings, wanted, finished)
    return [[found[i, j] for j in range(samples)] for i in range(len(prompts))]


def ordered(prompts: Sequence[Sequence[int]], samples: int) -> list[tuple[int, int]]:
    """(prompt, sample) of every completion, in the order in which they share batches. No prompt may be empty."""
    if any(not prompt for prompt in prompts):
        raise ValueError("an empty prompt: expected at least one token")
    return [(i, j) for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])) for j in range(samples)]


@contextmanager
def drawing(
    model: torch.nn.Module, seed: int, ungraded: Callable[[], AbstractContextManager[Any]] = torch.inference_mode
) -> Iterator[None]:
    """The model in evaluation mode, without gradients, torch's generators seeded; all as it was afterwards."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), ungraded():
            torch.manual_seed(seed)
            yield
    finally:
        model.train(training)


def _decode(
    model: torch.nn.Module,
    prompts: Sequence[Tokens],
    sampling: Sampling,
    processors: LogitsProcessorList,
    endings: Endings,
    log_probs: bool,
    finished: Callable[[int, list[int], list[float] | None], None],
) -> None:
    """One completion for each prompt, all at once; `finished(row, tokens, log_probs)` is called as each ends."""
    distinct = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    samples = Samples(model, encode(model, list(distinct)), [distinct[prompt] for prompt in prompts])
    tokens: list[list[int]] = [[] for _ in prompts]
    values: list[list[float]] = [[] for _ in prompts]
    open_ = list(range(len(prompts)))
    ended = Ended(endings)

    def finish(row: int) -> None:
        finished(row, tokens[row], values[row] if log_probs else None)

    for _ in range(sampling.max_new_tokens):
        scores = processors(None, samples.logits().to(torch.float32, copy=True))  # type: ignore[arg-type]
        rows = samples.rows(open_)
        if sampling.temperature > 0:
            probabilities = scores.softmax(-1)
            if not bool(probabilities.isfinite().all()):
                raise UserError("the model's probabilities are not finite: a weight is bad, or its training diverged")
            noise = torch.empty((len(prompts), scores.shape[1]), device=scores.device).exponential_()
            chosen = (probabilities[rows] / noise[open_]).argmax(-1)
            if log_probs:
                drawn = scores.log_softmax(-1)[rows].gather(1, chosen[:, None])[:, 0]
                for row, value in zip(open_, drawn.tolist(), strict=True):
                    values[row].append(value)
        else:
            chosen = scores.argmax(-1)[rows]
        going: dict[int, int] = {}
        for row, token in zip(open_, chosen.tolist(), strict=True):
            tokens[row].append(token)
            if ended(row, token):
                finish(row)
            else:
                going[row] = token
        open_ = list(going)
        if not open_:
            return
        samples.extend(going)
    for row in open_:
        finish(row)


def cut(tokens: Sequence[int], ends: set[int], stop: Sequence[str] = (), texts: tuple[str, ...] = ()) -> list[int]:
    """The tokens ahead of the first end token and of the first stop string.

    A token that begins ahead of the stop string is kept when all it has of the stop string is white space (``:\\n``).
    """
    kept: list[int] = []
    for token in tokens:
        if token in ends:
            break
        kept.append(token)
    if not stop:
        return kept
    text = "".join(texts[token] for token in kept)
    found = [position for position in (text.find(string) for string in stop) if position >= 0]
    if not found:
        return kept
    start, length = min(found), 0
    for n, token in enumerate(kept):
        text = texts[token]
        if length >= start or (length + len(text) > start and text[start - length :].strip()):
            return kept[:n]
        length += len(text)
    return kept


@dataclass(frozen=True)
class Endings:
    """What ends a completion: the end tokens, and stop strings in the texts of its tokens."""

    ends: set[int]
    stop: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> Endings:
        """Those of a model and of how it is sampled."""
        texts = token_texts(tokenizer) if sampling.stop else ()
        return cls(end_ids(model, tokenizer), sampling.stop, texts)

    def draw(self, drawn: Sequence[int], log_probs: Sequence[float] | None = None) -> Draw:
        """What was drawn, cut ahead of what ends it; what comes behind that does not count."""
        kept = cut(drawn, self.ends, self.stop, self.texts)
        end = next((token for token in drawn[len(kept) :][:1] if token in self.ends), None)
        ended = len(kept) < len(drawn) or self._stops("".join(self.texts[t] for t in kept if self.stop))
        values = None if log_probs is None else tuple(log_probs[: len(kept) + (end is not None)])
        return Draw(kept, ended, values, end)

    def _stops(self, text: str) -> bool:
        return any(string in text for string in self.stop)


class Ended:
    """Whether a row has ended: at an end token, or once its text holds a stop string; keeps a short tail per row."""

    def __init__(self, endings: Endings) -> None:
        self.endings = endings
        self.kept = max((len(string) for string in endings.stop), default=1) - 1
        self.tails: dict[int, str] = {}

    def __call__(self, row: int, token: int) -> bool:
        if token in self.endings.ends:
            return True
        if not self.endings.stop:
            return False
        tail = self.tails.get(row, "") + self.endings.texts[token]
        self.tails[row] = tail[-self.kept :] if self.kept else ""
        return any(string in tail for string in self.endings.stop)


def end_ids(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a completion: the tokenizer's, and a chat model's own end of turn."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    special: set[int] = set(tokenizer.all_special_ids)
    return {i for i in (own if isinstance(own, list) else [own]) if i in special} | {end_token_id(tokenizer)}


def processors_of(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, device: torch.device) -> LogitsProcessorList:
    """transformers' processors of these settings alone: a hub model's defaults (top-k, penalties) do not count."""
    found: list[Any] = []
    if sampling.ban_comments:
        found.append(SuppressTokensLogitsProcessor(list(comment_token_ids(tokenizer)), device=str(device)))
    if sampling.temperature not in (0.0, 1.0):
        found.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.temperature > 0 and sampling.top_p < 1:
        found.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList(found)
