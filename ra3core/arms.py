"""Which arms a run compares, and how their learning rates are chosen (docs/comparison.md says what each is for)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from ra3core.section import NonNegative, Positive, Section

MidTrained = Literal[
    "ntp",
    "ntp_compute",
    "ntp_flops",
    "ra3",
    "ra3_no_rl",
    "ra3_sampled",
    "best_of_g",
    "brite",
    "distilled",
    "shuffled",
    "no_thinking",
]
"""Arms that train the base model on demonstrations."""

Start = Literal["base"] | MidTrained
"""Models that RLVR can start from."""

LearningRate = Annotated[float, Field(gt=0)]

Reinforced = Literal["ra3", "brite"]
"""Arms with an E-step of their own; ra3_sampled takes RA3's."""

OF_RA3 = ("ntp_compute", "ntp_flops", "shuffled")
"""Arms made from what RA3 spent or wrote."""


class ArmsConfig(Section):
    """The base model is an arm of every run. Defaults: the demo's."""

    mid_trained: list[MidTrained] = Field(default=["ntp", "ntp_compute", "ra3_no_rl", "ra3"])
    rlvr: list[Start] = Field(default=["ntp", "ra3"])  # RLVR starts from each: arms ntp_rlvr, ra3_rlvr
    every_mode: list[Start] = Field(default=["base", "ntp", "ntp_compute", "ra3"])  # others are decoded freely only
    analysed: list[Start] = Field(default=[])  # what mid-training did to their models is measured (docs/analysis.md)
    during: list[MidTrained] = Field(default=[])  # the models that m_step.snapshots keeps are evaluated, too
    m_step_learning_rates: dict[MidTrained, LearningRate] = Field(default={})  # in place of m_step.learning_rate
    e_step_learning_rates: dict[Reinforced, LearningRate] = Field(default={})  # in place of e_step.learning_rate
    rlvr_learning_rates: dict[Start, LearningRate] = Field(default={})  # in place of rlvr.learning_rate

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        for name in ("mid_trained", "rlvr", "every_mode", "analysed", "during"):
            require_each_once(name, getattr(self, name))
        for arm in OF_RA3:
            if arm in self.mid_trained and "ra3" not in self.mid_trained:
                raise ValueError(f"mid_trained: {arm} is made from what RA3 does, expected ra3 in the list too")
        trained = {"base", *self.mid_trained}
        for name, listed, known in (
            ("rlvr", self.rlvr, trained),
            ("analysed", self.analysed, trained),
            ("during", self.during, trained),
            ("m_step_learning_rates", self.m_step_learning_rates, trained),
            ("e_step_learning_rates", self.e_step_learning_rates, set(self.reinforced)),
            ("rlvr_learning_rates", self.rlvr_learning_rates, set(self.rlvr)),
        ):
            if unknown := next((arm for arm in listed if arm not in known), None):
                raise ValueError(f"{name}: this run has no {unknown}, expected some of {', '.join(sorted(known))}")
        return self

    @property
    def reinforced(self) -> list[str]:
        """Arms of this run with an E-step of their own."""
        return [arm for arm in get_args(Reinforced) if arm in self.mid_trained]

    @property
    def after_rlvr(self) -> list[str]:
        """Names of the arms that RLVR makes."""
        return [f"{arm}_rlvr" for arm in self.rlvr]

    @property
    def names(self) -> list[str]:
        """Every arm that is evaluated."""
        return ["base", *self.mid_trained, *self.after_rlvr]


GRIDS = ("m_step_learning_rates", "e_step_learning_rates", "rlvr_learning_rates")
"""Settings of `tuning` that are grids, each in place of the setting of the same name of `arms`."""


class TuningConfig(Section):
    """The learning rates of every arm, from one grid, on validation tasks and seeds that the results never see.

    Without `seeds` nothing is tuned.
    """

    seeds: list[NonNegative] = Field(default=[])  # reserved for tuning: none of the run's
    m_step_learning_rates: list[LearningRate] = Field(default=[])  # the grid, the same for every arm; empty: not tuned
    e_step_learning_rates: list[LearningRate] = Field(default=[])  # for arms with an E-step
    rlvr_learning_rates: list[LearningRate] = Field(default=[])
    tasks: Positive = 20  # validation tasks: so many of the last evaluation tasks of every number of steps
    samples: Positive = 4  # completions a task

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in ("seeds", *GRIDS):
            require_each_once(name, getattr(self, name))
        if bool(self.seeds) != any(getattr(self, grid) for grid in GRIDS):
            raise ValueError("seeds: tuning takes both seeds and a grid of learning rates, found one of them")
        return self


class TuneConfig(Section):
    """One choice: which value of `setting` is best. A stage's configuration, put together by the flow."""

    setting: str  # such as m_step.learning_rate
    values: Annotated[list[LearningRate], Field(min_length=1)]
    seeds: Annotated[list[NonNegative], Field(min_length=1)]


class ValidationConfig(Section):
    """The validation tasks, cut from the suite's evaluation tasks."""

    tasks: Positive  # of every number of steps, the last ones


class AsIs(Section):
    """Of a stage without settings."""


def require_each_once(name: str, listed: Iterable[object]) -> None:
    """Raises ValueError for a list that names something twice."""
    seen = set()
    for one in listed:
        if one in seen:
            raise ValueError(f"{name}: {one} is listed twice, expected each once")
        seen.add(one)
