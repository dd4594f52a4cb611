"""Rationales sampled along a demonstration: what E-step and bootstrap share.

At each boundary, in order, the policy decides: act (write the expert's line) or think (write a rationale first). A
teacher-forced pass gives the decision at every boundary up to the next think, so text is generated only at a think.
At most one rationale stands ahead of a line. Or whoever chooses among the drawn rationales decides (`everywhere`).

A rationale is drawn from the policy's *constrained* distribution: its first token begins a comment on this line; then
no token that begins another, no special token, no line break except the one that ends it, and something between ``#``
and that. What ends it is the first token of the expert's line header; or, where lines end in their line break, the
newline and every token that is a newline behind other characters. `RationaleSampler.constrain` is that distribution,
for sampling and for gradients alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ra3core.corpora.demonstrations import COMMENT, Annotated, annotate
from ra3core.lm.head import Distribution
from ra3core.lm.likelihood import decision_log_probs
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration, Tokens, special_token_ids
from ra3core.lm.prefix import Prefix, Samples, batches, encode, join, predictions_after


@dataclass(frozen=True)
class Drawn:
    """One sampled rationale: its tokens (the line break that ends it included), whether it ended, log q in nats."""

    tokens: Tokens
    terminated: bool
    log_prob: float

    @property
    def content(self) -> Tokens:
        """The tokens without the line break."""
        return self.tokens[:-1] if self.terminated else self.tokens


@dataclass(frozen=True)
class State:
    """A boundary t of a partly annotated demonstration; `context` is all text up to the decision."""

    tokens: TokenizedDemonstration
    t: int
    context: Tokens

    @property
    def stop(self) -> int:
        """The token that ends a rationale here (where lines end in their line break, not the only one)."""
        return self.tokens.stop(self.t)

    @property
    def header(self) -> Tokens:
        """Newline and indentation of the line that the decision is about."""
        return self.tokens.header(self.t)

    def after(self, terminated: bool) -> Tokens:
        """What stands between a rationale, with or without its line break, and the expert's line."""
        return self.tokens.after(self.t, terminated)

    def written(self, piece: Tokens) -> Drawn:
        """A rationale's piece as if it had been sampled."""
        stop = (self.stop,) if self.tokens.newline is None else ()
        return Drawn((*piece[len(self.header) :], *stop), True, 0.0)

    def window(self, lines: int) -> Tokens:
        """The expert's tokens after the decision, to the end of `lines` lines."""
        following = self.tokens.lines[self.t + 1 : self.t + lines]
        return (*self.tokens.rest(self.t), *(token for line in following for token in line))

    def decisions(self, lines: int) -> list[int]:
        """Positions in `window(lines)` of the tokens that are decisions to act."""
        positions, length = [], -self.tokens.headers[self.t]
        for u in range(self.t, min(self.t + lines, len(self.tokens.lines))):
            if u in self.tokens.boundaries:
                positions.append(length + self.tokens.headers[u])
            length += len(self.tokens.lines[u])
        return positions


@dataclass
class Annotation:
    """A demonstration with the rationales a policy gave it.

    pieces: line index -> tokens of the rationale piece, as a later reader tokenises its text. decisions: boundary ->
    (log p(think), log p(act)) as met, nats. drawn: line index -> what was sampled. processed: tokens read and
    written, a context once for every think, however little of it is run again.
    """

    tokens: TokenizedDemonstration
    rationales: dict[int, str] = field(default_factory=dict)
    pieces: dict[int, Tokens] = field(default_factory=dict)
    decisions: dict[int, tuple[float, float]] = field(default_factory=dict)
    drawn: dict[int, Drawn] = field(default_factory=dict)
    processed: int = 0

    @property
    def annotated(self) -> Annotated:
        """The annotated demonstration."""
        return annotate(self.tokens.demonstration, self.rationales)

    def state(self, t: int) -> State:
        """The state at boundary t: rationales ahead of earlier lines are in its context."""
        return State(self.tokens, t, tuple(self.tokens.prefix(t, {u: p for u, p in self.pieces.items() if u < t})))


