"""Configuration: one pydantic section a stage, presets as YAML, any value from the command line.

Nothing here imports torch, so that a bad configuration fails at once. A section holds exactly what decides its
stage's result and is part of the stage's cache key; how and where a run executes is in `RuntimeConfig`, which is
part of no key. Lengths are in tokens, log-likelihoods and penalties in nats.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from ra3core.arms import GRIDS, ArmsConfig, TuningConfig
from ra3core.errors import UserError
from ra3core.filters import FilterConfig
from ra3core.section import NonNegative, Positive, Precision, Rate, Section, Share
from ra3core.stage import Servers
from ra3core.task_set import RLVRTasksConfig

PRESETS = Path(__file__).resolve().parent.parent / "configs"

EMBEDDED = "embedded"
"""The benchmark that needs no file but data/, and the one whose settings stand in `evaluation` itself."""

CHAT_MARK = "ra3_chat"
"""In tokenizer_config.json: the model is prompted through its chat template (`base.chat`)."""

USUAL_KS = (1, 5, 10, 100)
"""Of pass@k, as far as there are as many samples."""


LocalEngine = Literal["built-in", "transformers", "continuous_batching"]
"""What draws completions from a model in this process (docs/engines.md)."""

Engine = Literal[LocalEngine, "http"]
"""http: an OpenAI-compatible server that has the model, of RA3_SERVERS."""


class DataConfig(Section):
    """The embedded suite (ra3core/corpora/suite); decides the bytes of data/ that data.dvc tracks."""

    seed: NonNegative = 0
    web_documents: Positive = 24_000
    outlines: Positive = 8_000
    demonstrations: Positive = 4_500
    rlvr_tasks: Positive = 600
    evaluation_tasks: Positive = 60  # per number of steps
    commented: Share = 0.15  # share of web programs with comments


class CollectionConfig(Section):
    """What is read of a source, what of it is left out, and what decontamination removes."""

    source: str = "embedded"  # embedded | python:FOLDER | parquet:FILES | jsonl:FILES | hub:NAME[:SPLIT[:COLUMN]]
    pool: Positive = 100_000  # demonstrations read from the source before the draw
    documents: Positive | None = None  # files or rows read from it, at most
    tokens: Positive | None = None  # stop reading once the demonstrations kept hold so many
    ngram: Positive = 13  # tokens of Python in an overlap
    max_overlap: Share = 0.5  # a document sharing more than this part of a task's n-grams is removed
    boilerplate: Share = 0.05  # n-grams that more than this part of a benchmark's prompts share do not count
    max_lines: Positive = 40
    filters: FilterConfig = FilterConfig()


class CorpusConfig(CollectionConfig):
    """Which demonstrations this run trains on, and what decontamination removes."""

    demonstrations: Positive = 1_500  # how many this run draws, with the run's seed


class LoraConfig(Section):
    """Low-rank adapters (peft) instead of full fine-tuning."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    target_modules: str | list[str] = "all-linear"


class BaseConfig(Section):
    """The base model: `model` names one to use, otherwise this architecture is pre-trained on the web-like corpus."""

    model: str | None = None  # a hub name or a folder that AutoModelForCausalLM loads
    chat: bool = False  # of `model`: every stage prompts it, and what is trained from it, through its chat template
    checkpoint: str | None = None  # folder of a kept result of this very recipe, used while data and recipe still match
    layers: list[Literal["conv", "full_attention"]] = Field(default=["conv", "full_attention"])
    hidden_size: Positive = 128
    intermediate_size: Positive = 336
    heads: Positive = 4
    initializer_range: float = Field(default=0.05, gt=0)
    outline_steps: NonNegative = 250
    web_tokens: Positive = 7_000_000
    outline_share: Share = 0.2
    batch_size: Positive = 32
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup_steps: NonNegative = 50
    weight_decay: float = Field(default=0.01, ge=0)
    checkpoint_steps: Positive = 200
    precision: Precision = "float32"  # a run fills in its own
    gradient_checkpointing: bool = False  # layers keep their inputs alone for the backward pass

    @model_validator(mode="after")
    def _template_of_a_model(self) -> Self:
        if self.chat and self.model is None:
            raise ValueError("chat: a base model of our own has no chat template, expected base.model")
        return self


