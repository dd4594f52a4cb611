"""The three corpora of a run, cut from data/ and decontaminated against the evaluation tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ra3core.artifacts import Artifact
from ra3core.config import EMBEDDED, CollectionConfig, CorpusConfig
from ra3core.task_set import TaskSetConfig
from tasks import external
from tasks.session import Session, StageFunction, stage_task

if TYPE_CHECKING:
    from prefect import State

MODULE = "ra3core.corpora.prepare"


HeldOut = Mapping[str, Artifact]
"""Texts of the benchmarks that a run asks for beside its own tasks (tasks.evaluate.held_out), by the input's name."""

NONE: HeldOut = {}


@stage_task("corpus", "corpus")
def corpus(session: Session, seed: int, data: Artifact, held_out: HeldOut = NONE) -> State[Artifact]:
    """What the base model is pre-trained on; drawn by no seed, so that all seeds share it."""
    function, inputs = StageFunction(MODULE, "prepare_corpus"), {"data": data, **held_out}
    return session.stage("corpus", function, session.config.corpus, inputs, label="corpus", seed=seed)


@stage_task("demonstrations", "demonstrations seed {seed}")
def demonstrations(session: Session, seed: int, data: Artifact, held_out: HeldOut = NONE) -> State[Artifact]:
    """The expert demonstrations D_E of one seed, from data/ or from the user's own source.

    What is usable of a source of the user's is collected once for all seeds; whoever comes first does it.
    """
    function, config = StageFunction(MODULE, "prepare_demonstrations"), session.config.corpus
    inputs = {"data": data, **held_out}
    if config.source != "embedded":
        own = external.demonstrations(config.source)
        read = inputs if own is None else {**inputs, "source": own}  # in the key, so that an edited file is read anew
        inputs["collection"] = _collected(session, config, read)
    return session.stage("demonstrations", function, config, inputs, label="demonstrations", seed=seed)


def _collected(session: Session, config: CorpusConfig, inputs: Mapping[str, Artifact]) -> Artifact:
    function = StageFunction("ra3core.corpora.collect", "collect")
    settings = CollectionConfig(**{name: getattr(config, name) for name in CollectionConfig.model_fields})
    state: State[Artifact] = session.stage("collection", function, settings, inputs, label="collection", seed=0)
    assert isinstance(state.data, Artifact)
    return state.data


@stage_task("rlvr_tasks", "rlvr_tasks")
def rlvr_tasks(session: Session, seed: int, data: Artifact, held_out: HeldOut = NONE) -> State[Artifact]:
    """The tasks with unit tests that RLVR trains on, from data/ or from a set of tasks; drawn by no seed."""
    config, inputs, own = session.config.corpus, {"data": data, **held_out}, session.config.rlvr_tasks
    verifier = session.config.verifier
    if own.source == EMBEDDED:
        function = StageFunction(MODULE, "prepare_rlvr_tasks")
        return session.stage("rlvr_tasks", function, config, inputs, label="rlvr_tasks", seed=seed)
    files, source = external.tasks(own.source)
    if files is not None:
        inputs["source"] = files
    rules = config.model_dump(include={"ngram", "max_overlap", "boilerplate"})
    limits = verifier.model_dump(include={"wall_seconds", "memory_mb", "require_isolation"})
    settings = TaskSetConfig(**{**own.model_dump(), "source": source, **rules, **limits})
    function = StageFunction("ra3core.evaluation.prepare_tasks", "prepare_tasks")
    return session.stage("rlvr_tasks", function, settings, inputs, label="rlvr_tasks", seed=seed)
