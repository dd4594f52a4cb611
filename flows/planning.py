"""The plan of a run: its stages in order, which are there already, and what the others would take.

Composition only; the figures are ra3core/plan's. No model is loaded, no benchmark is read and no hub is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from flows.comparison import check_refresh
from flows.composition import Composition, Stage, outside, standing_for
from flows.environment import CHECKOUT
from flows.fitting import Advice, advise
from ra3core.arms import TuneConfig
from ra3core.artifacts import Artifact, Store, content_digest
from ra3core.config import (
    EMBEDDED,
    AnalysisConfig,
    BaseConfig,
    BenchmarkConfig,
    BootstrapConfig,
    EStepConfig,
    MStepConfig,
    RLVRConfig,
    RunConfig,
    RuntimeConfig,
)
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import load as load_benchmark
from ra3core.plan import machines, memory, work
from ra3core.plan.machines import Machine
from ra3core.plan.memory import Memory
from ra3core.plan.shapes import Shape, local_folder, shape_of
from ra3core.plan.work import Counts, Work
from tasks.evaluate import Asked, external_digest, texts_digest
from tasks.external import chat_digest
from tasks.versioning import recorded_digest

DEVICE = "cuda"
READ_MODEL, READ_TASKS = 2**28, 2**20  # bytes up to which a model's folder, and a benchmark's file, are read
_UNREAD = "unread"  # in place of a digest

State = Literal["cached", "to run", "after its inputs"]


@dataclass(frozen=True)
class Row:
    """A stage of the plan. shared: the earlier stage whose artifact it is. needs: names of stages that it waits for.

    seconds: on one device. memory: None where no model is held, or nothing is run.
    """

    name: str
    kind: str
    seed: int
    state: State
    shared: str | None
    work: Work
    operations: float
    seconds: float
    memory: Memory | None
    disk: float
    scratch: float
    needs: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name without its seed."""
        return self.name.rpartition("/")[0]

    @property
    def runs(self) -> bool:
        return self.state != "cached" and self.shared is None


@dataclass(frozen=True)
class Plan:
    """Everything that is printed. found: where the model's shape was found. missing: benchmark -> its file that is not
    there. width: bytes of a number in the M-step.
    """

    name: str
    shape: Shape
    found: str
    machine: Machine
    rows: list[Row]
    advice: list[Advice]
    missing: dict[str, str]
    width: int

    @property
    def kept(self) -> bool:
        """Whether a kept base model may be copied, in place of one being trained."""
        return any(row.kind == "base" and not row.work.tokens for row in self.to_run)

    @property
    def to_run(self) -> list[Row]:
        return [row for row in self.rows if row.runs]

    @property
    def device_seconds(self) -> float:
        return sum(row.seconds for row in self.to_run)

    @cached_property
    def wall_seconds(self) -> float:
        """With every stage on one of the devices."""
        stages = [(row.name, row.seconds if row.runs else 0.0, row.needs) for row in self.rows]
        return machines.wall(stages, self.machine.devices)

    @property
    def cost(self) -> float | None:
        """Of all devices until the last stage is over."""
        machine = self.machine
        return None if machine.price is None else machine.price * machine.devices * self.wall_seconds / 3600

    @property
    def disk(self) -> float:
        """Bytes of what stays in the store."""
        return sum(row.disk for row in self.to_run)

    @property
    def scratch(self) -> float:
        """Bytes of checkpoints while stages run, at most: of as many as there are devices, the largest."""
        return sum(sorted((row.scratch for row in self.to_run), reverse=True)[: self.machine.devices])

    @property
    def memories(self) -> dict[str, Memory]:
        """Kind of stage -> the largest that is run."""
        found: dict[str, list[Memory]] = {}
        for row in self.to_run:
            if row.memory is not None:
                found.setdefault(row.kind, []).append(row.memory)
        return {kind: memory.largest(each) for kind, each in found.items()}


