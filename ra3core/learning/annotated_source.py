"""Rationales in a whole source file: every function is annotated where it stands, and nothing else is touched.

A function is read as a demonstration is (ra3core/corpora/python_source.py: dedented, without comments and blank lines)
and annotated as the bootstrap does it. Its rationales go into the file ahead of the lines they stand for. Without the
lines that were put in, the result is the source again, byte for byte, and its syntax tree is the source's.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ra3core.corpora.demonstrations import COMMENT, indentation
from ra3core.corpora.python_source import NOT_PYTHON, Cutter, Placed
from ra3core.errors import UserError
from ra3core.learning.annotation import Drawn, RationaleSampler, State, annotate_batch
from ra3core.learning.scoring import score_rationales
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration

ANY_LENGTH = 1_000_000  # lines
_ROW = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")


@dataclass(frozen=True)
class Annotating:
    """How rationales are found.

    samples: drawn at a think, of which the likeliest is kept. penalty: what a rationale has to gain more than, nats;
    none keeps all. window: lines that a gain counts. rationale_tokens: length cap. scores: measure gains even if
    nothing depends on them.
    """

    samples: int = 1
    penalty: float | None = None
    temperature: float = 0.5
    window: int = 5
    rationale_tokens: int = 16
    batch_size: int = 8
    scores: bool = False


@dataclass(frozen=True)
class Found:
    """One rationale. function: qualified name. line: of the source that it stands ahead of, from 1. gain: of
    log-likelihood on the window, nats; None where it was not measured."""

    function: str
    line: int
    rationale: str
    gain: float | None


@dataclass(frozen=True)
class AnnotatedSource:
    """text: the source with its rationales. functions: that were read. skipped: qualified names of functions that are
    longer than the model's context."""

    text: str
    rationales: tuple[Found, ...]
    functions: int
    skipped: tuple[str, ...]


def functions_of(source: str, name: str) -> list[Placed]:
    """The functions of Python source that have lines to annotate. Raises UserError when it is no Python."""
    try:
        return list(Cutter(ANY_LENGTH).placed(source, name))
    except NOT_PYTHON as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        raise UserError(f"{name}: not Python ({reason}{line})") from error


def annotate_source(
    source: str,
    placed: Sequence[Placed],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    how: Annotating,
    *,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> AnnotatedSource:
    """Annotate functions of Python source with the model's rationales. advance(done, total): told of functions."""
    lines = LineTokenizer(tokenizer)
    vocabulary: int = model.config.vocab_size
    device = str(model.device)
    sampler = RationaleSampler(lines, vocabulary, how.temperature, how.rationale_tokens, device)
    context = getattr(model.config, "max_position_embeddings", None) or torch.inf
    programs = [(one, lines.demonstration(one.demonstration)) for one in placed]
    fitting = [(one, program) for one, program in programs if _longest(program, how) <= context]
    skipped = tuple(_qualified(one) for one, program in programs if _longest(program, how) > context)
    generator = torch.Generator(device).manual_seed(seed)
    found: list[Found] = []
    for start in range(0, len(fitting), how.batch_size):
        batch = fitting[start : start + how.batch_size]
        found += _annotated(batch, model, sampler, generator, how)
        advance(start + len(batch), len(fitting))
    found.sort(key=lambda one: one.line)
    return AnnotatedSource(insert(source, found), tuple(found), len(fitting), skipped)


def insert(source: str, rationales: Sequence[Found]) -> str:
    """The source with comment lines ahead of the lines that rationales name, with their indentation and line ends.

    Raises RuntimeError should that change the program.
    """
    ahead = {one.line: one.rationale for one in rationales}
    rows = []
    for number, row in enumerate(_ROW.findall(source), start=1):
        if number in ahead:
            end = row[len(row.rstrip("\r\n")) :] or "\n"
            rows.append(f"{indentation(row)}{COMMENT} {ahead[number]}{end}")
        rows.append(row)
    text = "".join(rows)
    if ahead and _tree(text) != _tree(source):
        raise RuntimeError("the rationales changed the program")
    return text


def _annotated(
    batch: Sequence[tuple[Placed, TokenizedDemonstration]],
    model: PreTrainedModel,
    sampler: RationaleSampler,
    generator: torch.Generator,
    how: Annotating,
) -> list[Found]:
    """The rationales of some functions, drawn side by side."""
    gains: dict[tuple[int, int], float] = {}

    def choose(states: list[State], groups: list[list[Drawn]]) -> list[int | None]:
        kept: list[int | None] = []
        for state, score in zip(states, score_rationales(model, states, groups, sampler, how.window), strict=True):
            best = max(range(len(score.thinks)), key=score.thinks.__getitem__)
            gain = score.thinks[best] - score.act
            gains[id(state.tokens), state.t] = gain
            kept.append(None if how.penalty is not None and gain <= how.penalty else best)
        return kept

    measured = how.scores or how.samples > 1 or how.penalty is not None
    programs = [program for _, program in batch]
    annotations = annotate_batch(
        model, programs, sampler, generator, samples=how.samples, choose=choose if measured else None
    )
    return [
        Found(_qualified(placed), placed.rows[t], text, gains.get((id(program), t)))
        for (placed, program), annotation in zip(batch, annotations, strict=True)
        for t, text in annotation.rationales.items()
    ]


def _longest(program: TokenizedDemonstration, how: Annotating) -> int:
    """Tokens of the program with a rationale at every boundary, each with a header of its own."""
    headers = sum(len(program.after(t, terminated=False)) for t in program.boundaries)
    return len(program.tokens()) + how.rationale_tokens * len(program.boundaries) + headers


def _qualified(placed: Placed) -> str:
    """A function's name: the id is name:qualified name:line."""
    return placed.demonstration.id.rsplit(":", 2)[1]


def _tree(source: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes and the like are the author's business
        return ast.dump(ast.parse(source))
