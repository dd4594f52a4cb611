"""`ra3 annotate` and `ra3 generate`: what a model makes of a file, and of a prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from flows.models import model_folder
from ra3core.config import Engine, RuntimeConfig
from ra3core.errors import UserError
from tasks import devices

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ra3core.learning.annotated_source import AnnotatedSource

STDIN = "-"
_BOM = "\ufeff"


def annotate(
    name: str,
    file: str,
    *,
    arm: str | None,
    of_seed: int | None,
    samples: int,
    penalty: float | None,
    temperature: float,
    seed: int,
    scores: bool,
    as_json: bool,
    runtime: RuntimeConfig,
) -> None:
    """Print a file with the rationales that the model finds; gains go to standard error, or all of it out as JSON.

    file: "-" is standard input. Raises UserError for a file that is no UTF-8 or no Python, and for a model that is not
    there.
    """
    if samples < 1:
        raise UserError(f"--samples: expected at least 1, found {samples}")
    _check(temperature, seed)
    text = _read(file)
    mark = _BOM if text.startswith(_BOM) else ""
    shown = "standard input" if file == STDIN else file
    folder = model_folder(name, runtime.root, arm, of_seed)
    from ra3core.learning.annotated_source import Annotating, annotate_source, functions_of

    source = text.removeprefix(mark)
    functions = functions_of(source, shown)  # ahead of the model, which may take its time
    how = Annotating(samples, penalty, temperature, scores=scores or as_json)
    found = annotate_source(source, functions, *_load(folder, runtime), how, seed=seed, advance=_progress)
    for function in found.skipped:
        print(f"ra3: {function} is longer than the model's context and stays as it is", file=sys.stderr)
    if as_json:
        print(
            json.dumps({"text": mark + found.text, **{k: v for k, v in asdict(found).items() if k != "text"}}, indent=1)
        )
        return
    sys.stdout.buffer.write((mark + found.text).encode())  # with the line ends that it has
    sys.stdout.flush()
    if scores:
        print(_table(found), file=sys.stderr)


def generate(
    name: str,
    prompt: str,
    *,
    arm: str | None,
    of_seed: int | None,
    temperature: float,
    top_p: float,
    max_tokens: int,
    stop: Sequence[str],
    n: int,
    seed: int,
    chat: bool,
    engine: Engine,
    runtime: RuntimeConfig,
) -> None:
    """Print completions of a prompt, each as soon as it has ended; several under a line with their number.

    prompt: "-" is standard input. chat: it is a user's message. Raises UserError for settings that make no sense, and
    for a model that is not there.
    """
    for option, value in (("--n", n), ("--max-tokens", max_tokens)):
        if value < 1:
            raise UserError(f"{option}: expected at least 1, found {value}")
    _check(temperature, seed)
    if not 0 < top_p <= 1:
        raise UserError(f"--top-p: expected a share above 0, at most 1, found {top_p:g}")
    if n > 1 and temperature == 0:
        raise UserError(f"--n: {n} samples of greedy decoding are all the same, expected a temperature above 0")
    text = _read(prompt) if prompt == STDIN else prompt
    folder = model_folder(name, runtime.root, arm, of_seed)
    from ra3core.lm import engines
    from ra3core.lm.chat import conversation
    from ra3core.lm.generation import Draw, Sampling
    from ra3core.lm.lines import LineTokenizer

    try:
        sampling = Sampling(max_tokens, temperature, top_p, tuple(map(_unescaped, stop)))
    except ValueError as error:
        raise UserError(f"--stop: {error}") from error
    drawn_by: engines.Engine
    if engine == "http":
        from ra3core.lm.http_engine import Http
        from ra3core.lm.models import load_tokenizer
        from ra3core.lm.served import find, names_of

        tokenizer = load_tokenizer(folder)
        drawn_by = Http(find(runtime.http, names_of(Path(folder))), tokenizer)
    else:
        model, tokenizer = _load(folder, runtime)
        drawn_by = engines.local_engine(engine, model, tokenizer)
    lines = LineTokenizer(tokenizer)
    tokens = conversation(tokenizer, text, "--chat") if chat else lines.text(text)
    if not tokens:
        raise UserError("the prompt is empty, expected some text")

    def show(_: int, number: int, draw: Draw) -> None:
        completion = lines.completion(tokens, draw.tokens)
        print(f"{f'--- {number + 1}{chr(10)}' if n > 1 else ''}{completion.rstrip(chr(10))}", flush=True)

    drawn_by.generate([tokens], sampling, samples=n, seed=seed, on_completion=show)


def _check(temperature: float, seed: int) -> None:
    if not 0 <= temperature < float("inf"):
        raise UserError(f"--temperature: expected at least 0, found {temperature:g}")
    if seed < 0:
        raise UserError(f"--seed: expected at least 0, found {seed}")


def _read(file: str) -> str:
    """A file's text, or standard input's, with the line ends that it has."""
    shown = "standard input" if file == STDIN else file
    try:
        return (sys.stdin.buffer.read() if file == STDIN else Path(file).expanduser().read_bytes()).decode()
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: not UTF-8 at byte {error.start}") from error


def _load(folder: str, runtime: RuntimeConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers.utils import logging

    from ra3core.lm.models import load_model, load_tokenizer

    device = devices.first(runtime.device)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(runtime.threads)
    tokenizer = load_tokenizer(folder)
    return load_model(folder, device), tokenizer


def _unescaped(stop: str) -> str:
    r"""A stop string as typed: \n and \t are what they stand for."""
    return stop.replace("\\n", "\n").replace("\\t", "\t")


def _progress(done: int, total: int) -> None:
    """A counter on a terminal's standard error."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} functions", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _table(found: AnnotatedSource) -> str:
    """Line, gain in nats and text of every rationale."""
    rows = [f"{one.line:6d}  {one.gain:+8.2f}  {one.rationale}" for one in found.rationales if one.gain is not None]
    return "\n".join([f"{'line':>6}  {'nats':>8}  rationale", *rows])
