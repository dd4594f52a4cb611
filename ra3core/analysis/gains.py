"""What a rationale would gain at every boundary of demonstrations: what the think penalty c is held against.

At boundary t with context s (the prompt and the expert's lines so far, no rationale among them) the policy draws G
rationales, whether or not it would think there, and the likelihood model scores the next `window` lines after each:

    gain_i = r(z_i) - a            of the E-step's rewards (ra3core/learning/e_step.py) at c = 0

so that the mean over the group, minus c, is what the E-step's decision to think earns at s. The best of the group is
what a selection that saw the answer could gain.

Every boundary is measured on its own. Along a demonstration, a rationale also serves the lines of the next
boundaries, whose own gain then is smaller: the think rates that follow from these gains are upper bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ra3core.config import EStepConfig
from ra3core.learning.annotation import Annotation, RationaleSampler
from ra3core.learning.scoring import reward, score_rationales
from ra3core.lm.lines import TokenizedDemonstration
from ra3core.lm.prefix import encode

AT_A_TIME = 8  # demonstrations whose boundaries are sampled side by side


@dataclass(frozen=True)
class Gain:
    """Of one boundary t. think: the policy's p(think). mean, best: over the group, nats.

    tokens: that a rationale adds to the demonstration, header included, mean of the group.
    """

    demonstration: str
    t: int
    think: float
    mean: float
    best: float
    tokens: float


@torch.no_grad()
def measure_gains(
    policy: torch.nn.Module,
    likelihood: torch.nn.Module,
    programs: Sequence[TokenizedDemonstration],
    sampler: RationaleSampler,
    config: EStepConfig,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Gain]:
    """Gains at every boundary; `advance` is told how many demonstrations are done."""
    free = config.model_copy(update={"think_penalty": 0.0})
    device = next(policy.parameters()).device
    found: list[Gain] = []
    for start in range(0, len(programs), AT_A_TIME):
        chunk = programs[start : start + AT_A_TIME]
        states = [Annotation(program).state(t) for program in chunk for t in program.boundaries]
        if states:
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + start)
            rows = [place for place in range(len(states)) for _ in range(config.group_size)]
            prefix = encode(policy, [state.context for state in states])
            drawn, decisions = sampler.sample(policy, prefix, rows, [states[row].stop for row in rows], generator)
            think = decisions[:, 0].exp().tolist()
            groups = [drawn[i : i + config.group_size] for i in range(0, len(drawn), config.group_size)]
            scores = score_rationales(likelihood, states, groups, sampler, config.window, config.given_act)
            for state, group, score, p in zip(states, groups, scores, think, strict=True):
                act = reward(score.act, score.tokens, free)
                gains = [reward(s, score.tokens, free, z) - act for s, z in zip(score.thinks, group, strict=True)]
                size = sum(len(z.tokens) + len(state.after(z.terminated)) for z in group) / len(group)
                name = state.tokens.demonstration.id
                found.append(Gain(name, state.t, p, sum(gains) / len(gains), max(gains), size))
        advance(len(chunk))
    return found
