"""The model card: what a registered model is, how it was made, what it can do with what uncertainty, and its licences.

Markdown with the YAML head that model hubs read. Everything in it is from the run's artifacts (manifests, results,
decontamination) and its settings; nothing is said that was not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ra3core.artifacts import MANIFEST, Artifact
from ra3core.config import EMBEDDED, RunConfig
from ra3core.corpora.sources import parse_source
from ra3core.report import markdown, tables
from ra3core.report.blocks import Table
from ra3core.report.inputs import EVALUATE, Run, load
from ra3core.report.scores import Contender, Score, Scores, benchmarks
from ra3core.report.style import BY_NAME

LICENCE = "Apache-2.0"
UNKNOWN = "not known"
PAPER = "https://arxiv.org/abs/2509.25810"
CITATION = """\
@article{zhang2025ra3,
  title   = {Learning to Reason as Action Abstractions with Scalable Mid-Training RL},
  author  = {Zhang, Shenao and Yu, Donghan and Feng, Yihao and Jin, Bowen and Wang, Zhaoran and Peebles, John and
             Wang, Zirui},
  journal = {arXiv preprint arXiv:2509.25810},
  year    = {2025}
}"""


@dataclass(frozen=True)
class Ancestor:
    """An artifact that a model descends from. name: stage/seed, or data."""

    name: str
    digest: str


@dataclass(frozen=True)
class Facts:
    """What a card is made from.

    name: what the model is registered as. arm, seed: which of the run's models it is. config: the run's. made:
    "stage/seed" (and "data") -> artifact. runs: "stage/seed" -> tracking run. commit: of the code. plain: the card is
    for a folder on its own, not for a version in MLflow's registry.
    """

    name: str
    arm: str
    seed: int
    config: RunConfig
    made: Mapping[str, Artifact]
    runs: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    plain: bool = False

    @property
    def stage(self) -> str:
        """What made the model: RA3 is what leaves the last M-step."""
        return stage_of(self.arm, self.config)

    @property
    def model(self) -> Artifact:
        return self.made[f"{self.stage}/{self.seed}"]

    @property
    def label(self) -> str:
        return BY_NAME[self.arm].label


def stage_of(arm: str, config: RunConfig) -> str:
    """The stage whose model an arm is."""
    return f"m_step_{config.rounds}" if arm == "ra3" else arm


def model_card(facts: Facts) -> str:
    """README.md of the model. Raises UserError when an artifact of the run is damaged."""
    everything = _report_inputs(facts.made)
    run = load({name: path for name, path in everything.items() if name == "data" or _seed(name) == facts.seed})
    whole = load(everything)
    parts = [
        _introduction(facts),
        _use(facts),
        _data(facts, run),
        _results(facts, run, whole),
        _settings(facts),
        _limits(facts, run),
        _licences(facts),
        _lineage(facts),
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    ]
    return f"---\n{_head(facts, run)}---\n\n" + "\n\n".join(parts) + "\n"


def summary(facts: Facts) -> str:
    """The card in a few lines, for a registry's list of versions."""
    scores = headline(facts)
    lines = [
        f"{facts.label}, preset {facts.config.name}, seed {facts.seed}.",
        *(f"pass@1 on {name}: {_percent(score)}, {score.tasks} problems." for name, score in scores.items()),
        f"Artifact {facts.model.digest}; data {facts.made['data'].digest}; code {facts.commit or UNKNOWN}.",
        "README.md beside the weights is the whole card.",
    ]
    return "\n\n".join(lines)


def headline(facts: Facts) -> dict[str, Score]:
    """This model's pass@1 on every benchmark of the run, decoding free, with the interval over problems."""
    names = [n for n in facts.made if n.endswith(f"/{facts.seed}") and _evaluated_arm(n) == facts.arm]
    return _headline(facts, load(_report_inputs({name: facts.made[name] for name in names})))


def lineage(made: Mapping[str, Artifact], name: str) -> list[Ancestor]:
    """Everything that `name` descends from and itself, parents ahead of children, found by the digests of inputs.

    Where arms of equal content share a digest, the first name stands for all.
    """
    by_digest: dict[str, str] = {}
    for other, artifact in made.items():
        by_digest.setdefault(artifact.digest, other)
    found: dict[str, Ancestor] = {}

    def visit(this: str) -> None:
        if this in found:
            return
        for digest in made[this].manifest.inputs.values():
            if digest in by_digest:
                visit(by_digest[digest])
        found[this] = Ancestor(this, made[this].digest)

    visit(name)
    return list(found.values())


def licence_of(folder: Path) -> str:
    """What a folder says about its licence: `license` in the head of its README.md, else the first line of its licence
    file, else that it is not known."""
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(errors="replace")
        head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
        try:
            values = yaml.safe_load(head)
        except yaml.YAMLError:
            values = None
        if isinstance(values, dict) and values.get("license"):
            return str(values["license"])
    for file in sorted(folder.glob("*")) if folder.is_dir() else ():
        if file.is_file() and file.stem.upper() in ("LICENSE", "LICENCE", "COPYING"):
            first = next((line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()), "")
            return f"{first} ({file.name})" if first else UNKNOWN
    return UNKNOWN


