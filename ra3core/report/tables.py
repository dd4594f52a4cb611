"""The report's tables, from the manifests and the scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ra3core.report.blocks import Cell, Row, Table, cells
from ra3core.report.findings import percent
from ra3core.report.inputs import EVALUATE, Run
from ra3core.report.scores import Benchmark, Contender, Score, Scores
from ra3core.report.style import AFTER_RLVR, ARMS, MODES, Arm

ABSENT = "–"
SIGNS = {1: "▲", -1: "▼", 0: ""}


def results(scores: Scores, k: int) -> Table:
    """pass@k of every arm by number of steps and over all tasks, in percent."""
    rows = []
    for arm in _evaluated(scores.run):
        row = [Cell(_label(scores.run, arm))]
        for steps in (*scores.steps, None):
            row.append(_cell(scores.score(Contender(arm.name), k, steps), _mark(scores, arm, k, steps)))
        rows.append(Row(tuple(row), color=arm.color, rule=arm is AFTER_RLVR[0]))
    columns = ("Arm", *(f"{steps} steps" for steps in scores.steps), "all tasks")
    grouped = ", by the number of steps of the task's plan" if scores.steps else ""
    caption = (
        f"pass@{k} in percent, decoding free{grouped}, with 95 % intervals. ▲ above, ▼ below data-matched NTP (after "
        "RLVR: NTP, then RLVR), where the paired 95 % interval excludes zero."
    )
    if any(cell.detail and len(set(cell.detail.strip("[]").split(", "))) == 1 for row in rows for cell in row.cells):
        caption += " An interval without width says that all tasks came out alike, not that the value is certain."
    return Table(f"pass_at_{k}", caption, columns, tuple(rows))


def decoding(run: Run, scores: Scores, modes: Sequence[str]) -> Table:
    """pass@1 over all tasks by decoding mode, of arms with several, and how many comments are written when free."""
    rows = []
    arms = [arm for arm in _evaluated(run) if run.in_several_modes(arm.name)]
    for arm in arms:
        values = [_cell(scores.score(Contender(arm.name, mode))) for mode in modes]
        comments = [one.comments["free"] for one in run.evaluations[arm.name].values() if "free" in one.comments]
        written = Cell(f"{fmean(comments):.2f}" if comments else ABSENT)
        rows.append(Row((Cell(_label(run, arm)), *values, written), color=arm.color, rule=arm is AFTER_RLVR[0]))
    return Table(
        "decoding",
        "pass@1 in percent over all tasks under three ways of decoding, with 95 % intervals, and the mean number of "
        "comment lines in a completion when decoding is free.",
        ("Arm", *(MODES[mode] for mode in modes), "comments written"),
        tuple(rows),
    )


def benchmarks(found: Sequence[Benchmark]) -> Table:
    """pass@k of every arm on the benchmarks beside the embedded suite, decoding free."""
    run = found[0].scores.run
    rows = []
    for arm in ARMS:
        if not any(arm.name in one.scores.evaluations for one in found):
            continue
        row = [Cell(arm.label)]
        for one in found:
            row += [_cell(scores.score(Contender(arm.name), k), _mark(scores, arm, k)) for _, scores, k in one.columns]
        rows.append(Row(tuple(row), color=arm.color, rule=arm is AFTER_RLVR[0] and bool(rows)))
    columns = [f"{one.name} {title}" for one in found for title, _, _ in one.columns]
    seeds = "" if len(run.seeds) == 1 else " and seeds"
    conventions = "; ".join(f"{one.name}: {one.variant}" for one in found)
    base = " A plus benchmark's base score counts its original tests alone." if any(one.base for one in found) else ""
    return Table(
        "benchmarks",
        f"Other benchmarks, in percent, decoding free, with 95 % intervals over problems{seeds}. {conventions}.{base} "
        "▲ above, ▼ below data-matched NTP (after RLVR: NTP, then RLVR), where the paired 95 % interval excludes zero.",
        ("Arm", *columns),
        tuple(rows),
    )


def endings(run: Run) -> Table:
    """How samples end when decoding is free: share of each of the verifier's categories."""
    totals: dict[str, Counter[str]] = {}
    for arm in _evaluated(run):
        totals[arm.name] = Counter()
        for one in run.evaluations[arm.name].values():
            totals[arm.name].update(one.categories.get("free", {}))
    overall = sum(totals.values(), Counter())
    categories = [category for category, _ in sorted(overall.items(), key=lambda item: (-item[1], item[0]))]
    rows = []
    for arm in _evaluated(run):
        total = totals[arm.name].total()
        shares = [percent(totals[arm.name][c] / total) if total else ABSENT for c in categories]
        rows.append(Row(cells(_label(run, arm), *shares), color=arm.color, rule=arm is AFTER_RLVR[0]))
    return Table(
        "endings",
        "How samples end, in percent of all samples, decoding free (the verifier's categories).",
        ("Arm", *(category.replace("_", " ") for category in categories)),
        tuple(rows),
    )