class EStepConfig(Section):
    """Rationale discovery by reinforcement learning (METHOD.md, E-step)."""

    think_penalty: float = Field(default=0.3, ge=0, allow_inf_nan=True)  # c, nats
    iterations: NonNegative = 100
    warmup_iterations: NonNegative = 20  # only what is thought is trained, not when
    demonstrations: Positive = 4  # per iteration
    parts: Positive = 1  # of them, each with random numbers of its own: what several processes share out
    states: Positive = 4  # line states per demonstration
    group_size: Positive = 6  # G
    window: Positive = 5  # expert lines that a reward counts
    given_act: bool = True  # lines are scored given that they begin no comment; off: the habit of commenting counts too
    normalise: Literal["sum", "token"] = "sum"  # of the window's log-likelihood
    rationale_tokens: Positive = 16  # length cap
    temperature: float = Field(default=1.0, gt=0)
    unterminated_penalty: float = Field(default=1.0, ge=0)  # nats, a rationale that hits the cap
    consecutive_penalty: float = Field(default=0.1, ge=0)  # weight of -log pi(act) right after a rationale
    kl: float = Field(default=0.0, ge=0)  # weight of KL(policy || reference model)
    clip: float = Field(default=0.2, gt=0)
    epochs: Positive = 1  # gradient steps per group of rollouts
    std_floor: float = Field(default=0.5, ge=0)  # nats added to the group's standard deviation
    learning_rate: float = Field(default=1e-4, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    checkpoint_iterations: Positive = 20
    precision: Precision = "float32"  # a run fills in its own
    gradient_checkpointing: bool = False  # layers keep their inputs alone for the backward pass
    lora: LoraConfig | None = None


class BootstrapConfig(Section):
    """Annotation of every demonstration by the trained policy."""

    samples: Positive = 1  # rationales drawn at a think; the one with the highest likelihood is kept
    window: Positive = 5  # expert lines whose likelihood decides that
    temperature: float = Field(default=0.5, ge=0)
    rationale_tokens: Positive = 16  # length cap
    engine: Literal["built-in", "http"] = "built-in"  # what draws rationales
    decision: Literal["policy", "gain"] = "policy"  # who decides to think: q, or the reward
    think_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=True)  # infinite: none; finite: for `gain` alone
    unterminated_penalty: float = Field(default=0.0, ge=0)  # for `gain` alone; a run fills in the E-step's
    normalise: Literal["sum", "token"] = "sum"  # as above
    given_act: bool = True  # of the likelihoods that choose among samples; for `gain` a run fills in the E-step's
    batch_size: Positive = 32
    precision: Precision = "float32"  # a run fills in its own


class _Shard(Section):
    """Which of `shards` parts of a stage's chunks (ra3core/shards.py)."""

    shard: Positive  # 1 .. shards
    shards: Positive

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.shard > self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards}, expected at most {self.shards}")
        return self


class BootstrapShard(_Shard, BootstrapConfig):
    """A part of the annotation."""


class MStepConfig(Section):
    """Next-token prediction on (annotated) demonstrations; NTP baselines use the very same section."""

    epochs: Positive = 2
    token_budget: Positive | None = None  # a run fills it in: train on as many (no padding) instead of `epochs`
    batch_size: Positive = 16
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_share: Share = 0.1
    weight_decay: float = Field(default=0.01, ge=0)
    max_tokens: Positive = 512
    checkpoint_steps: Positive = 100
    precision: Precision = "float32"  # a run fills in its own
    gradient_checkpointing: bool = False  # layers keep their inputs alone for the backward pass
    packing: bool = False  # several documents in a row that do not see each other
    held_out: Share = 0.05  # of the demonstrations, for the cross-entropy curve
    snapshots: NonNegative = 0  # models kept on the way, at equal distances in steps
    lora: LoraConfig | None = None

    @property
    def on_the_way(self) -> list[str]:
        """What these models are called: how much of the training lies behind each."""
        return [f"{n}_of_{self.snapshots + 1}" for n in range(1, self.snapshots + 1)]


class VerifierConfig(Section):
    """Limits on one judged program."""

    cpu_seconds: float = Field(default=2.0, gt=0)
    wall_seconds: float = Field(default=20.0, gt=0)
    memory_mb: Positive = 512
    require_isolation: bool = False  # refuse to run where a protection is missing


