"""The discovered abstractions: every rationale that a policy wrote, how often, over how many lines, and what it gained.

Two rationales are one abstraction when their normalised texts are equal (text.py). The gain of an occurrence at line t
that governs tau lines (to the next rationale or the end of the program) is

    gain = sum_{u = t}^{t + tau - 1} [ log pi(a_u | s_u, z) - log pi(a_u | s_u) ]

under the likelihood model that the policy was trained against, lines scored given the decision to act; earlier
rationales of the demonstration stand in both contexts, so that it is this one's own doing. `score_rationales` is the
E-step's own score, with the governed lines as its window.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from ra3core.analysis.planning import segments
from ra3core.analysis.text import normalised
from ra3core.corpora.demonstrations import Annotated
from ra3core.errors import UserError
from ra3core.learning.annotation import Annotation, Drawn, RationaleSampler, State
from ra3core.learning.scoring import score_rationales
from ra3core.lm.lines import LineTokenizer
from ra3core.statistics import standard_error

AT_A_TIME = 256  # occurrences scored at once


@dataclass
class Occurrence:
    """A rationale ahead of line t. lines: tau. gain: nats over the governed lines; None where it was not measured."""

    annotated: Annotated
    t: int
    text: str
    lines: int
    cut: bool
    gain: float | None = None

    def row(self) -> dict[str, Any]:
        return {
            "demonstration": self.annotated.demonstration.id,
            "t": self.t,
            "text": self.text,
            "abstraction": normalised(self.text),
            "lines": self.lines,
            "cut_by_the_end": self.cut,
            "gain": self.gain,
        }


def occurrences(demonstrations: Sequence[Annotated]) -> list[Occurrence]:
    """Every rationale in order; no gains yet."""
    return [
        Occurrence(annotated, segment.t, segment.text, segment.lines, segment.cut)
        for annotated in demonstrations
        for segment in segments(annotated)
    ]


def score_occurrences(
    found: Sequence[Occurrence],
    likelihood: torch.nn.Module,
    lines: LineTokenizer,
    most: int,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Fill in the gain of at most `most` occurrences, drawn evenly; `advance` is told how many are done.

    Raises UserError when the model's tokenizer cannot tell think from act where a rationale stands.
    """
    chosen = sorted(random.Random(f"{seed}/scored").sample(range(len(found)), min(most, len(found))))
    device = next(likelihood.parameters()).device
    vocabulary: int = likelihood.config.vocab_size  # type: ignore[union-attr,assignment]
    sampler = RationaleSampler(lines, vocabulary, 1.0, 1, str(device))
    windows: dict[int, list[Occurrence]] = defaultdict(list)
    for place in chosen:
        windows[found[place].lines].append(found[place])
    for window, group in sorted(windows.items()):
        for start in range(0, len(group), AT_A_TIME):
            part = group[start : start + AT_A_TIME]
            states = [_state(occurrence, lines) for occurrence in part]
            drawn = [[_drawn(state, one.text, lines)] for state, one in zip(states, part, strict=True)]
            scores = score_rationales(likelihood, states, drawn, sampler, window)
            for occurrence, score in zip(part, scores, strict=True):
                occurrence.gain = score.thinks[0] - score.act
            advance(len(part))


def _state(occurrence: Occurrence, lines: LineTokenizer) -> State:
    """The boundary with the earlier rationales in its context."""
    demonstration = occurrence.annotated.demonstration
    earlier = {t: text for t, text in occurrence.annotated.rationales.items() if t < occurrence.t}
    pieces = {t: lines.rationale(demonstration.lines[t], text) for t, text in earlier.items()}
    program = lines.demonstration(demonstration)
    if occurrence.t not in program.boundaries:
        raise UserError(
            f"{demonstration.id}: the likelihood model's tokenizer cannot decide ahead of line {occurrence.t}, "
            "expected the tokenizer that the demonstrations were annotated with"
        )
    return Annotation(program, earlier, pieces).state(occurrence.t)


def _drawn(state: State, text: str, lines: LineTokenizer) -> Drawn:
    """A rationale's text as if it had been sampled."""
    return state.written(lines.rationale(state.tokens.demonstration.lines[state.t], text))


def abstraction_table(found: Sequence[Occurrence], examples: int) -> list[dict[str, Any]]:
    """A row for each abstraction, the most frequent first.

    text; count; demonstrations that it occurs in; share of all rationales; variants (texts it was written as, with
    counts); lines (mean tau); scored; gain, gain_se (mean over the scored, nats), gain_per_line (theirs over their
    lines), helps (share with a gain above 0), None where none is scored; examples (text, id, t, the governed lines,
    gain).
    """
    groups: dict[str, list[Occurrence]] = defaultdict(list)
    for occurrence in found:
        groups[normalised(occurrence.text)].append(occurrence)
    rows = []
    for text, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        scored = [(one, one.gain) for one in group if one.gain is not None]
        gains = [gain for _, gain in scored]
        variants = Counter(one.text for one in group).most_common()
        error = standard_error(gains)
        rows.append(
            {
                "text": text,
                "count": len(group),
                "demonstrations": len({one.annotated.demonstration.id for one in group}),
                "share": len(group) / len(found),
                "variants": [{"text": variant, "count": count} for variant, count in variants],
                "lines": fmean(one.lines for one in group),
                "scored": len(gains),
                "gain": fmean(gains) if gains else None,
                "gain_se": error if len(gains) > 1 else None,
                "gain_per_line": sum(gains) / sum(one.lines for one, _ in scored) if gains else None,
                "helps": fmean(gain > 0 for gain in gains) if gains else None,
                "examples": [_example(one) for one in _varied(group, examples)],
            }
        )
    return rows


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its lists as JSON text: one flat schema for parquet."""
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in row.items()}


def _varied(group: Sequence[Occurrence], count: int) -> list[Occurrence]:
    """Occurrences with their gain ahead of those without, different texts ahead of more of the same."""
    seen: Counter[str] = Counter()
    ranked = []
    for place, one in enumerate(group):
        ranked.append((one.gain is None, seen[one.text], place))
        seen[one.text] += 1
    return [group[place] for *_, place in sorted(ranked)[:count]]


def _example(occurrence: Occurrence) -> dict[str, Any]:
    demonstration = occurrence.annotated.demonstration
    return {
        "id": demonstration.id,
        "t": occurrence.t,
        "text": occurrence.text,
        "lines": list(demonstration.lines[occurrence.t : occurrence.t + occurrence.lines]),
        "gain": occurrence.gain,
    }
