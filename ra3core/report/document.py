"""The report's content: what stands on the page, in order."""

from __future__ import annotations

from collections.abc import Sequence

from ra3core.config import ReportConfig
from ra3core.errors import UserError
from ra3core.report import figures, tables
from ra3core.report.blocks import Block, Document, Example, Heading, Paragraph, Picture, Statements, match_rationales
from ra3core.report.figures import Line, Panel, Point
from ra3core.report.findings import DECODING, MAIN, Finding, findings, not_run, order, uncertainty
from ra3core.report.inputs import Curve, Run
from ra3core.report.scores import Benchmark, Contender, Score, Scores
from ra3core.report.style import AFTER_RLVR, ARMS, BY_NAME, MID_TRAINING, MODES, Arm


def compose(config: ReportConfig, run: Run, scores: Scores, benchmarks: Sequence[Benchmark]) -> Document:
    """The whole report."""
    main, decoding = findings(scores, MAIN), findings(scores, DECODING)
    name = str(config.settings.get("name", "run"))
    blocks: list[Block] = [
        *_findings(run, main, decoding),
        *_results(run, scores, benchmarks),
        *_curves(run),
        *_examples(config, run),
        *_cost(run),
        *_data(run),
        Heading("Settings", "settings"),
        tables.settings(config.settings or {stage: _any_config(run, stage) for stage in run.ordered}),
        Heading("Artifacts", "artifacts"),
        tables.artifacts(run, config.mlflow_runs),
    ]
    return Document(
        title=f"RA3 mid-training: {name}",
        subtitle="Learning to reason as action abstractions: next-token prediction and RA3 on the same demonstrations, "
        "then reinforcement learning from unit tests, measured on held-out tasks.",
        facts=_facts(config, run, scores),
        blocks=tuple(blocks),
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
    size = f" ({tables.count(parameters)} parameters)" if parameters else ""
    if model:
        return f"{model}{size}"
    return f"pre-trained by this run{size}"


def _any_config(run: Run, stage: str) -> dict[str, object]:
    return next(iter(run.stages[stage].values())).manifest.config


# -- 1: findings -------------------------------------------------------------------------------------------------------


def _findings(run: Run, main: Sequence[Finding], decoding: Sequence[Finding]) -> list[Block]:
    blocks: list[Block] = [Heading("What was shown, what was not", "findings")]
    if not main:
        where = " on the embedded suite" if run.benchmarks else ""
        text = f"No two arms that this report compares were evaluated{where}, so that nothing is claimed."
        blocks.append(Paragraph(text))
    else:
        blocks.append(Paragraph(uncertainty(run)))
    statements = [finding.statement for finding in main]
    if (overall := order(main)) is not None:
        statements.append(overall)
    if statements:
        blocks.append(Statements(tuple(statements)))
    if decoding:
        blocks += [
            Heading("What the difference is made of", "made-of", level=3),
            Paragraph(
                "RA3 can be ahead because it writes comments where the others do not, or because it writes better "
                "code: forcing the first comment and banning all of them tells these apart."
            ),
            Statements(tuple(finding.statement for finding in decoding)),
        ]
    if absent := not_run(run):
        blocks.append(Paragraph(absent))
    if groups := [group for group in (main, decoding) if group]:
        blocks.append(_forest(run, groups))
    return blocks


def _forest(run: Run, groups: Sequence[Sequence[Finding]]) -> Picture:
    rows = [
        [
            (
                finding.comparison.short,
                _point(finding.difference.value, finding.difference.low, finding.difference.high),
                BY_NAME[finding.comparison.first.arm].color,
                [100 * value for value in finding.difference.per_seed],
            )
            for finding in group
        ]
        for group in groups
    ]
    seeds = " Small ticks: each seed." if len(run.seeds) > 1 else ""
    return _picture(
        "differences",
        lambda: figures.differences(rows, "difference in pass@1 (points of percent)"),
        "Paired differences in pass@1 with 95 % intervals. Filled: the interval excludes zero. The intervals are not "
        f"corrected for the number of comparisons ({sum(map(len, rows))}).{seeds}",
        "Forest plot of paired differences in pass@1",
    )


# -- 2: results --------------------------------------------------------------------------------------------------------


def _results(run: Run, scores: Scores, benchmarks: Sequence[Benchmark]) -> list[Block]:
    blocks: list[Block] = [Heading("Results", "results")]
    others: list[Block] = [tables.benchmarks(benchmarks)] if benchmarks else []
    if not run.evaluations:
        return [*blocks, *(others or [Paragraph("No model was evaluated.")])]
    if others:
        others.insert(0, Heading("Other benchmarks", "benchmarks", level=3))
    blocks += [tables.results(scores, k) for k in scores.ks]
    groups = [*(str(steps) for steps in scores.steps), "all"]
    panels = []
    for title, arms in (("After mid-training", MID_TRAINING), ("After RLVR", AFTER_RLVR)):
        rows = [(arm, _by_group(scores, arm)) for arm in arms if arm.name in run.evaluations]
        if rows:
            panels.append((title, rows))
    blocks.append(
        _picture(
            "pass_by_steps",
            lambda: figures.by_steps(panels, groups, "pass@1"),
            "pass@1 by the number of steps of the task's plan, decoding free, with 95 % intervals.",
            "pass@1 of every arm by number of steps",
        )
    )
    modes = [mode for mode in MODES if any(mode in one.counts for s in run.evaluations.values() for one in s.values())]
    if len(modes) > 1:
        blocks += [Heading("Decoding: free, comments banned, first comment forced", "decoding", level=3)]
        blocks.append(tables.decoding(run, scores, modes))
        rows = [(arm, _by_mode(scores, arm, modes)) for arm in ARMS if run.in_several_modes(arm.name)]
        blocks.append(
            _picture(
                "decoding",
                lambda: figures.decoding(rows, MODES, "pass@1, all tasks"),
                "The same models under three ways of decoding, with 95 % intervals: free; `#` banned at the start of a "
                "line; the first line of the answer forced to start with `#`. The token budget is the same.",
                "pass@1 of every arm under three decoding modes",
            )
        )
    blocks.append(tables.endings(run))
    return [*blocks, *others]


def _by_group(scores: Scores, arm: Arm) -> dict[str, Point]:
    found = {str(steps): scores.score(Contender(arm.name), steps=steps) for steps in scores.steps}
    found["all"] = scores.score(Contender(arm.name))
    return {group: _score_point(score) for group, score in found.items() if score is not None}


def _by_mode(scores: Scores, arm: Arm, modes: Sequence[str]) -> dict[str, Point]:
    found = {mode: scores.score(Contender(arm.name, mode)) for mode in modes}
    return {mode: _score_point(score) for mode, score in found.items() if score is not None}


# -- 3: curves ---------------------------------------------------------------------------------------------------------


def _curves(run: Run) -> list[Block]:
    blocks = [*_e_step(run), *_m_step(run), *_rlvr(run)]
    if not blocks:
        return []
    several = len(run.seeds) > 1
    band = "Bands: mean ± one standard error over seeds." if several else "One seed, so that there are no bands."
    return [
        Heading("Training", "training"),
        Paragraph(f"{band} Where a curve is a centred moving average, the unsmoothed one lies pale behind it."),
        *blocks,
    ]


def _e_step(run: Run) -> list[Block]:
    def panel(column: str, title: str, y: str, **options: bool) -> Panel | None:
        return _panel([("ra3", run.rounds_curve("e_step", column))], title, y, "E-step iteration", **options)

    blocks: list[Block] = []
    reward = _some(
        panel("reward", "Reward", "nats per decision", smooth=True),
        panel("gain", "Gain over no rationale", "nats per rationale", smooth=True),
        panel("think_rate", "Think rate", "lines with a rationale", smooth=True, percent=True, from_zero=True),
    )
    new_round = " Dotted lines: a new round starts." if run.rounds > 1 else ""
    if reward:
        blocks.append(
            _picture(
                "e_step",
                lambda: figures.curves(reward),
                "E-step. Reward: what a decision is expected to earn, the log-likelihood of the expert's next lines, "
                "less the penalty c when it is to think. Gain: that log-likelihood given a rationale less the one "
                f"without, before the penalty. Think rate: mean probability of a rationale, over lines.{new_round}",
                "E-step reward, gain and think rate over iterations",
            )
        )
    health = _some(
        panel("rationale_tokens", "Rationale length", "tokens", smooth=True, from_zero=True),
        panel("segment_lines", "Segment length", "lines per rationale", smooth=True, from_zero=True),
        panel("entropy", "Entropy", "nats per token", smooth=True, from_zero=True),
    )
    if health:
        blocks.append(
            _picture(
                "e_step_rationales",
                lambda: figures.curves(health),
                f"E-step. Length of a rationale, lines that it governs, and entropy of its tokens.{new_round}",
                "Rationale length, segment length and entropy over E-step iterations",
            )
        )
    blocks += [table for table in (tables.elbo(run), tables.annotation(run)) if table is not None]
    return blocks


def _m_step(run: Run) -> list[Block]:
    def panel(column: str, title: str, y: str) -> Panel | None:
        arms = [arm for arm in MID_TRAINING if arm.name != "base"]
        found = [(arm.name, _against_tokens(run, run.stage_of(arm.name), column)) for arm in arms]
        return _panel(found, title, y, "training tokens (millions)")

    panels = _some(
        panel("held_out_code", "Code tokens", "nats per code token"),
        panel("held_out_nats", "Whole demonstration", "nats per demonstration"),
    )
    if not panels:
        return []
    return [
        _picture(
            "m_step",
            lambda: figures.curves(panels, 2.6),
            "M-step, on demonstrations held out from its training. Left: cross-entropy of the **code tokens** only; "
            f"RA3 reads the rationales that bootstrap wrote, {_chosen(run)}. Right: nats of the **whole "
            "demonstration**, rationale tokens included (prompt excluded), where a rationale has to pay for itself.",
            "Held-out cross-entropy of RA3 and NTP over training tokens",
        )
    ]


def _chosen(run: Run) -> str:
    """How bootstrap came to its rationales, which decides what the cross-entropy of code given them says."""
    one = next(iter(run.stages.get(f"bootstrap_{run.rounds}", {}).values()), None)
    samples = one.manifest.config.get("samples", 1) if one else None
    if samples is None:
        return "picked in a way that is not known here"
    if samples == 1:
        return "drawn from the policy without a look at the code that follows"
    return (
        f"the best of {samples} by the likelihood of the code that follows, so that a lower value says that rationales "
        "inform, not yet that the model would find them"
    )


def _rlvr(run: Run) -> list[Block]:
    def panel(column: str, title: str, y: str, **options: bool) -> Panel | None:
        found = [(arm.name, run.curve(arm.name, column)) for arm in AFTER_RLVR]
        return _panel(found, title, y, "RLVR step", **options)

    panels = _some(
        panel("reward", "Training reward", "samples that pass", smooth=True, percent=True),
        panel("held_out_pass", "Held-out tasks", "pass@1", percent=True),
        panel("think_rate", "Comments", "lines per completion", smooth=True, from_zero=True),
    )
    if not panels:
        return []
    return [
        _picture(
            "rlvr",
            lambda: figures.curves(panels),
            "RLVR from the NTP model and from the RA3 model: the same tasks, unit tests, steps and settings.",
            "RLVR training reward, held-out pass@1 and comments written, from NTP and from RA3",
        )
    ]


def _against_tokens(run: Run, stage: str, column: str) -> Curve | None:
    """A curve over millions of training tokens (mean over seeds) in place of steps, where the stage logs tokens."""
    curve, tokens = run.curve(stage, column), run.curve(stage, "tokens")
    if curve is None or tokens is None:
        return None
    at = dict(zip(tokens.steps.tolist(), tokens.mean.tolist(), strict=True))
    kept = [i for i, step in enumerate(curve.steps.tolist()) if step in at]
    return Curve(curve.steps[kept] * 0.0 + [at[int(curve.steps[i])] / 1e6 for i in kept], curve.values[:, kept])


def _panel(found: Sequence[tuple[str, Curve | None]], title: str, y: str, x: str, **options: bool) -> Panel | None:
    lines = [Line(BY_NAME[name], curve) for name, curve in found if curve is not None]
    return Panel(title, y, lines, x=x, **options) if lines else None


def _some(*panels: Panel | None) -> list[Panel]:
    return [panel for panel in panels if panel is not None]


# -- 4 to 6: examples, cost, data --------------------------------------------------------------------------------------


def _examples(config: ReportConfig, run: Run) -> list[Block]:
    stage = f"bootstrap_{run.rounds}"
    source = next((runs[min(runs)] for name, runs in run.stages.items() if name == stage), None)
    found = source.json("examples.json") if source else None
    if source is None or not found or config.examples == 0:
        return []
    introduction = (
        f"The first {min(config.examples, len(found))} demonstrations of `{source.name}` that got a rationale, not "
        "picked by eye. Expert lines are copied byte for byte; marked lines are the policy's."
    )
    if all(one["before"] == one["after"] for one in found):
        introduction = f"`{source.name}` wrote no rationale: the demonstrations are as they were."
    blocks: list[Block] = [
        Heading("Demonstrations before and after annotation", "examples"),
        Paragraph(introduction),
    ]
    for one in found[: config.examples]:
        before, after = one["before"].rstrip("\n").split("\n"), one["after"].rstrip("\n").split("\n")
        try:
            rationales = match_rationales(before, after)
        except ValueError as error:
            raise UserError(f"{source.folder / 'examples.json'}: {one['id']}: {error}") from error
        blocks.append(Example(f"`{one['id']}`", tuple(before), tuple(after), rationales))
    return blocks


def _cost(run: Run) -> list[Block]:
    blocks: list[Block] = [Heading("Cost", "cost"), tables.cost(run)]
    if sentence := tables.compute_match(run):
        blocks.append(Paragraph(sentence))
    return blocks


def _data(run: Run) -> list[Block]:
    found = tables.decontamination(run)
    return [Heading("Decontamination", "data"), found] if found else []


def _picture(name: str, make: figures.Make, caption: str, alt: str) -> Picture:
    svg, png = figures.draw(make)
    return Picture(name, caption, alt, svg, png)


def _point(value: float, low: float, high: float) -> Point:
    return Point(100 * value, 100 * low, 100 * high)


def _score_point(score: Score) -> Point:
    return _point(score.value, score.low, score.high)
