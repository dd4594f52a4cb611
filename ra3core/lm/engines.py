"""What draws completions: engines behind one interface, chosen by configuration (docs/engines.md).

built-in             the loop of ra3core/lm/generation.py
transformers         transformers' `generate`; the same draws, token for token
continuous_batching  transformers' continuous batching: a paged cache, and a new sequence as soon as one has ended; the
                     same distribution, other draws
http                 an OpenAI-compatible server (ra3core/lm/http_engine.py)

All but the last run the model that they are given, in this process: its weights are those of the moment.
Log-probabilities are of the distribution that is drawn from: after temperature, top-p and the ban of comments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from ra3core.config import LocalEngine
from ra3core.errors import UserError
from ra3core.lm import generation
from ra3core.lm.generation import Draw, Endings, OnCompletion, Sampling, drawing, ordered, processors_of
from ra3core.lm.lines import comment_token_ids

ATTENTION = frozenset({"full_attention", "sliding_attention"})
"""Kinds of layers that continuous batching has a cache for."""

PAGE = {"cpu": 16, "cuda": 256}
"""Tokens of a page of its cache."""

BATCH_TOKENS = 1024  # of one of its passes, prompts being read beside sequences that go on


class Engine(Protocol):
    """Draws completions of prompts from one model."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        log_probs: bool = False,
        on_completion: OnCompletion | None = None,
    ) -> list[list[Draw]]:
        """`samples` completions of each prompt (at least one token long), prompt -> sample -> draw.

        log_probs: with the log-probabilities of their tokens, where the engine can tell them.
        """
        ...


@dataclass(frozen=True)
class _Local:
    """A model in this process. batch_size: sequences that are run side by side."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 64

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


class BuiltIn(_Local):
    """ra3core/lm/generation.py."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        log_probs: bool = False,
        on_completion: OnCompletion | None = None,
    ) -> list[list[Draw]]:
        return generation.generate(
            self.model,
            self.tokenizer,
            prompts,
            sampling,
            samples=samples,
            seed=seed,
            batch_size=self.batch_size,
            log_probs=log_probs,
            on_completion=on_completion,
        )