def plan(
    config: RunConfig,
    runtime: RuntimeConfig,
    refresh: Sequence[str],
    machine: Machine,
    parameters: int | None,
    reload: Callable[[Sequence[str]], RunConfig],
) -> Plan:
    """The plan of a run on a machine.

    refresh: stages that are run again. parameters: of a model whose shape is not known. reload: the configuration with
    further settings, for advice. Raises UserError for a model of unknown size.
    """
    wanted = benchmarks(config, Store(runtime.root / "artifacts"))
    check_refresh(refresh, config, wanted)
    shape, found = shape_of(config.base, parameters)
    planned = _Planned(config, runtime, refresh, machine, shape)
    planned.compose(wanted)
    rows = list(planned.rows.values())

    def at(settings: Sequence[str]) -> dict[str, Row]:
        try:
            other = reload(settings)
        except UserError:  # settings that do not go together
            return {}
        again = _Planned(other, runtime, refresh, machine, shape)
        again.compose(benchmarks(other))  # what is there does not matter for what fits
        return again.rows

    advice = list(advise(rows, config, machine, at))
    named = {entry.name: entry.data for entry in config.evaluation.benchmarks}
    missing = {name: file for name, file in named.items() if file and not Path(file).expanduser().exists()}
    width = memory.numbers_of(config.m_step).width
    return Plan(config.name, shape, found, machine, rows, advice, missing, width)


def benchmarks(config: RunConfig, store: Store | None = None) -> list[Asked]:
    """What tasks.evaluate.asked finds: benchmarks sampled as each officially is, their files as a rule not looked at.

    store: where evaluations are looked for; if there are any, small files are read for their digests.
    """
    evaluation = config.evaluation.model_copy(update={"verifier": config.verifier})
    look = store is not None and store.holds_any("evaluate")
    found = []
    for entry in evaluation.benchmarks:
        if entry.name == EMBEDDED:
            found.append(Asked(evaluation.settled(entry, {}), None))
            continue
        known = work.BENCHMARKS.get(entry.name.partition(":")[0])
        if known is None:
            expected = ", ".join((EMBEDDED, *work.BENCHMARKS))
            raise UserError(f"evaluation.benchmarks: {entry.name}: expected one of {expected}")
        official = {name: value for name, value in asdict(known).items() if name not in ("problems", "prompt")}
        tasks = outside(entry.slug, f"{_UNREAD} {entry.name}")
        texts = outside(f"{entry.slug}-texts", f"{_UNREAD} texts of {entry.name}")
        data = None if entry.data is None else Path(entry.data).expanduser().resolve()
        if look and data is not None and data.is_file() and data.stat().st_size <= READ_TASKS:
            read = load_benchmark(entry.name, data)
            tasks = Store.external(entry.slug, data, external_digest(entry, data, read), {"tasks": len(read.problems)})
            texts = Store.external(texts.manifest.stage, data, texts_digest(entry, read.texts()))
        found.append(Asked(evaluation.settled(entry, official), tasks, texts))
    return found


