"""The curves of training: the paper's figures 1 (E-step reward), 3 (M-step cross-entropy), 4 (scores during
mid-training) and 5 (RLVR), with what else tells whether a stage went well."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np

from ra3core.report import figures, paper_figures, rl_tables, tables
from ra3core.report.blocks import Block, Heading, Paragraph
from ra3core.report.claims import Evidence
from ra3core.report.figures import Line, Panel
from ra3core.report.inputs import Curve, Run
from ra3core.report.mid_training import course, tokens_before
from ra3core.report.paper_figures import Path
from ra3core.report.pictures import picture, score_point
from ra3core.report.rl import RATE, Courses, timed
from ra3core.report.scores import Average
from ra3core.report.style import AFTER_RLVR, BY_NAME, MID_TRAINING
from ra3core.report.verdicts import LABELS, enumerate_in_words, interval, seeds_in_words, signed, verdict
from ra3core.statistics import over_seeds


def training(
    run: Run, average: Average, evidence: Sequence[Evidence], found: Courses, rates: tuple[float, ...]
) -> list[Block]:
    """The section; empty where no stage logged anything."""
    blocks = [
        *_e_step(run),
        *_m_step(run, evidence),
        *_progress(run, average, evidence),
        *_rlvr(run, evidence),
        *rl_tables.tables(found, rates),
        *([gained] if (gained := rl_tables.gained(average)) else []),
    ]
    if tuned := tables.tuning(run):
        blocks += [Heading("Tuning", "tuning", level=3), tuned]
    if not blocks:
        return []
    several = len(run.seeds) > 1
    band = "Bands: mean ± one standard error over seeds." if several else "One seed, so that there are no bands."
    return [
        Heading("Training", "training"),
        Paragraph(f"{band} A curve with a pale one behind it is the centred moving average of that."),
        *blocks,
    ]


def _e_step(run: Run) -> list[Block]:
    def panel(column: str, title: str, y: str, **options: bool) -> Panel | None:
        return _panel([("ra3", run.rounds_curve("e_step", column))], title, y, "E-step iteration", **options)

    blocks: list[Block] = []
    reward = _some(
        panel("reward", "E-step reward", "nats per decision", smooth=True, each_seed=True),
        panel("gain", "Gain over no rationale", "nats per rationale", smooth=True, each_seed=True),
    )
    health = _some(
        panel("think_rate", "Think rate", "lines with a rationale", smooth=True, percent=True, from_zero=True),
        panel("rationale_tokens", "Rationale length", "tokens", smooth=True, from_zero=True),
        panel("segment_lines", "Segment length", "lines per rationale", smooth=True, from_zero=True),
        panel("entropy", "Entropy", "nats per token", smooth=True, from_zero=True),
    )
    shown = [line.curve for panel in (*reward, *health) for line in panel.lines]
    seeds = min((len(curve.values) for curve in shown), default=0)
    rounds = [one for curve in shown for one in curve.rounds()]
    new_round = " Dotted vertical lines: a new round starts." if any(curve.starts for curve in shown) else ""
    trained = {seed for r in range(1, run.rounds + 1) for seed in run.stages.get(f"e_step_{r}", {})}
    if seeds < len(trained):
        new_round += f" Curves of the seeds alone that have all these rounds, {seeds} of {len(trained)}."
    if reward:
        smoothed = ", smoothed by a centred moving average" if any(len(one.steps) >= 40 for one in rounds) else ""
        each = f" Every seed and their mean{smoothed}, without bands." if seeds > 1 else ""
        blocks.append(
            picture(
                "e_step_reward",
                lambda: figures.curves(reward, 2.9),
                "**The paper's figure 1.** Left: the E-step's reward, the log-likelihood of the expert's next lines, "
                "less the penalty c when a rationale is written; how hard the lines of an iteration are moves it most. "
                "Right: that log-likelihood given a rationale less the one without, before the penalty: there this "
                "cancels. "
                f"{rise(run, 'reward', 'the reward')} {rise(run, 'gain', 'the gain')}{each}{new_round}",
                "E-step reward and gain over iterations, every seed and their mean",
                seeds,
            )
        )
    if health:
        blocks.append(
            picture(
                "e_step",
                lambda: figures.curves(health, 2.1),
                "E-step. Mean probability of a rationale, over lines; length of a rationale, lines that it governs, "
                f"and entropy of its tokens.{new_round}",
                "Think rate, rationale length, segment length and entropy over E-step iterations",
                seeds,
            )
        )
    blocks += [table for table in (tables.elbo(run), tables.annotation(run)) if table is not None]
    return blocks


def rise(run: Run, column: str, name: str) -> str:
    """Whether a figure of the first E-step is higher in its last tenth than in its first, seed by seed."""
    curve = run.curve("e_step_1", column)
    if curve is None or len(curve.steps) < 2:
        return ""
    found = over_seeds(curve.rise)
    said = LABELS[verdict(found.low, found.high)]
    seeds = len(curve.values)
    over = "" if isnan(found.low) else f"; {seeds_in_words(seeds)}"
    return (
        f"**{said}: {name} rises**, from the first tenth of the first round to its last, "
        f"{signed(found.value, 2)} nats ({interval(found.low, found.high, 2, seeds)}{over})."
    )


def _m_step(run: Run, evidence: Sequence[Evidence]) -> list[Block]:
    before = {arm: tokens_before(run, arm) for arm in run.trained}
    last = " Of an arm with rounds the last, after the tokens of those before it." if any(before.values()) else ""

    def panel(column: str, title: str, y: str) -> Panel | None:
        found = [(arm, _against_tokens(run, run.stage_of(arm), column, before[arm])) for arm in run.trained]
        return _panel(found, title, y, "training tokens (millions)", log=True)

    panels = _some(
        panel("held_out", "All tokens", "nats per token"),
        panel("held_out_code", "Code tokens", "nats per code token"),
        panel("held_out_nats", "Whole demonstration", "nats per demonstration"),
    )
    if not panels:
        return []
    return [
        picture(
            "m_step",
            lambda: figures.curves(panels, 2.8 + 0.08 * len(run.trained)),
            "**The paper's figure 3.** Cross-entropy of the M-step (log scale), on demonstrations held out from its "
            "training. Left: per token over **all tokens**, rationales included, prompt excluded. Middle: per **code "
            f"token** only; RA3 reads the rationales that bootstrap wrote, {_chosen(run)}. Right: the **whole "
            f"demonstration**, where a rationale has to pay for itself.{last} "
            f"{_verdicts(evidence, 'cross_entropy')}",
            "Held-out cross-entropy of RA3 and its controls over training tokens",
            len(run.seeds),
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


def _progress(run: Run, average: Average, evidence: Sequence[Evidence]) -> list[Block]:
    """The paper's figure 4: scores against mid-training tokens, as far as models on the way were evaluated."""
    found = [(arm, course(run, average, arm.name)) for arm in MID_TRAINING[1:]]
    paths = [
        Path(arm, [(one.tokens / 1e6, score_point(one.score)) for one in points]) for arm, points in found if points
    ]
    if not paths:
        return []
    known = [path.arm.short for path in paths if len(path.points) > 2]
    guide = "models before and after mid-training were evaluated; the lines between them are there to guide the eye."
    of_others = f"Of the other arms only {guide}" if len(known) < len(paths) else ""
    between = f"Models on the way: {', '.join(known)}. {of_others}" if known else f"Only {guide}"
    averaged = " and ".join(average.suites) if len(average.suites) > 1 else next(iter(average.suites))
    return [
        picture(
            "mid_training",
            lambda: paper_figures.progress(paths, "training tokens of the M-steps (millions)", "mean pass@1"),
            f"**The paper's figure 4.** Mean pass@1 over the benchmarks ({averaged}) against the tokens that "
            f"mid-training trained on, with 95 % intervals. {between} {_verdicts(evidence, 'pass_at_1')}",
            "Mean pass@1 along mid-training against training tokens",
            len(run.seeds),
        )
    ]