ELBO = {
    "elbo": "ELBO",
    "reconstruction": "reconstruction",
    "think_cost": "cost of thinks",
    "bernoulli_kl": "Bernoulli KL",
    "rationale_nats": "entropy of a rationale",
    "thinks_per_demonstration": "thinks",
}
ANNOTATION = {
    "annotated_lines": ("lines with a rationale (%)", 100.0),
    "thinks_per_demonstration": ("rationales per demonstration", 1.0),
    "rationale_tokens": ("tokens per rationale", 1.0),
    "segment_lines": ("lines per rationale", 1.0),
    "gain": ("gain (nats)", 1.0),
    "unterminated": ("cut off (%)", 100.0),
    "matches_reference": ("equal to reference (%)", 100.0),
}


def elbo(run: Run) -> Table | None:
    """The temporal ELBO's terms before and after each round's E-step, where the stage gives them."""
    rows = []
    for r in range(1, run.rounds + 1):
        for when in ("before", "after"):
            terms = [one.manifest.metrics.get(f"elbo_{when}") for one in run.stages.get(f"e_step_{r}", {}).values()]
            found = [one for one in terms if one]
            if found:
                values = [f"{fmean(one[name] for one in found):.2f}".replace("-", "−") for name in ELBO]
                rows.append(Row(cells(f"Round {r}, {when}", *values), rule=when == "before" and bool(rows)))
    if not rows:
        return None
    return Table(
        "elbo",
        "Temporal ELBO of held-out demonstrations before and after each E-step, nats per demonstration, mean over "
        "seeds. ELBO = reconstruction, the log-likelihood of the expert's lines, less c a think; the entropy of "
        "a rationale is estimated by its own negative log-likelihood.",
        ("E-step", *ELBO.values()),
        tuple(rows),
    )


def annotation(run: Run) -> Table | None:
    """What each bootstrap wrote, with and without the E-step's RL."""
    stages = [*(f"bootstrap_{r}" for r in range(1, run.rounds + 1)), "bootstrap_no_rl"]
    present = [stage for stage in stages if stage in run.stages]
    columns = {name: look for name, look in ANNOTATION.items() if any(_mean(run, s, name) is not None for s in present)}
    if not columns:
        return None
    rows = []
    for stage in present:
        values = [(_mean(run, stage, name), scale) for name, (_, scale) in columns.items()]
        texts = [ABSENT if value is None else f"{scale * value:.2f}" for value, scale in values]
        rows.append(Row(cells(stage_title(stage, run), *texts)))
    return Table(
        "annotation",
        "What bootstrap wrote into the demonstrations, mean over seeds. Gain: by how much a rationale raises the "
        "log-likelihood of the lines after it. Reference: the rationale that the demonstration's author would have "
        "written at that line, where there is one.",
        ("Bootstrap", *(title for title, _ in columns.values())),
        tuple(rows),
    )


