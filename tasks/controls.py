"""Annotated demonstrations that no policy wrote: oracle comments, and RA3's rationales shuffled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ra3core.arms import AsIs
from ra3core.artifacts import Artifact
from tasks.session import Session, StageFunction, stage_task

if TYPE_CHECKING:
    from prefect import State

MODULE = "ra3core.corpora.rationales"


@stage_task("distil", "{label} seed {seed}")
def distil(session: Session, seed: int, label: str, demonstrations: Artifact, rank: int = 0) -> State[Artifact]:
    """Demonstrations with the comments of whoever wrote them."""
    inputs = {"demonstrations": demonstrations}
    return session.stage("distil", StageFunction(MODULE, "distil"), AsIs(), inputs, label=label, seed=seed, rank=rank)


@stage_task("shuffle", "{label} seed {seed}")
def shuffle(session: Session, seed: int, label: str, annotated: Artifact, rank: int = 0) -> State[Artifact]:
    """`annotated` with its rationales permuted over all places."""
    inputs = {"annotated": annotated}
    return session.stage("shuffle", StageFunction(MODULE, "shuffle"), AsIs(), inputs, label=label, seed=seed, rank=rank)