def licences(facts: Facts) -> list[tuple[str, str]]:
    """(part of the model, its licence): the code, the base model, the demonstrations, the RLVR tasks, as far as the arm
    has them. Whether data/ is what this project's code generates is not known here: a user may replace it."""
    suite = f"generated by this project's code, {LICENCE}; of a data folder of one's own: {UNKNOWN}"
    base, source = facts.config.base, facts.config.corpus.source
    parts = [("Code that trained it", LICENCE)]
    if base.model is None:
        parts.append(("Base model: pre-trained here on the embedded corpus", suite))
    else:
        given = facts.made.get(f"base/{facts.seed}")
        known = UNKNOWN if given is None else licence_of(given.path / "model")
        parts.append((f"Base model {_named(base.model)}", known))
    if facts.arm == "base":
        return parts
    kind, where = parse_source(source)
    if kind == EMBEDDED:
        parts.append(("Demonstrations: the embedded suite", suite))
    else:
        path = Path(where)
        known = licence_of(path if path.is_dir() else path.parent) if path.exists() else UNKNOWN
        parts.append((f"Demonstrations {kind}:{_named(where)}", known))
    tasks = facts.config.rlvr_tasks.source
    if facts.arm.endswith("_rlvr") and tasks == EMBEDDED:
        parts.append(("RLVR tasks: the data folder", suite))
    elif facts.arm.endswith("_rlvr"):
        kind, _, where = tasks.partition(":")
        path = Path(where).expanduser()
        known = licence_of(path if path.is_dir() else path.parent) if path.exists() else UNKNOWN
        parts.append((f"RLVR tasks {kind}:{_named(where)}", known))
    return parts


def licence_text(facts: Facts) -> str:
    """LICENSE.txt of the model."""
    parts = "\n".join(f"- {part}: {licence}" for part, licence in licences(facts))
    return f"The code that trained this model is under {LICENCE}. Its parts:\n\n{parts}\n"


def _head(facts: Facts, run: Run) -> str:
    """The YAML that hubs read."""
    own = facts.arm.endswith("_rlvr") and facts.config.rlvr_tasks.source != EMBEDDED
    known = facts.config.base.model is None and facts.config.corpus.source == EMBEDDED and not own
    values: dict[str, Any] = {
        "license": LICENCE.lower() if known else "other",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "language": ["code", "en"],
        "tags": ["ra3", "mid-training", "reinforcement-learning", "code-generation"],
        "model-index": [
            {
                "name": facts.name,
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"type": name, "name": name},
                        "metrics": [{"type": "pass@1", "value": round(score.value, 4), "name": "pass@1"}],
                    }
                    for name, score in _headline(facts, run).items()
                ],
            }
        ],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _introduction(facts: Facts) -> str:
    start = "a base model pre-trained on the embedded corpus"
    if facts.config.base.model is not None:
        start = f"the base model {_named(facts.config.base.model)}"
    return (
        f"# {facts.name}: {facts.label}\n\n"
        f"A causal language model for Python functions, trained by an open implementation of RA3 ([paper]({PAPER})): "
        "mid-training that finds by reinforcement learning where a comment makes an expert's next lines more likely, "
        "then reinforcement learning from unit tests (RLVR) for the arms that say so.\n\n"
        f"- Arm: {facts.label} (`{facts.arm}`), from {start}\n"
        f"- Preset: {facts.config.name}, seed {facts.seed}, rounds of RA3: {facts.config.rounds}"
    )


_COMPLETION = (
    "A completion is a program in which comment lines state what comes next. Run generated programs confined only."
)
PLAIN_USE = (
    "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
    'tokenizer, model = AutoTokenizer.from_pretrained("FOLDER"), AutoModelForCausalLM.from_pretrained("FOLDER")\n'
    'prompt = tokenizer("def f(xs):", return_tensors="pt")\n'
    "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=64)[0]))\n```\n\n" + _COMPLETION
)


def _use(facts: Facts) -> str:
    if facts.plain:
        return PLAIN_USE
    return (
        "## Use\n\n```python\nimport mlflow\n\n"
        'mlflow.set_tracking_uri("sqlite:///mlflow/mlflow.db")  # or the address of the tracking server\n'
        f'generate = mlflow.transformers.load_model("models:/{facts.name}@champion")\n'
        'print(generate("def f(xs):\\n", max_new_tokens=64)[0]["generated_text"])\n```\n\n'
        'The folder `model/` alone is a plain transformers model: `AutoModelForCausalLM.from_pretrained("model")`. '
        f"{_COMPLETION}"
    )


