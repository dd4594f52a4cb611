"""Cost is counted from what stages record."""

from __future__ import annotations

from ra3core.compute import spent_operations, spent_tokens, trained_tokens_of_equal_operations


def test_tokens_for_curves_are_no_cost() -> None:
    assert spent_tokens({"tokens": 100, "evaluation_tokens": 30}) == 70
    assert spent_tokens({"tokens": 100}) == 100


def test_a_trained_token_costs_three_read_ones() -> None:
    read, trained = {"tokens": 90, "train_tokens": 0}, {"tokens": 30, "train_tokens": 30}
    assert spent_operations(read) == spent_operations(trained) == 180
    assert trained_tokens_of_equal_operations(read) == trained_tokens_of_equal_operations(trained) == 30


def test_an_m_step_is_matched_by_itself() -> None:
    m_step = {"tokens": 150, "train_tokens": 120, "evaluation_tokens": 30}
    assert trained_tokens_of_equal_operations(m_step) == 120
