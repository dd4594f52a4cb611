"""Completions of benchmark problems under a decoding mode.

free      the model completes the prompt as it likes
banned    no token that begins a comment can be drawn
forced    the prompt is followed by a line that begins a comment; that beginning counts as part of the completion, and
          its tokens as part of the budget

The three rows tell what a gain is made of: what a model can do without rationales, whether it knows when to write one,
and what it makes of one that it would not have written. Every arm gets the same number of new tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ra3core.config import BenchmarkConfig
from ra3core.corpora.demonstrations import COMMENT, indentation
from ra3core.evaluation.benchmarks import Benchmark, Problem
from ra3core.evaluation.results import Mode, Sample
from ra3core.lm.engines import Engine
from ra3core.lm.generation import Sampling
from ra3core.lm.lines import LineTokenizer, Tokens


class Sampler:
    """Draws completions from one model, whose engine and tokenizer these are."""

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> None:
        self.engine, self.tokenizer, self.benchmark = engine, tokenizer, benchmark
        self.lines = LineTokenizer(tokenizer)

    def draw(self, problems: Sequence[Problem], mode: Mode, config: BenchmarkConfig, seed: int) -> list[Sample]:
        """config.samples completions of each problem, problem by problem; the result depends on `seed` alone."""
        prompts: list[list[int]] = []
        prefixes: list[list[int]] = []
        for problem in problems:
            text = self.benchmark.prompt(problem)
            opened = bool(self._opening) or text.endswith("\n")
            prefix = list(self.lines.start(_comment_start(text), opened)) if mode == "forced" else []
            prefixes.append(prefix)
            prompts.append([*self._prompt(text), *prefix])
        longest = max(map(len, prefixes))
        sampling = Sampling(
            max_new_tokens=max(1, config.max_new_tokens - longest),
            temperature=config.temperature,
            top_p=config.top_p,
            stop=() if self.lines.chat else self.benchmark.stop,  # those of completions would cut an answer's text
            ban_comments=mode == "banned",
        )
        drawn = self.engine.generate(prompts, sampling, samples=config.samples, seed=seed)
        samples = []
        for problem, prompt, prefix, completions in zip(problems, prompts, prefixes, drawn, strict=True):
            given = prompt[: len(prompt) - len(prefix)]
            for number, draw in enumerate(completions):
                text = self._opening + self.lines.completion(given, [*prefix, *draw.tokens], skip_special_tokens=True)
                used = len(prompt) + len(draw.tokens)
                samples.append(Sample(problem.id, problem.steps, mode, number, text, used))
        return samples

    @property
    def _opening(self) -> str:
        """The beginning of a completion that a prompt's tokens hold already."""
        return self.lines.opening if self.benchmark.line_follows else ""

    def _prompt(self, text: str) -> Tokens:
        return self.lines.prompt(text) if self.benchmark.line_follows else self.lines.question(text)


def _comment_start(prompt: str) -> str:
    """The body's indentation and the start of a comment."""
    last = next((line for line in reversed(prompt.split("\n")) if line.strip()), "")
    return (indentation(last) or "    ") + COMMENT


def chunk_seed(seed: int, mode: Mode, chunk: int) -> int:
    """A seed of its own for every chunk, so that one can be drawn without the others."""
    return zlib.crc32(f"{seed}/{mode}/{chunk}".encode())
