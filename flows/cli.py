"""The `ra3` command. Only what a command needs is imported, when it runs: help and bad options answer at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from typer.exceptions import TyperException

from flows import environment, model_commands, options
from ra3core.config import EMBEDDED, RegistryConfig, RunConfig, VerifierConfig, load, parse
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


@app.command()
def run(
    preset: options.Preset = "demo",
    set_: options.Set = None,
    seed: Annotated[int | None, typer.Option(help="First seed; the preset's by default.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds, one report over all; the preset's by default.")
    ] = None,
    demonstrations: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="embedded, python:FOLDER, parquet:FILE or hub:NAME (corpus.source)."),
    ] = None,
    refresh: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Run it again: e_step, ntp, evaluate_ra3/0, ...")
    ] = None,
    workers: options.Workers = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or some to share out: cuda:0,cuda:1.")] = None,
    task_runner: Annotated[str | None, typer.Option(help="threads, dask or ray.")] = None,
    processes: Annotated[int | None, typer.Option(help="Of every training stage, by accelerate launch.")] = None,
    dry_run: options.DryRun = False,
    gpu: options.Gpu = None,
    gpus: options.Gpus = None,
    price: options.Price = None,
    utilisation: options.Utilisation = None,
    parameters: options.Parameters = None,
    as_json: options.AsJson = False,
) -> None:
    """Run the whole pipeline; stages that were run before with the same inputs are reused."""
    from tasks import external  # imports no Prefect

    overrides = list(set_ or [])
    if seed is not None:
        overrides.append(f"seed={seed}")
    if positive("seeds", seeds) is not None:
        overrides.append(f"seeds={seeds}")
    config = load(preset, overrides)
    source = external.absolute(demonstrations or config.corpus.source)
    if source != config.corpus.source:
        overrides.append(f"corpus.source={json.dumps(source)}")  # a path may hold what YAML reads as something else
        config = load(preset, overrides)
    if dry_run:
        from flows.planned import command, machine_of

        runtime = environment.runtime(workers=workers, device=device)
        machine = machine_of(gpu, gpus, utilisation, price, runtime.device)
        command(preset, overrides, runtime, refresh or [], machine, parameters, as_json)
        return
    of_plan = {"gpu": gpu, "gpus": gpus, "price": price, "utilisation": utilisation, "parameters": parameters}
    if given := next((name for name, value in {**of_plan, "json": as_json or None}.items() if value is not None), None):
        raise UserError(f"--{given}: an option of the plan, expected --dry-run with it")
    external.tasks(config.rlvr_tasks.source)
    if any(entry.name != EMBEDDED for entry in config.evaluation.benchmarks):
        from flows.evaluation import check_entries

        check_entries(config.evaluation.benchmarks)
    runtime = environment.runtime(workers=workers, device=device, task_runner=task_runner, processes=processes)
    with environment.prefect_api(runtime.root) as ready:
        from flows.pipeline import pipeline
        from flows.running import task_runner as runner_of

        ready()
        flow = pipeline.with_options(task_runner=runner_of(runtime), flow_run_name=config.name)
        outcome = flow(preset=preset, overrides=overrides, refresh=refresh or [], runtime=runtime)
    from flows.results import show

    show(outcome)


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="The YAML file of a grid, such as configs/sweeps/e_step_rl.yaml.")],
    set_: options.Set = None,
    rl: Annotated[bool, typer.Option("--rl", help="With RLVR too.")] = False,
    refresh: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Run it again at every point.")] = None,
    workers: options.Workers = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or some to share out: cuda:0,cuda:1.")] = None,
) -> None:
    """Run the comparison at every point of a grid; what points share is run once, and a killed sweep goes on."""
    from ra3core.grid import read_grid

    read_grid(grid).points(set_ or [])
    runtime = environment.runtime(workers=workers, device=device)
    with environment.prefect_api(runtime.root) as ready:
        from flows.sweep import grid_sweep

        ready()
        flow = grid_sweep.with_options(flow_run_name=grid.stem)
        file = flow(grid=str(grid.resolve()), overrides=set_ or [], refresh=refresh or [], runtime=runtime, rl=rl)
    print(f"Points: {file}")


@app.command()
def data(
    accept: Annotated[bool, typer.Option("--accept", help="Make data/ the version that data.dvc tracks.")] = False,
    preset: options.Preset = "demo",
    set_: options.Set = None,
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
    benchmark: Annotated[str, typer.Option(metavar="NAME[,NAME]", help="Such as humaneval,mbpp:3-shot.")],
    data_file: options.DataFiles = None,
    samples: Annotated[int | None, typer.Option(help="Completions per task; the benchmark's own by default.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; the benchmark's own by default.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many tasks.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest completion; the benchmark's own.")] = None,
    k: options.Ks = None,
    workers: options.GradingWorkers = None,
    require_isolation: options.RequireIsolation = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where samples and results go.")] = None,
    engine: options.DrawnBy = "built-in",
    servers: options.Servers = None,
) -> None:
    """Sample from one model on benchmarks and grade it by their unit tests.

    Samples are kept: with the same settings they are not drawn again, only graded where the judge has changed.
    """
    given = {"limit": limit, "samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
    entry = {name: value for name, value in given.items() if value is not None} | ({"k": whole_numbers(k)} if k else {})
    settings = parse(
        {
            "evaluation": {
                "benchmarks": [{"name": name, **entry} for name in benchmark.split(",")],
                "modes": ["free"],
                "engine": engine,
                "verifier": {"require_isolation": require_isolation},
            }
        },
        "ra3 evaluate",
    ).evaluation
    runtime = environment.runtime(servers=servers)
    environment.prepare(runtime.root)
    from flows.evaluation import data_files, evaluate_model

    files = data_files(data_file or [], [entry.name for entry in settings.benchmarks])
    entries = [entry.model_copy(update={"data": files.get(entry.name)}) for entry in settings.benchmarks]
    evaluate_model(model, entries, settings, out, runtime, positive("workers", workers))


@app.command()
def grade(
    benchmark: Annotated[str, typer.Argument(help="Such as humaneval, mbpp:3-shot, humaneval-plus.")],
    samples: Annotated[Path, typer.Argument(help="JSON lines with task_id and completion or solution; may be .gz.")],
    data_file: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="The benchmark's file; the hub by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A result a sample; SAMPLES.results.jsonl by default.")
    ] = None,
    k: options.Ks = None,
    workers: options.GradingWorkers = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out instead of refusing them.")] = False,
    output: Annotated[bool, typer.Option("--output", help="Keep what programs print in the results.")] = False,
    require_isolation: options.RequireIsolation = False,
) -> None:
    """Grade samples of any system by a benchmark's unit tests.

    An interrupted call goes on where it was.
    """
    runtime = environment.runtime()
    verifier = VerifierConfig(require_isolation=require_isolation)
    ks = whole_numbers(k) if k else None
    from flows.evaluation import grade_file

    grade_file(
        benchmark,
        samples,
        data_file,
        out,
        verifier,
        runtime,
        ks=ks,
        skip_bad=skip_bad,
        output=output,
        workers=positive("workers", workers),
    )


@app.command()
def abstractions(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_FOLDER", help="A run in reports/, such as latest, or a bootstrap's artifact."),
    ],
    seed: Annotated[int | None, typer.Option(help="Of a run of several; the first by default.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where page and tables go.")] = None,
    preset: options.Preset = "demo",
    set_: options.Set = None,
) -> None:
    """Write a page of the rationales that a run discovered: how often, over how many lines, what they gained."""
    config = load(preset, set_ or [])
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows.analysis import abstractions as browse

    browse(run, seed, out, config, runtime)


@app.command()
def calibrate(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="A run in reports/, an E-step's artifact, a model folder or hub name."
        ),
    ],
    demonstrations: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="With a model: embedded, python:FOLDER, parquet:FILE, ...")
    ] = None,
    think_rate: Annotated[float, typer.Option(help="Share of line boundaries that should think.")] = 0.3,
    seed: Annotated[int | None, typer.Option(help="Of a run of several, or of the draws.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where curve and tables go.")] = None,
    preset: options.Preset = "demo",
    set_: options.Set = None,
) -> None:
    """Propose the think penalty c for a think rate, from what rationales gain on demonstrations."""
    config = load(preset, set_ or [])
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows.analysis import calibrate as propose

    propose(run, demonstrations, think_rate, seed, out, config, runtime)


@app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="In reports/, such as latest; name or id in MLflow; a folder of artifacts."),
    ],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="By default reports/runs/NAME.")] = None,
) -> None:
    """Make the report again from runs on record, finished or not; nothing is trained.

    Several runs are pooled when they differ in their seeds alone; runs of a sweep stand side by side.
    """
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows.reporting import report_on, show

    show(*report_on(runs, out, runtime.root))


@app.command()
def sync() -> None:
    """Send the MLflow server what it did not take while it was away (mlflow/outbox)."""
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from tasks import tracking

    print(*tracking.sync(runtime.root), sep="\n")


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="Of the registered model; the newest by default.")] = None,
    model: Annotated[str, typer.Option(help="The registered model's name.")] = RegistryConfig().model,
    force: Annotated[bool, typer.Option("--force", help="Move the alias whatever the gate says.")] = False,
) -> None:
    """Compare a registered version with the champion; it becomes champion if it is shown to be better."""
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows.promotion import promote as by_hand

    by_hand(runtime.root, version, model, force)


@app.command()
def theory(
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where page, figures and numbers go.")] = None,
) -> None:
    """Measure the paper's bounds on finite decision processes; less than a minute, into reports/theory."""
    if seed < 0:
        raise UserError(f"--seed: expected at least 0, found {seed}")
    folder = out or environment.runtime().root / "reports" / "theory"
    from flows.theory import theory as measure

    measure(folder, seed)


@app.command()
def config(preset: options.Preset = "demo", set_: options.Set = None) -> None:
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


@app.command()
def serve(
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow.")] = 5000,
    flows: Annotated[int, typer.Option(help="Flow runs that the worker executes at the same time.")] = 1,
) -> None:
    """Start Prefect, MLflow and a worker in the background, on this machine only, and deploy the flows."""
    runtime = environment.runtime()
    environment.prepare(runtime.root)
    from flows import services

    services.serve(runtime.root, environment.CHECKOUT, prefect_port, mlflow_port, positive("flows", flows) or 1)


@app.command()
def stop() -> None:
    """End what `ra3 serve` started."""
    from flows import services

    services.stop(environment.runtime().root)


model_commands.add(app)


def as_yaml(config: RunConfig) -> str:
    """A configuration as YAML, sections in their order."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def whole_numbers(text: str) -> list[int]:
    """The numbers in "1,5,10", each once, in order. Raises UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"--k {text}: expected numbers above 0, such as 1,5,10")
    return sorted({int(part) for part in parts})


def positive(option: str, value: int | None) -> int | None:
    """Raises UserError for a number below 1."""
    if value is not None and value < 1:
        raise UserError(f"--{option}: expected at least 1, found {value}")
    return value


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
