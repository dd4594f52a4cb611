"""The temporal ELBO, round by round, as the E-steps recorded it.

Every E-step measures its policy on the demonstrations that it holds out, before its first and after its last iteration
(`temporal_elbo` in ra3core/learning/e_step.py). All rounds of a seed hold out the same ones, so rounds compare: how
much the M-step between them gained is the step from one round's `after` to the next one's `before`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ra3core.artifacts import MANIFEST, Manifest
from ra3core.errors import UserError

TERMS = ("elbo", "reconstruction", "think_cost", "bernoulli_kl", "rationale_nats", "thinks_per_demonstration")


def elbo_by_round(folders: Mapping[int, Path]) -> list[dict[str, Any]]:
    """A row for each round (number -> folder of its E-step's artifact): think_penalty, and the terms before and after.

    Nats per demonstration; an infinite think_penalty is None. Raises UserError for a folder that is no artifact of an
    E-step.
    """
    rows = []
    for number, folder in sorted(folders.items()):
        file = folder / MANIFEST
        try:
            manifest = Manifest.model_validate(json.loads(file.read_bytes()))
            terms = {
                when: {name: manifest.metrics[f"elbo_{when}"][name] for name in TERMS} for when in ("before", "after")
            }
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file}: expected the manifest of an E-step with its temporal ELBO") from error
        c = manifest.config["think_penalty"]
        rows.append({"round": number, "think_penalty": c if math.isfinite(c) else None, **terms})
    return rows
