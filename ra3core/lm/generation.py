"""Batched sampling of completions: transformers' `generate` with left padding, stop strings and a comment ban."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ra3core.corpora.demonstrations import COMMENT
from ra3core.lm.lines import end_token_id, think_token_ids, token_texts


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


def generate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    on_batch: Callable[[int], Any] | None = None,
) -> list[list[list[int]]]:
    """Sampled completions, prompt -> sample -> new token ids, without the stop string or the end token.

    Sequences of similar length share a batch of `batch_size`; `on_batch(n)` is told of each n finished completions.
    The result depends on `seed`, not on the state of torch's generator, which is left as it was. A prompt is at least
    one token long (ValueError).
    """
    if any(not prompt for prompt in prompts):
        raise ValueError("an empty prompt: expected at least one token")
    device = next(model.parameters()).device
    rows = [(i, j) for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])) for j in range(samples)]
    completions: list[list[list[int]]] = [[[] for _ in range(samples)] for _ in prompts]
    texts = token_texts(tokenizer) if sampling.stop else ()
    config = _generation_config(model, tokenizer, sampling)
    pad = config.pad_token_id
    ends = set(config.eos_token_id)
    training = model.training
    model.eval()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                width = max(len(prompts[i]) for i, _ in batch)
                ids = torch.full((len(batch), width), pad)
                mask = torch.zeros((len(batch), width), dtype=torch.long)
                for row, (i, _) in enumerate(batch):
                    ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                    mask[row, width - len(prompts[i]) :] = 1
                criteria = StoppingCriteriaList([_StopStrings(sampling.stop, texts, width)] if sampling.stop else [])
                output = model.generate(  # type: ignore[operator]
                    input_ids=ids.to(device),
                    attention_mask=mask.to(device),
                    generation_config=config,
                    stopping_criteria=criteria,
                )
                for (i, j), row in zip(batch, output[:, width:].tolist(), strict=True):
                    completions[i][j] = cut(row, ends, sampling.stop, texts)
                if on_batch is not None:
                    on_batch(len(batch))
    finally:
        model.train(training)
    return completions


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


class _StopStrings(StoppingCriteria):
    """A row is done once its new text holds one of the strings; keeps a short tail of text per row."""

    def __init__(self, stop: Sequence[str], texts: tuple[str, ...], width: int) -> None:
        self.stop, self.texts, self.seen = stop, texts, width
        self.longest = max(len(string) for string in stop)
        self.tails: list[str] = []
        self.done: list[bool] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:  # type: ignore[override]
        if not self.tails:
            self.tails, self.done = [""] * len(input_ids), [False] * len(input_ids)
        for row, tokens in enumerate(input_ids[:, self.seen :].tolist()):
            if not self.done[row]:
                tail = self.tails[row] + "".join(self.texts[token] for token in tokens)
                self.done[row] = any(string in tail for string in self.stop)
                self.tails[row] = tail[-self.longest + 1 :] if self.longest > 1 else ""
        self.seen = input_ids.shape[1]
        return torch.tensor(self.done, device=input_ids.device)  # type: ignore[return-value]


def _generation_config(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, sampling: Sampling
) -> GenerationConfig:
    """Every setting that changes the distribution, so that a hub model's own defaults (top-k, penalties) do not."""
    special: set[int] = set(tokenizer.all_special_ids)
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {i for i in (own if isinstance(own, list) else [own]) if i in special}  # a chat model's end of turn
    ends.add(end_token_id(tokenizer))
    sampled = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        **(
            sampled if sampling.temperature > 0 else {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
        ),
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_new_tokens=0,
        suppress_tokens=list(think_token_ids(tokenizer)) if sampling.ban_comments else [],
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_token_id(tokenizer),
        use_cache=True,
    )
