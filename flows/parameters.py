"""Parameters of the flows: what the Prefect UI makes its forms of, and `prefect deployment run -p` validates."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
)
from pydantic.fields import FieldInfo

from ra3core.config import RuntimeConfig

Function = TypeVar("Function", bound=Callable[..., Any])


def described(function: Function) -> Function:
    """Let a flow's docstring describe its parameters as their annotations do: Prefect reads descriptions there."""
    hints = get_type_hints(function, include_extras=True)
    fields = {name: next(iter(getattr(hint, "__metadata__", ())), None) for name, hint in hints.items()}
    lines = [f"    {name}: {field.description}" for name, field in fields.items() if isinstance(field, FieldInfo)]
    function.__doc__ = "\n".join([(function.__doc__ or "").strip(), "", "Args:", *lines])
    return function


def plain(schema: dict[str, Any]) -> None:
    """For a form: a field that may stay empty, instead of a choice between a type and none."""
    schema.pop("default", None)
    if "anyOf" in schema:
        schema |= schema.pop("anyOf")[0]


Preset = Annotated[str, Field(description="A name in configs/, such as demo or smoke, or the path of a YAML file.")]
Seeds = Annotated[
    int | None,
    Field(ge=1, description="How many seeds to run, from the configured one on; one report. The preset's by default."),
    WithJsonSchema({"type": "integer", "minimum": 1}),  # for a form: a number that may stay empty
]
Overrides = Annotated[
    list[str], Field(description="Any value of the configuration as section.key=value, such as e_step.window=4.")
]
Refresh = Annotated[
    list[str], Field(description="Stages to run again although they are there: e_step, ntp, evaluate_ra3/0.")
]
Runtime = Annotated[
    RuntimeConfig | None,
    Field(description="Where and how stages execute; left out, as the worker's RA3_* variables say."),
]
Rl = Annotated[bool, Field(description="With RLVR from the arms that the preset says, such as NTP and RA3.")]


class Settings(BaseModel):
    """What is changed most often. What is left empty is as the preset has it."""

    model_config = ConfigDict(extra="forbid")

    seed: int | None = Field(
        default=None, ge=0, description="Number of the first seed; `seeds` counts from it.", json_schema_extra=plain
    )
    rounds: int | None = Field(
        default=None, ge=1, description="Rounds of E-step, bootstrap and M-step.", json_schema_extra=plain
    )
    think_penalty: float | None = Field(
        default=None, ge=0, description="c: what a rationale costs in the E-step, in nats.", json_schema_extra=plain
    )
    base_model: str | None = Field(
        default=None, description="A folder that transformers loads, or a hub name.", json_schema_extra=plain
    )
    demonstrations: str | None = Field(
        default=None,
        description="embedded, python:FOLDER, parquet:FILE, jsonl:FILE or hub:NAME.",
        json_schema_extra=plain,
    )
    benchmarks: list[str] | None = Field(
        default=None, description="Such as embedded, humaneval, mbpp.", json_schema_extra=plain
    )

    @model_serializer(mode="wrap")
    def _given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is empty: the form's schema knows no null."""
        return {name: value for name, value in handler(self).items() if value is not None}

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
        values = self.model_dump()
        return [f"{names[name]}={json.dumps(value)}" for name, value in values.items()]


def number(seeds: int | None) -> list[str]:
    """A flow's `seeds` as `ra3core.config.load` takes it."""
    return [] if seeds is None else [f"seeds={seeds}"]


AS_PRESET, NONE = Settings(), list[str]()  # defaults, never changed
GivenSettings = Annotated[Settings, Field(description="What is changed most often; empty is as the preset has it.")]
