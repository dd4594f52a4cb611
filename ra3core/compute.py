"""What a stage's tokens cost: the one place that says so, for the compute-matched arms and for tables of cost.

With N parameters a token that a model is trained on takes 6N floating-point operations (2N forward, 4N backward); a
token that is only read or scored, and one that is decoded, takes 2N. Attention's share, which grows with the length of
the text (about a tenth of an M-step here), is left out, as is usual; it is left out of every arm.

What stages record: `tokens`, everything a model ran over; of these `train_tokens` with a gradient, and
`evaluation_tokens` that only their curves needed, which is no part of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAINED, READ = 6, 2
"""Operations a parameter and token: with a gradient, and without (scored or decoded)."""


def spent_tokens(metrics: Mapping[str, Any]) -> int:
    """Tokens that a stage's training took, each counted once: what ntp_compute is matched with."""
    return int(metrics["tokens"]) - int(metrics.get("evaluation_tokens", 0))


def spent_operations(metrics: Mapping[str, Any]) -> int:
    """Floating-point operations a parameter that a stage's training took."""
    trained = int(metrics.get("train_tokens") or 0)
    return TRAINED * trained + READ * (spent_tokens(metrics) - trained)


def trained_tokens_of_equal_operations(metrics: Mapping[str, Any]) -> int:
    """How many tokens can be trained on for a stage's operations (rounded down): what ntp_flops is matched with."""
    return spent_operations(metrics) // TRAINED
