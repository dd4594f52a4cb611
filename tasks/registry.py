"""The registry: the run's final model becomes a version of a registered MLflow model, and champion if it earned it.

A version holds the weights, the tokenizer, the card and the results by which it can be compared anywhere
(tasks/packaging.py), and tags that say where it comes from. The alias `champion` moves when the gate
(ra3core/evaluation/gate.py) shows the new model to be better; a champion that was evaluated on other tasks or by other
settings is evaluated on this run's first. docs/registry.md has the rules; `ra3 promote` applies them by hand.

The registry asks MLflow itself and not through tasks/tracking.py: a version can only be made while the server answers.
When it does not, the run goes on, the decision says why nothing was registered, and the same command does it later.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from ra3core.artifacts import Artifact, content_digest
from ra3core.config import BenchmarkConfig
from ra3core.errors import UserError
from ra3core.evaluation import gate
from ra3core.evaluation.gate import Measured
from ra3core.report.card import Facts, licence_text, lineage, model_card, summary
from ra3core.stage import Context
from tasks.evaluate import asked, evaluate, label
from tasks.packaging import PackageConfig
from tasks.runner import Runner
from tasks.session import Session, StageFunction
from tasks.tracking import links
from tasks.versions import CHAMPION, RESULTS, Decision, Registry, Unreachable, judge


def register(session: Session, made: Mapping[str, Artifact], report: Artifact, commit: str | None) -> Decision | None:
    """Register the run's final model, unless it is registered already, and let the gate decide; None when turned off.

    made: "stage/seed" (and "data") -> artifact, all of the run. report: named in the version's tags.
    Raises UserError when an artifact of the run is damaged.
    """
    settings = session.config.registry
    if not settings.enabled:
        return None
    runs = links(made, session.tracking.uri)
    facts = Facts(settings.model, settings.arm, session.config.seed, session.config, made, runs, commit)
    if f"{facts.stage}/{facts.seed}" not in made:
        return Decision(settings.model, "not registered", reason=f"this run trained no {facts.arm} (registry.arm)")
    run_id = session.tracking.run_id
    try:
        registry = Registry(session.tracking.uri, settings.model)
        version = registry.find(facts.model.digest)
        new = _measured(facts)
        if version is None:
            version = _add(registry, session, facts, new, report, run_id)
        while True:
            champion = registry.champion()
            decision = _decide(registry, session, facts, new, version, champion)
            now = registry.champion()
            if (now and now.version) == (champion and champion.version):  # nobody else has moved it meanwhile
                registry.record(decision, run_id)
                return decision
    except Unreachable as error:
        return Decision(settings.model, "not registered", reason=f"{error}; the same command registers it later")


def _add(
    registry: Registry, session: Session, facts: Facts, new: Sequence[Measured], report: Artifact, run_id: str
) -> ModelVersion:
    """Package the model in a child process, and make it a version."""
    settings = session.config.registry
    results = {
        "arm": facts.arm,
        "seed": facts.seed,
        "level": settings.level,
        "resamples": settings.resamples,
        "benchmarks": [one.plain() for one in new],
    }
    config = PackageConfig(
        name=settings.model,
        card=model_card(facts),
        results=json.dumps(results, indent=1) + "\n",
        licence=licence_text(facts),
    )
    session.store.root.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=session.store.root, prefix=".register-") as folder,
        session.display.stage("register") as show,
        Runner(session.runtime) as runner,
    ):
        out = Path(folder) / "out"
        function = StageFunction("tasks.packaging", "package")
        runner.run(function, config, Context({"model": facts.model.path}, out, Path(folder)), show)
        tags = _tags(facts, report) | {"model.digest": content_digest(out / "model")}
        return registry.add(run_id, out, tags, summary(facts))


def _decide(
    registry: Registry,
    session: Session,
    facts: Facts,
    new: Sequence[Measured],
    version: ModelVersion,
    champion: ModelVersion | None,
) -> Decision:
    settings = session.config.registry
    this = str(version.version)
    if champion is None:
        return Decision(registry.model, "first", this)
    against = str(champion.version)
    if against == this:
        return Decision(registry.model, "same", this, against)
    try:
        old = _champion_measured(registry, session, facts, new, champion)
    except UserError as error:
        return Decision(registry.model, "not compared", this, against, reason=str(error))
    return judge(registry.model, this, against, new, old, settings.level, settings.resamples)


def _champion_measured(
    registry: Registry, session: Session, facts: Facts, new: Sequence[Measured], champion: ModelVersion
) -> list[Measured]:
    """The champion's results on the benchmarks of `new`: its own where they are comparable, else measured now.

    Raises UserError when its model cannot be fetched or run.
    """
    stored = {one.benchmark: one for one in registry.measured(champion)}
    found = []
    for one in new:
        own = stored.get(one.benchmark)
        if own is not None and one.differs(own) is None:
            found.append(own)
            continue
        name = champion.tags.get("artifact.digest", f"{registry.model}-{champion.version}")[:16]
        model = registry.fetch(champion, session.runtime.root / "artifacts" / "external" / f"registered-{name}")
        benchmark = next(b for b in asked(session.config, session.runtime.root) if b.config.benchmark == one.benchmark)
        config = benchmark.config.model_copy(update={"modes": [gate.MODE]})
        tasks = benchmark.tasks or facts.made["data"]
        state: Any = evaluate.fn(session, facts.seed, label(CHAMPION, config), model, tasks, config)
        found.append(_read(state.data))
    return found


def _measured(facts: Facts) -> list[Measured]:
    """What this run measured of its final model, in the order of its benchmarks."""
    return [_read(facts.made[_evaluation(facts, entry.name)]) for entry in facts.config.evaluation.benchmarks]


def _evaluation(facts: Facts, benchmark: str) -> str:
    return f"{label(facts.arm, BenchmarkConfig(benchmark=benchmark))}/{facts.seed}"


def _read(evaluation: Artifact) -> Measured:
    results = json.loads((evaluation.path / RESULTS).read_text())
    return gate.measured(evaluation.manifest.model_dump(), results)


def _tags(facts: Facts, report: Artifact) -> dict[str, str]:
    """Where a version comes from: digests, and the tracking runs that made what it descends from."""
    ancestors = lineage(facts.made, f"{facts.stage}/{facts.seed}")
    return {
        "artifact.digest": facts.model.digest,
        "data.digest": facts.made["data"].digest,
        "report.digest": report.digest,
        "preset": facts.config.name,
        "seed": str(facts.seed),
        "arm": facts.arm,
        **({"git_commit": facts.commit} if facts.commit else {}),
        **{f"parent.{one.name}": one.digest for one in ancestors},
        **{f"run.{one.name}": facts.runs[one.name] for one in ancestors if one.name in facts.runs},
    }
