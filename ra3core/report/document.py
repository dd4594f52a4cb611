"""The report's content: what stands on the page, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ra3core.config import ReportConfig
from ra3core.report import costs, figures, tables
from ra3core.report.analysed import analysed
from ra3core.report.blocks import Block, Document, Heading, Paragraph, Picture, Statements
from ra3core.report.claims import Evidence, summaries
from ra3core.report.findings import Finding, not_run, order, uncertainty
from ra3core.report.inputs import Run
from ra3core.report.paper import distilled, examples, missing, think_penalty
from ra3core.report.pictures import picture, point
from ra3core.report.results import results
from ra3core.report.rl import Courses
from ra3core.report.scores import Average, Benchmark, Contender, Scores
from ra3core.report.stages import count
from ra3core.report.style import AFTER_RLVR, BY_NAME
from ra3core.report.training import training


@dataclass(frozen=True)
class Material:
    """All that was computed from a run's artifacts, once, for the page and for the numbers."""

    run: Run
    scores: Scores
    average: Average
    benchmarks: Sequence[Benchmark]
    main: Sequence[Finding]
    decoding: Sequence[Finding]
    courses: Courses
    evidence: Sequence[Evidence]


def compose(config: ReportConfig, material: Material) -> Document:
    """The whole report."""
    run, average = material.run, material.average
    name = str(config.settings.get("name", "run"))
    blocks: list[Block] = [
        *_findings(config, material),
        *results(run, material.scores, average, material.benchmarks),
        *training(run, average, material.evidence, material.courses, tuple(config.pass_rates)),
        *think_penalty(config, run),
        *distilled(run, average),
        *analysed(run),
        *examples(config, run),
        *_cost(run),
        *_data(run),
    ]
    blocks += [
        *missing(run, blocks, config.notes),
        Heading("Settings", "settings"),
        tables.settings(config.settings or {stage: _any_config(run, stage) for stage in run.ordered}),
        Heading("Artifacts", "artifacts"),
        tables.artifacts(run, config.mlflow_runs),
    ]
    return Document(
        title=f"RA3 mid-training: {name}",
        subtitle=_subtitle(run),
        facts=_facts(config, run, material.scores),
        blocks=tuple(blocks),
    )


def _subtitle(run: Run) -> str:
    """The paper's title and, of its pipeline, what the run has."""
    made = {*run.stages, *run.evaluations}
    then = ", then reinforcement learning from unit tests" if made & {arm.name for arm in AFTER_RLVR} else ""
    return (
        "Learning to reason as action abstractions: next-token prediction and RA3 on the same demonstrations"
        f"{then}, measured on held-out tasks."
    )


def _facts(config: ReportConfig, run: Run, scores: Scores) -> tuple[tuple[str, str], ...]:
    created = sorted(
        one.manifest.created for runs in run.stages.values() for one in runs.values() if one.manifest.created
    )
    tasks = scores.score(Contender(next(iter(run.evaluations), "base")))
    facts = {
        "Run": str(config.settings.get("name", "")),
        "Seeds": ", ".join(str(seed) for seed in run.seeds),
        "Base model": _base_model(run) or str(config.settings.get("base", {}).get("model") or ""),
        "Rounds of EM": str(run.rounds or ""),
        "Tasks": f"{tasks.tasks} held out" if tasks else "",
        "Stages finished": " to ".join(dict.fromkeys(one[:16].replace("T", " ") for one in (created[0], created[-1])))
        + " UTC"
        if created
        else "",
        "Commit": f"`{config.commit[:12]}`" if config.commit else "",
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _base_model(run: Run) -> str:
    base = next(iter(run.stages.get("base", {}).values()), None)
    if base is None:
        return ""
    model = base.manifest.config.get("model")
    parameters = base.metric("parameters")
    size = f" ({count(parameters)} parameters)" if parameters else ""
    if model:
        return f"{model}{size}"
    return f"pre-trained by this run{size}"


def _any_config(run: Run, stage: str) -> dict[str, object]:
    return next(iter(run.stages[stage].values())).manifest.config


# -- findings ----------------------------------------------------------------------------------------------------------


def _findings(config: ReportConfig, material: Material) -> list[Block]:
    run, main, decoding = material.run, material.main, material.decoding
    blocks: list[Block] = [Heading("What was shown, what was not", "findings")]
    if not main:
        where = " on the embedded suite" if run.benchmarks else ""
        text = f"No two arms that this report compares were evaluated{where}, so that nothing is claimed of them."
        blocks.append(Paragraph(text))
    else:
        blocks.append(Paragraph(uncertainty(run)))
    if material.evidence:
        blocks += [
            Heading("The paper's three claims", "claims", level=3),
            Statements(tuple(summaries(list(material.evidence)))),
            Paragraph("What each is judged by:"),
            Statements(tuple(one.statement for one in material.evidence)),
        ]
    statements = [finding.statement for finding in main]
    if (overall := order(main)) is not None:
        statements.append(overall)
    if statements:
        blocks += [Heading("What it is due to: RA3 and its controls", "controls", level=3)]
        blocks += [tables.arms(run), Statements(tuple(statements))]
    if decoding:
        blocks += [
            Heading("What the difference is made of", "made-of", level=3),
            Paragraph(
                "RA3 can be ahead because it writes comments where the others do not, or because it writes better "
                "code: forcing the first comment and banning all of them tells these apart."
            ),
            Statements(tuple(finding.statement for finding in decoding)),
        ]
    if absent := not_run(run, config.settings):
        blocks.append(Paragraph(absent))
    by_kind = [[one for one in main if BY_NAME[one.comparison.first.arm].after_rl is after] for after in (False, True)]
    if groups := [group for group in (*by_kind, decoding) if group]:
        blocks.append(_forest(run, groups))
    return blocks


def _forest(run: Run, groups: Sequence[Sequence[Finding]]) -> Picture:
    rows = [
        [
            (
                finding.comparison.short,
                point(finding.difference.value, finding.difference.low, finding.difference.high),
                BY_NAME[finding.comparison.first.arm].color,
                [100 * value for value in finding.difference.per_seed],
            )
            for finding in group
        ]
        for group in groups
    ]
    seeds = " Small ticks: each seed." if len(run.seeds) > 1 else ""
    return picture(
        "differences",
        lambda: figures.differences(rows, "difference in pass@1 (points of percent)"),
        "Paired differences in pass@1 with 95 % intervals. Filled: the interval excludes zero. The intervals are not "
        f"corrected for the number of comparisons ({sum(map(len, rows))}).{seeds}",
        "Forest plot of paired differences in pass@1",
        len(run.seeds),
    )


# -- cost and data -----------------------------------------------------------------------------------------------------


def _cost(run: Run) -> list[Block]:
    blocks: list[Block] = [Heading("Cost", "cost")]
    if arms := costs.arm_costs(run):
        blocks.append(arms)
    blocks.append(costs.cost(run))
    if sentence := costs.compute_match(run):
        blocks.append(Paragraph(sentence))
    return blocks


def _data(run: Run) -> list[Block]:
    found = tables.decontamination(run)
    return [Heading("Decontamination", "data"), found] if found else []
