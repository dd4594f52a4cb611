"""E-step: reinforcement learning discovers the rationales that make an expert's next lines likely.

The paper (section 5): the policy q starts as the model, the likelihood model pi is that model, frozen. Along a
demonstration q decides act or think line by line; the reward is pi's log-likelihood of the expert's lines, minus c for
a think; a group of rollouts with a group baseline; a full rollout only at a think.

What is maximised. At boundary t with context s (the prompt, earlier lines and the rationales q put among them), let
p = q(think | s), a the reward of acting, r(z) that of thinking z:

    J(s) = (1 - p) a + p E_{z ~ q}[r(z)]            a    = sum over the window of log pi(line | s, act)
    J    = E_demonstration sum_t J(s_t)             r(z) = sum over the window of log pi(line | s, z) - c

(`reward` in scoring.py.) Lines are scored given the decision to act (`given_act`): of a line's first token counts its
probability among the tokens that begin no comment, log pi(a_t | s_t, z_t). With sticky prior
p(z_t | z_t-1) = alpha delta + (1 - alpha) U and alpha = 1 / (1 + exp(-c)), the KL of act against think is
-H(p) - log alpha + p c, so J is the temporal ELBO without its entropy terms, its sum of log-likelihoods cut at `window`
lines. The context is held fixed: what a decision does to later boundaries counts through the window only.

How its gradient is estimated, without bias. With m = E r(z),

    grad J(s) = p E_z[(r(z) - m) grad log q(z)] + p (m - a) grad log p

- States: K per demonstration, n_t copies of boundary t with E n_t = rate_t = K (p_t + floor) / sum_u (p_u + floor), so
  sum_t (n_t / rate_t) grad J(s_t) has the right mean, and p / rate_t is bounded: rollouts go where q thinks, and a
  state that q hardly ever thinks at (a comment in mid-block costs 14 nats) cannot swamp the rest.
- Content: a group of G rationales, weights 1/G, scale p n_t / rate_t.
- Decision: a group of the two outcomes act and think, both always scored, weights 1 - p and p, rewards a and the mean
  of the group: exactly p (m - a) grad log p, however small p is.
Both are policy_gradient's weighted groups, so the deviation of a group (plus `std_floor`) divides its advantages; that
rescales states against each other and changes no state's direction. (The mean includes the rollout itself: the content
term is (G - 1) / G of the exact one.)

What we add (paper silent): only content is trained in the first `warmup_iterations` (a weak base would learn at once
never to think); right after a rationale, `consecutive_penalty` * -log q(act) discourages comment after comment; a
rationale that hits the length cap costs `unterminated_penalty`; optional KL of the rationale's tokens to pi.
c = infinity needs no training: thinking never pays, the policy is the model.

An iteration's demonstrations are explored in `parts`, each with random numbers of its own, whichever process does it
(docs/devices.md). The gradient is of all parts together.

Alone:  e_step(EStepConfig(), Context(inputs={"model": ..., "demonstrations": ...}, out=..., scratch=...)), where the
inputs are folders with model/ and with demonstrations.parquet.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy
import torch
from transformers import PreTrainedModel

from ra3core.config import EStepConfig
from ra3core.corpora.demonstrations import read_demonstrations
from ra3core.errors import UserError
from ra3core.learning.annotation import Annotation, Drawn, RationaleSampler, State, annotate_batch
from ra3core.learning.decision import DecisionLoss
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout, merged
from ra3core.learning.scoring import Scores, reconstruction, reward, score_rationales
from ra3core.lm.lines import LineTokenizer, TokenizedDemonstration, undecided
from ra3core.lm.models import load_model, load_to_train, load_tokenizer, merge_lora, save_model
from ra3core.lm.prefix import encode
from ra3core.processes import begin, split
from ra3core.stage import METRICS_FILE, Context, Metrics, StageLog

FLOOR = 1e-3  # keeps a boundary's chance of being visited above 0 when q never thinks there
HELD_OUT = 32  # demonstrations that the temporal ELBO is measured on


@dataclass(frozen=True)
class Visit:
    """A state drawn for training: n copies of it were, `rate` were expected."""

    state: State
    copies: int
    rate: float


def choose_states(annotation: Annotation, count: int, offset: float) -> list[Visit]:
    """Boundaries drawn in proportion to p(think) + floor by systematic sampling; `offset` is uniform in [0, 1)."""
    weights = {t: math.exp(think) + FLOOR for t, (think, _) in annotation.decisions.items()}
    total, reached, found = sum(weights.values()), offset, []
    for t, weight in weights.items():
        rate = count * weight / total
        copies = math.floor(reached + rate) - math.floor(reached)
        reached += rate
        if copies:
            found.append(Visit(annotation.state(t), copies, rate))
    return found


def temporal_elbo(annotations: Sequence[Annotation], reconstructions: Sequence[float], c: float) -> dict[str, float]:
    """The temporal ELBO's terms under on-policy annotation, means per demonstration in nats.

    reconstruction: sum_t log pi(a_t | s_t, z_t). think_cost: c times the thinks; elbo = reconstruction - think_cost.
    bernoulli_kl: sum_t KL(Bernoulli(p_t) || Bernoulli(1 - alpha)), alpha = 1 / (1 + exp(-c)). rationale_nats: mean
    -log q(z) of a rationale, an estimate of H(q_think): log |Z| is unknown for text, so log |Z| - H is not reported,
    and c stands for it.
    """
    count = len(annotations)
    thinks = sum(len(a.rationales) for a in annotations)
    log_alpha, log_think = -math.log1p(math.exp(-c)), -c - math.log1p(math.exp(-c))
    bernoulli = 0.0
    if math.isfinite(c):
        for think, act in (pair for a in annotations for pair in a.decisions.values()):
            bernoulli += math.exp(think) * (think - log_think) + math.exp(act) * (act - log_alpha)
    recon = sum(reconstructions) / count
    cost = c * thinks / count if thinks else 0.0
    nats = [-d.log_prob for a in annotations for d in a.drawn.values()]
    return {
        "reconstruction": recon,
        "think_cost": cost,
        "elbo": recon - cost,
        "bernoulli_kl": bernoulli / count,
        "rationale_nats": sum(nats) / len(nats) if nats else 0.0,
        "thinks_per_demonstration": thinks / count,
    }


def e_step(config: EStepConfig, context: Context) -> Metrics:
    """Train the policy; writes model/, metrics.jsonl and examples.json.

    Returns tokens and train_tokens, the means of the last iterations' figures, and `elbo_before` and `elbo_after`, the
    temporal ELBO of held-out demonstrations with its terms. Raises UserError for unusable inputs.
    """
    processes = begin(context)
    context.out.mkdir(parents=True, exist_ok=True)
    if processes.first:
        context.log.path = context.out / METRICS_FILE
    folder = context.inputs["model"] / "model"
    tokenizer, likelihood = load_tokenizer(folder), load_model(folder, context.device, config.precision)
    likelihood.requires_grad_(False)
    lines = LineTokenizer(tokenizer)
    file = context.inputs["demonstrations"] / "demonstrations.parquet"
    tokenized = [lines.demonstration(one) for one in read_demonstrations(file)]
    programs = [program for program in tokenized if program.boundaries]
    left_out = undecided(tokenized)
    if not programs:
        reason = f" ({left_out})" if left_out else ""
        raise UserError(f"{file}: no demonstration has a line that a comment may stand ahead of{reason}")
    if left_out:
        context.log.message(left_out)
    torch.manual_seed(context.seed)  # adapters, if any, are drawn from it
    policy = load_to_train(folder, config, context.device)
    run = _Run(config, context, lines, likelihood, policy, programs)
    if math.isinf(config.think_penalty):
        context.log.message("the think penalty is infinite: thinking never pays, the policy is the model as it is")
        if processes.first:
            save_model(likelihood, tokenizer, context.out / "model")
            (context.out / "examples.json").write_text("[]")
        never = [Annotation(program) for program in run.held_out]
        terms = temporal_elbo(never, reconstruction(likelihood, never, lines, config.given_act), config.think_penalty)
        tokens = sum(len(program.tokens()) for program in run.held_out)
        return {"tokens": tokens, "train_tokens": 0, "iterations": 0, "elbo_before": terms, "elbo_after": terms}
    if config.parts < processes.count:
        context.log.message(f"e_step.parts: {config.parts}, so only as many of {processes.count} processes sample")
    metrics = run.train(context.log)
    trained = run.trainer.whole()
    if processes.first:
        save_model(merge_lora(trained), tokenizer, context.out / "model")
        (context.out / "examples.json").write_text(json.dumps(run.examples, indent=1))
    return metrics


@dataclass(frozen=True)
class _Explored:
    """What a part of an iteration gave: an entry a demonstration, and from `visits` on one a visited state."""

    annotations: list[Annotation]
    reconstructions: list[float]
    visits: list[Visit]
    drawn: list[list[Drawn]]
    decisions: list[tuple[float, float]]
    scores: list[Scores]

    @classmethod
    def of(cls, parts: Sequence[_Explored]) -> _Explored:
        """All parts as one, in order."""
        return cls(*([one for part in parts for one in getattr(part, each.name)] for each in fields(cls)))


class _Run:
    """One E-step: what its iterations share."""

    def __init__(
        self,
        config: EStepConfig,
        context: Context,
        lines: LineTokenizer,
        likelihood: PreTrainedModel,
        policy: torch.nn.Module,
        programs: list[TokenizedDemonstration],
    ) -> None:
        self.config, self.seed, self.scratch, self.device = config, context.seed, context.scratch, context.device
        self.lines, self.likelihood = lines, likelihood
        vocabulary: int = likelihood.config.vocab_size
        self.sampler = RationaleSampler(lines, vocabulary, config.temperature, config.rationale_tokens, context.device)
        order = random.Random(context.seed).sample(range(len(programs)), len(programs))
        held = min(HELD_OUT, len(programs) // 10)
        self.held_out = [programs[i] for i in order[:held]] or programs
        self.programs = [programs[i] for i in order[held:]]
        objective = Objective(
            learning_rate=config.learning_rate,
            clip=config.clip,
            epochs=config.epochs,
            std_floor=config.std_floor,
            kl=config.kl,
            max_grad_norm=config.max_grad_norm,
        )
        self.trainer = PolicyTrainer(policy, objective, self.device, config.precision)
        self.tokens = self.train_tokens = 0
        self.examples: list[dict[str, Any]] = []

    def train(self, log: StageLog) -> Metrics:
        """All iterations, from the last checkpoint on."""
        start, recent = 0, []
        saved = self.trainer.load(self.scratch)
        if saved is None:
            before = self.held_out_elbo()
        else:
            start, state = saved
            self.tokens, self.train_tokens = state["tokens"], state["train_tokens"]
            self.examples, before, recent = state["examples"], state["elbo_before"], state["recent"]
        log.resume(start)
        with log.progress("E-step", self.config.iterations, start) as advance:
            for iteration in range(start, self.config.iterations):
                figures = self.iteration(iteration)
                recent = [*recent, {k: v for k, v in figures.items() if k != "seconds"}][-10:]
                log.metrics(iteration + 1, **figures)
                advance(1)
                if (iteration + 1) % self.config.checkpoint_iterations == 0:
                    state = {"tokens": self.tokens, "train_tokens": self.train_tokens, "examples": self.examples}
                    self.trainer.save(self.scratch, iteration + 1, state | {"elbo_before": before, "recent": recent})
        after = self.held_out_elbo()
        means = {name: sum(row[name] for row in recent) / len(recent) for name in (recent[0] if recent else ())}
        means |= {"tokens": self.tokens, "train_tokens": self.train_tokens, "iterations": self.config.iterations}
        return means | {"elbo_before": before, "elbo_after": after}

    def generator(self, salt: int, part: int = 0) -> torch.Generator:
        """A generator that depends on the seed and on what it is for, so that training resumes exactly."""
        seed = self.seed * 1_000_003 + salt
        if part:
            seed = int(numpy.random.SeedSequence([seed, part]).generate_state(1, numpy.uint64)[0]) >> 1
        return torch.Generator(self.device).manual_seed(seed)

    def held_out_elbo(self) -> dict[str, float]:
        """The temporal ELBO of the held-out demonstrations under the present policy."""
        found = annotate_batch(self.trainer.policy, self.held_out, self.sampler, self.generator(999_999))
        self.tokens += sum(a.processed + len(a.tokens.tokens(a.pieces)) for a in found)
        return temporal_elbo(found, self.reconstruct(found), self.config.think_penalty)

    def iteration(self, iteration: int) -> dict[str, float]:
        """Annotate, visit states, draw and score rationales, one policy gradient step; returns its figures."""
        began = time.perf_counter()
        config = self.config
        picked = random.Random(f"{self.seed} {iteration}").sample(
            range(len(self.programs)), min(config.demonstrations, len(self.programs))
        )
        parts = split([self.programs[i] for i in picked], config.parts)
        processes = self.trainer.processes
        explored = processes.share(len(parts), lambda part: self.explore(parts[part], self.generator(iteration, part)))
        found = _Explored.of(explored)
        annotations, visits, drawn, scores = found.annotations, found.visits, found.drawn, found.scores
        states = [visit.state for visit in visits]
        acts = [reward(s.act, s.tokens, config) for s in scores]
        thinks = [
            [reward(value, s.tokens, config, d) for value, d in zip(s.thinks, group, strict=True)]
            for s, group in zip(scores, drawn, strict=True)
        ]
        visited = [visit.copies / visit.rate * len(visits) / len(annotations) for visit in visits]
        probability = [math.exp(think) for think, _ in found.decisions]
        groups = [
            Group(state.context, self.rollouts(state, group, values, score), scale=v * p)
            for state, group, values, score, v, p in zip(
                states, drawn, thinks, scores, visited, probability, strict=True
            )
        ]
        train = iteration >= config.warmup_iterations
        decide = DecisionLoss(self.lines.think_ids, config, groups, acts, thinks, probability, visited, train)
        stops = [state.stop for state in states]
        trained = self.trainer.step(
            groups,
            lambda logits, rows, start: self.sampler.constrain(logits, [stops[n] for n, _ in rows], start),
            decide,
        )
        self.train_tokens += int(trained.pop("train_tokens"))
        self.tokens += sum(a.processed + len(a.tokens.tokens(a.pieces)) for a in annotations)
        self.tokens += sum(2 * g.tokens + (g.draws + 1) * s.tokens for g, s in zip(groups, scores, strict=True))
        self.tokens += self.config.epochs * sum(group.tokens for group in groups)
        if iteration in (0, config.iterations - 1):
            self.examples += self.describe(iteration, states, drawn, thinks, acts, probability)
        gains = [[value - s.act for value in s.thinks] for s in scores]
        means = [_mean(values) for values in thinks]
        met = [group.scale for group in groups]  # states count as often as the policy thinks at them
        flat = [d for group in drawn for d in group]
        boundaries = [pair for a in annotations for pair in a.decisions.values()]
        segments = sum(len(a.rationales) + (0 not in a.rationales) for a in annotations)
        terms = temporal_elbo(annotations, found.reconstructions, config.think_penalty)
        return {
            "reward": _mean([(1 - p) * a + p * m for p, a, m in zip(probability, acts, means, strict=True)], met),
            "reward_think": _mean(means, met),
            "gain": _mean([_mean(values) for values in gains], met),
            "gain_best": _mean([max(values) for values in gains], met),
            "think_rate": _mean([math.exp(think) for think, _ in boundaries]),
            "rationale_tokens": _mean([len(d.content) for d in flat]),
            "unterminated": _mean([not d.terminated for d in flat]),
            "segment_lines": sum(len(a.tokens.lines) for a in annotations) / segments,
            "decision_entropy": _mean([-sum(x * math.exp(x) for x in pair) for pair in boundaries]),
            "consecutive_think_rate": processes.mean(decide.rates, decide.copies),
            "states": float(len(states)),
            **trained,
            **terms,
            "tokens": float(self.tokens),
            "train_tokens": float(self.train_tokens),
            "seconds": time.perf_counter() - began,
        }

    def explore(self, programs: Sequence[TokenizedDemonstration], generator: torch.Generator) -> _Explored:
        """Annotate demonstrations, choose states in them, draw rationales there and score these."""
        config = self.config
        annotations = annotate_batch(self.trainer.policy, programs, self.sampler, generator)
        offsets = torch.rand(len(annotations), generator=generator, device=self.device).tolist()
        visits = [
            visit
            for annotation, offset in zip(annotations, offsets, strict=True)
            for visit in choose_states(annotation, config.states, offset)
        ]
        states = [visit.state for visit in visits]
        drawn, decisions = self.draw(states, generator)
        scores = score_rationales(self.likelihood, states, drawn, self.sampler, config.window, config.given_act)
        return _Explored(annotations, self.reconstruct(annotations), visits, drawn, decisions, scores)

    def reconstruct(self, annotations: Sequence[Annotation]) -> list[float]:
        """The expert's lines under the likelihood model, nats per demonstration."""
        return reconstruction(self.likelihood, annotations, self.lines, self.config.given_act)

    @torch.no_grad()
    def draw(
        self, states: Sequence[State], generator: torch.Generator
    ) -> tuple[list[list[Drawn]], list[tuple[float, float]]]:
        """G rationales at each state, and log p(think), log p(act) there; the context is encoded once a state."""
        size = self.config.group_size
        rows = [i for i in range(len(states)) for _ in range(size)]
        prefix = encode(self.trainer.policy, [state.context for state in states])
        stops = [states[i].stop for i in rows]
        found, decisions = self.sampler.sample(self.trainer.policy, prefix, rows, stops, generator)
        grouped = [found[i * size : (i + 1) * size] for i in range(len(states))]
        return grouped, [(pair[0], pair[1]) for pair in decisions.tolist()]

    def rollouts(
        self, state: State, drawn: Sequence[Drawn], rewards: Sequence[float], scores: Scores
    ) -> tuple[Rollout, ...]:
        """The state's rationales for the policy gradient; what follows is the rest of the line's header."""
        return merged(
            [
                Rollout(d.tokens, value, 1 / len(drawn), reference, state.after(d.terminated))
                for d, value, reference in zip(drawn, rewards, scores.references, strict=True)
            ]
        )

    def describe(
        self,
        iteration: int,
        states: Sequence[State],
        drawn: Sequence[Sequence[Drawn]],
        thinks: Sequence[Sequence[float]],
        acts: Sequence[float],
        probability: Sequence[float],
    ) -> list[dict[str, Any]]:
        """A few states with their rationales and rewards, for the reader."""
        return [
            {
                "iteration": iteration + 1,
                "demonstration": states[i].tokens.demonstration.id,
                "context": self.lines.decode(states[i].context),
                "line": states[i].tokens.demonstration.lines[states[i].t],
                "think_probability": probability[i],
                "act_reward": acts[i],
                "rationales": [
                    {"text": self.sampler.text(d), "reward": value}
                    for d, value in zip(drawn[i], thinks[i], strict=True)
                ],
            }
            for i in range(min(4, len(states)))
        ]


def _mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    weights = [1.0] * len(values) if weights is None else weights
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights) if values else 0.0
