"""`ra3 grade` and `ra3 evaluate`: samples of any system, and one model, on benchmarks, outside the pipeline.

Nothing here imports torch; only drawing samples does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ra3core.artifacts import content_digest
from ra3core.config import (
    EMBEDDED,
    USUAL_KS,
    BenchmarkConfig,
    BenchmarkEntry,
    EvaluationConfig,
    RuntimeConfig,
    VerifierConfig,
    slug,
)
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import Benchmark
from ra3core.stage import Context, StageLog
from ra3core.verifier import WORKERS
from tasks import devices
from tasks.display import Display

RESULTS = ".results.jsonl"
_CONSOLE = Console(highlight=False, markup=False)


def grade_file(
    name: str,
    samples: Path,
    data: Path | None,
    out: Path | None,
    config: VerifierConfig,
    runtime: RuntimeConfig,
    *,
    ks: Sequence[int] | None,
    skip_bad: bool,
    output: bool,
    workers: int | None,
) -> None:
    """Grade a sample file, write a result a line to `out`, print pass@k with intervals and how samples ended."""
    if samples.is_dir():  # "." has no name for the results to be named after
        raise UserError(f"{samples}: is a folder, expected samples as JSON lines")
    out = out or samples.with_name(samples.name.removesuffix(".gz").removesuffix(".jsonl") + RESULTS)
    if out.resolve() == samples.resolve():
        raise UserError(f"{out}: the samples themselves, expected another file for the results")
    benchmark, data = load_benchmark(name, data, runtime.root)
    from ra3core.evaluation.grade import choose_ks, grade_samples
    from ra3core.evaluation.sample_file import check

    checked = check(samples, benchmark, skip_bad)
    chosen = choose_ks(benchmark, checked, ks)
    with Display() as display, display.stage(f"grade {benchmark.name}") as show:
        graded = grade_samples(
            benchmark,
            checked,
            out,
            config,
            _cache(runtime.root),
            ks=chosen,
            data=data,
            output=output,
            workers=workers or WORKERS,
            log=StageLog(sink=show),
        )
    found_tasks, others = (len(graded.tasks.get(group, {})) for group in ("all", "others"))
    text = f"{graded.samples} samples of {found_tasks} of {graded.asked} tasks"
    text += f", and of {others} others" if others else ""
    text += f"; {graded.asked - found_tasks} tasks without samples are left out" if found_tasks < graded.asked else ""
    text += f"; {graded.skipped} bad lines skipped" if graded.skipped else ""
    found = graded.scores()
    show_scores([f"{benchmark.name}: {benchmark.variant}", text], found, chosen)
    if lacking := [f"pass@{k}" for k in chosen if "others" in found and f"pass@{k}" not in found["others"]]:
        say(f"left out of {_GROUPS['others']}, for one has fewer samples: {', '.join(lacking)}")
    if ks is None and (left_out := [k for k in USUAL_KS if k not in chosen]):
        say(f"left out, for a task has fewer samples: {', '.join(f'pass@{k}' for k in left_out)}")
    say(endings(graded.categories, graded.weak))
    say(f"Results: {out}")


def evaluate_model(
    model: str,
    entries: Sequence[BenchmarkEntry],
    config: EvaluationConfig,
    out: Path | None,
    runtime: RuntimeConfig,
    workers: int | None,
) -> None:
    """Sample, grade, print pass@k with its interval by benchmark.

    samples.jsonl and results.json go to a folder for each benchmark, in `out` or in reports/.
    """
    asked = []
    for entry in entries:
        benchmark, data = load_benchmark(entry.name, None if entry.data is None else Path(entry.data), runtime.root)
        settled = config.settled(entry, {} if entry.name == EMBEDDED else asdict(benchmark.decoding))
        asked.append((settled, benchmark, data))
    folder, identity = find_model(model)
    done = []
    with Display() as display:
        from ra3core.evaluation.evaluate import Model, evaluate_benchmark  # imports torch

        device = devices.first(runtime.device)
        loaded = Model(folder, device, identity, config.precision)
        for settled, benchmark, data in asked:
            to = out / settled.slug if out else runtime.root / "reports" / _folder_name(model, identity, settled)
            with display.stage(settled.benchmark) as show:
                log = StageLog(sink=show)
                context = Context({}, to, to, threads=runtime.threads, device=device, servers=runtime.http, log=log)
                results = evaluate_benchmark(
                    loaded,
                    benchmark,
                    settled,
                    to,
                    context,
                    data=data,
                    cache=_cache(runtime.root),
                    workers=workers or WORKERS,
                )
            done.append((settled, results, to))
    for settled, results, to in done:
        found = results["free"]
        decoding = "greedy" if settled.temperature == 0 else f"T = {settled.temperature:g}, top-p {settled.top_p:g}"
        text = f"{settled.samples} a task, {decoding}, at most {settled.max_new_tokens} new tokens"
        show_scores([f"{settled.benchmark}: {results['variant']}", text], found, settled.k)
        say(endings(found["categories"], found["weak"]))
        say(f"Samples and results: {to}\n")


def load_benchmark(name: str, data: Path | None, root: Path) -> tuple[Benchmark, Path | None]:
    """A benchmark by name, and where its data are (None: the hub). Raises UserError when there is no such thing."""
    name = BenchmarkEntry(name=name).name
    if data is not None and not data.exists():
        raise UserError(f"{data}: no such file, expected the data of benchmark {name}")
    if name == EMBEDDED and data is None:
        data = root / "data"
        if not data.is_dir():
            raise UserError(f"{data}: no such folder, expected the embedded suite (`ra3 data` makes it)")
    return benchmarks.load(name, data), data


def check_entries(entries: Sequence[BenchmarkEntry]) -> None:
    """What can be told of a run's benchmarks without loading them. Raises UserError for an unknown name or no file."""
    for entry in entries:
        if entry.name.partition(":")[0] not in benchmarks.NAMES:
            expected = ", ".join(benchmarks.NAMES)
            raise UserError(f"evaluation.benchmarks: no benchmark {entry.name!r}, expected one of {expected}")
        if entry.data is not None and not Path(entry.data).expanduser().exists():
            raise UserError(f"evaluation.benchmarks: {entry.name}: {entry.data}: no such file")