def _rlvr(run: Run, evidence: Sequence[Evidence]) -> list[Block]:
    def panel(column: str, title: str, y: str, **options: bool) -> Panel | None:
        found = [(arm.name, run.curve(arm.name, column)) for arm in AFTER_RLVR]
        return _panel(found, title, y, "RLVR step", **options)

    result = _some(
        panel(RATE, "Held-out tasks, by step", "pass@1", percent=True),
        _panel(
            [(arm.name, timed(run, arm.name)) for arm in AFTER_RLVR],
            "Held-out tasks, by time",
            "pass@1",
            "minutes of RLVR",
            percent=True,
        ),
    )
    tasks = rl_tables.task_set(run)
    blocks: list[Block] = [Paragraph(tasks)] if tasks else []
    if result:
        starts = enumerate_in_words([BY_NAME[line.arm.start].short for line in result[0].lines])
        blocks.append(
            picture(
                "rlvr",
                lambda: figures.curves(result, 3.3),
                f"**The paper's figure 5.** RLVR from {starts}: the same tasks, unit tests and steps; pass rate on "
                "tasks that it never trains on, mean over seeds. Minutes are those of the steps, without the "
                f"evaluations. {_verdicts(evidence, 'rlvr')}",
                "Held-out pass rate during RLVR by step and by time, one curve an arm",
                max((len(run.stages.get(arm.name, {})) for arm in AFTER_RLVR), default=0),
            )
        )
    health = _some(
        panel("reward", "Training reward", "samples that pass", smooth=True, percent=True),
        panel("think_rate", "Comments", "lines per completion", smooth=True, from_zero=True),
    )
    if health:
        blocks.append(
            picture(
                "rlvr_training",
                lambda: figures.curves(health),
                "RLVR: the reward on the tasks it trains on, which is not the result, and the comments it writes.",
                "RLVR training reward and comments written, one curve an arm",
                len(run.seeds),
            )
        )
    return blocks


