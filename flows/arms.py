"""The arms of one seed: which stages each is made of, from the base model to the model that is evaluated.

Composition only. docs/comparison.md says what every arm controls for; stages are named "e_step_1", "bootstrap_1" and
"m_step_1" for RA3's rounds, "bootstrap_<arm>" for a control's annotated demonstrations, and as the arm itself for the
stage whose model it is. A control with rounds of its own has "_round_1" and so on behind the names of all but the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ra3core.artifacts import Artifact
from ra3core.config import RunConfig
from ra3core.stage import ON_THE_WAY
from tasks.base import base
from tasks.bootstrap import submit_bootstrap
from tasks.controls import distil, shuffle
from tasks.corpus import HeldOut, demonstrations
from tasks.e_step import e_step
from tasks.m_step import m_step
from tasks.rlvr import rlvr
from tasks.session import AS_CONFIGURED, Changes, Session

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

Future: TypeAlias = "PrefectFuture[Artifact]"
Rates: TypeAlias = "Mapping[str, float | Future]"
"""Arm -> learning rate, or the choice to come of its tuning; for others the configuration's holds."""


class LearningRates(NamedTuple):
    """The arms' own rates in each kind of training."""

    m_step: Rates
    e_step: Rates
    rlvr: Rates


# Who gets a free slot first: what most waits for, and what takes long; evaluations fill the gaps.
RA3, LONG, CONTROL, LEAF = range(4)
RANKS = {"ra3": RA3, "ntp": LONG, "ntp_compute": LONG, "ntp_flops": LONG}


class Loop(NamedTuple):
    """An arm that repeats RA3's round, and where it differs. reinforced: with an E-step; else the model annotates."""

    reinforced: bool = True
    e_step: Changes = AS_CONFIGURED
    bootstrap: Changes = AS_CONFIGURED


LOOPS = {
    "ra3": Loop(),
    "ra3_no_rl": Loop(reinforced=False),
    "best_of_g": Loop(reinforced=False, bootstrap={"decision": "gain"}),  # thinks where a draw from the model pays
    "ra3_sampled": Loop(bootstrap={"samples": 1}),  # the policy's first rationale, not the likeliest of several
    "brite": Loop(e_step={"window": 1}, bootstrap={"window": 1}),  # a rationale is for the next line alone
}


def mid_training(
    session: Session,
    seed: int,
    data: Future,
    corpus: Future,
    rates: LearningRates,
    others: list[Future],
    texts: HeldOut,
) -> dict[str, Future]:
    """The base model and every mid-trained arm of the configuration: stage -> artifact to come.

    others: is given what has to be waited for besides. texts: of the benchmarks, held out of the demonstrations.
    """
    config, arms = session.config, session.config.arms.mid_trained
    rounds = range(1, config.rounds + 1)
    made = {"base": base.submit(session, seed, corpus)}
    made["demonstrations"] = demonstrations.submit(session, seed, data, texts)
    start, expert = made["base"], made["demonstrations"]

    def annotate(arm: str, label: str, policy: Future, likelihood: Future, changes: Changes) -> Future:
        rank = RANKS.get(arm, CONTROL)
        made[label], shards = submit_bootstrap(session, seed, label, policy, likelihood, expert, changes, rank)
        others.extend(shards)
        return made[label]

    def train(arm: str, label: str, model: Future, on: Future, **options: object) -> Future:
        options |= {"learning_rate": rates.m_step.get(arm), "rank": RANKS.get(arm, CONTROL)}
        options["on_the_way"] = arm in config.arms.during
        made[label] = m_step.submit(session, seed, label, model, on, **options)
        return made[label]

    # RA3, and what differs from it in one thing: rounds of E-step, bootstrap and M-step
    for arm in filter(arms.__contains__, LOOPS):
        loop, model = LOOPS[arm], start
        for r in rounds:
            improved, annotated, trained = stages_of_round(arm, r, config.rounds)
            policy = model
            if loop.reinforced:
                rank = RANKS.get(arm, CONTROL)
                rate = rates.e_step.get(arm.removesuffix("_sampled"))
                policy = e_step.submit(session, seed, improved, model, expert, loop.e_step, rate, rank)
                made[improved] = policy
            demonstrated = annotate(arm, annotated, policy, model, loop.bootstrap)
            model = train(arm, trained, model, demonstrated)

    # Next-token prediction on RA3's demonstrations as they are, with RA3's data, and with its compute
    if "ntp" in arms:
        train("ntp", "ntp", start, expert, rounds=config.rounds)
    annotations = [made[f"bootstrap_{r}"] for r in rounds] if "ra3" in arms else []
    for arm in filter(arms.__contains__, ("ntp_compute", "ntp_flops")):
        spent = [made[f"e_step_{r}"] for r in rounds] + annotations
        train(arm, arm, start, expert, matched=spent, annotated=annotations, operations=arm == "ntp_flops")

    # Other rationales: the author's, RA3's in the wrong places, none
    if "distilled" in arms:
        made["bootstrap_distilled"] = distil.submit(session, seed, "bootstrap_distilled", expert, CONTROL)
        train("distilled", "distilled", start, made["bootstrap_distilled"], rounds=config.rounds)
    if "shuffled" in arms:
        model = start
        for r in rounds:
            _, label, trained = stages_of_round("shuffled", r, config.rounds)
            made[label] = shuffle.submit(session, seed, label, annotations[r - 1], CONTROL)
            model = train("shuffled", trained, model, made[label])
    if "no_thinking" in arms:
        never = annotate("no_thinking", "bootstrap_no_thinking", start, start, {"think_penalty": math.inf})
        train("no_thinking", "no_thinking", start, never, rounds=config.rounds)
    return made


