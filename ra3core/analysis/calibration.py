"""From gains to the think penalty: how often would a policy think at c, what would it cost, and which c to choose.

A boundary with gain g (ra3core/analysis/gains.py) thinks at penalty c where g > c, so that with N boundaries

    rate(c) = #{g > c} / N        tokens(c) = mean over demonstrations of (own tokens + those of its rationales at c)

and the c for a target rate is the least one, not below 0, at which no more boundaries than that think:

    c* = max(0, g_(k+1)),    k = floor(target N),    g_(1) >= g_(2) >= ...

Its interval is a bootstrap over demonstrations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ra3core.analysis.clusters import Clusters, Floats, interval
from ra3core.analysis.gains import Gain

POINTS = 101  # of the curve, and of the distribution's quantiles


@dataclass(frozen=True)
class Calibration:
    """The proposed c with the interval [low, high] in nats.

    target: share of boundaries asked for. think_rate: share that thinks at c. at_zero: share that thinks when thinking
    costs nothing: below the target, no penalty reaches it and c is 0.
    """

    c: float
    low: float
    high: float
    target: float
    think_rate: float
    at_zero: float


def calibrate(gains: ArrayLike, clusters: Clusters, target: float) -> Calibration:
    """c* for a target think rate. gains: (boundaries,) nats; clusters: the demonstrations that they lie in."""
    g = np.asarray(gains, dtype=float)
    order = np.argsort(-g)
    ranked = g[order]
    drawn = clusters.draws[:, clusters.of[order]]  # how often each boundary is in a resample
    reached = drawn.cumsum(1)
    allowed = np.floor(target * reached[:, -1:] + 1e-9)
    first = (reached > allowed).argmax(1)  # of those that may no longer think
    low, high = interval(np.maximum(0.0, ranked[first]))
    c = max(0.0, float(ranked[math.floor(target * len(g) + 1e-9)]))
    return Calibration(c, float(low), float(high), target, float(np.mean(g > c)), float(np.mean(g > 0)))


def gain_curve(
    gains: Sequence[Gain], own_tokens: Mapping[str, int], target: float, resamples: int, seed: int = 0
) -> dict[str, Any]:
    """Everything the calibrator shows, as plain data.

    own_tokens: demonstration -> its tokens without rationales. The result:
      boundaries, demonstrations   how many were measured
      policy_think_rate            mean p(think) of the policy as it is
      gain, gain_best              mean over boundaries of the mean and of the best of the group, with intervals, nats
      distribution                 quantiles at `share` of both
      curve                        over c (nats): think_rate with its interval and tokens a demonstration, for
                                   the mean of the group (what the policy's decision earns), and for the best of it
      plain_tokens                 tokens of a demonstration without rationales
      proposed                     `Calibration` by the mean
    """
    clusters = Clusters([gain.demonstration for gain in gains], resamples, seed)
    mean, best = (np.array([getattr(gain, name) for gain in gains]) for name in ("mean", "best"))
    added = np.array([gain.tokens for gain in gains])
    top = float(np.quantile(best, 0.995))
    shares = np.linspace(0, 1, POINTS)
    grid = max(top, 1e-3) * shares**2  # close where c usually lies
    plain = sum(own_tokens.values()) / len(own_tokens)
    curves = {}
    for name, values in (("mean", mean), ("best", best)):
        thinks: Floats = (values[:, None] > grid).astype(float)
        rate, low, high = clusters.mean(thinks)
        tokens = plain + (thinks * added[:, None]).sum(0) / len(own_tokens)
        curves[name] = {"think_rate": _list(rate), "low": _list(low), "high": _list(high), "tokens": _list(tokens)}
    return {
        "boundaries": len(gains),
        "demonstrations": len(own_tokens),
        "policy_think_rate": float(np.mean([gain.think for gain in gains])),
        "gain": _estimate(clusters.mean(mean)),
        "gain_best": _estimate(clusters.mean(best)),
        "distribution": {
            "share": _list(shares),
            "mean": _list(np.quantile(mean, shares)),
            "best": _list(np.quantile(best, shares)),
        },
        "curve": {"c": _list(grid), **curves},
        "plain_tokens": plain,
        "proposed": asdict(calibrate(mean, clusters, target)),
    }


def _estimate(found: tuple[Any, Any, Any]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), map(float, found), strict=True))


def _list(values: ArrayLike) -> list[float]:
    return [round(float(x), 6) for x in np.asarray(values)]
