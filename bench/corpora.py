"""Corpora: how fast a source becomes clean demonstrations, and what memory that takes, at two sizes.

    python bench/corpora.py [--megabytes 100 1000] [--json FILE]

The source is Python that is at hand: the standard library's and the installed packages', a quarter of the size asked
for, four times over, so that deduplication has work: as it is; every second file as it is; and twice with every
function under another name, which is a near copy where the function is longer than some 45 tokens. It is written as
JSON lines packed by zstd, a licence with each, as a hub data set would be read.

A figure is one run in a process of its own, by `collect` and `prepare_demonstrations` with the suite's evaluation tasks
held out and every filter on: documents a second of wall and of CPU time, the peak of the process's memory, and how much
of it the imports were. `read whole` is what the stages that follow do: all demonstrations drawn, as Python objects.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import Figure, cpu_seconds, finish, options

MB = 1_000_000
PASSES = 4
SHARD = 64 * MB  # of the source, unpacked
DEF = re.compile(r"\bdef ([a-z]\w*)\(")
SKIPPED = ("__pycache__", "lib2to3/tests/data")


def files() -> list[Path]:
    """Python source of this interpreter, in an order that looks random and is always the same."""
    folders = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    found = {path for folder in folders for path in folder.rglob("*.py")}
    found = {path for path in found if not any(part in path.as_posix() for part in SKIPPED)}
    return sorted(found, key=lambda path: hashlib.sha256("/".join(path.parts[-3:]).encode()).hexdigest())


def documents(size: int) -> Iterator[str]:
    """Sources of `size` characters in all, of which a quarter is new."""
    base: list[Path] = []
    quarter = 0
    for path in files():
        if quarter >= size // PASSES:
            break
        base.append(path)
        quarter += path.stat().st_size
    if quarter < size // PASSES:
        sys.exit(f"{quarter / MB:.0f} MB of Python are installed, expected {size / PASSES / MB:.0f}")
    for number in range(PASSES):
        for i, path in enumerate(base):
            text = path.read_bytes().decode("utf-8", "ignore")
            if number >= 2 or (number == 1 and i % 2):
                text = DEF.sub(rf"def \1_{number}(", text)
            yield text


def write_source(folder: Path, size: int) -> None:
    """Shards of JSON lines, packed."""
    import pyarrow

    shard, written, stream = 0, SHARD, None
    for text in documents(size):
        if written >= SHARD:
            if stream is not None:
                stream.close()
            stream, written = pyarrow.output_stream(folder / f"{shard:03}.jsonl.zst", compression="zstd"), 0
            shard += 1
        assert stream is not None
        stream.write(json.dumps({"content": text, "license": "mit"}).encode() + b"\n")
        written += len(text)
    if stream is not None:
        stream.close()


def held_out(folder: Path) -> None:
    """The suite's evaluation tasks, as many as the demo's, beside little else."""
    from ra3core.config import DataConfig
    from ra3core.corpora.suite.generate import generate

    generate(DataConfig(web_documents=8, outlines=8, demonstrations=8, rlvr_tasks=8), folder)


def peak() -> float:
    """MiB of resident memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, what: str) -> dict[str, Any]:
    """One stage over the source in `folder`, in this process. what: collect, draw, or read."""
    import pyarrow.parquet

    from ra3core.config import CollectionConfig, CorpusConfig
    from ra3core.corpora.collect import collect
    from ra3core.corpora.demonstrations import read_demonstrations
    from ra3core.corpora.prepare import prepare_demonstrations
    from ra3core.stage import Context

    assert pyarrow.parquet
    many = 10**9
    source = f"jsonl:{folder / 'source'}"
    out = folder / what
    (out / "out").mkdir(parents=True)
    context = Context({"data": folder / "data"}, out / "out", out / "scratch")
    began, cpu, imports = time.perf_counter(), cpu_seconds(), peak()
    if what == "collect":
        found = collect(CollectionConfig(source=source, pool=many), context)
    elif what == "draw":
        context.inputs = {**context.inputs, "collection": folder / "collect" / "out"}
        found = prepare_demonstrations(CorpusConfig(source=source, pool=many, demonstrations=many), context)
    else:
        found = {"demonstrations": len(read_demonstrations(folder / "draw" / "out" / "demonstrations.parquet"))}
    return {
        **found,
        "wall": time.perf_counter() - began,
        "cpu": cpu_seconds() - cpu,
        "peak": peak(),
        "imports": imports,
    }


def main() -> None:
    parser = options(__doc__, repeats=1)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=("collect", "draw", "read"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.folder, given.measure)))
        return
    figures: list[Figure] = []
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory(prefix="ra3-bench-") as name:
            folder = Path(name)
            (folder / "source").mkdir()
            write_source(folder / "source", megabytes * MB)
            held_out(folder / "data")
            ran: dict[str, dict[str, Any]] = {}
            for what in ("collect", "draw", "read"):
                line = [sys.executable, __file__, "--measure", what, "--folder", str(folder)]
                result = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
                ran[what] = json.loads(result.stdout.splitlines()[-1])
                print(f"{megabytes} MB, {what}: {json.dumps(ran[what])}", file=sys.stderr, flush=True)
            figures += described(megabytes, ran)
    finish(figures, given.json)


def described(megabytes: int, ran: dict[str, dict[str, Any]]) -> list[Figure]:
    """The figures of one size."""
    collected, drawn, read = ran["collect"], ran["draw"], ran["read"]
    counts, kept = collected["skipped"], collected["demonstrations"]
    name = f"corpora/{megabytes} MB"
    gone = ", ".join(f"{counts.get(reason, 0):,} {reason}" for reason in ("duplicate_document", "duplicate"))
    note = f"{collected['documents']:,} files, {kept:,} demonstrations kept; {gone}, {counts['near_duplicate']:,} near"
    per = 2**20 * (read["peak"] - read["imports"]) / read["demonstrations"]
    return [
        Figure(
            f"{name}, collect, documents", "1/s", (collected["documents"] / collected["wall"],), "higher", note=note
        ),
        Figure(
            f"{name}, collect, documents of CPU time", "1/CPU s", (collected["documents"] / collected["cpu"],), "higher"
        ),
        Figure(f"{name}, collect, source of CPU time", "MB/CPU s", (megabytes / collected["cpu"],), "higher"),
        Figure(f"{name}, collect, peak memory", "MiB", (collected["peak"],), "lower", note=_imports(collected)),
        Figure(f"{name}, draw of all", "1/CPU s", (drawn["demonstrations"] / drawn["cpu"],), "higher"),
        Figure(f"{name}, draw of all, peak memory", "MiB", (drawn["peak"],), "lower", note=_imports(drawn)),
        Figure(f"{name}, read whole", "bytes a demonstration", (per,), "lower", note=_imports(read)),
    ]


def _imports(found: dict[str, Any]) -> str:
    return f"imports {found['imports']:.0f}"


if __name__ == "__main__":
    main()