def find_model(name: str) -> tuple[str, str]:
    """Where a model lies and what tells it from others: its files' digest, or the hub's revision.

    Raises UserError when it is neither a folder of a model nor the name of one on the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"model {name}: no config.json in this folder, expected one that transformers can load")
        parts = sorted(file for file in folder.iterdir() if file.match("*.json") or file.match("*.safetensors"))
        return str(folder), hashlib.sha256("".join(map(content_digest, parts)).encode()).hexdigest()
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"])
    except (OSError, ValueError) as error:  # HTTP errors are OSErrors; ValueError: not a possible name
        raise UserError(f"model {name}: no such folder, and no model of that name could be fetched") from error
    return found, Path(found).name


def data_files(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Benchmark -> file, from --data FILE (of the only benchmark) and --data NAME=FILE.

    Raises UserError when it is not clear which benchmark a file is for.
    """
    files: dict[str, str] = {}
    for text in given:
        name, separator, file = text.partition("=")
        name = BenchmarkEntry(name=name).name
        if not separator or (name not in names and Path(text).exists()):
            if len(names) != 1:
                raise UserError(f"--data {text}: expected NAME=FILE with one of {', '.join(names)}")
            name, file = names[0], text
        if name not in names:
            raise UserError(f"--data {text}: no benchmark {name} is asked for, expected one of {', '.join(names)}")
        if name in files:
            raise UserError(f"--data {text}: a second file for {name}")
        files[name] = file
    return files


def _folder_name(model: str, identity: str, config: BenchmarkConfig) -> str:
    """Names a folder of results: another model, or other sampling, has another."""
    decided_by = [identity, config.model_dump(mode="json", exclude={"verifier", "k"})]
    digest = hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:8]
    return f"{config.slug}-{slug(model)}-{digest}"


def _cache(root: Path) -> Path:
    """Where expected outputs that benchmarks compute from reference solutions are kept."""
    return root / ".cache" / "benchmarks"


_GROUPS = {"all": "", "base": "original tests alone", "others": "tasks that the benchmark does not ask"}


def show_scores(head: Sequence[str], found: Mapping[str, Any], ks: Sequence[int]) -> None:
    """What was graded, then pass@k with intervals, by group of tasks and tests."""
    for line in head:
        say(line)
    table = Table(box=None, pad_edge=False)
    for column in ("", "tasks", "percent", "95 % interval"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for group, title in _GROUPS.items():
        for k in ks if group in found else ():
            score = found[group].get(f"pass@{k}")
            if score is None:  # tasks of this group have fewer samples
                continue
            value, low, high = (f"{100 * score[part]:.1f}" for part in ("value", "low", "high"))
            name = f"pass@{k}, {title}" if title else f"pass@{k}"
            table.add_row(name, str(found[group]["n_tasks"]), value, f"[{low}, {high}]")
    _CONSOLE.print(table)


def endings(categories: Mapping[str, int], weak: int) -> str:
    """How samples ended, the most frequent first."""
    ordered = sorted(categories.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{category.replace('_', ' ')} {count}" for category, count in ordered)
    return text + (f"; {weak} judged weakly, their tests ran inside the program's process" if weak else "")


def say(text: str) -> None:
    """A line of the result, as long as it is."""
    _CONSOLE.print(text, soft_wrap=True)
