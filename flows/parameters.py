"""Parameters of the flows: what the Prefect UI makes its forms of, and `prefect deployment run -p` validates."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ra3core.config import RuntimeConfig

Preset = Annotated[str, Field(description="A name in configs/, such as demo or smoke, or the path of a YAML file.")]
Seeds = Annotated[int, Field(ge=1, description="How many seeds to run, from the configured one on; one report.")]
Overrides = Annotated[
    list[str], Field(description="Any value of the configuration as section.key=value, such as e_step.window=4.")
]
Refresh = Annotated[
    list[str], Field(description="Stages to run again although they are there: e_step, ntp, evaluate_ra3/0.")
]
Runtime = Annotated[
    RuntimeConfig, Field(description="Where and how stages execute; left out, as the worker's RA3_* variables say.")
]


class Settings(BaseModel):
    """What is changed most often. What is left empty is as the preset has it."""

    model_config = ConfigDict(extra="forbid")

    seed: Annotated[int, Field(ge=0)] | None = Field(default=None, description="The first seed.")
    rounds: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Rounds of E-step, bootstrap and M-step."
    )
    think_penalty: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="c: what a rationale costs in the E-step, in nats."
    )
    base_model: str | None = Field(default=None, description="A folder that transformers loads, or a hub name.")
    demonstrations: str | None = Field(
        default=None, description="embedded, python:FOLDER, parquet:FILE, jsonl:FILE or hub:NAME."
    )
    benchmarks: list[str] | None = Field(default=None, description="Such as embedded, humaneval, mbpp.")

    def overrides(self) -> list[str]:
        """As `ra3core.config.load` takes them."""
        names = {
            "seed": "seed",
            "rounds": "rounds",
            "think_penalty": "e_step.think_penalty",
            "base_model": "base.model",
            "demonstrations": "corpus.source",
            "benchmarks": "evaluation.benchmarks",
        }
        values = self.model_dump(exclude_none=True)
        return [f"{names[name]}={json.dumps(value)}" for name, value in values.items()]
