"""What every section of the configuration is: unknown keys are errors, values are checked, nothing is changed later."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]

Precision = Literal["float32", "bfloat16"]
"""In what a stage's model computes; weights in training, losses and probabilities are in float32 either way."""


class Section(BaseModel):
    """Unknown keys are errors; a section is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")