class RLVRConfig(Section):
    """GRPO with unit-test rewards."""

    steps: NonNegative = 40
    prompts: Positive = 12  # per step
    parts: Positive = 1  # of them, as e_step.parts
    group_size: Positive = 8
    max_new_tokens: Positive = 256
    batch_size: Positive = 128  # completions drawn at once
    engine: LocalEngine = "built-in"  # what draws completions
    importance_cap: float | None = Field(default=None, ge=1, allow_inf_nan=True)  # of pi_trainer / pi_engine; none: 1
    temperature: float = Field(default=1.0, gt=0)
    kl: float = Field(default=0.0, ge=0)
    clip: float = Field(default=0.2, gt=0)
    epochs: Positive = 1
    std_floor: float = Field(default=1e-4, ge=0)
    learning_rate: float = Field(default=2e-4, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    checkpoint_steps: Positive = 10
    precision: Precision = "float32"  # a run fills in its own
    gradient_checkpointing: bool = False  # layers keep their inputs alone for the backward pass
    held_out: NonNegative = 48  # tasks never trained on, solved every `eval_every` steps
    eval_every: Positive = 10  # steps
    eval_samples: Positive = 2  # per task
    eval_temperature: float = Field(default=0.5, ge=0)
    zero_variance: Literal["keep", "downsample"] = "keep"  # tasks whose completions all passed, or all failed, of late
    zero_variance_visits: Positive = 2  # of late
    zero_variance_share: Rate = 0.25  # of their turns that such tasks are given
    verifier: VerifierConfig = VerifierConfig()  # a run fills in its own section
    lora: LoraConfig | None = None

    @field_validator("engine", mode="before")
    @classmethod
    def _weights_of_the_moment(cls, value: Any) -> Any:
        if value == "http":
            raise ValueError(
                "http: a server's weights would have to follow every step of the training, which is not done; "
                "expected built-in, transformers or continuous_batching"
            )
        return value


class _Sampled(Section):
    """How completions of a benchmark's tasks are drawn and graded."""

    limit: Positive | None = None  # tasks per number of steps
    samples: Positive = 4
    temperature: float = Field(default=0.5, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: Positive = 320
    engine: Engine = "built-in"  # what draws completions
    batch_size: Positive = 64
    precision: Precision = "float32"  # a run fills in its own
    k: list[Positive] = Field(default=[1, 4], min_length=1)
    modes: list[Literal["free", "banned", "forced"]] = Field(default=["free", "banned", "forced"], min_length=1)
    verifier: VerifierConfig = VerifierConfig()  # a run fills in its own section

    @model_validator(mode="after")
    def _enough_samples(self) -> Self:
        if max(self.k) > self.samples:
            raise ValueError(f"k = {max(self.k)} needs at least as many samples, found samples = {self.samples}")
        return self


class BenchmarkConfig(_Sampled):
    """One model on one benchmark: what a stage of the evaluation is given."""

    benchmark: str = EMBEDDED
    model: str = "model"  # the model's folder in its artifact: on_the_way/2_of_5/model is one that an M-step kept

    @property
    def slug(self) -> str:
        return slug(self.benchmark)


class BenchmarkShard(_Shard, BenchmarkConfig):
    """A part of one model's evaluation on one benchmark."""


class BenchmarkEntry(Section):
    """One of `evaluation.benchmarks`; what is left out is as the benchmark is officially sampled."""

    name: str  # NAME or NAME:VARIANT (ra3core/evaluation/benchmarks)
    data: str | None = None  # the benchmark's file; none takes it from the hub
    limit: Positive | None = None
    samples: Positive | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_new_tokens: Positive | None = None
    k: list[Positive] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _full_name(cls, name: str) -> str:
        """One spelling for every benchmark: humaneval+ is humaneval-plus."""
        base, colon, variant = name.strip().partition(":")
        return (f"{base[:-1]}-plus" if base.endswith("+") else base) + colon + variant

    @model_validator(mode="after")
    def _own_data(self) -> Self:
        if self.name == EMBEDDED and self.data is not None:
            raise ValueError("benchmark embedded has its tasks in data/, expected no file")
        return self

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        """As a person writes it: without what is left out, a name alone as text."""
        given = {key: value for key, value in handler(self).items() if value is not None}
        return self.name if given.keys() == {"name"} else given

    @property
    def slug(self) -> str:
        return slug(self.name)


class EvaluationConfig(_Sampled):
    """Generation and grading, the same for every arm. `batch_size`, `engine` and `verifier` hold for every benchmark,
    the rest is how the embedded suite is sampled."""

    benchmarks: list[BenchmarkEntry] = Field(default=[BenchmarkEntry(name=EMBEDDED)], min_length=1)

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value  # --set evaluation.benchmarks=embedded,humaneval

    @field_validator("modes")
    @classmethod
    def _scored(cls, modes: list[str]) -> list[str]:
        if "free" not in modes:
            raise ValueError(f"{', '.join(modes)}: results are those of free decoding, expected free in the list too")
        return modes

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [entry.name for entry in self.benchmarks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"benchmark {twice} is listed twice, expected each once")
        return self

    def settled(self, entry: BenchmarkEntry, official: Mapping[str, Any]) -> BenchmarkConfig:
        """How one of the benchmarks is sampled and graded, everything filled in.

        official: the benchmark's own samples, temperature, top_p and max_new_tokens; the embedded suite has none, for
        it this section says it. Raises UserError for values that do not go together.
        """
        values = {name: getattr(self, name) for name in _Sampled.model_fields}
        if entry.name != EMBEDDED:
            values |= {**official, "limit": None, "modes": ["free"]}
        if entry.name != EMBEDDED or entry.samples is not None:
            values["k"] = None
        given = {name: value for name in BenchmarkEntry.model_fields if (value := getattr(entry, name)) is not None}
        values |= {name: value for name, value in given.items() if name in values}
        if values["k"] is None:
            values["k"] = [k for k in USUAL_KS if k <= values["samples"]]
        if entry.name != EMBEDDED and values["samples"] > 1 and values["temperature"] == 0:
            raise UserError(
                f"{entry.name}: {values['samples']} samples of greedy decoding are all the same, "
                "expected a temperature above 0"
            )
        try:
            return BenchmarkConfig(benchmark=entry.name, **values)
        except ValidationError as error:
            raise UserError(f"{entry.name}: {_explain(error.errors()[0])}") from error


class ReportConfig(Section):
    """The page that sums a run up; what stands below `pass_rates` is filled in by the flow and only shown."""

    resamples: Positive = 4_000  # bootstrap draws behind every interval
    examples: NonNegative = 3  # demonstrations shown before and after annotation
    pass_rates: list[Rate] = Field(default=[0.25, 0.5, 0.75])  # on RLVR's held-out tasks: when is each reached
    notes: list[str] = Field(default=[])  # what the run lacks
    settings: dict[str, Any] = Field(default={})  # the whole resolved configuration
    commit: str | None = None
    mlflow_runs: dict[str, str] = Field(default={})  # input name such as "ntp/0" -> run id


class AnalysisConfig(Section):
    """What is measured of an arm beside pass@k (docs/analysis.md)."""

    demonstrations: Positive = 64  # held-out ones whose boundaries are measured, at most
    boundaries: Positive = 128  # of these, where whole lines are sampled
    lines: Positive = 16  # sampled at each, given act, given think, and after each of the latter
    line_tokens: Positive = 48  # length cap of a sampled line
    nucleus: Rate = 0.9  # mass that the effective action set holds
    scored: Positive = 4_000  # rationales whose gain is measured, at most; all are counted
    examples: NonNegative = 3  # of each rationale on its page
    gamma: Rate = 0.95  # discount a line: a horizon of 1 / (1 - gamma) = 20 lines, about a program of the suite
    epsilon: Rate = 0.1  # of the predicted iterations: how far from the best value, rewards being at most 1
    levels: list[Share] = Field(default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], min_length=1)  # of RLVR's rates
    think_rate: Rate = 0.3  # share of boundaries that the proposed c should think at
    resamples: Positive = 1_000  # bootstrap draws of demonstrations behind every interval
    e_step: EStepConfig = EStepConfig()  # how gains are measured; a run fills in its own section
    held_out: Share = 0.05  # of the demonstrations; a run fills in m_step's
    precision: Precision = "float32"  # a run fills in its own


class RegistryConfig(Section):
    """The registered model, and what it takes to become its champion (docs/registry.md)."""

    enabled: bool = True
    model: str = Field(default="ra3", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # registered name
    arm: Literal["base", "ntp", "ntp_compute", "ra3_no_rl", "ra3", "ntp_rlvr", "ra3_rlvr"] = "ra3_rlvr"  # first seed's
    level: float = Field(default=0.95, gt=0.5, lt=1)  # of the one-sided bound that must be above zero
    resamples: Positive = 10_000  # bootstrap draws behind it


class RunConfig(Section):
    """Everything that decides the result of one pipeline run."""

    name: str = "demo"
    seed: NonNegative = 0  # draws the base model, the demonstrations, every training and every sample
    seeds: Positive = 1  # how many, from `seed` on
    rounds: Positive = 1  # of E-step, bootstrap, M-step
    arms: ArmsConfig = ArmsConfig()
    tuning: TuningConfig = TuningConfig()
    precision: Precision = "float32"  # of every stage whose section has none of its own
    suite: Literal["tracked", "generated"] = "tracked"  # data/ that data.dvc names, or a stage's, for other sizes
    data: DataConfig = DataConfig()
    corpus: CorpusConfig = CorpusConfig()
    base: BaseConfig = BaseConfig()
    e_step: EStepConfig = EStepConfig()
    bootstrap: BootstrapConfig = BootstrapConfig()
    m_step: MStepConfig = MStepConfig()
    rlvr_tasks: RLVRTasksConfig = RLVRTasksConfig()
    rlvr: RLVRConfig = RLVRConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    verifier: VerifierConfig = VerifierConfig()
    report: ReportConfig = ReportConfig()
    registry: RegistryConfig = RegistryConfig()
    analysis: AnalysisConfig = AnalysisConfig()

    @model_validator(mode="before")
    @classmethod
    def _one_precision(cls, values: Any) -> Any:
        """The run's precision, in every section that a file or an option leaves without one."""
        if not isinstance(values, dict) or "precision" not in values:
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            section = filled.get(name) or {}
            fits = isinstance(field.annotation, type) and "precision" in getattr(field.annotation, "model_fields", {})
            if fits and isinstance(section, dict):
                filled[name] = {"precision": values["precision"], **section}
        return filled

    @model_validator(mode="after")
    def _every_arm_trains_as_long(self) -> Self:
        if self.m_step.token_budget is not None:
            raise ValueError(
                "m_step.token_budget: a run fills it in, for the compute-matched controls alone; "
                "expected m_step.epochs, which says how long the others train"
            )
        return self

    @model_validator(mode="after")
    def _what_is_kept_is_evaluated(self) -> Self:
        if self.arms.during and not self.m_step.snapshots:
            raise ValueError("arms.during: m_step.snapshots is 0, expected how many models are evaluated on the way")
        if self.m_step.snapshots and not self.arms.during:
            raise ValueError("m_step.snapshots: arms.during is empty, expected the arms whose models are evaluated")
        return self

    @model_validator(mode="after")
    def _tuning_sees_no_result(self) -> Self:
        if not self.tuning.seeds:
            return self
        if both := sorted(set(self.tuning.seeds).intersection(range(self.seed, self.seed + self.seeds))):
            raise ValueError(f"tuning.seeds: {both[0]} is a seed of the run, expected seeds that are only tuned on")
        for grid in GRIDS:
            if getattr(self.tuning, grid) and getattr(self.arms, grid):
                raise ValueError(f"tuning.{grid}: arms.{grid} says the rates already, expected one of the two")
        left = self.data.evaluation_tasks - self.tuning.tasks
        for entry in self.evaluation.benchmarks:
            if entry.name == EMBEDDED and ((entry.limit or self.evaluation.limit) or left + 1) > left:
                raise ValueError(
                    f"tuning.tasks: {self.tuning.tasks} of {self.data.evaluation_tasks} evaluation tasks are for "
                    f"validation, expected an evaluation.limit of at most {left} (and above 0)"
                )
        return self


class RuntimeConfig(Section):
    """Where and how a run executes; part of no cache key. Read from RA3_* environment variables and options."""

    root: Path = Field(default=Path(), description="The checkout: data/, artifacts/, reports/, mlflow/ lie in it.")
    workers: Positive = Field(default=2, description="Stages that run at the same time on a machine.")
    threads: Positive = Field(default=1, description="Torch threads of one stage.")
    device: str = Field(default="cpu", description="cpu, cuda, or devices to share out, one stage each: cuda:0,cuda:1.")
    stage_minutes: float | None = Field(default=None, gt=0, description="A stage that takes longer is ended.")
    task_runner: Literal["threads", "dask", "ray"] = Field(
        default="threads", description="Where stages run: here, or on the workers of a Dask or Ray cluster."
    )
    shards: Positive = Field(default=1, description="Parts of every annotation and evaluation; no result differs.")
    cluster: str | None = Field(default=None, description="The cluster's address; none starts one on this machine.")
    processes: Positive = Field(default=1, description="Processes that a training stage is shared out over.")
    accelerate: Path | None = Field(default=None, description="accelerate's file; configs/accelerate has some.")
    servers: str = Field(
        default="", description="Servers of engine http: http://localhost:8000/v1,http://other:8000/v1."
    )
    server_concurrency: Positive = Field(default=32, description="Requests at a time of a stage to its server.")
    server_timeout: float = Field(default=600.0, gt=0, description="Seconds that a server has for an answer.")
    server_retries: NonNegative = Field(default=5, description="Of a request that a server did not answer.")

    @field_validator("device")
    @classmethod
    def _devices(cls, device: str) -> str:
        names = [name.strip() for name in device.split(",")]
        if len(set(names)) < len(names) or not all(re.fullmatch(r"cpu|cuda(:(0|[1-9]\d*))?", name) for name in names):
            raise ValueError("expected cpu, cuda, or different ones of cuda:0,cuda:1,...")
        return ",".join(names)

    @field_validator("servers")
    @classmethod
    def _urls(cls, servers: str) -> str:
        urls = [url.strip().rstrip("/") for url in servers.split(",") if url.strip()]
        for url in urls:
            if not re.match(r"https?://[^/]+(/|$)", url):
                raise ValueError("expected URLs such as http://localhost:8000/v1")
        return ",".join(urls)

    @property
    def http(self) -> Servers:
        """What a stage that asks a server is given."""
        urls = tuple(self.servers.split(",")) if self.servers else ()
        return Servers(urls, self.server_concurrency, self.server_timeout, self.server_retries)


def slug(name: str) -> str:
    """A benchmark's name in characters that files, stages and metrics may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")


def preset_names() -> list[str]:
    """Names that `load` takes."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(preset: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a preset (a name, or the path of a YAML file) with `section.key=value` overrides.

    Raises UserError with one sentence that names the field and what was expected.
    """
    path = Path(preset) if preset.endswith((".yaml", ".yml")) else PRESETS / f"{preset}.yaml"
    if not path.is_file():
        raise UserError(f"preset {preset!r}: expected one of {', '.join(preset_names())}, or the path of a YAML file")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    values.setdefault("name", path.stem)
    config = parse(values, source=str(path))
    for override in overrides:
        _override(values, override)
    return parse(values, source=f"{preset} with {' '.join(overrides)}") if overrides else config


def parse(values: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """Validate a mapping; raises UserError naming the first bad field."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {explanation(error, RunConfig)}") from error


def explanation(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with a file of `model`, in a sentence: an unknown key and those there are, else the first error."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; {_known(first['loc'], model)}"
    return f"{where}: {_explain(first)}" if where else _explain(first)


def _explain(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in a few words."""
    what = error["msg"].removeprefix("Value error, ")
    found = "" if error["type"] in ("value_error", "missing") else f", found {error['input']!r}"  # ours say it already
    return f"{what[0].lower() + what[1:]}{found}"


def _override(values: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in a nested mapping; the value is read as YAML."""
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise UserError(f"--set {override}: expected section.key=value, such as e_step.think_penalty=0.1")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: {text!r} is not a valid value") from error
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML reads 1e-4 as a string
    *sections, key = name.split(".")
    target = values
    for section in sections:
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {override}: {section} is not a section")
        target = inner
    target[key] = value


def _known(where: Sequence[int | str], model: type[BaseModel]) -> str:
    """What was expected in place of an unknown key of `model`: a key that exists beside it, or a section."""
    for part in where[:-1]:
        if isinstance(part, int):  # an item of a list
            continue
        annotation = model.model_fields[part].annotation
        model = next(t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel))
    section, *inner = str(where[-1]).split(".")
    if inner and section in model.model_fields:  # only --set has dots
        return f"expected a section, {section}: {{{': {'.join(inner)}: ...{'}' * len(inner)}"
    return f"expected one of {', '.join(model.model_fields)}"
