"""Files of samples that some system made: every line is read, and what is wrong with one is said by its number."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks import Benchmark
from ra3core.evaluation.grading import by_id

SHOWN = 3  # bad lines that are told one by one
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Line:
    """A good line. name: its task_id as it stands there; task: as the benchmark has it. whole: the text is a program,
    else what follows the prompt."""

    number: int
    name: str | int
    task: str
    text: str
    whole: bool

    @property
    def digest(self) -> bytes:
        """Of task and text: equal ones are judged once."""
        content = json.dumps([self.task, self.whole, self.text])  # ASCII, lone surrogates included
        return hashlib.sha256(content.encode()).digest()[:16]


@dataclass(frozen=True)
class Checked:
    """A file that was read once. tasks: task -> samples. uses: digest -> lines that have it. skipped: bad lines."""

    path: Path
    tasks: Counter[str]
    uses: Counter[bytes]
    skipped: int

    @property
    def samples(self) -> int:
        return self.tasks.total()


class _Bad(Exception):
    """What is wrong with a line, such that "line 3 ..." can go ahead of it."""


def check(path: Path, benchmark: Benchmark, skip_bad: bool = False) -> Checked:
    """Read the whole file. Raises UserError for one that cannot be read or holds no sample, and, unless they are to be
    skipped, for bad lines: the first few by number, and how many there are."""
    checked = Checked(path, Counter(), Counter(), 0)
    shown: list[str] = []
    bad = 0
    for item in _parsed(path, benchmark):
        if isinstance(item, Line):
            checked.tasks[item.task] += 1
            checked.uses[item.digest] += 1
        else:
            bad += 1
            if len(shown) < SHOWN:
                shown.append(item)
    more = f"; and {bad - SHOWN} more bad lines" if bad > SHOWN else ""
    if bad and not (skip_bad and checked.samples):
        advice = " (--skip-bad leaves them out)" if checked.samples else ""
        raise UserError(f"{path}: {'; '.join(shown)}{more}{advice}")
    if not checked.samples:
        raise UserError(f"{path}: no samples, expected one JSON object a line")
    return replace(checked, skipped=bad)


def read(path: Path, benchmark: Benchmark) -> Iterator[Line]:
    """The good lines, one at a time."""
    return (item for item in _parsed(path, benchmark) if isinstance(item, Line))


def _parsed(path: Path, benchmark: Benchmark) -> Iterator[Line | str]:
    """Each line that is not blank, or what is wrong with it."""
    names = _names(benchmark)
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                try:
                    yield _line(number, raw, names, benchmark.name)
                except _Bad as error:
                    yield f"line {number} {error}"
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from error


def _opened(path: Path) -> IO[bytes]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}, expected samples as JSON lines")
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _line(number: int, raw: bytes, names: Mapping[str, str], benchmark: str) -> Line:
    """Raises _Bad."""
    try:
        row = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        raise _Bad("is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _Bad(f"is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise _Bad("is not a JSON object")
    if "task_id" not in row:
        raise _Bad("has no task_id")
    name = row["task_id"]
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise _Bad(f"has a task_id of another type than text or number ({json.dumps(name)[:40]})")
    task = names.get(str(name)) or names.get(str(name).lower())
    if task is None:
        raise _Bad(f"names a task that {benchmark} does not have ({json.dumps(name)[:60]})")
    given = [key for key in ("completion", "solution") if key in row]
    if len(given) != 1:
        raise _Bad("has both a completion and a solution" if given else "has neither a completion nor a solution")
    text = row[given[0]]
    if not isinstance(text, str):
        raise _Bad(f"has a {given[0]} that is not text ({json.dumps(text)[:40]})")
    return Line(number, name, task, text, given[0] == "solution")


def _names(benchmark: Benchmark) -> dict[str, str]:
    """Every way to name a task -> its id: the id; and of NUMBER or FAMILY/NUMBER the other (11, Mbpp/11), as files for
    one version of a benchmark name the tasks of another."""
    ids = list(by_id(benchmark))
    family = benchmark.name.removesuffix("-plus")
    others: dict[str, str] = {}
    ambiguous = set()
    for id in ids:
        number = id.rpartition("/")[2]
        if number.isdigit():
            for other in (number, f"{family}/{number}"):
                if others.setdefault(other, id) != id:
                    ambiguous.add(other)
    return {name: id for name, id in others.items() if name not in ambiguous} | {id: id for id in ids}
