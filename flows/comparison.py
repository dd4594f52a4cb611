"""The paper's comparison as Prefect tasks: which stages every arm is made of, from the data on.

Composition only: every box is a task of tasks/ over a stage function of ra3core. The flows of flows/pipeline.py and
flows/sweep.py call `comparison`. Futures go by "stage/seed", as the report and the trackers name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect.futures import PrefectFuture

from ra3core.artifacts import Artifact
from ra3core.config import RunConfig
from ra3core.errors import UserError
from tasks.base import base
from tasks.bootstrap import submit_bootstrap
from tasks.corpus import corpus, demonstrations, rlvr_tasks
from tasks.data import data
from tasks.e_step import e_step
from tasks.evaluate import Asked, label, submit_evaluate
from tasks.m_step import m_step
from tasks.rlvr import rlvr
from tasks.session import Session

Future = PrefectFuture[Artifact]

# Who gets a free slot first: what most waits for, and what takes long; evaluations fill the gaps.
RA3, LONG, CONTROL, LEAF = range(4)

EVERY_MODE = ("base", "ntp", "ntp_compute", "ra3")
FREE_ONLY = ("ra3_no_rl", "ntp_rlvr", "ra3_rlvr")
KINDS = ("corpus", "demonstrations", "rlvr_tasks", "base", "e_step", "bootstrap", "m_step", "rlvr", "evaluate")


def comparison(
    session: Session, seeds: Sequence[int], benchmarks: Sequence[Asked], *, rl: bool
) -> tuple[dict[str, Future], list[Future]]:
    """Every arm and control for every seed, and their evaluations; and the shards of these, where there are any.

    rl: with RLVR from NTP and from RA3.
    """
    first = session.config.seed
    shards: list[Future] = []
    made: dict[str, Future] = {"data": data.submit(session)}
    made[f"corpus/{first}"] = shared = corpus.submit(session, first, made["data"])
    if rl:
        made[f"rlvr_tasks/{first}"] = rlvr_tasks.submit(session, first, made["data"])
    for seed in seeds:
        arms = mid_training(session, seed, made["data"], shared, shards)
        if rl:
            problems = made[f"rlvr_tasks/{first}"]
            arms["ntp_rlvr"] = rlvr.submit(session, seed, "ntp_rlvr", arms["ntp"], problems, rank=LONG)
            arms["ra3_rlvr"] = rlvr.submit(session, seed, "ra3_rlvr", last_m_step(session, arms), problems)
        arms |= evaluations(session, seed, made["data"], benchmarks, arms, shards)
        made |= {f"{stage}/{seed}": future for stage, future in arms.items()}
    return made, shards


def mid_training(session: Session, seed: int, data: Future, corpus: Future, shards: list[Future]) -> dict[str, Future]:
    """RA3 and its controls of one seed, up to the mid-trained models: stage -> artifact to come."""

    def annotated_by(label: str, policy: Future, likelihood: Future, rank: int = RA3) -> Future:
        annotated, parts = submit_bootstrap(session, seed, label, policy, likelihood, expert, rank)
        shards.extend(parts)
        return annotated

    start = base.submit(session, seed, corpus)
    expert = demonstrations.submit(session, seed, data)
    made = {"base": start, "demonstrations": expert}

    # RA3: rounds of E-step, bootstrap and M-step
    model = start
    rounds = range(1, session.config.rounds + 1)
    for r in rounds:
        made[f"e_step_{r}"] = policy = e_step.submit(session, seed, f"e_step_{r}", model, expert)
        made[f"bootstrap_{r}"] = annotated = annotated_by(f"bootstrap_{r}", policy, model)
        made[f"m_step_{r}"] = model = m_step.submit(session, seed, f"m_step_{r}", model, annotated, rank=RA3)
    annotations = [made[f"bootstrap_{r}"] for r in rounds]
    spent = [made[f"e_step_{r}"] for r in rounds] + annotations

    # Controls: next-token prediction with RA3's data, with RA3's compute, and RA3 without reinforcement learning
    made["ntp"] = m_step.submit(session, seed, "ntp", start, expert, rounds=len(rounds), rank=LONG)
    made["ntp_compute"] = m_step.submit(
        session, seed, "ntp_compute", start, expert, matched=spent, annotated=annotations, rank=LONG
    )
    made["bootstrap_no_rl"] = untrained = annotated_by("bootstrap_no_rl", start, start, CONTROL)
    made["ra3_no_rl"] = m_step.submit(session, seed, "ra3_no_rl", start, untrained, rank=CONTROL)
    return made


def evaluations(
    session: Session,
    seed: int,
    data: Future,
    benchmarks: Sequence[Asked],
    arms: Mapping[str, Future],
    shards: list[Future],
) -> dict[str, Future]:
    """Every arm that there is on every benchmark, with the same decoding budget."""
    made = {}
    models = {**arms, "ra3": last_m_step(session, arms)}
    for benchmark in benchmarks:
        for arm in (*EVERY_MODE, *FREE_ONLY):
            if arm not in models:
                continue
            config = benchmark.config
            if arm in FREE_ONLY:
                config = config.model_copy(update={"modes": ["free"]})
            name, tasks = label(arm, config), benchmark.tasks or data
            made[name], parts = submit_evaluate(session, seed, name, models[arm], tasks, config, LEAF)
            shards.extend(parts)
    return made


def last_m_step(session: Session, arms: Mapping[str, Future]) -> Future:
    """RA3 is what leaves the last round."""
    return arms[f"m_step_{session.config.rounds}"]


def check_refresh(refresh: Sequence[str], config: RunConfig, benchmarks: Sequence[Asked]) -> None:
    """Raises UserError for a stage of `--refresh` that no run of this configuration has."""
    rounds = [f"{kind}_{r}" for kind in ("e_step", "bootstrap", "m_step") for r in range(1, config.rounds + 1)]
    labels = [label(arm, benchmark.config) for benchmark in benchmarks for arm in (*EVERY_MODE, *FREE_ONLY)]
    arms = [arm for arm in (*EVERY_MODE, *FREE_ONLY) if arm not in ("base", "ra3")]
    known = dict.fromkeys([*KINDS, *rounds, "bootstrap_no_rl", *arms, *labels, "report"])
    for name in refresh:
        stage, slash, seed = name.partition("/")
        if stage not in known or (slash and not seed.isdigit()):
            raise UserError(f"--refresh {name}: expected a stage, or stage/seed, out of {', '.join(known)}")