class RationaleSampler:
    """Draws rationales of at most `max_tokens` tokens (``#`` and the line break included) at a temperature."""

    def __init__(
        self, lines: LineTokenizer, vocabulary: int, temperature: float, max_tokens: int, device: str = "cpu"
    ) -> None:
        self.lines, self.temperature, self.max_tokens = lines, temperature, max_tokens
        tokenizer = lines.tokenizer
        banned = {*lines.newline_ids, *lines.think_ids, *special_token_ids(tokenizer)}
        banned.update(range(len(tokenizer), vocabulary))
        self.banned = sorted(banned)
        """What no rationale holds behind its first token, what ends it aside."""
        self._breaks = set(lines.break_ids)
        self._later = torch.zeros(vocabulary, device=device)
        self._later[self.banned] = -torch.inf
        self._ending = self._later.clone()
        self._ending[sorted(self._breaks - set(lines.think_ids))] = 0.0
        self._first = torch.full((vocabulary,), -torch.inf, device=device)
        self._first[sorted(set(lines.think_ids) - set(lines.newline_ids))] = 0.0

    def constrain(self, logits: Tensor, stops: Sequence[int], start: int = 0) -> Tensor:
        """Logits (rows, width, vocabulary) for tokens start.. of a rationale -> those of the sampling distribution."""
        logits = logits.float()
        if self.temperature > 0:
            logits = logits / self.temperature
        parts = []
        for k in range(start, min(start + logits.shape[1], 2)):
            parts.append(logits[:, k - start, None] + (self._later if k else self._first))
        ending = logits[:, max(2 - start, 0) :]
        if ending.shape[1]:
            index = torch.tensor(stops, device=logits.device)[:, None, None].expand(-1, ending.shape[1], 1)
            parts.append((ending + self._ending).scatter(2, index, ending.gather(2, index)))
        return torch.cat(parts, 1)

    def distribution(self, stops: Sequence[int]) -> Distribution:
        """`constrain`, of any part of a pass whose rows are rationales that end with these tokens."""
        return lambda logits, rows, start: self.constrain(logits, stops[rows], start)

    @torch.no_grad()
    def sample(
        self,
        policy: torch.nn.Module,
        prefix: Prefix,
        rows: Sequence[int],
        stops: Sequence[int],
        generator: torch.Generator,
    ) -> tuple[list[Drawn], Tensor]:
        """A rationale after row rows[i] of the prefix, which is used up, ended by the token stops[i]; for each i.

        Also the decision at each row of the prefix, (rows, 2): log p(think), log p(act) in nats.
        """
        tokens: list[list[int]] = [[] for _ in rows]
        totals = [0.0] * len(rows)
        active = list(range(len(rows)))  # what numbers are drawn for: some that have ended are among them
        open_ = set(active)
        decisions = torch.zeros(0)
        samples = Samples(policy, prefix, rows)
        for k in range(self.max_tokens):
            raw = samples.logits()
            if k == 0:
                decisions = decision_log_probs(raw, self.lines.think_ids)
            constrained = self.constrain(raw[:, None], [stops[i] for i in samples.leaders], k)[:, 0].log_softmax(-1)
            log_probs = constrained[samples.rows(active)]
            if self.temperature > 0:
                chosen = torch.multinomial(log_probs.exp(), 1, generator=generator)
            else:
                chosen = log_probs.argmax(-1, keepdim=True)
            values = log_probs.gather(1, chosen)[:, 0].tolist()
            going: dict[int, int] = {}
            for row, (i, token) in enumerate(zip(active, chosen[:, 0].tolist(), strict=True)):
                if i in open_:
                    tokens[i].append(token)
                    totals[i] += values[row]
                    if k >= 2 and (token == stops[i] or token in self._breaks):
                        open_.discard(i)
                    else:
                        going[i] = token
            if not open_:
                break
            samples.extend(going)
            if len(open_) <= 0.7 * len(active):
                active = [i for i in active if i in open_]
        drawn = [
            Drawn(tuple(t), i not in open_, total) for i, (t, total) in enumerate(zip(tokens, totals, strict=True))
        ]
        return drawn, decisions

    def text(self, drawn: Drawn) -> str:
        """The rationale's text, one printable line; empty when nothing is left."""
        text = self.lines.decode(drawn.tokens).strip().lstrip(COMMENT)
        return "".join(c for c in " ".join(text.split()) if c.isprintable()).strip()


Choose = Callable[[list[State], list[list[Drawn]]], list[int | None]]
"""Which of the rationales drawn at each state to keep; None for none of them, which is to act."""

DrawRationales = Callable[[list[State]], list[list[Drawn]]]
"""Rationales at each state."""


@torch.no_grad()
def annotate_batch(
    policy: torch.nn.Module,
    demonstrations: Sequence[TokenizedDemonstration],
    sampler: RationaleSampler,
    generator: torch.Generator,
    *,
    samples: int = 1,
    choose: Choose | None = None,
    everywhere: bool = False,
    draw: DrawRationales | None = None,
) -> list[Annotation]:
    """Annotate demonstrations with the policy, all at once, each from its first boundary to its last.

    The decision's log-odds are divided by the sampler's temperature; temperature 0 thinks where p(think) > 1/2.
    samples: rationales drawn at a think, of which `choose` names the one to keep (the first without it).
    everywhere: draw at every boundary instead of where the policy thinks; then `choose` decides.
    draw: draws `samples` rationales at each state, in place of the sampler.
    """
    annotations = [Annotation(tokens) for tokens in demonstrations]
    cursors = [
        _Cursor(annotation, annotation.tokens.prompt) for annotation in annotations if annotation.tokens.boundaries
    ]
    prefix = encode(policy, [cursor.context for cursor in cursors]) if cursors else None
    while prefix is not None:
        states, prefix = _decide(policy, cursors, prefix, sampler, generator, everywhere)
        cursors = [cursor for cursor in cursors if cursor.thinks]
        if prefix is None:
            break
        if draw is not None:
            groups = draw(states)
        else:
            rows = [row for row in range(len(states)) for _ in range(samples)]
            start = prefix.select(range(len(states)))
            found, _ = sampler.sample(policy, start, rows, [states[row].stop for row in rows], generator)
            groups = [found[row * samples : (row + 1) * samples] for row in range(len(states))]
        kept = choose(states, groups) if choose is not None else [0] * len(states)
        for cursor, state, group, index in zip(cursors, states, groups, kept, strict=True):
            cursor.insert(state, None if index is None else group[index], sampler)
            cursor.annotation.processed += len(state.context) + sum(len(drawn.tokens) for drawn in group)
    return annotations