def _verdicts(evidence: Sequence[Evidence], claim: str) -> str:
    """What the claims say, in a clause each."""
    parts = [f"{one.short}: {one.statement.label.lower()}" for one in evidence if one.claim == claim]
    return f"**{'; '.join(parts)}.**" if parts else ""


def _against_tokens(run: Run, stage: str, column: str, before: float = 0.0) -> Curve | None:
    """A curve over millions of training tokens in place of steps; None where the stage logs none.

    before: tokens that the arm was trained on ahead of the stage.

    Seeds have trainings of different lengths: values are taken at the same shares of each (on a straight line between
    two measurements), and drawn at the mean number of tokens.
    """
    rows = [
        [row for row in one.rows if column in row and "tokens" in row] for one in run.stages.get(stage, {}).values()
    ]
    found = [np.array([(row["tokens"], row[column]) for row in seed], float).T for seed in rows if seed]
    found = [(tokens, values) for tokens, values in found if tokens[-1] > 0]
    if not found:
        return None
    first, _ = found[0]
    shares = first / first[-1]
    length = np.mean([tokens[-1] for tokens, _ in found]) / 1e6
    return Curve(
        before / 1e6 + shares * length,
        np.array([np.interp(shares, tokens / tokens[-1], values) for tokens, values in found]),
    )


def _panel(found: Sequence[tuple[str, Curve | None]], title: str, y: str, x: str, **options: bool) -> Panel | None:
    lines = [Line(BY_NAME[name], curve) for name, curve in found if curve is not None]
    return Panel(title, y, lines, x=x, **options) if lines else None


def _some(*panels: Panel | None) -> list[Panel]:
    return [panel for panel in panels if panel is not None]