def after_rlvr(
    session: Session, seed: int, arms: Mapping[str, Future], tasks: Future, rates: Rates
) -> dict[str, Future]:
    """RLVR from every arm that the configuration names: "<arm>_rlvr" -> artifact to come."""
    made = {}
    for arm in session.config.arms.rlvr:
        label, model = f"{arm}_rlvr", arms[stage_of(arm, session.config)]
        rank = RANKS.get(arm, CONTROL)
        made[label] = rlvr.submit(session, seed, label, model, tasks, learning_rate=rates.get(arm), rank=rank)
    return made


def stage_of(arm: str, config: RunConfig) -> str:
    """The stage whose model an arm is: RA3 is what leaves its last round."""
    return f"m_step_{config.rounds}" if arm == "ra3" else arm


def on_the_way(config: RunConfig) -> dict[str, tuple[str, str]]:
    """Models between the base model and those of `arms.during`: what each is called -> its stage, and its folder there.

    After "ntp_at_1_of_3" a third of NTP's steps; "m_step_1" is what leaves a round that is not the last.
    """
    found = {}
    for arm in config.arms.during:
        for r in rounds_of(arm, config):
            stage = stages_of_round(arm, r, config.rounds)[2]
            found |= {f"{stage}_at_{name}": (stage, f"{ON_THE_WAY}/{name}/model") for name in config.m_step.on_the_way}
            if r < config.rounds:
                found[stage] = (stage, "model")
    return found


def rounds_of(arm: str, config: RunConfig) -> range:
    """The rounds in which an arm's model is trained; one that has no rounds is trained in the last."""
    return range(1 if arm in (*LOOPS, "shuffled") else config.rounds, config.rounds + 1)


def stages_of_round(arm: str, r: int, rounds: int) -> tuple[str, str, str]:
    """What E-step, bootstrap and M-step of a round are called."""
    if arm == "ra3":
        return f"e_step_{r}", f"bootstrap_{r}", f"m_step_{r}"
    name, suffix = arm.removeprefix("ra3_"), "" if r == rounds else f"_round_{r}"
    return f"e_step_{name}{suffix}", f"bootstrap_{name}{suffix}", f"{arm}{suffix}"


def analysed_with(arm: str, config: RunConfig, arms: Mapping[str, Future]) -> dict[str, Future]:
    """What the analysis of an arm's model takes besides (ra3core/analysis/analysis.py): role -> artifact.

    Of the last round: the annotation, the policy that wrote it, and the model before, which was its likelihood.
    """
    rounds, found = config.rounds, {}
    if arm in LOOPS:
        improved, annotated, _ = stages_of_round(arm, rounds, rounds)
        before = arms[stages_of_round(arm, rounds - 1, rounds)[2]] if rounds > 1 else arms["base"]
        policy = arms[improved] if LOOPS[arm].reinforced else before
        found = {"annotated": arms[annotated], "policy": policy, "likelihood": before}
        if LOOPS[arm].reinforced:
            found |= {f"e_step_{r}": arms[stages_of_round(arm, r, rounds)[0]] for r in range(1, rounds + 1)}
    if arm == "distilled":
        found = {"annotated": arms["bootstrap_distilled"], "likelihood": arms["base"]}
    if f"{arm}_rlvr" in arms:
        found["rlvr"] = arms[f"{arm}_rlvr"]
    return found


def stages(config: RunConfig) -> list[str]:
    """Every stage that `mid_training` and `after_rlvr` make, the base model and the demonstrations aside."""
    found = []
    for arm in config.arms.mid_trained:
        for r in rounds_of(arm, config):
            improved, annotated, trained = stages_of_round(arm, r, config.rounds)
            found += [improved] if arm in LOOPS and LOOPS[arm].reinforced else []
            found += [trained] if arm.startswith("ntp") else [annotated, trained]
    return [*found, *config.arms.after_rlvr]