@dataclass
class _Cursor:
    """Where annotation stands: boundary t was decided last; `lead` is what follows `context`, up to line t's end."""

    annotation: Annotation
    context: Tokens
    lead: Tokens = ()
    t: int = -1
    thinks: bool = False

    def ahead(self, everywhere: bool) -> tuple[Tokens, dict[int, int]]:
        """Tokens from the context to the last decision, and boundary -> number of them ahead of its decision.

        everywhere: to the next decision alone.
        """
        tokens, positions = list(self.lead), {}
        program = self.annotation.tokens
        following = [u for u in program.boundaries if u > self.t]
        if not following:
            return tuple(tokens), positions
        last = following[0 if everywhere else -1]
        for u in range(self.t + 1, last + 1):
            if u in program.boundaries:
                positions[u] = len(tokens) + program.headers[u]
            tokens += program.lines[u] if u < last else program.lines[u][: program.headers[u]]
        return tuple(tokens), positions

    def insert(self, state: State, drawn: Drawn | None, sampler: RationaleSampler) -> None:
        """Put the rationale ahead of line t; none, or one without any text, is an act."""
        program, t = self.annotation.tokens, state.t
        text = "" if drawn is None else sampler.text(drawn)
        self.context, self.lead = state.context, program.rest(t)
        if drawn is not None and text:
            piece = sampler.lines.rationale(program.demonstration.lines[t], text)
            self.annotation.rationales[t], self.annotation.pieces[t] = text, piece
            self.annotation.drawn[t] = drawn
            self.lead = (*piece[len(state.header) :], *program.lines[t])


def _decide(
    policy: torch.nn.Module,
    cursors: list[_Cursor],
    prefix: Prefix,
    sampler: RationaleSampler,
    generator: torch.Generator,
    everywhere: bool,
) -> tuple[list[State], Prefix | None]:
    """Move every cursor to its next think, or past its last boundary; the states of those that think, encoded."""
    ahead = [cursor.ahead(everywhere) for cursor in cursors]
    found: list[dict[int, tuple[float, float]]] = [{} for _ in cursors]
    passes: list[tuple[list[int], Prefix]] = []
    for batch in batches([len(tokens) for tokens, _ in ahead], policy):
        run = prefix.select(batch)
        run.record()
        predictions = predictions_after(policy, run, [ahead[i][0] for i in batch])
        passes.append((batch, run))
        places = [(row, i, u, position) for row, i in enumerate(batch) for u, position in ahead[i][1].items()]
        if places:
            pairs = predictions.at(
                [row for row, *_ in places],
                [position for *_, position in places],
                lambda logits: decision_log_probs(logits, sampler.lines.think_ids),
            )
            for (_, i, u, _), pair in zip(places, pairs.tolist(), strict=True):
                found[i][u] = (pair[0], pair[1])
    uniform = torch.rand(sum(map(len, found)), generator=generator, device=generator.device).tolist()
    for cursor, (tokens, _), decisions in zip(cursors, ahead, found, strict=True):
        cursor.annotation.processed += len(tokens)
        cursor.thinks = False
        for u, (think, act) in decisions.items():
            draw = uniform.pop()
            if cursor.thinks:
                continue
            cursor.annotation.decisions[u] = (think, act)
            cursor.t = u
            odds = think - act
            if everywhere:
                cursor.thinks = True
            elif sampler.temperature > 0:
                odds /= sampler.temperature
                cursor.thinks = draw < 1 / (1 + math.exp(-max(min(odds, 700.0), -700.0)))
            else:
                cursor.thinks = odds > 0
    thinking = [i for i, cursor in enumerate(cursors) if cursor.thinks]
    states = [cursors[i].annotation.state(cursors[i].t) for i in thinking]
    return states, _reached(policy, passes, prefix.mask.shape[1], thinking, states) if thinking else None


def _reached(
    policy: torch.nn.Module,
    passes: Sequence[tuple[list[int], Prefix]],
    begun: int,
    thinking: Sequence[int],
    states: Sequence[State],
) -> Prefix:
    """The states' contexts, cut out of the passes that went beyond them.

    passes: which cursors each has run, and what it left; begun: its width before; thinking: the states' cursors.
    """
    context = {i: state.context for i, state in zip(thinking, states, strict=True)}
    parts, order = [], []
    for batch, run in passes:
        if rows := [row for row, i in enumerate(batch) if i in context]:
            part = run.cut(run.mask.shape[1] - begun, rows, [context[batch[row]] for row in rows])
            if part is None:
                return encode(policy, [state.context for state in states])
            parts.append(part)
            order += [batch[row] for row in rows]
    return join(parts).select([order.index(i) for i in thinking])