class Transformers(_Local):
    """`model.generate`, batch by batch; a batch's completions are told of once all of them have ended."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        log_probs: bool = False,
        on_completion: OnCompletion | None = None,
    ) -> list[list[Draw]]:
        rows = ordered(prompts, samples)
        found: dict[tuple[int, int], Draw] = {}
        endings = Endings.of(self.model, self.tokenizer, sampling)
        with drawing(self.model, seed), _own_settings(self.model):
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                drawn = self._batch([prompts[i] for i, _ in batch], sampling, endings, log_probs)
                for (i, j), draw in zip(batch, drawn, strict=True):
                    found[i, j] = draw
                    if on_completion is not None:
                        on_completion(i, j, draw)
        return [[found[i, j] for j in range(samples)] for i in range(len(prompts))]

    def _batch(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, endings: Endings, log_probs: bool
    ) -> list[Draw]:
        device = self.device
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), int(self.tokenizer.pad_token_id))  # type: ignore[arg-type]
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
            mask[row, width - len(prompt) :] = 1
        recorder = _Recorder() if log_probs and sampling.temperature > 0 else None
        processors = processors_of(self.tokenizer, sampling, device)
        if recorder is not None:
            processors.append(recorder)
        output = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=_settings(self.tokenizer, sampling, endings),
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([_Stops(endings)] if endings.stop else []),
        )[:, width:]
        values = recorder.values(output).tolist() if recorder is not None else [None] * len(prompts)
        return [endings.draw(row, value) for row, value in zip(output.tolist(), values, strict=True)]


class ContinuousBatching(_Local):
    """transformers' continuous batching, for models whose layers are all attention; `batch_size` sequences at most.

    All sequences are handed over before the first step, so that what is run side by side does not hang on the clock. It
    knows no stop strings: a sequence runs to its end token or the cap, and is cut afterwards.
    """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        log_probs: bool = False,
        on_completion: OnCompletion | None = None,
    ) -> list[list[Draw]]:
        model = _plain(self.model)
        _require_attention(model)
        rows = ordered(prompts, samples)
        found: dict[tuple[int, int], Draw] = {}
        endings = Endings.of(self.model, self.tokenizer, sampling)
        wanted = log_probs and sampling.temperature > 0
        settings = _settings(self.tokenizer, sampling, endings)
        if sampling.ban_comments:
            settings.suppress_tokens = list(comment_token_ids(self.tokenizer))
        if sampling.temperature > 0:
            settings.temperature, settings.top_p = sampling.temperature, sampling.top_p
        longest = max((len(prompt) for prompt in prompts), default=0) + sampling.max_new_tokens
        config = self._config(longest, min(self.batch_size, len(rows)), seed, wanted)
        with drawing(self.model, seed, torch.no_grad), _quiet("ContinuousBatchingLogger"):
            manager = model.init_continuous_batching(settings, config)
            names = manager.add_requests([list(prompts[i]) for i, _ in rows], max_new_tokens=sampling.max_new_tokens)
            where = dict(zip(names, rows, strict=True))
            try:
                manager.warmup()
                manager.start()
                while len(found) < len(rows):
                    result = manager.get_result(timeout=1)
                    if result is None:
                        if not manager.is_running():
                            cause = manager.background_thread_status.fatal_error
                            raise RuntimeError("continuous batching ended before its sequences did") from cause
                    elif result.error is not None:
                        raise RuntimeError(f"continuous batching failed: {result.error}")
                    elif result.is_finished():
                        i, j = where[result.request_id]
                        found[i, j] = endings.draw(result.generated_tokens, result.logprobs if wanted else None)
                        if on_completion is not None:
                            on_completion(i, j, found[i, j])
            except MemoryError as error:
                raise UserError(
                    f"engine continuous_batching: the cache of {config.max_requests_per_batch} sequences of {longest} "
                    "tokens does not fit, expected a smaller batch_size"
                ) from error
            finally:
                manager.stop(block=True, hard_stop=len(found) < len(rows))
                manager.destroy()
        return [[found[i, j] for j in range(samples)] for i in range(len(prompts))]

    def _config(self, longest: int, sequences: int, seed: int, log_probs: bool) -> ContinuousBatchingConfig:
        """A cache for so many sequences of at most `longest` tokens. Left to itself, transformers takes most of the
        device's free memory, and what runs side by side hangs on how much that is."""
        page = PAGE[self.device.type]
        return ContinuousBatchingConfig(
            page_size=page,
            num_blocks=sequences * (-(-longest // page) + 1),
            max_batch_tokens=max(BATCH_TOKENS, sequences),
            max_requests_per_batch=sequences,
            seed=seed,
            return_logprobs=log_probs,
        )


_LOCAL: dict[LocalEngine, Callable[..., Engine]] = {
    "built-in": BuiltIn,
    "transformers": Transformers,
    "continuous_batching": ContinuousBatching,
}


def local_engine(
    name: LocalEngine, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64
) -> Engine:
    """The engine of this name. Raises UserError when it cannot run the model."""
    if name == "continuous_batching":
        _require_attention(_plain(model))
    return _LOCAL[name](model, tokenizer, batch_size)


def _settings(tokenizer: PreTrainedTokenizerBase, sampling: Sampling, endings: Endings) -> GenerationConfig:
    """What `generate` is told beside processors: these change the distribution, and are ours."""
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} if sampling.temperature > 0 else {}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=sampling.temperature > 0,
        eos_token_id=sorted(endings.ends),
        pad_token_id=tokenizer.pad_token_id,
        **neutral,
    )


@contextmanager
def _own_settings(model: Any) -> Iterator[None]:
    """Without the model's own generation settings, from which `generate` takes whatever it is not told."""
    plain = _plain(model)
    kept, plain.generation_config = plain.generation_config, GenerationConfig()
    try:
        yield
    finally:
        plain.generation_config = kept


def _plain(model: Any) -> Any:
    """The transformers model; with adapters, the one that they are in."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _require_attention(model: Any) -> None:
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if others := sorted(set(kinds) - ATTENTION):
        raise UserError(
            f"engine continuous_batching: transformers' has no cache for layers of kind {others[0]}, "
            "expected a model of attention layers alone"
        )


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A library's logger that tells of errors alone."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Stops(StoppingCriteria):
    """A row that holds a stop string has ended."""

    def __init__(self, endings: Endings) -> None:
        self._ended = generation.Ended(endings)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        flags = [self._ended(row, token) for row, token in enumerate(input_ids[:, -1].tolist())]
        return torch.tensor(flags, device=input_ids.device)


class _Recorder(LogitsProcessor):
    """Log-probabilities of the tokens drawn, one step late: of a step's distribution once its tokens are known."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._columns: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        self._keep(input_ids[:, -1:])
        self._last = scores.log_softmax(-1)
        return scores

    def values(self, drawn: Tensor) -> Tensor:
        """Of all tokens drawn, (rows, tokens); those behind a row's end mean nothing."""
        self._keep(drawn[:, -1:])
        return torch.cat(self._columns, 1)

    def _keep(self, tokens: Tensor) -> None:
        if self._last is not None:
            self._columns.append(self._last.gather(1, tokens))
            self._last = None
