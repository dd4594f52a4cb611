"""Arms and tuning that do not go together are refused in one sentence."""

from __future__ import annotations

import pytest

from ra3core.config import load
from ra3core.errors import UserError

TUNED = ("tuning.seeds=[100]", "tuning.m_step_learning_rates=[0.001, 0.002]", "evaluation.limit=40")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["arms.mid_trained=[ntp, bert]"], r"arms.mid_trained.1: .*found 'bert'"),
        (["arms.mid_trained=[ntp, ntp]"], r"arms: mid_trained: ntp is listed twice, expected each once"),
        (["arms.mid_trained=[ntp, shuffled]"], r"mid_trained: shuffled is made from what RA3 does, expected ra3"),
        (["arms.mid_trained=[ntp]"], r"rlvr: this run has no ra3, expected some of base, ntp$"),
        (["arms.m_step_learning_rates.brite=0.1"], r"m_step_learning_rates: this run has no brite, expected some of"),
        (["arms.m_step_learning_rates.ntp=0"], r"arms.m_step_learning_rates.ntp: .*greater than 0, found 0"),
        (["arms.e_step_learning_rates.ntp=0.1"], r"arms.e_step_learning_rates.ntp.*'ra3' or 'brite', found 'ntp'"),
        (
            ["arms.e_step_learning_rates.brite=0.1"],
            r"e_step_learning_rates: this run has no brite, expected some of ra3",
        ),
        (["tuning.seeds=[100]"], r"tuning: seeds: tuning takes both seeds and a grid of learning rates"),
        ([*TUNED, "seed=99", "seeds=2"], r"tuning.seeds: 100 is a seed of the run, expected seeds that are only tuned"),
        ([*TUNED, "arms.m_step_learning_rates.ntp=0.1"], r"tuning.m_step_learning_rates: arms.m_step_learning_rates"),
        (
            [*TUNED, "arms.e_step_learning_rates.ra3=0.1", "tuning.e_step_learning_rates=[0.1]"],
            r"tuning.e_step_learning_rates: arms.e_step_learning_rates says the rates already",
        ),
        ([*TUNED, "evaluation.limit="], r"tuning.tasks: 20 of 60 .* expected an evaluation.limit of at most 40"),
        ([*TUNED, "evaluation.limit=41"], r"expected an evaluation.limit of at most 40"),
    ],
)
def test_what_does_not_go_together(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load("demo", overrides)
    assert "\n" not in str(error.value)


def test_a_benchmarks_own_limit_counts() -> None:
    load("demo", [*TUNED, "evaluation.limit=", "evaluation.benchmarks=[{name: embedded, limit: 40}]"])
    load("demo", [*TUNED, "evaluation.limit=", "evaluation.benchmarks=humaneval"])
