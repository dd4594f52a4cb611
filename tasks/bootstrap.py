"""Bootstrap: the policy annotates every demonstration with its rationales, here or in shards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from ra3core.artifacts import Artifact
from ra3core.config import BootstrapConfig, BootstrapShard
from tasks.session import AS_CONFIGURED, Changes, Session, StageFunction, stage_task

if TYPE_CHECKING:
    from prefect import State
    from prefect.futures import PrefectFuture

MODULE = "ra3core.learning.bootstrap"

Future: TypeAlias = "PrefectFuture[Artifact]"


@stage_task("bootstrap", "{label} seed {seed}")
def bootstrap(
    session: Session,
    seed: int,
    label: str,
    policy: Artifact,
    likelihood: Artifact,
    demonstrations: Artifact,
    changes: Changes = AS_CONFIGURED,
    rank: int = 0,
    shards: Sequence[Artifact] = (),
) -> State[Artifact]:
    """Annotated demonstrations; of several rationales the one that `likelihood` gains most from is kept.

    With an infinite think penalty nothing is annotated: the limit in which RA3 is next-token prediction.
    changes: settings in which a control differs from the configuration.
    shards: from `annotate_shard`, merged; without them the demonstrations are annotated here. The result is the same.
    """
    inputs = {"policy": policy, "likelihood": likelihood, "demonstrations": demonstrations}
    function, config = StageFunction(MODULE, "bootstrap"), _config(session, changes)
    return session.stage("bootstrap", function, config, inputs, label=label, seed=seed, rank=rank, shards=shards)


@stage_task("annotate_shard", "{label} shard {shard} seed {seed}")
def annotate_shard(
    session: Session,
    seed: int,
    label: str,
    policy: Artifact,
    likelihood: Artifact,
    demonstrations: Artifact,
    shard: int,
    changes: Changes = AS_CONFIGURED,
    rank: int = 0,
) -> State[Artifact]:
    """A part of `bootstrap`; shard: 1 .. runtime.shards."""
    shards = session.runtime.shards
    inputs = {"policy": policy, "likelihood": likelihood, "demonstrations": demonstrations}
    whole = _config(session, changes)
    if done := session.made("bootstrap", StageFunction(MODULE, "bootstrap"), whole, inputs, label, seed):
        return done
    config = BootstrapShard(**whole.model_dump(), shard=shard, shards=shards)
    function, part_of = StageFunction(MODULE, "annotate_shard"), ("bootstrap", label)
    label = f"{label}:shard_{shard}_of_{shards}"
    return session.stage("annotate_shard", function, config, inputs, label=label, seed=seed, rank=rank, part_of=part_of)


def submit_bootstrap(
    session: Session,
    seed: int,
    label: str,
    policy: Artifact | Future,
    likelihood: Artifact | Future,
    demonstrations: Artifact | Future,
    changes: Changes = AS_CONFIGURED,
    rank: int = 0,
) -> tuple[Future, list[Future]]:
    """Submit `bootstrap` and, where runtime.shards asks for more than one, its shards, which it merges.

    Returns what is to come, and the shards: whoever waits should wait for them too, since a shard that fails leaves the
    merge not run, without an error of its own.
    """
    shards: list[Future] = []
    if session.runtime.shards > 1:
        from prefect import unmapped

        shards = annotate_shard.map(
            unmapped(session),
            unmapped(seed),
            unmapped(label),
            unmapped(policy),
            unmapped(likelihood),
            unmapped(demonstrations),
            range(1, session.runtime.shards + 1),
            unmapped(changes),
            unmapped(rank),
        )
    merged = bootstrap.submit(session, seed, label, policy, likelihood, demonstrations, changes, rank, shards)
    return merged, shards


def _config(session: Session, changes: Changes) -> BootstrapConfig:
    config = session.config.bootstrap.model_copy(update=dict(changes))
    e_step = session.config.e_step
    if config.decision == "gain":  # the E-step's reward, maximised by search
        terms = ("think_penalty", "unterminated_penalty", "normalise", "given_act")
        return config.model_copy(update={name: getattr(e_step, name) for name in terms})
    if math.isinf(e_step.think_penalty):
        return config.model_copy(update={"think_penalty": e_step.think_penalty})
    return config
