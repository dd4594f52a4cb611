"""What `ra3 theory` measures: every bound of the theory beside what finite families of tasks need.

results = study(seed=0)  # plain numbers, lists and dicts, as theory.json holds them; seconds on one core
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ra3core.stage import StageLog
from ra3core.theory import hardest, iteration, pruning, regret
from ra3core.theory.families import Family, garnet, moves, room
from ra3core.theory.semi_mdp import (
    Bools,
    Floats,
    SemiMDP,
    fixed_options,
    geometric_options,
    greedy,
    joined,
    optimal,
)
from ra3core.theory.surveys import Table, iteration_survey, measure_pruning, pruning_survey, regret_survey

Results = dict[str, Any]

SETTING: dict[str, float] = {"options": 128, "size": 3, "sigma": 0.1, "delta": 0.1}
"""|Z|, |Z_eps|, sigma, delta, around which the pruning rate is measured."""

SWEEPS: dict[str, tuple[float, ...]] = {
    "options": (8, 16, 32, 64, 128, 256, 512),
    "size": (3, 5, 7, 9, 11),  # odd: half of the menu's rare options is then a whole number
    "sigma": (0.4, 0.2, 0.1, 0.05, 0.025),
    "delta": (0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
}
RULES: dict[str, tuple[Callable[..., pruning.Counts], Callable[..., float]]] = {
    "elimination": (hardest.lock, pruning.elimination_bound),
    "keeping": (hardest.menu, lambda size, options, sigma, delta: pruning.keeping_bound(size, sigma, delta)),
    "decisions": (hardest.roles, pruning.decisions_bound),
}
"""Of each rule of pruning.py the family that needs most, and the bound."""

RUNS = 4000
FAILURES = 40  # to be expected among the runs, so that a share delta can be told
SURVEYED = 2000
DRAWN = 1000  # points of a survey that a figure shows
DURATIONS = (1, 2, 4, 8, 16, 32, 64)
SHOWN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def study(seed: int = 0, log: StageLog | None = None) -> Results:
    """Every part, from one seed."""
    results: Results = {"seed": seed}
    streams = np.random.SeedSequence(seed).spawn(len(PARTS))
    with (log or StageLog()).progress("measured", len(PARTS)) as advance:
        for (name, part), stream in zip(PARTS.items(), streams, strict=True):
            results[name] = part(np.random.default_rng(stream))
            advance(1)
    return results


def pruning_rate(rng: np.random.Generator) -> Results:
    """Demonstrations that the rules need on their hardest families: |Z|, |Z_eps|, sigma, delta each varied alone."""
    sweeps: dict[str, list[dict[str, float]]] = {}
    for varied, values in SWEEPS.items():
        sweeps[varied] = []
        for x in values:
            at = SETTING | {varied: x}
            where = {"size": int(at["size"]), "options": int(at["options"]), "sigma": at["sigma"]}
            runs = max(RUNS, round(FAILURES / at["delta"]))
            row = {"x": x, "paper": pruning.paper_bound(**where, delta=at["delta"])}
            for rule, (draw, bound) in RULES.items():
                row[f"{rule}_bound"] = bound(**where, delta=at["delta"])
                row[rule] = enough(draw(rng, **where, runs=runs), at["delta"])
            row["elimination_exact"] = hardest.lock_needed(**where, delta=at["delta"])
            sweeps[varied].append(row)
    return {"at": SETTING, "sweeps": sweeps, "growth": {rule: growth(sweeps, rule) for rule in RULES}}


def enough(needed: pruning.Counts, delta: float) -> int:
    """The least number of demonstrations that was enough in a share of at least 1 - delta of the runs."""
    return int(np.quantile(needed, 1 - delta, method="inverted_cdf"))


def growth(sweeps: dict[str, list[dict[str, float]]], rule: str) -> dict[str, float]:
    """How a rule's demonstrations grow: four figures that are 1 for the paper's rate, then shares of the bounds."""
    x = {varied: np.array([row["x"] for row in rows]) for varied, rows in sweeps.items()}
    n = {varied: np.array([row[rule] for row in rows]) for varied, rows in sweeps.items()}
    rows = [row for sweep in sweeps.values() for row in sweep]
    of_paper = [row[rule] / row["paper"] for row in rows]
    of_bound = [row[rule] / row[f"{rule}_bound"] for row in rows]
    factor = SETTING["size"] / SETTING["sigma"]  # of log |Z| and of log 1 / delta in the paper's rate
    return {
        "slope_in_log_options": float(np.polyfit(np.log(x["options"]), n["options"], 1)[0] / factor),
        "exponent_in_size": float(np.polyfit(np.log(x["size"]), np.log(n["size"]), 1)[0]),
        "exponent_in_1_over_sigma": float(np.polyfit(-np.log(x["sigma"]), np.log(n["sigma"]), 1)[0]),
        "slope_in_log_1_over_delta": float(np.polyfit(-np.log(x["delta"]), n["delta"], 1)[0] / factor),
        "least_of_paper": min(of_paper),
        "most_of_paper": max(of_paper),
        "least_of_bound": min(of_bound),
        "most_of_bound": max(of_bound),
    }


def pruning_summary(table: Table) -> Results:
    """A survey in a few figures, and its first families for the plot."""
    counted = table["suboptimal"] > 0
    rules = ("elimination", "keeping")
    points = ("paper", *rules, *(f"{rule}_bound" for rule in rules))
    return {
        "families": len(counted),
        "with_suboptimal_sets": int(counted.sum()),
        "violations": {name: int((table[f"{name}_left"] > table["delta"]).sum()) for name in ("paper", *rules)},
        "most_of_bound": {
            rule: float((table[rule] / np.ceil(table[f"{rule}_bound"]))[counted].max()) for rule in rules
        },
        "survivors_above_eps": int((table["worst_survivor"] > table["eps"]).sum()),
        "survivors_above_bound": int((table["worst_survivor"] > table["survivor_bound"]).sum()),
        "points": {name: table[name][counted][:DRAWN].tolist() for name in points},
    }


def iteration_summary(table: Table) -> Results:
    """A survey in a few figures, and its first instances for the plot."""
    share = table["needed"] / np.maximum(table["bound"], 1)
    return {
        "instances": len(share),
        "violations": int((table["needed"] > table["bound"]).sum()),
        "most_of_bound": float(share.max()),
        "median_of_bound": float(np.median(share)),
        "points": {name: table[name][:DRAWN].tolist() for name in ("needed", "bound")},
    }


def regret_summary(table: Table) -> Results:
    """A survey in a few figures."""
    return {
        "tasks": len(table["whole"]),
        "mean_whole": float(table["whole"].mean()),
        "largest_residual": float(table["residual"].max()),
        "least_pruning": float(table["pruning"].min()),
        "least_rl": float(table["rl"].min()),
        "least_rl_outside": float(table["rl_outside"].min()),
    }


def iteration_durations(
    rng: np.random.Generator, gamma: float = 0.99, eps: float = 0.01, instances: int = 40
) -> Results:
    """Iterations against the mean duration of options.

    garnet: options of geometric duration where every step pays up to 1; with_steps: the same beside primitive actions.
    room: straight walks of fixed length in a room of 9 x 9, paid once, at the goal.
    """
    random = garnet(rng, instances, tasks=1, options=4, states=12, branching=3, gamma=gamma, durations=1).model
    primitive = SemiMDP(random.kernel, rng.random(random.reward.shape))
    policies = rng.integers(0, 4, (6, primitive.states))
    goals = moves(9, rng.choice(81, 10, replace=False).tolist(), gamma)
    straight = np.repeat(np.arange(4)[:, None], goals.states, 1)
    rows: dict[str, list[Results]] = {"garnet": [], "with_steps": [], "room": []}
    for duration in DURATIONS:
        options = geometric_options(primitive, policies, 1 / duration)
        rows["garnet"].append(_iterations(options, duration, eps))
        rows["with_steps"].append(_iterations(joined(options, primitive), duration, eps))
        if duration <= 16:  # longer than the room is wide, twice
            rows["room"].append(_iterations(fixed_options(goals, straight, duration), duration, eps))
    return {"gamma": gamma, "eps": eps, "rows": rows}


def _iterations(model: SemiMDP, duration: int, eps: float) -> Results:
    """Needed by the tasks of a batch, and the bound, also with R_max = 1, the most that a step pays."""
    needed = iteration.iterations_needed(model, optimal(model)[0], eps)
    contraction = float(model.contraction.max())
    return {
        "x": duration,
        "contraction": contraction,
        "needed": float(np.median(needed)),
        "least": int(needed.min()),
        "most": int(needed.max()),
        "bound": int(iteration.bound_of(model, eps).max()),
        "bound_of_steps": int(iteration.iterations_bound(contraction, 1.0, eps)),
    }


def random_tasks(rng: np.random.Generator, states: int, branching: int, durations: int, largest: int) -> Results:
    """`story` of ten random tasks over 16 options that last up to `durations` steps."""
    drawn = garnet(rng, 1, 10, 16, states, branching, gamma=0.95, durations=durations)
    family = Family(SemiMDP(drawn.model.kernel[0], drawn.model.reward[0]), drawn.weights[0], drawn.start)
    return story(rng, family, [f"option {i + 1}" for i in range(16)], largest)


def in_a_room(rng: np.random.Generator) -> Results:
    """`story` of ten goals in a room, with walks and aimless options."""
    family, names = room(rng)
    return story(rng, family, names, 4)


def story(
    rng: np.random.Generator,
    family: Family,
    names: Sequence[str],
    largest: int,
    share: float = 0.1,
    sigma: float = 0.1,
    delta: float = 0.05,
) -> Results:
    """One family closely: what Z_eps is, how many demonstrations prune the rest, what the regret is meanwhile.

    eps is `share` of the mean V*, or what the best set of `largest` options costs at worst if that is more: Z_eps then
    has at most `largest` options, and every set of so many can be looked at.
    """
    sets = pruning.subsets(len(names), range(1, largest + 1))
    errors = pruning.pruning_errors(family, sets)
    mean = float((optimal(family.model)[0] @ family.start).mean())
    eps = max(share * mean, float(errors.max(0).min()))
    cover = pruning.smallest_cover(errors, sets, eps)
    used = pruning.expert_options(family, sets[cover])
    row = measure_pruning(family, errors, sets, eps, sigma, delta, cover, used)
    bad = pruning.suboptimal(family.weights, errors, eps, sigma) & (sets.sum(1) == row["size"])
    drawn = pruning.Candidates(family.weights, errors[:, bad] > eps).simulate(rng, 4000)
    return {
        **row,
        "mean_value": mean,
        "compact": [name for name, inside in zip(names, sets[cover], strict=True) if inside],
        "elimination_simulated": enough(drawn, delta),
        "regret": regret_while_shown(rng, family, used),
    }


def regret_while_shown(
    rng: np.random.Generator, family: Family, used: Bools, sweeps: int = 2, runs: int = 2000
) -> Results:
    """The regret's two parts as demonstrations come in, when planning is paid by the backup.

    What n demonstrations show is kept. Value iteration within it may then do as many backups of a pair (s, z) as
    `sweeps` iterations over all of Z take, N = sweeps |Z| / |Z'| iterations, and the policy is greedy. Means over tasks
    and over `runs` series of demonstrations. used: (T, Z), what a demonstration of each task shows.
    """
    options = used.shape[1]
    known: dict[bytes, Floats] = {}

    def parts(allowed: Bools) -> Floats:
        if allowed.tobytes() not in known:
            values = iteration.iterate(family.model, sweeps * options // int(allowed.sum()), allowed)
            found = regret.split(family.model, family.start, allowed, greedy(family.model, values, allowed))
            known[allowed.tobytes()] = np.stack([found.pruning, found.rl, found.whole]) @ family.weights
        return known[allowed.tobytes()]

    tasks = rng.choice(len(family.weights), (runs, max(SHOWN)), p=family.weights)
    kept = np.logical_or.accumulate(used[tasks], axis=1)  # (runs, demonstrations, Z)
    rows = []
    for n in SHOWN:
        pruned, rl, whole = np.mean([parts(one) for one in kept[:, n - 1]], 0).tolist()
        size = float(kept[:, n - 1].sum(-1).mean())
        rows.append({"x": n, "options": size, "pruning": pruned, "rl": rl, "whole": whole})
    pruned, rl, whole = parts(np.ones(options, bool)).tolist()
    unpruned = {"options": options, "pruning": pruned, "rl": rl, "whole": whole}
    return {"sweeps": sweeps, "runs": runs, "rows": rows, "unpruned": unpruned}


PARTS: dict[str, Callable[[np.random.Generator], Results]] = {
    "pruning_rate": pruning_rate,
    "pruning_random": lambda rng: pruning_summary(pruning_survey(rng, SURVEYED)),
    "iteration_durations": iteration_durations,
    "iteration_random": lambda rng: iteration_summary(iteration_survey(rng, SURVEYED)),
    "regret_random": lambda rng: regret_summary(regret_survey(rng, SURVEYED)),
    "long": lambda rng: random_tasks(rng, states=6, branching=3, durations=4, largest=5),
    "short": lambda rng: random_tasks(rng, states=8, branching=2, durations=1, largest=4),
    "room": in_a_room,
}
"""What is measured, in order; the names are those of theory.json."""
