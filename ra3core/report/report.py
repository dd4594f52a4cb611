"""The report: one page that shows what a run found, with its uncertainty, and what it cost.

The paper prints point estimates of pass@1 and pass@5, and no cost. Here every number that is compared has a 95 %
interval over seeds and problems, a sentence is a claim only when the interval of the paired difference excludes zero,
and controls, cost, settings and digests stand beside the result.

Alone: `ra3 run` writes it last, `ra3 report RUN` again from tracked runs; from Python, with the folders of the
artifacts that are there:

    report(ReportConfig(), Context(inputs={"evaluate_ra3/0": folder, ...}, out=Path("out"), scratch=Path("scratch")))
"""

from __future__ import annotations

import json

from ra3core.config import ReportConfig
from ra3core.errors import UserError
from ra3core.report import markdown, page
from ra3core.report.blocks import Picture, Table
from ra3core.report.claims import claims, summaries
from ra3core.report.document import Material, compose
from ra3core.report.findings import DECODING, MAIN, findings
from ra3core.report.inputs import Run, load
from ra3core.report.numbers import numbers
from ra3core.report.rl import courses
from ra3core.report.scores import Average, Benchmark, Contender, Scores, benchmarks
from ra3core.report.style import BY_NAME
from ra3core.stage import Context, Metrics


def report(config: ReportConfig, context: Context) -> Metrics:
    """Write report.html (self-contained), report.md, table.md (the paper's table), numbers.json (scores,
    differences, claims and costs), and every figure as PNG and SVG.

    Returns what ra3core.report.terminal shows (see `summary`). Equal inputs give equal bytes. Raises UserError for
    inputs that are not artifacts of this pipeline.
    """
    run = load(context.inputs)
    if not run.stages:
        raise UserError("report: expected at least one artifact of a run, found none")
    material = measured(config, run)
    document = compose(config, material)
    context.out.mkdir(parents=True, exist_ok=True)
    files = {"report.html": page.render(document), "report.md": markdown.render(document)}
    for block in document.blocks:
        if isinstance(block, Picture):
            (context.out / f"{block.name}.png").write_bytes(block.png)
            (context.out / f"{block.name}.svg").write_bytes(block.svg)
        elif isinstance(block, Table) and block.name == "paper":
            files["table.md"] = f"{block.caption}\n\n{markdown.table(block)}\n"
    everything = numbers(
        config,
        run,
        material.scores,
        material.average,
        material.evidence,
        [*material.main, *material.decoding],
        material.courses,
    )
    files["numbers.json"] = json.dumps(everything, indent=1, allow_nan=False) + "\n"
    for name, text in files.items():
        (context.out / name).write_text(text, encoding="utf-8")
    return summary(material)


def measured(config: ReportConfig, run: Run) -> Material:
    """Everything that is computed from a run's artifacts."""
    scores, average = Scores(run, config.resamples), Average.of(run, config.resamples)
    rates = tuple(config.pass_rates)
    found = courses(run, rates)
    return Material(
        run,
        scores,
        average,
        benchmarks(run, config.resamples),
        findings(scores, MAIN),
        findings(scores, DECODING),
        found,
        claims(run, average, found, rates),
    )


def summary(material: Material) -> Metrics:
    """The numbers of the page that other programs want; all shares.

    results: arm -> decoding mode -> pass@1 (value, low, high). by_steps: arm -> number of steps -> pass@1, decoding
    free. differences: comparison -> value, low, high, verdict, label, comparison (short), sentence.
    claims: the paper's three, each with its badge and sentence. benchmarks: those beside the embedded suite -> name,
    variant, and scores: arm -> "pass@1" and so on, "base pass@1" where there are original tests -> value, low, high,
    tasks.
    """
    scores = material.scores
    results: dict[str, dict[str, dict[str, float]]] = {}
    by_steps: dict[str, dict[str, float]] = {}
    for arm, seeds in scores.run.evaluations.items():
        if arm not in BY_NAME:  # on the way to one
            continue
        for mode in sorted({mode for one in seeds.values() for mode in one.counts}):
            score = scores.score(Contender(arm, mode))
            if score is not None:
                results.setdefault(arm, {})[mode] = {"value": score.value, "low": score.low, "high": score.high}
        for steps in scores.steps:
            score = scores.score(Contender(arm), steps=steps)
            if score is not None:
                by_steps.setdefault(arm, {})[str(steps)] = score.value
    differences = {
        finding.comparison.name: {
            "value": finding.difference.value,
            "low": finding.difference.low,
            "high": finding.difference.high,
            "verdict": finding.statement.verdict,
            "label": finding.statement.label,
            "comparison": finding.comparison.short,
            "sentence": finding.statement.text.replace("**", ""),
        }
        for finding in (*material.main, *material.decoding)
    }
    return {
        "results": results,
        "by_steps": by_steps,
        "differences": differences,
        "claims": [
            {"label": one.label, "sentence": one.text.replace("**", "")} for one in summaries(list(material.evidence))
        ]
        if material.evidence
        else [],
        "benchmarks": {one.slug: _benchmark(one) for one in material.benchmarks},
    }


def _benchmark(one: Benchmark) -> Metrics:
    found: dict[str, dict[str, Metrics]] = {}
    for arm in filter(BY_NAME.__contains__, one.scores.evaluations):
        for title, scores, k in one.columns:
            score = scores.score(Contender(arm), k)
            if score is not None:
                values = {"value": score.value, "low": score.low, "high": score.high, "tasks": score.tasks}
                found.setdefault(arm, {})[title] = values
    return {"name": one.name, "variant": one.variant, "scores": found}
