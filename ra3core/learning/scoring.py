"""Log-likelihoods of the expert's lines under the likelihood model, with and without rationales.

What the E-step's reward and the bootstrap's choice are made of (`score_rationales`: windows of lines at single states),
and the reconstruction term of the temporal ELBO (`reconstruction`: whole annotated demonstrations). Nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ra3core.config import BootstrapConfig, EStepConfig
from ra3core.learning.annotation import Annotation, Drawn, RationaleSampler, State
from ra3core.lm.head import Predictions
from ra3core.lm.likelihood import decision_log_probs
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.prefix import batches, encode, gather_log_probs, grouped_batches, predictions_after


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


def reward(
    log_likelihood: float, tokens: int, config: EStepConfig | BootstrapConfig, rationale: Drawn | None = None
) -> float:
    """r = log pi(window | s, z) - c [- unterminated_penalty], or log pi(window | s) for an act.

    log_likelihood: of the window's `tokens` tokens, nats; divided by their number with normalise = "token".
    """
    value = log_likelihood / tokens if config.normalise == "token" else log_likelihood
    if rationale is None:
        return value
    return value - config.think_penalty - (0.0 if rationale.terminated else config.unterminated_penalty)


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
        [t, *((*d.tokens, *s.after(d.terminated), *t) for d in g)]
        for s, g, t in zip(states, rationales, targets, strict=True)
    ]
    found: dict[int, Scores] = {}
    lengths = [[len(text) for text in group] for group in texts]
    for batch in grouped_batches([state.context for state in states], lengths, likelihood):
        rows = [(n, i, tokens) for n in batch for i, tokens in enumerate(texts[n])]
        place = {n: k for k, n in enumerate(batch)}
        prefix = encode(likelihood, [states[n].context for n in batch])
        tokens = [row[2] for row in rows]
        predictions = predictions_after(likelihood, prefix.select([place[n] for n, *_ in rows]), tokens)
        log_probs, mask = gather_log_probs(predictions, tokens)
        ends = mask.sum(1, keepdim=True)
        begins = ends - ends.new_tensor([len(targets[n]) for n, *_ in rows])[:, None]
        counted = torch.arange(mask.shape[1], device=mask.device)[None] >= begins
        sums = (log_probs.double() * counted * mask).sum(1)
        if given_act:
            places = [(r, int(begins[r]) + k) for r, (n, *_) in enumerate(rows) for k in states[n].decisions(window)]
            sums -= _log_act(predictions, places, sampler.lines.think_ids)
        thinking = [row for row, (_, i, _) in enumerate(rows) if i > 0]
        drawn = [rationales[rows[row][0]][rows[row][1] - 1] for row in thinking]
        own: list[list[float]] = []
        if drawn:
            constrained = sampler.distribution([states[rows[row][0]].stop for row in thinking])
            own = gather_log_probs(predictions.select(thinking), [d.tokens for d in drawn], constrained)[0].tolist()
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
        prefix = encode(likelihood, [annotations[n].tokens.prompt for n in batch])
        predictions = predictions_after(likelihood, prefix, [texts[n] for n in batch])
        log_probs, counted = gather_log_probs(predictions, [texts[n] for n in batch])
        for row, n in enumerate(batch):
            counted[row, : len(masks[n])] = counted.new_tensor(masks[n])
        sums = (log_probs.double() * counted).sum(1)
        if given_act:
            places = [(row, k) for row, n in enumerate(batch) for k in decisions[n]]
            sums -= _log_act(predictions, places, lines.think_ids)
        for n, value in zip(batch, sums.tolist(), strict=True):
            found[n] = value
    return found


def _log_act(predictions: Predictions, places: Sequence[tuple[int, int]], think_ids: Sequence[int]) -> Tensor:
    """Sum of log p(act) over the (row, position) places of each row, (rows,) in nats."""
    states = predictions.states
    total = torch.zeros(len(states), dtype=torch.float64, device=states.device)
    if not places:
        return total
    rows, positions = [row for row, _ in places], [position for _, position in places]
    acted = predictions.at(rows, positions, lambda logits: decision_log_probs(logits, think_ids)[:, 1].double())
    return total.index_add(0, torch.tensor(rows, device=states.device), acted)
