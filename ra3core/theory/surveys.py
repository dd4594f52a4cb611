"""Every bound on random families of tasks, thousands at a time: what the property tests and `ra3 theory` both run."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ra3core.theory import iteration, pruning, regret
from ra3core.theory.families import Family, garnet
from ra3core.theory.semi_mdp import Bools, Floats, optimal

Table = dict[str, NDArray[Any]]
"""A column a figure, a row an instance."""


def measure_pruning(
    family: Family, errors: Floats, sets: Bools, eps: float, sigma: float, delta: float, cover: int, used: Bools
) -> dict[str, float]:
    """One family under both rules, exactly.

    errors: (T, C) of sets (C, Z), which hold every set of up to |Z_eps| options; cover: the row of Z_eps among them.
    used: (T, Z), the options that the expert shows (pruning.expert_options). Demonstrations as numbers; `*_left`: the
    probability that a suboptimal set is left after as many as the rule's bound says.
    """
    size, options = int(sets[cover].sum()), sets.shape[1]
    bad = pruning.suboptimal(family.weights, errors, eps, sigma)
    same_size = bad & (sets.sum(1) == size)
    eliminating = pruning.Candidates(family.weights, errors[:, same_size] > eps)
    within = sets[bad & ~(sets & ~sets[cover]).any(1)]
    nothing = np.ones((len(used), 1), bool)  # the empty set, which any demonstration adds to
    keeping = pruning.Candidates(family.weights, np.concatenate([nothing, (used[:, None] & ~within).any(-1)], 1))
    allowed = pruning.elimination_bound(size, options, sigma, delta), pruning.keeping_bound(size, sigma, delta)
    surviving = ~bad & (sets.sum(1) == size)
    expected = family.weights @ errors
    return {
        "options": options,
        "size": size,
        "sigma": sigma,
        "delta": delta,
        "suboptimal": int(same_size.sum()),
        "paper": pruning.paper_bound(size, options, sigma, delta),
        "elimination_bound": allowed[0],
        "keeping_bound": allowed[1],
        "elimination": eliminating.needed(delta),
        "keeping": keeping.needed(delta),
        "elimination_left": eliminating.left_after(int(np.ceil(allowed[0]))),
        "keeping_left": keeping.left_after(int(np.ceil(allowed[1]))),
        "paper_left": eliminating.left_after(int(np.ceil(pruning.paper_bound(size, options, sigma, delta)))),
        "eps": eps,
        "worst_survivor": float(expected[surviving].max()),
        "survivor_bound": float(eps + sigma * errors.max()),
    }


def pruning_survey(rng: np.random.Generator, families: int) -> Table:
    """Random garnet families with random eps, sigma and delta: a row a family, columns as of `measure_pruning`."""
    drawn = garnet(rng, families)
    sets = pruning.subsets(drawn.model.options, range(1, drawn.model.options + 1))
    errors = pruning.pruning_errors(drawn, sets)
    eps = rng.uniform(0.02, 0.3, families) * errors.max((-1, -2))
    sigma = np.exp(rng.uniform(log(0.02), log(0.4), families))
    delta = np.exp(rng.uniform(log(0.001), log(0.3), families))
    covers = np.array([pruning.smallest_cover(errors[f], sets, eps[f]) for f in range(families)])
    used = pruning.expert_options(drawn, sets[covers][:, None])
    rows = []
    for f in range(families):
        one = Family(drawn.model, drawn.weights[f], drawn.start)
        rows.append(measure_pruning(one, errors[f], sets, eps[f], sigma[f], delta[f], covers[f], used[f]))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def iteration_survey(rng: np.random.Generator, instances: int) -> Table:
    """Random garnets with random gamma, durations and eps: needed iterations, bound, contraction; a row an instance."""
    tables = []
    while sum(len(table["needed"]) for table in tables) < instances:
        gamma, durations = 1 - np.exp(rng.uniform(log(0.01), log(0.5))), int(rng.integers(1, 7))
        model = garnet(rng, 5, tasks=4, gamma=gamma, durations=durations).model
        best, _ = optimal(model)
        eps = float(np.exp(rng.uniform(log(1e-4), log(0.5))) * best.max())
        shape = model.reward.shape[:-2]
        columns = {
            "needed": iteration.iterations_needed(model, best, eps),
            "bound": iteration.bound_of(model, eps),
            "contraction": np.broadcast_to(model.contraction, shape),
        }
        tables.append({name: column.ravel() for name, column in columns.items()})
    return {name: np.concatenate([table[name] for table in tables])[:instances] for name in tables[0]}


def regret_survey(rng: np.random.Generator, families: int) -> Table:
    """Random garnets, random Z', random policies within it and (`rl_outside`) anywhere in Z: a row a task."""
    drawn = garnet(rng, families)
    options, shape = drawn.model.options, drawn.model.reward.shape
    allowed = rng.random((families, 1, options)) < 0.5
    allowed |= np.arange(options) == rng.integers(0, options, (families, 1, 1))
    noise = rng.random(shape)
    inside = np.where(allowed[..., None], noise, -1.0).argmax(-2)
    within = regret.split(drawn.model, drawn.start, allowed, inside)
    anywhere = regret.split(drawn.model, drawn.start, allowed, noise.argmax(-2))
    return {
        "whole": within.whole.ravel(),
        "pruning": within.pruning.ravel(),
        "rl": within.rl.ravel(),
        "residual": np.maximum(within.residual, anywhere.residual).ravel(),
        "rl_outside": anywhere.rl.ravel(),
    }
