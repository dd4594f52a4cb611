"""The report's tables, from the manifests and the scores."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from ra3core.report.blocks import Cell, Row, Table, cells
from ra3core.report.inputs import E_STEP, PAPER_KS, TUNE, Run
from ra3core.report.scores import Average, Benchmark, Contender, Difference, Score, Scores
from ra3core.report.stages import ABSENT, mean, stage_title
from ra3core.report.style import AFTER_RLVR, ARMS, BY_NAME, MODES, Arm
from ra3core.report.verdicts import percent, points, seeds_in_words, signed

SIGNS = {1: "▲", -1: "▼", 0: ""}


def results(scores: Scores, k: int) -> Table:
    """pass@k of every arm by number of steps and over all tasks, in percent."""
    rows = []
    for arm in _evaluated(scores.run):
        row = [Cell(_label(scores.run, arm))]
        for steps in (*scores.steps, None):
            row.append(_marked(scores, arm, k, steps))
        rows.append(Row(tuple(row), color=arm.color, rule=_first_after_rlvr(arm, rows)))
    columns = ("Arm", *(f"{steps} steps" for steps in scores.steps), "all tasks")
    grouped = ", by the number of steps of the task's plan" if scores.steps else ""
    caption = (
        f"pass@{k} in percent, decoding free{grouped}, with 95 % intervals. ▲ above, ▼ below data-matched NTP (after "
        "RLVR: NTP, then RLVR), where the paired 95 % interval excludes zero."
    )
    bounds = [cell.detail.partition("]")[0].strip("[").split(", ") for row in rows for cell in row.cells if cell.detail]
    if any(low == high for low, high in bounds):
        caption += " An interval without width says that all tasks came out alike, not that the value is certain."
    return Table(f"pass_at_{k}", caption, columns, tuple(rows))


def paper(run: Run, average: Average) -> Table:
    """The paper's table: pass@1 on every benchmark, and the averages of pass@1 and pass@5."""
    rows: list[Row] = []
    several = len(average.suites) > 1
    ks = [k for k in average.ks if k in PAPER_KS or 5 not in average.ks]
    averaged = ks if several else [k for k in ks if k > 1]  # of one benchmark pass@1 stands there already
    for arm in ARMS:
        contender = Contender(arm.name)
        each = [scores.score(contender) for scores in average.suites.values()]
        if not any(each):
            continue
        whole = [average.score(contender, k) for k in averaged]
        difference = against(average, arm)
        seeds = max(score.seeds for score in each if score is not None)
        values = (*(_cell(one, seeds) for one in (*each, *whole)), *_effect(difference, seeds))
        rows.append(Row((*cells(arm.label, str(seeds)), *values), color=arm.color, rule=_first_after_rlvr(arm, rows)))
    names = [f"average pass@{k}" if several else f"pass@{k}" for k in averaged]
    without = "" if 5 in average.ks else " pass@5 needs five samples of every task, which this run does not have."
    return Table(
        "paper",
        "The paper's table: pass@1 in percent on every benchmark, decoding free, with 95 % intervals over seeds and "
        "problems; the averages weigh every benchmark the same. Last: the difference in average pass@1 to data-matched "
        "NTP (after RLVR: to NTP, then RLVR), in points with its paired interval, and as Cohen's h. What rests on "
        f"fewer seeds than the row has says so.{without}",
        ("Model", "seeds", *(f"{name} pass@1" for name in average.suites), *names, "− NTP (points)", "h"),
        tuple(rows),
    )


def _effect(difference: Difference | None, seeds: int) -> tuple[Cell, Cell]:
    """A difference in points, and its standardised size; seeds: that the row has."""
    if difference is None:
        return Cell(ABSENT), Cell(ABSENT)
    detail = f"[{points(difference.low)}, {points(difference.high)}]{_fewer(difference.seeds, seeds)}"
    return Cell(points(difference.value), detail, SIGNS[difference.sign]), Cell(signed(difference.h, 2))


def arms(run: Run) -> Table:
    """Which arms there are, and what each is for."""
    there = {arm for found in (run.evaluations, *run.benchmarks.values()) for arm in found}
    rows = [Row(cells(arm.label, arm.differs), color=arm.color) for arm in ARMS if arm.differs and arm.name in there]
    return Table(
        "arms",
        "The controls, and in what each differs from RA3: a difference between their scores is due to that, and not to "
        "what the two share.",
        ("Arm", "how it differs from RA3"),
        tuple(rows),
        text_columns=(1,),
        compact=True,
    )


def decoding(run: Run, scores: Scores, modes: Sequence[str]) -> Table:
    """pass@1 over all tasks by decoding mode, of arms with several, and how many comments are written when free."""
    rows = []
    arms = [arm for arm in _evaluated(run) if run.in_several_modes(arm.name)]
    for arm in arms:
        values = [_cell(scores.score(Contender(arm.name, mode))) for mode in modes]
        comments = comments_written(run, arm.name)
        written = Cell(ABSENT if comments is None else f"{comments:.2f}")
        rows.append(Row((Cell(_label(run, arm)), *values, written), color=arm.color, rule=_first_after_rlvr(arm, rows)))
    return Table(
        "decoding",
        "pass@1 in percent over all tasks under three ways of decoding, with 95 % intervals, and the mean number of "
        "comment lines in a completion when decoding is free.",
        ("Arm", *(MODES[mode] for mode in modes), "comments written"),
        tuple(rows),
    )


