"""Families of tasks M ~ p(M) over one set of options Z.

garnet   random dynamics, random rewards: nothing is arranged, Z_eps is found by search
room     tasks are goals in a room, options are straight walks of 1, 2 or 4 steps and aimless ones
lock     one combination of k options opens every task, any other fails with probability sigma; the elimination rule's
         hardest family, where |Z|, |Z_eps| and sigma are chosen freely (hardest.py simulates it without writing it out)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ra3core.theory.semi_mdp import Floats, SemiMDP, fixed_options, geometric_options, joined


@dataclass(frozen=True)
class Family:
    """A finite p(M). model: a batch of tasks (..., T). weights: (..., T), p(M). start: (S,), of every task."""

    model: SemiMDP
    weights: Floats
    start: Floats


def garnet(
    rng: np.random.Generator,
    families: int = 1,
    tasks: int = 6,
    options: int = 5,
    states: int = 4,
    branching: int = 2,
    gamma: float = 0.9,
    durations: int = 3,
) -> Family:
    """Random families, batch (families, tasks): dynamics shared by the tasks of a family, rewards each task's own.

    Option z lasts tau(z) ~ U{1..durations} steps and leads from a state to one of `branching` states. A task pays up to
    1 for a third of the pairs (s, z).
    """
    shape = (families, 1, options, states)
    odds = rng.dirichlet(np.ones(branching), shape)  # (F, 1, Z, S, b)
    targets = rng.random((*shape, states)).argsort(-1)[..., :branching]
    kernel = np.zeros((*shape, states))
    np.put_along_axis(kernel, targets, odds, -1)
    kernel *= gamma ** rng.integers(1, durations + 1, (families, 1, options, 1, 1))
    pays = rng.random((families, tasks, options, states)) < 1 / 3
    reward = np.where(pays, rng.random(pays.shape), 0.0)
    return Family(SemiMDP(kernel, reward), rng.dirichlet(np.ones(tasks), families), np.eye(states)[0])


STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def moves(side: int, goals: list[int], gamma: float, slip: float = 0.1) -> SemiMDP:
    """A room of side x side cells with four primitive moves, one task a goal: 1 for reaching it, then the task is over.

    A move goes another of the four ways with probability `slip`; walls hold it. Batch (goals,), Z = 4, S = side^2.
    """
    cells = side * side
    ways = np.zeros((4, cells, cells))
    for z, (down, right) in enumerate(STEPS):
        for cell in range(cells):
            row, column = np.clip([cell // side + down, cell % side + right], 0, side - 1)
            ways[z, cell, row * side + column] = 1.0
    ways = (1 - slip) * ways + slip * (ways.sum(0) - ways) / 3
    kernel = np.repeat(gamma * ways[None], len(goals), 0)
    reward = np.zeros((len(goals), 4, cells))
    for task, goal in enumerate(goals):
        reward[task] = ways[:, :, goal]
        reward[task, :, goal] = 0.0
        kernel[task, :, goal] = 0.0  # no decision is taken there
        kernel[task, :, :, goal] = 0.0  # and none follows
    return SemiMDP(kernel, reward)


def room(
    rng: np.random.Generator, side: int = 5, tasks: int = 10, aimless: int = 2, gamma: float = 0.95
) -> tuple[Family, tuple[str, ...]]:
    """A room with walks of 1, 2 and 4 steps in four directions and `aimless` options, and the options' names.

    Every task starts in the middle; goals are drawn among the other cells, and some are asked for more often.
    """
    middle = side * side // 2
    goals = rng.choice(np.delete(np.arange(side * side), middle), tasks, replace=False)
    primitive = moves(side, goals.tolist(), gamma)
    straight = np.repeat(np.arange(4)[:, None], primitive.states, 1)
    walks = [fixed_options(primitive, straight, steps) for steps in (1, 2, 4)]
    wandering = geometric_options(primitive, rng.integers(0, 4, (aimless, primitive.states)), 0.5)
    names = tuple(f"{way} {steps}" for steps in (1, 2, 4) for way in ("right", "down", "left", "up"))
    family = Family(joined(*walks, wandering), rng.dirichlet(np.full(tasks, 2.0)), np.eye(primitive.states)[middle])
    return family, names + tuple(f"aimless {i + 1}" for i in range(aimless))


def lock(rng: np.random.Generator, options: int, size: int, sigma: float, tasks: int, gamma: float = 0.9) -> Family:
    """Tasks drawn from the lock family, written out (small |Z| only: a state for every combination begun).

    A state is the set of options taken so far, in rising order; any other option ends the task with nothing. Taking
    the last of `size` options pays 1 if the task accepts that combination. The first combination, options 0..size-1,
    is always accepted, any other with probability 1 - sigma, independently: Delta(M, Z') is 0 or gamma^(size - 1) for
    |Z'| = size.
    """
    begun = [taken for length in range(size) for taken in combinations(range(options), length)]
    number = {taken: i for i, taken in enumerate(begun)}
    end = len(begun)
    complete = list(combinations(range(options), size))
    accepted = rng.random((tasks, len(complete))) >= sigma
    accepted[:, 0] = True
    kernel = np.zeros((options, end + 1, end + 1))
    reward = np.zeros((tasks, options, end + 1))
    for taken, state in number.items():
        for z in range(max(taken, default=-1) + 1, options):
            after = (*taken, z)
            kernel[z, state, number.get(after, end)] = gamma
            if len(after) == size:
                reward[:, z, state] = accepted[:, complete.index(after)]
    kernel[:, :, end] = 0.0
    return Family(SemiMDP(kernel, reward), np.full(tasks, 1 / tasks), np.eye(end + 1)[0])