def cost(run: Run) -> Table:
    """Wall time, tokens, speed and peak memory of every stage, mean over its seeds."""
    rows = []
    seconds_total = tokens_total = 0.0
    for stage in run.ordered:
        runs = run.stages[stage]
        seconds = fmean(one.manifest.seconds for one in runs.values())
        tokens, trained, memory = (_mean(run, stage, name) for name in ("tokens", "train_tokens", "peak_memory_mb"))
        seconds_total += seconds
        tokens_total += tokens or 0.0
        rows.append(
            Row(
                (
                    Cell(stage_title(stage, run)),
                    Cell(f"{seconds:,.1f}"),
                    Cell(count(tokens)),
                    Cell(count(trained)),
                    Cell(f"{tokens / seconds:,.0f}" if tokens and seconds else ABSENT),
                    Cell(f"{memory:,.0f}" if memory is not None else ABSENT),
                ),
                rule=stage.startswith(EVALUATE) and not rows_have_evaluation(rows),
            )
        )
    rows.append(
        Row(cells("Sum of the stages, one seed", f"{seconds_total:,.1f}", count(tokens_total), "", "", ""), total=True)
    )
    everything = sum(one.manifest.seconds for runs in run.stages.values() for one in runs.values())
    seeds = len(run.seeds)
    over = f" All {seeds} seeds together: {everything / 60:,.1f} minutes of stage time." if seeds > 1 else ""
    return Table(
        "cost",
        "Cost of every stage, mean over seeds. Wall time is that of the run which made the artifact (a reused stage "
        "costs nothing again), and stages that run at the same time count each: the sum is not the time one waits. "
        f"Tokens: all that a model processed (read, generated or trained on).{over}",
        ("Stage", "wall time (s)", "tokens", "of these trained on", "tokens/s", "peak memory (MB)"),
        tuple(rows),
    )


def compute_match(run: Run) -> str | None:
    """Whether the compute-matched NTP had as many tokens as RA3; None when either was not run."""
    stages = [f"{kind}_{r}" for r in range(1, run.rounds + 1) for kind in ("e_step", "bootstrap", "m_step")]
    spent = [_mean(run, stage, "tokens") for stage in stages]
    matched = _mean(run, "ntp_compute", "train_tokens")
    found = [tokens for tokens in spent if tokens is not None]
    if not found or len(found) < len(spent) or not matched:
        return None
    ratio = matched / sum(found)
    caution = "" if 0.9 <= ratio <= 1.1 else " The two do not match: mind it where compute-matched NTP is compared."
    return (
        f"Compute match: RA3's E-step, bootstrap and M-step processed {count(sum(found))} tokens, the compute-matched "
        f"NTP trained on {count(matched)}, {ratio:.2f} times as many. A trained token costs about three "
        f"times a read or generated one, so that with equal counts NTP computes more.{caution}"
    )


def settings(values: Mapping[str, Any]) -> Table:
    """Every setting, a row a section."""
    sections: dict[str, list[str]] = {}
    for name, value in _flatten(values):
        section, _, key = name.rpartition(".")
        sections.setdefault(section or "run", []).append(f"{key} **{json.dumps(value)}**")
    rows = [Row(cells(f"`{section}`", " · ".join(entries)), rule=True) for section, entries in sections.items()]
    return Table("settings", "All settings.", ("Section", "Settings"), tuple(rows), text_columns=(1,), compact=True)


def artifacts(run: Run, mlflow_runs: Mapping[str, str]) -> Table:
    """Digest of every artifact, the key it was made under, and the tracking run that made it."""
    rows = []
    for stage in run.ordered:
        for number, seed in enumerate(sorted(run.stages[stage])):
            one = run.stages[stage][seed]
            manifest = one.manifest
            texts = [
                f"`{one.name}`",
                f"`{manifest.digest}`",
                f"`{manifest.key[:16]}`",
                manifest.created[:19].replace("T", " "),
            ]
            if mlflow_runs:
                identifier = mlflow_runs.get(one.name)
                texts.append(f"`{identifier}`" if identifier else ABSENT)
            rows.append(Row(cells(*texts), rule=number == 0 and bool(rows) and len(run.seeds) > 1))
    columns = ["Artifact", "Digest of the content (sha256)", "Key", "Made (UTC)"]
    if mlflow_runs:
        columns.append("MLflow run")
    return Table(
        "artifacts",
        "Every artifact behind this page. The key is the digest of what determined the artifact (configuration, "
        "inputs, code, seed), the digest that of what came out.",
        tuple(columns),
        tuple(rows),
        text_columns=tuple(range(1, len(columns))),
        compact=True,
    )


DECONTAMINATION = {
    "documents": "documents",
    "removed": "removed",
    "removed_by.prompt": "same prompt",
    "removed_by.plan": "same plan",
    "removed_by.overlap": "n-gram overlap",
    "largest_overlap_kept": "largest overlap kept",
}


