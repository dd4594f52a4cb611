"""The score along mid-training (the paper's figure 4): of the base model, of models that M-steps kept on the way, and
of those that left a round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ra3core.report.inputs import Run
from ra3core.report.scores import Average, Contender, Score
from ra3core.report.stages import mean
from ra3core.stage import ON_THE_WAY


@dataclass(frozen=True)
class Reached:
    """Average pass@1 over the benchmarks, after so many tokens that an arm's M-steps trained on (mean over seeds)."""

    tokens: float
    score: Score


def course(run: Run, average: Average, arm: str) -> list[Reached]:
    """From the base model to the arm's, as far as there are evaluations; empty where there is none of the arm's."""
    start = average.score(Contender("base"))
    found = [Reached(tokens, score) for tokens, name in _models(run, arm) if (score := average.score(Contender(name)))]
    return [Reached(0.0, start), *found] if found and start else found


def tokens_before(run: Run, arm: str) -> float:
    """Tokens that an arm's M-steps before the last trained on (mean over seeds)."""
    return sum(mean(run, stage, "train_tokens") or 0.0 for stage in _m_steps(run, arm)[:-1])


def _models(run: Run, arm: str) -> Iterator[tuple[float, str]]:
    """Tokens trained on before, and the contender's name, of every model of an arm's M-steps."""
    before = 0.0
    for stage in _m_steps(run, arm):
        trained = mean(run, stage, "train_tokens")
        if trained is None:
            return
        kept: dict[str, list[float]] = {}
        for one in run.stages[stage].values():
            for name, tokens in one.manifest.metrics.get(ON_THE_WAY, {}).items():
                kept.setdefault(name, []).append(tokens)
        for name, tokens in kept.items():
            yield before + sum(tokens) / len(tokens), f"{stage}_at_{name}"
        before += trained
        yield before, arm if stage == run.stage_of(arm) else stage


def _m_steps(run: Run, arm: str) -> list[str]:
    """The M-steps that lead to an arm's model, in order."""
    names = "m_step_{}" if arm == "ra3" else f"{arm}_round_{{}}"
    rounds = [names.format(r) for r in range(1, run.rounds)]
    return [*(stage for stage in rounds if stage in run.stages), run.stage_of(arm)]
