"""Rationales sampled along a demonstration: what E-step and bootstrap share.

At each boundary, in order, the policy decides: act (write the expert's line) or think (write a rationale first). A
teacher-forced pass gives the decision at every boundary up to the next think, so text is generated only at a think.
At most one rationale stands ahead of a line.

A rationale is drawn from the policy's *constrained* distribution: its first token begins a comment; then no token that
begins another comment, no special token, no line break except the one that ends it (the first token of the expert's
line header), and something between ``#`` and that. `RationaleSampler.constrain` is that distribution, for sampling and
for gradients alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ra3core.corpora.demonstrations import COMMENT, Annotated, annotate
from ra3core.lm.likelihood import decision_log_probs
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration, Tokens
from ra3core.lm.prefix import Prefix, Samples, batches, continue_with, encode, gather_log_probs, grouped_batches, join


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
        """The token that ends a rationale here."""
        return self.tokens.lines[self.t][0]

    @property
    def header(self) -> Tokens:
        """Newline and indentation of the line that the decision is about."""
        return self.tokens.lines[self.t][: self.tokens.headers[self.t]]

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
        added = [i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special]
        banned = {*lines.newline_ids, *lines.think_ids, *tokenizer.all_special_ids, *added}
        banned.update(range(len(tokenizer), vocabulary))
        self._later = torch.zeros(vocabulary, device=device)
        self._later[sorted(banned)] = -torch.inf
        self._first = torch.full((vocabulary,), -torch.inf, device=device)
        self._first[list(lines.think_ids)] = 0.0

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
            parts.append((ending + self._later).scatter(2, index, ending.gather(2, index)))
        return torch.cat(parts, 1)

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
                    if k >= 2 and token == stops[i]:
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
        text = str(self.lines.tokenizer.decode(list(drawn.content))).strip().removeprefix(COMMENT)
        return "".join(c for c in " ".join(text.split()) if c.isprintable()).strip()


Choose = Callable[[list[State], list[list[Drawn]]], list[int]]
"""Which of the rationales drawn at each state to keep."""


@torch.no_grad()
def annotate_batch(
    policy: torch.nn.Module,
    demonstrations: Sequence[TokenizedDemonstration],
    sampler: RationaleSampler,
    generator: torch.Generator,
    *,
    samples: int = 1,
    choose: Choose | None = None,
) -> list[Annotation]:
    """Annotate demonstrations with the policy, all at once, each from its first boundary to its last.

    The decision's log-odds are divided by the sampler's temperature; temperature 0 thinks where p(think) > 1/2.
    samples: rationales drawn at a think, of which `choose` names the one to keep (the first without it).
    """
    annotations = [Annotation(tokens) for tokens in demonstrations]
    cursors = [
        _Cursor(annotation, annotation.tokens.prompt) for annotation in annotations if annotation.tokens.boundaries
    ]
    prefix = encode(policy, [cursor.context for cursor in cursors]) if cursors else None
    while prefix is not None:
        states, prefix = _decide(policy, cursors, prefix, sampler, generator)
        cursors = [cursor for cursor in cursors if cursor.thinks]
        if prefix is None:
            break
        rows = [row for row in range(len(states)) for _ in range(samples)]
        start = prefix.select(range(len(states)))
        found, _ = sampler.sample(policy, start, rows, [states[row].stop for row in rows], generator)
        groups = [found[row * samples : (row + 1) * samples] for row in range(len(states))]
        kept = choose(states, groups) if choose is not None else [0] * len(states)
        for cursor, state, group, index in zip(cursors, states, groups, kept, strict=True):
            cursor.insert(state, group[index], sampler)
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

    def ahead(self) -> tuple[Tokens, dict[int, int]]:
        """Tokens from the context to the last decision, and boundary -> number of them ahead of its decision."""
        tokens, positions = list(self.lead), {}
        program = self.annotation.tokens
        last = program.boundaries[-1]
        for u in range(self.t + 1, last + 1):
            if u in program.boundaries:
                positions[u] = len(tokens) + program.headers[u]
            tokens += program.lines[u] if u < last else program.lines[u][: program.headers[u]]
        return tuple(tokens), positions

    def insert(self, state: State, drawn: Drawn, sampler: RationaleSampler) -> None:
        """Put the rationale ahead of line t; one without any text counts as an act."""
        program, t = self.annotation.tokens, state.t
        text = sampler.text(drawn)
        self.context, self.lead = state.context, program.rest(t)
        if text:
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
) -> tuple[list[State], Prefix | None]:
    """Move every cursor to its next think, or past its last boundary; the states of those that think, encoded."""
    ahead = [cursor.ahead() for cursor in cursors]
    found: list[dict[int, tuple[float, float]]] = [{} for _ in cursors]
    passes: list[tuple[list[int], Prefix]] = []
    for batch in batches([len(tokens) for tokens, _ in ahead], policy):
        run = prefix.select(batch)
        run.record()
        logits = continue_with(policy, run, [ahead[i][0] for i in batch])
        passes.append((batch, run))
        places = [(row, i, u, position) for row, i in enumerate(batch) for u, position in ahead[i][1].items()]
        if places:
            chosen = logits[[row for row, *_ in places], [position for *_, position in places]]
            for (_, i, u, _), pair in zip(
                places, decision_log_probs(chosen, sampler.lines.think_ids).tolist(), strict=True
            ):
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
            if sampler.temperature > 0:
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


@dataclass(frozen=True)
class Scores:
    """Log-likelihoods of a state's window under the likelihood model, nats.

    act: without a rationale. thinks: with each rationale. tokens: that the window has. references: per rationale, the
    model's own log-probabilities of its tokens (constrained as the sampler's).
    """

    act: float
    thinks: tuple[float, ...]
    tokens: int
    references: tuple[tuple[float, ...], ...]


@torch.no_grad()
def score_rationales(
    likelihood: torch.nn.Module,
    states: Sequence[State],
    rationales: Sequence[Sequence[Drawn]],
    sampler: RationaleSampler,
    window: int,
    given_act: bool = True,
) -> list[Scores]:
    """log pi of the next `window` expert lines at each state, without and with each rationale.

    Neither the rationale's tokens nor the header after it count: the same tokens are scored every time. given_act: of a
    line's first token, its log-probability given that the line begins no comment, log pi(a | s, z, act): whether to
    act is the policy's and the prior's affair, and a model whose habit is a comment ahead of every block, once it has
    seen one, would otherwise charge the first rationale for those that are not there later. Equal rationales of a state
    are scored once.
    """
    distinct = [list({d.tokens: d for d in group}.values()) for group in rationales]
    found = _score(likelihood, states, distinct, sampler, window, given_act)
    order = [{d.tokens: place for place, d in enumerate(group)} for group in distinct]
    return [
        Scores(
            act=scores.act,
            thinks=tuple(scores.thinks[at[d.tokens]] for d in group),
            tokens=scores.tokens,
            references=tuple(scores.references[at[d.tokens]] for d in group),
        )
        for scores, group, at in zip(found, rationales, order, strict=True)
    ]


def _score(
    likelihood: torch.nn.Module,
    states: Sequence[State],
    rationales: Sequence[Sequence[Drawn]],
    sampler: RationaleSampler,
    window: int,
    given_act: bool,
) -> list[Scores]:
    """`score_rationales`, every rationale on its own."""
    targets = [state.window(window) for state in states]
    texts = [
        [t, *((*d.content, *s.header, *t) for d in g)] for s, g, t in zip(states, rationales, targets, strict=True)
    ]
    found: dict[int, Scores] = {}
    lengths = [[len(text) for text in group] for group in texts]
    for batch in grouped_batches([state.context for state in states], lengths, likelihood):
        rows = [(n, i, tokens) for n in batch for i, tokens in enumerate(texts[n])]
        place = {n: k for k, n in enumerate(batch)}
        prefix = encode(likelihood, [states[n].context for n in batch])
        logits = continue_with(likelihood, prefix.select([place[n] for n, *_ in rows]), [row[2] for row in rows])
        log_probs, mask = gather_log_probs(logits, [row[2] for row in rows])
        ends = mask.sum(1, keepdim=True)
        begins = ends - ends.new_tensor([len(targets[n]) for n, *_ in rows])[:, None]
        counted = torch.arange(mask.shape[1], device=mask.device)[None] >= begins
        sums = (log_probs.double() * counted * mask).sum(1)
        if given_act:
            places = [(r, int(begins[r]) + k) for r, (n, *_) in enumerate(rows) for k in states[n].decisions(window)]
            sums -= _log_act(logits, places, sampler.lines.think_ids)
        thinking = [row for row, (_, i, _) in enumerate(rows) if i > 0]
        drawn = [rationales[rows[row][0]][rows[row][1] - 1] for row in thinking]
        longest = max((len(d.tokens) for d in drawn), default=0)
        own: list[list[float]] = []
        if drawn:
            constrained = sampler.constrain(logits[thinking, :longest], [states[rows[r][0]].stop for r in thinking])
            own = gather_log_probs(constrained, [d.tokens for d in drawn])[0].tolist()
        values = {(n, i): value for (n, i, _), value in zip(rows, sums.tolist(), strict=True)}
        references = {rows[r][:2]: tuple(v[: len(d.tokens)]) for r, v, d in zip(thinking, own, drawn, strict=True)}
        for n in batch:
            count = range(1, len(texts[n]))
            found[n] = Scores(
                act=values[n, 0],
                thinks=tuple(values[n, i] for i in count),
                tokens=len(targets[n]),
                references=tuple(references[n, i] for i in count),
            )
    return [found[n] for n in range(len(states))]


@torch.no_grad()
def reconstruction(
    likelihood: torch.nn.Module, annotations: Sequence[Annotation], lines: LineTokenizer, given_act: bool = True
) -> list[float]:
    """sum_t log pi(a_t | s_t, z_t) of each annotated demonstration, nats: expert lines and end, rationales given.

    Ahead of a rationale the line's header is counted, after it its repetition is not: the same tokens for every
    annotation, so that differences are the rationales' doing. given_act as in `score_rationales`.
    """
    texts, masks, decisions = [], [], []
    for annotation in annotations:
        program, text, mask, places = annotation.tokens, [], [], []
        for t, line in enumerate(program.lines):
            piece, header = annotation.pieces.get(t, ()), program.headers[t]
            text += [*piece, *line]
            if piece:
                mask += [1] * header + [0] * (len(piece) - header) + [0] * header + [1] * (len(line) - header)
            else:
                mask += [1] * len(line)
            if t in program.boundaries:
                places.append(len(text) - len(line) + header)
        texts.append([*text, *program.end])
        masks.append([*mask, *([1] * len(program.end))])
        decisions.append(places)
    found = [0.0] * len(annotations)
    for batch in batches([len(a.tokens.prompt) + len(t) for a, t in zip(annotations, texts, strict=True)], likelihood):
        logits = continue_with(
            likelihood, encode(likelihood, [annotations[n].tokens.prompt for n in batch]), [texts[n] for n in batch]
        )
        log_probs, counted = gather_log_probs(logits, [texts[n] for n in batch])
        for row, n in enumerate(batch):
            counted[row, : len(masks[n])] = counted.new_tensor(masks[n])
        sums = (log_probs.double() * counted).sum(1)
        if given_act:
            sums -= _log_act(logits, [(row, k) for row, n in enumerate(batch) for k in decisions[n]], lines.think_ids)
        for n, value in zip(batch, sums.tolist(), strict=True):
            found[n] = value
    return found


def _log_act(logits: Tensor, places: Sequence[tuple[int, int]], think_ids: Sequence[int]) -> Tensor:
    """Sum of log p(act) over the (row, position) places of each row, (rows,) in nats; logits as `continue_with`'s."""
    total = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    if not places:
        return total
    rows, positions = [row for row, _ in places], [position for _, position in places]
    acted = decision_log_probs(logits[rows, positions], think_ids)[:, 1].double()
    return total.index_add(0, torch.tensor(rows, device=logits.device), acted)