def decontamination(run: Run) -> Table | None:
    """What decontamination removed from each corpus, mean over seeds; None when no stage reports any."""
    found: dict[str, list[dict[str, Any]]] = {}
    for stage in run.ordered:
        for one in run.stages[stage].values():
            corpora = (one.json("decontamination.json") or {}).get("corpora", {})
            for name, report in corpora.items():
                title = stage_title(stage, run) + (f": {name}" if len(corpora) > 1 else "")
                found.setdefault(title, []).append(dict(_flatten(report)))
    if not found:
        return None
    rows = []
    for title, reports in found.items():
        values = [[float(one[column]) for one in reports if column in one] for column in DECONTAMINATION]
        rows.append(Row(cells(title, *(_number(fmean(v), 2) if v else ABSENT for v in values))))
    return Table(
        "decontamination",
        "Training documents checked against the evaluation tasks, mean over seeds. Removed: those with the whole "
        "prompt of a task, with a task's plan (its skills in order), or with too large a part of a prompt's n-grams; "
        "the limits are among the settings (corpus).",
        ("Corpus", *DECONTAMINATION.values()),
        tuple(rows),
    )


def stage_title(stage: str, run: Run) -> str:
    """How a stage is called in tables."""
    if stage.startswith(EVALUATE):
        name, _, benchmark = stage.removeprefix(EVALUATE).partition(":")
        arm = next((arm.label for arm in ARMS if arm.name == name), name)
        return f"Evaluation{' on ' if benchmark else ''}{benchmark}: {arm}"
    kind, _, number = stage.rpartition("_")
    titles = {"e_step": "E-step", "bootstrap": "Bootstrap", "m_step": "M-step"}
    if kind in titles and number.isdigit():
        return f"RA3: {titles[kind]}" + (f", round {number}" if run.rounds > 1 else "")
    return {
        "corpus": "Web-like corpus",
        "demonstrations": "Demonstrations",
        "rlvr_tasks": "RLVR tasks",
        "base": "Base model",
        "ntp": "NTP, data-matched",
        "ntp_compute": "NTP, compute-matched",
        "bootstrap_no_rl": "Bootstrap by the base policy",
        "ra3_no_rl": "M-step without E-step RL",
        "ntp_rlvr": "RLVR from NTP",
        "ra3_rlvr": "RLVR from RA3",
    }.get(stage, stage)


def count(tokens: float | None) -> str:
    """A number of tokens or parameters with a suffix: 812, 45.1 k, 7.20 M."""
    if tokens is None:
        return ABSENT
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= size:
            return f"{tokens / size:#.3g}".rstrip(".") + suffix
    return f"{tokens:,.0f}"


def rows_have_evaluation(rows: Sequence[Row]) -> bool:
    """Whether a row of an evaluation is among them."""
    return any(row.cells[0].text.startswith("Evaluation") for row in rows)


def _evaluated(run: Run) -> list[Arm]:
    return [arm for arm in ARMS if arm.name in run.evaluations]


def _reference(arm: Arm) -> Contender:
    """What an arm's marks compare it with."""
    return Contender("ntp_rlvr" if arm in AFTER_RLVR else "ntp")


def _mark(scores: Scores, arm: Arm, k: int, steps: int | None = None) -> str:
    """Whether an arm is above or below its reference."""
    contender = Contender(arm.name)
    difference = scores.difference(contender, _reference(arm), k, steps)
    return SIGNS[difference.sign if difference is not None and contender != _reference(arm) else 0]


def _label(run: Run, arm: Arm) -> str:
    """The arm's label, with its number of seeds where that is not the run's."""
    seeds = len(run.evaluations[arm.name])
    return arm.label if seeds == len(run.seeds) else f"{arm.label} ({seeds} of {len(run.seeds)} seeds)"


def _cell(score: Score | None, mark: str = "") -> Cell:
    if score is None:
        return Cell(ABSENT)
    return Cell(percent(score.value), f"[{percent(score.low)}, {percent(score.high)}]", mark)


def _mean(run: Run, stage: str, metric: str) -> float | None:
    values = [value for one in run.stages.get(stage, {}).values() if (value := one.metric(metric)) is not None]
    return fmean(values) if values else None


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{digits}f}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested mappings under dotted names; single values ahead of sections."""
    leaves = [(prefix + name, value) for name, value in values.items() if not isinstance(value, Mapping)]
    nested = [
        leaf
        for name, value in values.items()
        if isinstance(value, Mapping)
        for leaf in _flatten(value, f"{prefix}{name}.")
    ]
    return leaves + nested