class _Planned(Composition):
    """rows: by name, in order."""

    def __init__(
        self, config: RunConfig, runtime: RuntimeConfig, refresh: Sequence[str], machine: Machine, shape: Shape
    ) -> None:
        tracked, model = config.suite == "tracked", config.base.model
        data = outside("data", recorded_digest(runtime.root) if tracked else f"{_UNREAD} data")
        digest = _model_digest(model, config.base.chat) if model else None
        base = outside("base", digest or f"{_UNREAD} {model}") if model else None
        super().__init__(config, runtime, data, base)
        self.refresh = refresh
        self.store, self.machine, self.shape = Store(runtime.root / "artifacts"), machine, shape
        self.rows: dict[str, Row] = {}
        self._planned: set[str] = set()  # digests that stand for what is not there
        self._first: dict[tuple[str, str], str] = {}  # kind and key -> the stage that makes it
        self._made_by: dict[str, str] = {}  # digest -> the same
        self._counts: dict[str, Counts] = {}  # digest -> what it holds

    def artifact(self, stage: Stage) -> Artifact:
        known = not any(one.digest in self._planned or one.digest.startswith(_UNREAD) for one in stage.inputs.values())
        found = self._look_up(stage) if known and not stage.refreshed(self.refresh) else None
        state: State = "cached" if found else "to run" if known else "after its inputs"
        counts = self._counted(stage, found)
        done = self._work(stage, counts, found)
        made = found or standing_for(stage, self._figures(stage, done))
        first = self._first.setdefault((stage.kind, made.key), stage.name)
        self._made_by.setdefault(made.digest, stage.name)
        self._counts[made.digest] = counts
        if found is None:
            self._planned.add(made.digest)
        lora = bool(getattr(stage.config, "lora", None))
        works = found is None and done.tokens > 0
        shape, numbers = self.shape, memory.numbers_of(stage.config)
        self.rows[stage.name] = Row(
            stage.name,
            stage.kind,
            stage.seed,
            state,
            None if first == stage.name else first,
            done,
            machines.operations(done, shape, lora),
            machines.seconds(done, shape, lora, numbers.width, self.machine, numbers.recomputed) if works else 0.0,
            memory.memory(stage.config, shape, counts, DEVICE) if works else None,
            memory.artifact(stage.config, stage.kind, shape, counts) if found is None else 0.0,
            memory.checkpoints(stage.config, shape) if works else 0.0,
            tuple(self._made_by[one.digest] for one in stage.inputs.values() if one.digest in self._made_by),
        )
        return made

    def _look_up(self, stage: Stage) -> Artifact | None:
        if not self.store.holds_any(stage.kind):  # then its key, for which code is read, is not needed
            return None
        key = self.store.key(stage.kind, stage.function, stage.config, stage.inputs, stage.seed)
        return self.store.peek(stage.kind, key)

    def _counted(self, stage: Stage, found: Artifact | None) -> Counts:
        """The texts that a stage makes, or works on."""
        metrics = found.metrics if found else None
        if stage.kind == "demonstrations":
            return work.demonstrations(self.config.corpus, metrics)
        if stage.kind == "rlvr_tasks":
            return work.tasks(self.config.data, self.config.rlvr_tasks, metrics)
        given = [self._counts[one.digest] for one in stage.inputs.values() if one.digest in self._counts]
        read = self._counts.get(next((d.digest for r, d in stage.inputs.items() if r in _TEXTS), ""))
        counts = read or (given[0] if given else Counts(0, 0.0))
        if isinstance(stage.config, BootstrapConfig):
            return work.annotated(counts, stage.config, metrics)
        if stage.kind == "distil":
            return work.annotated(counts, self.config.bootstrap)
        return counts

    def _work(self, stage: Stage, counts: Counts, found: Artifact | None) -> Work:
        if found is not None:
            tokens, trained = (int(found.metrics.get(name) or 0) for name in ("tokens", "train_tokens"))
            modelled = isinstance(stage.config, _MODELLED)
            return Work(trained, max(tokens - trained, 0), basis="run") if modelled else Work(basis="run")
        vocabulary = self.shape.vocabulary
        match stage.config:
            case BaseConfig():
                folder = stage.config.checkpoint
                if folder and (CHECKOUT / folder.replace("{seed}", str(stage.seed))).is_dir():
                    return Work()  # it is copied
                return work.pretrain(stage.config)
            case EStepConfig():
                return work.e_step(stage.config, counts, vocabulary, DEVICE)
            case BootstrapConfig():
                plain = self._counts.get(stage.inputs["demonstrations"].digest, counts)
                return work.bootstrap(stage.config, plain, vocabulary, DEVICE)
            case MStepConfig():
                matched = [self._counts[one.digest] for role, one in stage.inputs.items() if role.startswith("matched")]
                return work.m_step(stage.config, counts, matched, DEVICE)
            case RLVRConfig():
                return work.rlvr(stage.config, counts, vocabulary, DEVICE)
            case BenchmarkConfig():
                if stage.config.benchmark != EMBEDDED:
                    return work.evaluate(stage.config, stage.inputs["tasks"].metrics.get("tasks"))
                tuned = stage.label.startswith("validate_")
                return work.evaluate(
                    stage.config, self.config.tuning.tasks if tuned else self.config.data.evaluation_tasks
                )
            case AnalysisConfig():
                return work.analysis(stage.config, counts)
        return Work()

    def _figures(self, stage: Stage, done: Work) -> dict[str, Any]:
        """What the composition reads of a stage that is not there: tokens to match, and a tuning's choice."""
        chosen = {"chosen": stage.config.values[0]} if isinstance(stage.config, TuneConfig) else {}
        return {**done.metrics, **chosen}


_TEXTS = ("demonstrations", "annotated", "tasks")
_MODELLED = (BaseConfig, EStepConfig, BootstrapConfig, MStepConfig, RLVRConfig, BenchmarkConfig, AnalysisConfig)


def _model_digest(name: str, chat: bool) -> str | None:
    """What tasks.external would call the model's content, as far as that is to be had without a hub: the revision in
    the hub's cache, or the digest of a small folder."""
    folder = local_folder(name)
    if folder is None:
        return None
    digest = folder.name
    if folder.parent.name != "snapshots":
        if sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > READ_MODEL:
            return None
        digest = content_digest(folder)
    return chat_digest(digest) if chat else digest