def _data(facts: Facts, run: Run) -> str:
    kind, where = parse_source(facts.config.corpus.source)
    source = kind if kind == "embedded" else f"{kind}:{_named(where)}"
    lines = [
        "## Data",
        f"Demonstrations: `{source}`. The data folder (corpus, RLVR and evaluation tasks) has the digest "
        f"`{facts.made['data'].digest}`.",
    ]
    if facts.arm.endswith("_rlvr") and facts.config.rlvr_tasks.source != EMBEDDED:
        kind, _, where = facts.config.rlvr_tasks.source.partition(":")
        lines.append(
            f"Tasks of RLVR: `{kind}:{_named(where)}`, filtered on their solutions, instead of the data folder's."
        )
    found = tables.decontamination(run)
    lines.append(_table(found) if found else "No stage reported decontamination figures.")
    return "\n\n".join(lines)


def _results(facts: Facts, run: Run, whole: Run) -> str:
    """Every arm of this seed, on every benchmark; with more seeds, what the recipe gives over all of them."""
    resamples = facts.config.report.resamples
    parts = [
        "## Results",
        f"This model is the arm **{facts.label}**; the others are its controls. Intervals are over problems, from "
        f"{resamples} bootstrap resamples; they do not tell what another seed would give.",
    ]
    scores = Scores(run, resamples)
    if run.evaluations:
        parts += [_table(tables.results(scores, k)) for k in scores.ks]
        modes = [mode for mode in ("free", "banned", "forced") if _has_mode(run, mode)]
        if len(modes) > 1:
            parts.append(_table(tables.decoding(run, scores, modes)))
    if others := benchmarks(run, resamples):
        parts.append(_table(tables.benchmarks(others)))
    if not run.evaluations and not others:
        parts.append("Nothing was evaluated.")
    if len(whole.seeds) > 1 and whole.evaluations:
        parts.append(
            f"The recipe over {len(whole.seeds)} seeds, each with a training of its own; intervals over seeds and "
            "problems:"
        )
        parts.append(_table(tables.results(Scores(whole, resamples), 1)))
    return "\n\n".join(parts)


def _settings(facts: Facts) -> str:
    values = facts.config.model_dump(mode="json", exclude={"report", "registry"})
    return f"## Settings\n\n```yaml\n{yaml.safe_dump(values, sort_keys=False)}```"


def _limits(facts: Facts, run: Run) -> str:
    limits = [
        "Trained and evaluated on short Python functions with unit tests; nothing is known about other uses.",
        "One training run of one seed. The interval of its score is over problems alone.",
        "The arm was named in the settings before its scores were known, but versions are promoted by the same "
        "evaluation tasks again and again: after many promotions the champion's score is too high.",
        "Generated programs are not safe to run unconfined.",
    ]
    if facts.config.base.model is None:
        limits.insert(
            1, "The base model is a toy by design, pre-trained on synthetic programs; it writes nothing else."
        )
    else:
        limits.insert(1, "What the base model was trained on was not checked against the evaluation tasks.")
    if any(slug for slug in run.benchmarks):
        limits.append("Decontamination covers the data folder's evaluation tasks, not further benchmarks.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _licences(facts: Facts) -> str:
    rows = "\n".join(f"| {part} | {licence} |" for part, licence in licences(facts))
    return f"## Licences\n\n| part | licence |\n| :-- | :-- |\n{rows}"


def _lineage(facts: Facts) -> str:
    rows = [
        f"| `{one.name}` | `{one.digest}` | {f'`{facts.runs[one.name]}`' if one.name in facts.runs else '–'} |"
        for one in lineage(facts.made, f"{facts.stage}/{facts.seed}")
    ]
    table = "| artifact | digest of its content | tracking run |\n| :-- | :-- | :-- |\n" + "\n".join(rows)
    code = f"Code: git commit `{facts.commit or UNKNOWN}`. Parents stand above what was made of them."
    return f"## Lineage\n\n{code}\n\n{table}"


def _headline(facts: Facts, run: Run) -> dict[str, Score]:
    resamples = facts.config.report.resamples
    named: Sequence[tuple[str, Scores]] = [
        *([("embedded", Scores(run, resamples))] if run.evaluations else []),
        *((one.name, one.scores) for one in benchmarks(run, resamples)),
    ]
    found = {name: scores.score(Contender(facts.arm)) for name, scores in named}
    return {name: score for name, score in found.items() if score is not None}


def _report_inputs(made: Mapping[str, Artifact]) -> dict[str, Path]:
    """As the report reads them; a base model of the user's has no manifest."""
    return {name: a.path for name, a in made.items() if name == "data" or (a.path / MANIFEST).is_file()}


def _evaluated_arm(name: str) -> str | None:
    stage = name.rpartition("/")[0]
    return stage.removeprefix(EVALUATE).partition(":")[0] if stage.startswith(EVALUATE) else None


def _seed(name: str) -> int:
    return int(name.rpartition("/")[2])


def _has_mode(run: Run, mode: str) -> bool:
    return any(mode in one.counts for seeds in run.evaluations.values() for one in seeds.values())


def _named(where: str) -> str:
    """A hub's name as it is, of a path the last part: where it lies on the machine that trained means nothing."""
    path = Path(where).expanduser()
    return path.resolve().name if path.exists() or path.is_absolute() else where


def _table(table: Table) -> str:
    return f"{table.caption}\n\n{markdown.table(table)}"


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}]"
