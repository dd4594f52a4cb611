"""What stages and arms cost."""

from __future__ import annotations

from statistics import fmean

from ra3core.compute import spent_tokens
from ra3core.report.blocks import Cell, Row, Table, cells
from ra3core.report.inputs import EVALUATE, Run
from ra3core.report.lineage import costs
from ra3core.report.stages import ABSENT, count, mean, stage_title
from ra3core.report.style import BY_NAME


def arm_costs(run: Run) -> Table | None:
    """Wall time and tokens of every arm, summed over the stages that lead to it; None where no model was made."""
    rows = []
    for name, one in costs(run).items():
        arm, beyond = BY_NAME[name], one.beyond_base
        pairs = [
            (f"{one.total.seconds:,.0f}", f"{beyond.seconds:,.0f}"),
            (count(one.total.tokens), count(beyond.tokens)),
            (count(one.total.train_tokens), count(beyond.train_tokens)),
        ]
        texts = [text if name == "base" else part for text, part in pairs]
        whole = [ABSENT if name == "base" else text for text, _ in pairs]
        rows.append(
            Row(cells(arm.label, *(x for pair in zip(texts, whole, strict=True) for x in pair)), color=arm.color)
        )
    if not rows:
        return None
    return Table(
        "arm_costs",
        "Cost of every arm: the stages that lead to its model, found by the digests of their inputs, mean over seeds. "
        "What the base model took is shared by all and stands in the columns “with base” alone; evaluations and tuning "
        "are not counted. Tokens: all that a model processed (read, generated or trained on). Wall time is that of the "
        "runs which made the artifacts, on whatever else the machine did.",
        ("Arm", "wall time (s)", "with base", "tokens", "with base", "trained on", "with base"),
        tuple(rows),
    )


def cost(run: Run) -> Table:
    """Wall time, tokens, speed and peak memory of every stage, mean over its seeds."""
    rows = []
    seconds_total = tokens_total = 0.0
    for stage in run.ordered:
        runs = run.stages[stage]
        seconds = fmean(one.manifest.seconds for one in runs.values())
        tokens, trained, memory = (mean(run, stage, name) for name in ("tokens", "train_tokens", "peak_memory_mb"))
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
                rule=stage.startswith(EVALUATE) and not any(row.cells[0].text.startswith("Evaluation") for row in rows),
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
    """Whether the compute-matched NTP had as many tokens as RA3, over the seeds with both; None when there are none."""
    names = [f"{kind}_{r}" for r in range(1, run.rounds + 1) for kind in ("e_step", "bootstrap", "m_step")]
    stages = [run.stages.get(name, {}) for name in (*names, "ntp_compute")]
    seeds = set.intersection(*map(set, stages)) if names else set()
    if not seeds:
        return None
    *ra3, ntp = [[stage[seed].manifest.metrics for seed in seeds] for stage in stages]
    spent = sum(spent_tokens(metrics) for stage in ra3 for metrics in stage) / len(seeds)
    matched = fmean(metrics["train_tokens"] for metrics in ntp)
    ratio = matched / spent
    caution = "" if 0.9 <= ratio <= 1.1 else " The two do not match: mind it where compute-matched NTP is compared."
    return (
        f"Compute match: RA3's E-step, bootstrap and M-step processed {count(spent)} tokens, those that only their "
        f"curves needed not counted; the compute-matched NTP trained on {count(matched)}, {ratio:.2f} times as many. A "
        "trained token costs about three times a read or generated one, so that with equal counts NTP computes more."
        f"{caution}"
    )
