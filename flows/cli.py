"""The `ra3` command. Only what a command needs is imported, when it runs: help and bad options answer at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from typer.exceptions import TyperException

from flows import environment
from ra3core.config import RunConfig, load, parse
from ra3core.errors import UserError

INTERRUPTED = 130  # what typer returns after Ctrl-C

app = typer.Typer(
    name="ra3",
    help="RA3: mid-training that learns to reason as action abstractions, from data to report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Preset = Annotated[str, typer.Option(help="A name in configs/, or the path of a YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Such as e_step.think_penalty=0.1.")]
Workers = Annotated[int | None, typer.Option(help="Stages that run at the same time.")]


@app.command()
def run(
    preset: Preset = "demo",
    set_: Set = None,
    seed: Annotated[int | None, typer.Option(help="First seed; the preset's by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Run the pipeline for so many seeds, one report over all.")] = 1,
    demonstrations: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="embedded, python:FOLDER, parquet:FILE or hub:NAME (corpus.source)."),
    ] = None,
    workers: Workers = None,
) -> None:
    """Run the whole pipeline; stages that were run before with the same inputs are reused."""
    from tasks.external import absolute  # imports no Prefect

    overrides = list(set_ or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    config = load(preset, overrides)
    source = absolute(demonstrations or config.corpus.source)
    if source != config.corpus.source:
        overrides.append(f"corpus.source={json.dumps(source)}")  # a path may hold what YAML reads as something else
        config = load(preset, overrides)
    if seeds < 1:
        raise UserError(f"--seeds: expected at least 1, found {seeds}")
    runtime = environment.runtime(workers=workers)
    with environment.prefect_api(runtime.root) as ready:
        from flows.pipeline import pipeline

        ready()
        outcome = pipeline(preset=preset, overrides=overrides, seeds=seeds, runtime=runtime)
    from flows.results import show

    show(outcome)


@app.command()
def data(
    accept: Annotated[bool, typer.Option("--accept", help="Make data/ the version that data.dvc tracks.")] = False,
    preset: Preset = "demo",
    set_: Set = None,
) -> None:
    """Check data/ against data.dvc and the configuration; generate it when it is missing."""
    config = load(preset, set_ or [])
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from ra3core.stage import StageLog
    from tasks import versioning

    artifact = (versioning.accept if accept else versioning.version)(config.data, runtime.root, StageLog())
    print(f"{artifact.path} {artifact.digest}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A folder that transformers can load, or a hub name.")],
    benchmark: Annotated[str, typer.Option(help="Such as humaneval.")],
    data_file: Annotated[Path, typer.Option("--data", metavar="FILE", help="The benchmark's file.")],
    samples: Annotated[int, typer.Option(help="Completions per task.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy decoding.")] = 0.0,
    limit: Annotated[int | None, typer.Option(help="Only so many tasks.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 512,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where samples and results go.")] = None,
) -> None:
    """Sample from one model on a benchmark and grade it by its unit tests."""
    values = {"benchmark": benchmark, "samples": samples, "temperature": temperature, "limit": limit}
    ks = [k for k in (1, 5, 10, 100) if k <= samples]
    settings = parse(
        {"evaluation": values | {"max_new_tokens": max_new_tokens, "k": ks, "modes": ["free"]}}, "ra3 evaluate"
    )
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows.evaluation import evaluate_model  # imports torch

    evaluate_model(model, data_file, settings.evaluation, out, runtime)


@app.command()
def config(preset: Preset = "demo", set_: Set = None) -> None:
    """Print the resolved configuration as YAML, which --preset takes again."""
    print(as_yaml(load(preset, set_ or [])), end="")


@app.command()
def ui(
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect.")] = 4200,
) -> None:
    """Show the runs in MLflow and in Prefect, on this machine only, until Ctrl-C."""
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows.ui import serve

    serve(runtime.root, mlflow_port, prefect_port)


def as_yaml(config: RunConfig) -> str:
    """A configuration as YAML, sections in their order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def main() -> None:
    """Entry point: what the user can put right is one sentence on stderr and exit code 2; a bug is a traceback."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        print(f"ra3: {error}", file=sys.stderr)
        code = 2
    except TyperException as error:
        print(f"ra3: {error.format_message()}", file=sys.stderr)
        code = 2
    if code == INTERRUPTED:
        print("ra3: interrupted; the same command continues from here", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
