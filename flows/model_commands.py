"""Commands of `ra3` about one model that is there: annotate, generate, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import environment, options

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a hub name, an artifact, or a run such as latest.")
]
Arm = Annotated[str | None, typer.Option(help="Of a run: ra3, ntp, ...; what it registers, else ra3.")]
OfSeed = Annotated[int | None, typer.Option("--of-seed", help="Of a run of several; the first by default.")]


def add(app: typer.Typer) -> None:
    """Make them commands of an application."""
    for command in (annotate, generate, export):
        app.command()(command)


def annotate(
    model: ModelName,
    file: Annotated[str, typer.Argument(metavar="FILE.py", help="Python source; - is standard input.")],
    arm: Arm = None,
    of_seed: OfSeed = None,
    samples: Annotated[int, typer.Option(help="Rationales drawn at a think; the likeliest is kept.")] = 1,
    penalty: Annotated[
        float | None, typer.Option(help="Keep a rationale only if it gains more nats than this (c).")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of decisions and rationales; 0 is greedy.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    scores: Annotated[bool, typer.Option("--scores", help="Gain of each rationale, as a table on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Text and rationales with their gains as JSON.")] = False,
) -> None:
    """Print a Python file with the rationales that a model finds; every other byte stays as it is."""
    runtime = environment.runtime()
    from flows import trying

    trying.annotate(
        model,
        file,
        arm=arm,
        of_seed=of_seed,
        samples=samples,
        penalty=penalty,
        temperature=temperature,
        seed=seed,
        scores=scores,
        as_json=as_json,
        runtime=runtime,
    )


def generate(
    model: ModelName,
    prompt: Annotated[str, typer.Argument(help="What is completed; - or nothing is standard input.")] = "-",
    arm: Arm = None,
    of_seed: OfSeed = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.5,
    top_p: Annotated[float, typer.Option(help="Nucleus.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest completion.")] = 256,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help=r"Ends a completion; \n is a line break. Repeatable.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Completions.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="The prompt is a user's message to a chat model.")] = False,
    engine: options.DrawnBy = "built-in",
    servers: options.Servers = None,
) -> None:
    """Try a model on a prompt; completions are printed as they end."""
    runtime = environment.runtime(servers=servers)
    from flows import trying

    trying.generate(
        model,
        prompt,
        arm=arm,
        of_seed=of_seed,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        stop=stop or [],
        n=n,
        seed=seed,
        chat=chat,
        engine=engine,
        runtime=runtime,
    )


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN_OR_ARTIFACT", help="A run in reports/, such as latest, or a model's artifact.")
    ],
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
    arm: Arm = None,
    of_seed: OfSeed = None,
) -> None:
    """Copy a model of a run into a plain transformers folder with its model card."""
    runtime = environment.runtime()
    from flows.export import export as write

    write(run, folder, arm, of_seed, runtime.root)
