"""The report: one page that shows what a run found, with its uncertainty, and what it cost.

The paper prints point estimates of pass@1 and pass@5, and no cost. Here every number that is compared has a 95 %
interval over seeds and problems, a sentence is a claim only when the interval of the paired difference excludes zero,
and controls, cost, settings and digests stand beside the result.

Alone: `ra3 run` writes it last; from Python, with the folders of the artifacts that are there:

    report(ReportConfig(), Context(inputs={"evaluate_ra3/0": folder, ...}, out=Path("out"), scratch=Path("scratch")))
"""

from __future__ import annotations

from collections.abc import Sequence

from ra3core.config import ReportConfig
from ra3core.errors import UserError
from ra3core.report import markdown, page
from ra3core.report.blocks import Picture
from ra3core.report.document import compose
from ra3core.report.findings import DECODING, MAIN, findings
from ra3core.report.inputs import load
from ra3core.report.scores import Benchmark, Contender, Scores, benchmarks
from ra3core.stage import Context, Metrics


def report(config: ReportConfig, context: Context) -> Metrics:
    """Write report.html (self-contained), report.md, and every figure as PNG and SVG.

    Returns what ra3core.report.terminal shows (see `summary`). Equal inputs give equal bytes. Raises UserError for
    inputs that are not artifacts of this pipeline.
    """
    run = load(context.inputs)
    if not run.stages:
        raise UserError("report: expected at least one artifact of a run, found none")
    scores = Scores(run, config.resamples)
    others = benchmarks(run, config.resamples)
    document = compose(config, run, scores, others)
    context.out.mkdir(parents=True, exist_ok=True)
    (context.out / "report.html").write_text(page.render(document), encoding="utf-8")
    (context.out / "report.md").write_text(markdown.render(document), encoding="utf-8")
    for block in document.blocks:
        if isinstance(block, Picture):
            (context.out / f"{block.name}.png").write_bytes(block.png)
            (context.out / f"{block.name}.svg").write_bytes(block.svg)
    return summary(scores, others)


def summary(scores: Scores, others: Sequence[Benchmark] = ()) -> Metrics:
    """The numbers of the page that other programs want; all shares.

    results: arm -> decoding mode -> pass@1 (value, low, high). by_steps: arm -> number of steps -> pass@1, decoding
    free. differences: comparison -> value, low, high, verdict, label, comparison (short), sentence.
    benchmarks: those beside the embedded suite -> name, variant, and scores: arm -> "pass@1" and so on, "base pass@1"
    where there are original tests -> value, low, high, tasks.
    """
    results: dict[str, dict[str, dict[str, float]]] = {}
    by_steps: dict[str, dict[str, float]] = {}
    for arm, seeds in scores.run.evaluations.items():
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
        for finding in findings(scores, [*MAIN, *DECODING])
    }
    return {
        "results": results,
        "by_steps": by_steps,
        "differences": differences,
        "benchmarks": {one.slug: _benchmark(one) for one in others},
    }


def _benchmark(one: Benchmark) -> Metrics:
    found: dict[str, dict[str, Metrics]] = {}
    for arm in one.scores.evaluations:
        for title, scores, k in one.columns:
            score = scores.score(Contender(arm), k)
            if score is not None:
                values = {"value": score.value, "low": score.low, "high": score.high, "tasks": score.tasks}
                found.setdefault(arm, {})[title] = values
    return {"name": one.name, "variant": one.variant, "scores": found}
