"""Options that commands of `ra3` share, or that would crowd them."""

from __future__ import annotations

from typing import Annotated

import typer

from ra3core.config import Engine

Preset = Annotated[str, typer.Option(help="A name in configs/, or the path of a YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as e_step.think_penalty=0.1.")]
Workers = Annotated[int | None, typer.Option(help="Stages that run at the same time.")]
GradingWorkers = Annotated[int | None, typer.Option(help="Programs that are judged at the same time.")]
Ks = Annotated[
    str | None, typer.Option("--k", metavar="K[,K]", help="Of pass@k; 1,5,10,100 as far as there are samples.")
]
DataFiles = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[NAME=]FILE", help="A benchmark's file, with its name if there are several."),
]
RequireIsolation = Annotated[
    bool, typer.Option("--require-isolation", help="Refuse to run programs where a protection is missing.")
]
DrawnBy = Annotated[Engine, typer.Option(help="What draws completions (docs/engines.md).")]
Servers = Annotated[
    str | None, typer.Option(metavar="URL[,URL]", help="Of engine http, such as http://localhost:8000/v1; RA3_SERVERS.")
]

# Of the plan that `ra3 run --dry-run` prints.
DryRun = Annotated[bool, typer.Option("--dry-run", help="Run nothing: print stages, tokens, memory, hours and cost.")]
Gpu = Annotated[str | None, typer.Option(help="Of the plan: h200, h100, a100-80, a100-40, l40s or rtx4090.")]
Gpus = Annotated[int | None, typer.Option(help="Of the plan: how many; as --device names by default.")]
Price = Annotated[float | None, typer.Option(help="Of the plan: of one GPU for an hour.")]
Utilisation = Annotated[float | None, typer.Option(help="Of the plan: share of the peak reached; 0.4.")]
Parameters = Annotated[float | None, typer.Option(help="Of the plan, where the model's are not known: 3e9.")]
AsJson = Annotated[bool, typer.Option("--json", help="The plan for machines.")]
