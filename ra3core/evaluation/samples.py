"""Completions of benchmark problems under a decoding mode, and figures over graded samples.

free      the model completes the prompt as it likes
banned    no token that begins a comment can be drawn
forced    the prompt is followed by a line that begins a comment; that beginning counts as part of the completion, and
          its tokens as part of the budget

The three rows tell what a gain is made of: what a model can do without rationales, whether it knows when to write one,
and what it makes of one that it would not have written. Every arm gets the same number of new tokens.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ra3core import statistics
from ra3core.config import EvaluationConfig
from ra3core.corpora.demonstrations import COMMENT, indentation
from ra3core.evaluation.benchmarks import Benchmark, Problem
from ra3core.lm.generation import Sampling, generate
from ra3core.lm.lines import LineTokenizer

Mode = str


@dataclass(frozen=True)
class Sample:
    """One graded completion, a line of samples.jsonl. tokens: prompt and new tokens that it took."""

    task_id: str
    steps: int
    mode: Mode
    sample: int
    completion: str
    tokens: int
    passed: bool = False
    category: str = ""
    detail: str = ""
    weak: bool = False

    @property
    def comments(self) -> int:
        """Number of comment lines."""
        return sum(line.lstrip().startswith(COMMENT) for line in self.completion.split("\n"))


class Sampler:
    """Draws completions from one model."""

    def __init__(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> None:
        self.model, self.tokenizer, self.benchmark = model, tokenizer, benchmark
        self.lines = LineTokenizer(tokenizer)

    def draw(self, problems: Sequence[Problem], mode: Mode, config: EvaluationConfig, seed: int) -> list[Sample]:
        """config.samples completions of each problem, problem by problem; the result depends on `seed` alone."""
        prompts: list[list[int]] = []
        prefixes: list[list[int]] = []
        for problem in problems:
            text = self.benchmark.prompt(problem)
            prefix = list(self._comment_start(text)) if mode == "forced" else []
            prefixes.append(prefix)
            prompts.append([*self.lines.prompt(text), *prefix])
        longest = max(map(len, prefixes))
        sampling = Sampling(
            max_new_tokens=max(1, config.max_new_tokens - longest),
            temperature=config.temperature,
            top_p=config.top_p,
            stop=self.benchmark.stop,
            ban_comments=mode == "banned",
        )
        drawn = generate(
            self.model,
            self.tokenizer,
            prompts,
            sampling,
            samples=config.samples,
            seed=seed,
            batch_size=config.batch_size,
        )
        samples = []
        for problem, prompt, prefix, completions in zip(problems, prompts, prefixes, drawn, strict=True):
            given = prompt[: len(prompt) - len(prefix)]
            for number, tokens in enumerate(completions):
                text = self._completion(given, [*prefix, *tokens])
                used = len(prompt) + len(tokens)
                samples.append(Sample(problem.id, problem.steps, mode, number, text, used))
        return samples

    def _comment_start(self, prompt: str) -> tuple[int, ...]:
        """The tokens of a new line, the body's indentation and the start of a comment."""
        last = next((line for line in reversed(prompt.split("\n")) if line.strip()), "")
        start = (indentation(last) or "    ") + COMMENT
        if prompt.endswith("\n"):
            return tuple(self.tokenizer.encode(start, add_special_tokens=False))
        return self.lines.line(start)

    def _completion(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """The text that the tokens add to the prompt's: some tokenizers drop a leading space when decoding alone."""
        whole, before = self._decode([*prompt, *tokens]), self._decode(prompt)
        return whole[len(before) :] if whole.startswith(before) else self._decode(tokens)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def chunk_seed(seed: int, mode: Mode, chunk: int) -> int:
    """A seed of its own for every chunk, so that one can be drawn without the others."""
    return zlib.crc32(f"{seed}/{mode}/{chunk}".encode())


def summarise(samples: Sequence[Sample], ks: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """results.json: for each mode pass@k with its interval over problems, over all tasks and by number of steps.

    {mode: {"all": {"pass@1": {value, low, high}, .., "n_tasks": n}, "steps=2": {..}, .., "comments": {"lines": comment
    lines a program, "share": programs with one}, "categories": {..}}, .., "per_task": {mode: {task_id: [n, c]}}}
    """
    results: dict[str, Any] = {}
    per_task: dict[str, dict[str, list[int]]] = {}
    for mode in dict.fromkeys(sample.mode for sample in samples):
        mine = [sample for sample in samples if sample.mode == mode]
        steps = {sample.task_id: sample.steps for sample in mine}
        counts: dict[str, list[int]] = {task: [0, 0] for task in steps}
        for sample in mine:
            counts[sample.task_id][0] += 1
            counts[sample.task_id][1] += sample.passed
        groups = {"all": list(counts)}
        if len(set(steps.values())) > 1:
            groups |= {f"steps={n}": [t for t in counts if steps[t] == n] for n in sorted(set(steps.values()))}
        comments = np.array([sample.comments for sample in mine])
        results[mode] = {
            **{name: _group([counts[task] for task in tasks], ks, seed) for name, tasks in groups.items()},
            "comments": {"lines": float(comments.mean()), "share": float((comments > 0).mean())},
            "categories": dict(sorted(Counter(sample.category for sample in mine).items())),
            "weak": sum(sample.weak for sample in mine),
        }
        per_task[mode] = counts
    return {**results, "per_task": per_task}


def flat(results: Mapping[str, Any]) -> dict[str, float]:
    """The figures that are compared between runs, under names that a tracking server takes."""
    figures: dict[str, float] = {}
    for mode, result in results.items():
        if mode == "per_task":
            continue
        for group, scores in result.items():
            for name, score in scores.items() if isinstance(scores, dict) else ():
                if name.startswith("pass@"):
                    where = "" if group == "all" else "_" + group.replace("=", "_")
                    figures[f"{mode}/pass_at_{name[5:]}{where}"] = score["value"]
        figures[f"{mode}/comment_lines"] = result["comments"]["lines"]
        figures[f"{mode}/comment_share"] = result["comments"]["share"]
    return figures


def _group(counts: Sequence[Sequence[int]], ks: Sequence[int], seed: int) -> dict[str, Any]:
    samples, correct = np.array(counts).T
    scores: dict[str, Any] = {}
    for k in ks:
        scores[f"pass@{k}"] = asdict(statistics.bootstrap(statistics.pass_at_k(samples, correct, k), seed=seed))
    return {**scores, "n_tasks": len(counts)}
