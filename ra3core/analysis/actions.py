"""How many next steps a model still considers at a line boundary: the pruning that training did.

The state s is the prompt, the expert's lines so far without any rationale, and the header (newline and the expert's
indentation) of line t: the same states for every model that is compared. Two levels of action:

    token   the next token x: H = -sum_x p(x | s) log p(x | s), exact
    line    the whole next line, to the line break: n lines are drawn from the model at temperature 1

each for everything the model may do, and given that it acts (no token that begins a comment: the primitive actions,
renormalised). Given that it thinks, the line is the rationale. The size of the action set is its perplexity exp(H) and
its nucleus: the least number of actions that hold `mass` of the probability.

Estimators of the line level. The model's own log-probability of each drawn line is known, so

    H^ = -(1/n) sum_i log p(line_i)          is unbiased

(a count of distinct lines is not: with n draws it cannot exceed log n). exp of one boundary's H^ is biased upwards
(Jensen); reported is exp of the mean over boundaries, where that bias is of the order of the variance of the mean. For
the nucleus, the drawn distinct lines with their exact probabilities bound it from both sides (`nucleus_bounds`).
With p = p(think), which is exact, and z a rationale the model writes there,

    all             h(p) + (1 - p) H(line | act) + p H(z | think)              the next line, comment or code
    given_intent    (1 - p) H(line | act) + p E_z H(line | z, act)             the next line of code, the intent settled

the latter from one line drawn after each drawn rationale. Both are figures of the same boundaries for every model.
What is measured given act (given think) alone is weighted with 1 - p (p): a line that the model would hardly ever write
there without a comment first is no action it considers.

A small set is a good one only if what the expert does is in it: `expert` has the share of boundaries where the nucleus
of acts holds the first token of the expert's line, and that token's -log p given act.

A line is what stands ahead of the line break; the indentation after it belongs to the next one. An empty line and the
end of the program are one action. Lines longer than the cap are cut there, and equal beginnings count as one action.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ra3core.analysis.clusters import Clusters
from ra3core.config import AnalysisConfig
from ra3core.lm.likelihood import decision_log_probs
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration, Tokens, token_texts
from ra3core.lm.prefix import batches, encode, next_logits, predictions_after

Boundary = tuple[TokenizedDemonstration, int]

AT_A_TIME = 16  # boundaries whose lines are drawn side by side


@dataclass(frozen=True)
class Choice:
    """The next token at one boundary: p(think), entropies in nats, nucleus sizes; `act`: among acts alone.

    expert: -log p of the expert's own token given act, nats. covered: the nucleus among acts has it in it.
    """

    think: float
    entropy: float
    nucleus: int
    act_entropy: float
    act_nucleus: int
    expert: float
    covered: bool


@dataclass(frozen=True)
class Line:
    """A drawn line, the last token standing for what ends it, and its log-probability in nats.

    ended: it did not hit the cap.
    """

    tokens: Tokens
    log_prob: float
    ended: bool


@dataclass(frozen=True)
class Bounds:
    """The nucleus lies in low .. high; high is None when the lines that were drawn do not hold the mass."""

    low: int
    high: int | None


def nucleus_sizes(probabilities: Tensor, mass: float) -> Tensor:
    """The least number of actions with `mass` of the probability: (rows, actions) -> (rows,)."""
    held = probabilities.double().sort(-1, descending=True).values.cumsum(-1)
    return (held < mass - 1e-9).sum(-1).clamp(max=probabilities.shape[-1] - 1) + 1


def nucleus_bounds(probabilities: Sequence[float], mass: float) -> Bounds:
    """Bounds on the nucleus from the exact probabilities of some distinct actions.

    high: the likeliest of them that hold the mass; those not met could be likelier, never make it larger. low: what
    was not met as one single action; split up, it takes no fewer.
    """

    def smallest(values: Sequence[float]) -> int | None:
        held = 0.0
        for count, value in enumerate(sorted(values, reverse=True), start=1):
            held += value
            if held >= mass - 1e-9:
                return count
        return None

    known = [*probabilities, max(0.0, 1.0 - sum(probabilities))]
    return Bounds(smallest(known) or len(known), smallest(probabilities))


@torch.no_grad()
def choices(
    model: torch.nn.Module, programs: Sequence[TokenizedDemonstration], think_ids: Sequence[int], mass: float
) -> list[dict[int, Choice]]:
    """The next token at every boundary of every program, by line index; one pass over each program."""
    found: list[dict[int, Choice]] = [{} for _ in programs]
    texts = [[token for line in program.lines for token in line] for program in programs]
    for batch in batches([len(p.prompt) + len(t) for p, t in zip(programs, texts, strict=True)], model):
        prefix = encode(model, [programs[n].prompt for n in batch])
        predictions = predictions_after(model, prefix, [texts[n] for n in batch])
        places = []
        for row, n in enumerate(batch):
            begin = 0
            for t, line in enumerate(programs[n].lines):
                if t in programs[n].boundaries:
                    places.append((row, n, t, begin + programs[n].headers[t]))
                begin += len(line)
        if not places:
            continue
        at = [row for row, *_ in places], [position for *_, position in places]
        chosen = predictions.at(*at, torch.Tensor.double)
        think = decision_log_probs(chosen, think_ids)[:, 0].exp().tolist()
        acting = chosen.index_fill(-1, torch.tensor(think_ids, device=chosen.device), -torch.inf)
        columns = []
        for scores in (chosen, acting):
            log_probs = scores.log_softmax(-1)
            probabilities = log_probs.exp()
            columns += [
                -(probabilities * log_probs.masked_fill(probabilities == 0, 0.0)).sum(-1),
                nucleus_sizes(probabilities, mass),
            ]
        tokens = [programs[n].rest(t)[0] for _, n, t, _ in places]
        expert = log_probs[range(len(tokens)), tokens]
        likelier = (probabilities * (log_probs > expert[:, None])).sum(-1)
        columns += [-expert, likelier < mass - 1e-9]
        rows = zip(places, think, *(column.tolist() for column in columns), strict=True)
        for (_, n, t, _), *figures in rows:
            found[n][t] = Choice(*figures)
    return found


class LineSampler:
    """Draws whole next lines from a model as it is, given act or given think, of at most `max_tokens` tokens."""

    def __init__(self, lines: LineTokenizer, vocabulary: int, max_tokens: int, device: str = "cpu") -> None:
        self.max_tokens = max_tokens
        self._think = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self._think[list(lines.think_ids)] = True
        # Tokens that end a line stand for one another when they write the same ahead of the line break.
        texts = token_texts(lines.tokenizer)
        first: dict[str, int] = {"": lines.end_id}
        same = torch.arange(vocabulary, device=device)
        for token in lines.newline_ids:
            written = texts[token].replace("\r", "\n").split("\n")[0].rstrip()
            same[token] = first.setdefault(written, token)
        self._same, self._break = same, lines.encode(lines.opening)
        self._ends: dict[int, Tokens] = {
            token: lines.encode(written + lines.opening) for written, token in first.items()
        }

    def written(self, line: Line) -> Tokens:
        """The tokens of a line; its break only where a piece ends with it."""
        return (*line.tokens[:-1], *self._ends[line.tokens[-1]]) if line.ended else (*line.tokens, *self._break)

    @torch.no_grad()
    def sample(
        self,
        model: torch.nn.Module,
        contexts: Sequence[Sequence[int]],
        samples: int,
        generator: torch.Generator,
        *,
        think: bool,
    ) -> list[list[Line]]:
        """`samples` lines for each context."""
        owners = [i for i in range(len(contexts)) for _ in range(samples)]
        prefix = encode(model, contexts).select(owners)
        tokens: list[list[int]] = [[] for _ in owners]
        totals = [0.0] * len(owners)
        active = list(range(len(owners)))  # what each row of the prefix belongs to
        open_ = set(active)
        for k in range(self.max_tokens):
            logits = next_logits(model, prefix).double()
            if k == 0:
                logits = logits.masked_fill(~self._think if think else self._think, -torch.inf)
            probabilities = torch.zeros_like(logits).index_add_(1, self._same, logits.softmax(-1))
            chosen = torch.multinomial(probabilities, 1, generator=generator)
            values = probabilities.gather(1, chosen)[:, 0].log().tolist()
            for row, (i, token) in enumerate(zip(active, chosen[:, 0].tolist(), strict=True)):
                if i in open_:
                    tokens[i].append(token)
                    totals[i] += values[row]
                    if token in self._ends:
                        open_.discard(i)
            if not open_:
                break
            prefix.last = chosen[:, 0]
            if len(open_) <= 0.7 * len(active):  # copying the cache costs less than running finished rows
                rows = [row for row, i in enumerate(active) if i in open_]
                prefix, active = prefix.select(rows), [active[row] for row in rows]
        drawn = [Line(tuple(t), total, i not in open_) for i, (t, total) in enumerate(zip(tokens, totals, strict=True))]
        return [drawn[i * samples : (i + 1) * samples] for i in range(len(contexts))]


def boundaries(programs: Sequence[TokenizedDemonstration], count: int, seed: int) -> list[Boundary]:
    """At most `count` boundaries drawn from all, in order; the model has no part in it."""
    every = [(program, t) for program in programs for t in program.boundaries]
    chosen = sorted(random.Random(f"{seed}/boundaries").sample(range(len(every)), min(count, len(every))))
    return [every[place] for place in chosen]


def measure_actions(
    model: torch.nn.Module,
    programs: Sequence[TokenizedDemonstration],
    lines: LineTokenizer,
    config: AnalysisConfig,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """A row for each boundary; what was measured on drawn lines is None where none were drawn.

    `advance` is told how many of the `config.boundaries` are done.
    """
    device = next(model.parameters()).device
    vocabulary: int = model.config.vocab_size  # type: ignore[union-attr,assignment]
    found = choices(model, programs, lines.think_ids, config.nucleus)
    drawn: dict[tuple[str, int], dict[str, Any]] = {}
    sampler = LineSampler(lines, vocabulary, config.line_tokens, str(device))
    generator = torch.Generator(device).manual_seed(seed)
    chosen = boundaries(programs, config.boundaries, seed)
    for start in range(0, len(chosen), AT_A_TIME):
        chunk = chosen[start : start + AT_A_TIME]
        contexts = [program.prefix(t) for program, t in chunk]
        acts = sampler.sample(model, contexts, config.lines, generator, think=False)
        thinks = sampler.sample(model, contexts, config.lines, generator, think=True)
        after = [
            [*context, *sampler.written(line), *program.lines[t][: program.headers[t]]]
            for (program, t), context, group in zip(chunk, contexts, thinks, strict=True)
            for line in group
        ]
        following = [line for (line,) in sampler.sample(model, after, 1, generator, think=False)]
        for place, ((program, t), act, think) in enumerate(zip(chunk, acts, thinks, strict=True)):
            drawn[program.demonstration.id, t] = _line_level(
                act, think, following[place * config.lines : (place + 1) * config.lines], config.nucleus
            )
        advance(len(chunk))
    nothing: dict[str, Any] = dict.fromkeys(next(iter(drawn.values())))
    return [
        {
            "demonstration": program.demonstration.id,
            "t": t,
            "think": choice.think,
            "token_entropy": choice.entropy,
            "token_nucleus": choice.nucleus,
            "token_act_entropy": choice.act_entropy,
            "token_act_nucleus": choice.act_nucleus,
            "expert_nats": choice.expert,
            "expert_covered": choice.covered,
            **drawn.get((program.demonstration.id, t), nothing),
        }
        for program, at in zip(programs, found, strict=True)
        for t, choice in at.items()
    ]


def _line_level(acts: Sequence[Line], thinks: Sequence[Line], after: Sequence[Line], mass: float) -> dict[str, Any]:
    """Figures of the lines drawn at one boundary: given act, given think, and given act after each of the latter."""
    found: dict[str, Any] = {"line_after_entropy": _entropy(after)}
    for kind, group in (("act", acts), ("think", thinks)):
        distinct = {line.tokens: math.exp(line.log_prob) for line in group}
        bounds = nucleus_bounds(list(distinct.values()), mass)
        found |= {
            f"line_{kind}_entropy": _entropy(group),
            f"line_{kind}_distinct": len(distinct),
            f"line_{kind}_seen": sum(distinct.values()),
            f"line_{kind}_nucleus_low": bounds.low,
            f"line_{kind}_nucleus_high": bounds.high,
            f"line_{kind}_cut": sum(not line.ended for line in group) / len(group),
        }
    return found


def _entropy(drawn: Sequence[Line]) -> float:
    return -sum(line.log_prob for line in drawn) / len(drawn)


def summarise(rows: Sequence[dict[str, Any]], resamples: int, seed: int = 0) -> dict[str, Any]:
    """Perplexities and nuclei over boundaries, with intervals over demonstrations, as plain data.

    perplexity: exp of the mean entropy. nucleus: mean size at the token level; at the line level the medians of both
    bounds (`high` None: over half the boundaries did not show the mass) and the share of boundaries where both agree.
    Weights: see above.
    """
    clusters = Clusters([row["demonstration"] for row in rows], resamples, seed)
    p = np.array([row["think"] for row in rows])
    found: dict[str, Any] = {"boundaries": len(rows), "demonstrations": clusters.count}
    found["think"] = _estimate(clusters.mean(p))
    for kind, weights in (("token", np.ones(len(p))), ("token_act", 1 - p)):
        found[kind] = {
            "perplexity": _estimate(clusters.mean([row[f"{kind}_entropy"] for row in rows], weights), math.exp),
            "nucleus": _estimate(clusters.mean([row[f"{kind}_nucleus"] for row in rows], weights)),
        }
    found["expert"] = {
        "covered": _estimate(clusters.mean([row["expert_covered"] for row in rows])),
        "nats": _estimate(clusters.mean([row["expert_nats"] for row in rows])),
    }
    sampled = [row for row in rows if row["line_act_entropy"] is not None]
    clusters = Clusters([row["demonstration"] for row in sampled], resamples, seed)
    p = np.array([row["think"] for row in sampled])
    act, think = ([row[f"line_{kind}_entropy"] for row in sampled] for kind in ("act", "think"))
    found["lines"] = {
        "boundaries": len(sampled),
        "all": {"perplexity": _estimate(clusters.mean(list(map(_everything, sampled))), math.exp)},
        "given_intent": {"perplexity": _estimate(clusters.mean(list(map(_settled, sampled))), math.exp)},
        "act": {"perplexity": _estimate(clusters.mean(act, 1 - p), math.exp), **_nuclei(sampled, "act", 1 - p)},
        "rationale": {"perplexity": _estimate(clusters.mean(think, p), math.exp), **_nuclei(sampled, "think", p)},
    }
    return found


def change(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], resamples: int, seed: int = 0) -> Any:
    """exp of the mean change of entropy over the same boundaries, with intervals: below 1 the action set has shrunk.

    before, after: rows of `measure_actions` of two models. Of the token, of the next line, and of the next line of code
    with the intent settled. Raises ValueError for other boundaries.
    """
    places = [
        [(row["demonstration"], row["t"], row["line_act_seen"] is None) for row in rows] for rows in (before, after)
    ]
    if places[0] != places[1]:
        raise ValueError("two models measured at different boundaries, expected the same demonstrations and settings")
    found: dict[str, Any] = {}
    pairs = list(zip(before, after, strict=True))
    for name, of in (("token", lambda row: row["token_entropy"]), ("all", _everything), ("given_intent", _settled)):
        used = pairs if name == "token" else [pair for pair in pairs if pair[0]["line_act_entropy"] is not None]
        clusters = Clusters([row["demonstration"] for row, _ in used], resamples, seed)
        found[name] = _estimate(clusters.mean([of(b) - of(a) for a, b in used]), math.exp)
    return found


def _everything(row: dict[str, Any]) -> float:
    """Entropy of the next line, comment or code."""
    p = row["think"]
    decision = -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)
    return decision + (1 - p) * row["line_act_entropy"] + p * row["line_think_entropy"]


def _settled(row: dict[str, Any]) -> float:
    """Entropy of the next line of code, the intent settled."""
    return (1 - row["think"]) * row["line_act_entropy"] + row["think"] * row["line_after_entropy"]


def _nuclei(rows: Sequence[dict[str, Any]], kind: str, weights: np.ndarray) -> dict[str, Any]:
    low = [row[f"line_{kind}_nucleus_low"] for row in rows]
    high = [math.inf if (x := row[f"line_{kind}_nucleus_high"]) is None else x for row in rows]
    top = _weighted_median(high, weights)
    agree = np.average([a == b for a, b in zip(low, high, strict=True)], weights=weights)
    seen = np.average([row[f"line_{kind}_seen"] for row in rows], weights=weights)
    cut = np.average([row[f"line_{kind}_cut"] for row in rows], weights=weights)
    return {
        "nucleus_low": _weighted_median(low, weights),
        "nucleus_high": None if math.isinf(top) else top,
        "resolved": float(agree),
        "seen_mass": float(seen),
        "cut": float(cut),
    }


def _weighted_median(values: Sequence[float], weights: np.ndarray) -> float:
    """The least value that half the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    held = np.asarray(weights)[order].cumsum()
    return float(np.asarray(values, dtype=float)[order][np.searchsorted(held, held[-1] / 2)])


def _estimate(found: tuple[Any, Any, Any], of: Callable[[float], float] = float) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), map(of, map(float, found)), strict=True))