def comments_written(run: Run, arm: str) -> float | None:
    """Comment lines in a completion when decoding is free, mean over seeds; None where that is not known."""
    found = [one.comments["free"] for one in run.evaluations.get(arm, {}).values() if "free" in one.comments]
    return fmean(found) if found else None


def benchmarks(found: Sequence[Benchmark]) -> Table:
    """pass@k of every arm on the benchmarks beside the embedded suite, decoding free."""
    run = found[0].scores.run
    rows = []
    for arm in ARMS:
        if not any(arm.name in one.scores.evaluations for one in found):
            continue
        row = [Cell(arm.label)]
        for one in found:
            row += [_marked(scores, arm, k) for _, scores, k in one.columns]
        rows.append(Row(tuple(row), color=arm.color, rule=_first_after_rlvr(arm, rows)))
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
        rows.append(Row(cells(_label(run, arm), *shares), color=arm.color, rule=_first_after_rlvr(arm, rows)))
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
    """What each bootstrap wrote, RA3's by round, then those of the controls."""
    rounds = [f"bootstrap_{r}" for r in range(1, run.rounds + 1)]
    present = [s for s in rounds if s in run.stages] + [
        s for s in run.ordered if s.startswith("bootstrap_") and s not in rounds
    ]
    columns = {name: look for name, look in ANNOTATION.items() if any(mean(run, s, name) is not None for s in present)}
    if not columns:
        return None
    rows = []
    for stage in present:
        values = [(mean(run, stage, name), scale) for name, (_, scale) in columns.items()]
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


def tuning(run: Run) -> Table | None:
    """The grid of every tuned arm on the validation tasks, and what was chosen; None where nothing was tuned."""
    rows = []
    values: dict[float, None] = {}
    found = []
    for stage in run.ordered:
        for one in run.stages[stage].values() if stage.startswith(TUNE) else ():
            grid = {float(value): float(score) for value, score in one.manifest.metrics.get("grid", {}).items()}
            chosen = one.metric("chosen")
            values |= dict.fromkeys(grid)
            found.append((stage, one.manifest.config, grid, chosen))
    if not found:
        return None
    order = sorted(values)
    for stage, config, grid, chosen in found:
        texts = [f"{percent(grid[v])}{' ←' if v == chosen else ''}" if v in grid else ABSENT for v in order]
        name = stage.removeprefix(TUNE).removesuffix(E_STEP)
        title = BY_NAME[name].label if name in BY_NAME else name
        rows.append(Row(cells(title, str(config.get("setting", "")), *texts, f"{chosen:g}" if chosen else ABSENT)))
    return Table(
        "tuning",
        "Tuning: mean pass@1 in percent on the validation tasks at every value of the grid. A setting's grid, tasks "
        "and seeds are the same for every arm, none of them among the results'. ←: chosen, the highest, of equals the "
        "smaller value.",
        ("Arm", "setting", *(f"{value:g}" for value in order), "chosen"),
        tuple(rows),
        text_columns=(1,),
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


def _evaluated(run: Run) -> list[Arm]:
    return [arm for arm in ARMS if arm.name in run.evaluations]


def against(scores: Scores | Average, arm: Arm, k: int = 1, steps: int | None = None) -> Difference | None:
    """An arm's paired difference to data-matched NTP, after RLVR to NTP, then RLVR; None for these themselves."""
    this, other = Contender(arm.name), Contender("ntp_rlvr" if arm.after_rl else "ntp")
    if this == other:
        return None
    if steps is None or isinstance(scores, Average):
        return scores.difference(this, other, k)
    return scores.difference(this, other, k, steps)


def _first_after_rlvr(arm: Arm, rows: Sequence[Row]) -> bool:
    """Whether a rule goes above the arm's row."""
    return arm.after_rl and bool(rows) and rows[-1].cells[0].text.split(" (")[0] not in {a.label for a in AFTER_RLVR}


def _marked(scores: Scores, arm: Arm, k: int, steps: int | None = None) -> Cell:
    """A score with a mark that says whether the arm is above or below its reference, and over how many seeds if over
    fewer than the score."""
    score, difference = scores.score(Contender(arm.name), k, steps), against(scores, arm, k, steps)
    cell = _cell(score)
    if score is None or difference is None or difference.sign == 0:
        return cell
    mark, fewer = SIGNS[difference.sign], _fewer(difference.seeds, score.seeds)
    return replace(cell, mark=mark, detail=f"{cell.detail} {mark}{fewer}" if fewer else cell.detail)


def _label(run: Run, arm: Arm) -> str:
    """The arm's label, with its number of seeds where that is not the run's."""
    seeds = len(run.evaluations[arm.name])
    return arm.label if seeds == len(run.seeds) else f"{arm.label} ({seeds} of {len(run.seeds)} seeds)"


def _cell(score: Score | None, seeds: int = 0) -> Cell:
    """seeds: that the row has."""
    if score is None:
        return Cell(ABSENT)
    return Cell(percent(score.value), f"[{percent(score.low)}, {percent(score.high)}]{_fewer(score.seeds, seeds)}")


def _fewer(these: int, seeds: int) -> str:
    """Over how many seeds a figure is, where a reader would expect more."""
    return f" of {seeds_in_words(these)}" if these < seeds else ""


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
