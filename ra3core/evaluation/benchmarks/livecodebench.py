"""LiveCodeBench's code generation (Jain et al. 2024), data set livecodebench/code_generation_lite.

Problems of LeetCode, AtCoder and Codeforces with the day of their contest, so that what a model may have been trained
on can be left out. A row has public tests as JSON text and private ones as JSON text or as base64(zlib(pickle(JSON
text))); a pickle is a program, so it is read here without being run (`unpickled_text`).

The releases take 4.5 GB, packed: a problem's tests are read from its file when a program is to be judged.

    ra3 evaluate MODEL --benchmark livecodebench:release_v6/2024-08-01/2025-05-01 --data FOLDER
"""

from __future__ import annotations

import base64
import binascii
import functools
import gzip
import json
import pickletools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks.base import Problem
from ra3core.evaluation.benchmarks.contest import Contest, one_shot, question
from ra3core.evaluation.benchmarks.files import checked, unique
from ra3core.verifier import Check, StdioTest

HUB_NAME = "livecodebench/code_generation_lite"
RELEASES = 6
DEFAULT = "release_v6/2024-08-01/2025-05-01"
CPU_SECONDS = 6.0
"""Of each test, the official harness's limit (there of wall time)."""
MEMORY_MB = 2048
"""The official harness sets no limit; the sites that the problems come from allow 256 to 1024."""
MAX_UNPACKED = 1 << 30
"""Bytes of one problem's private tests, unpacked."""

FIELDS = {
    "question_id": str,
    "question_content": str,
    "contest_date": str,
    "starter_code": str,
    "public_test_cases": str,
    "private_test_cases": str,
    "metadata": str,
}
_HARMLESS = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")


@dataclass(frozen=True)
class _Place:
    """Where a row can be read again: at an offset of a plain file; of a packed one the line itself is kept.

    changed: when the file was, in nanoseconds.
    """

    path: Path
    number: int
    offset: int
    changed: int
    line: bytes | None = None

    def __str__(self) -> str:
        return f"{self.path}: line {self.number}"

    def row(self) -> dict[str, Any]:
        """The row. Raises UserError when it is malformed, or the file is gone or another one."""
        try:
            line = self.line
            if line is None:
                if self.path.stat().st_mtime_ns != self.changed:
                    raise UserError(f"{self.path}: has changed since it was loaded, expected the same file")
                with self.path.open("rb") as file:
                    file.seek(self.offset)
                    line = file.readline()
            return self.parsed(line)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error})") from error

    def parsed(self, line: bytes) -> dict[str, Any]:
        """The row of this line."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self} is not JSON ({error})") from error
        return checked(row, FIELDS, str(self))


@dataclass(frozen=True)
class LiveCodeBench(Contest):
    """Problems of a window are asked; those outside it can be graded. `tests` reads them from the problem's file."""

    def tests(self, problem: Problem) -> Sequence[Check] | Sequence[StdioTest]:
        return _tests(problem.row["place"])


def load(data: Path | None, variant: str) -> LiveCodeBench:
    """From one file (.jsonl, .jsonl.gz), a folder that holds test.jsonl, test2.jsonl, .., or the hub.

    variant: RELEASE, or RELEASE/START/END with the first and the last day of the contests that are asked, both
    included; the default is DEFAULT. release_vN is the first N files of a folder or of the hub; of one file, all rows.
    Raises UserError for a variant of another form and for malformed data, by line.
    """
    release, count, start, end = _window(variant or DEFAULT)
    source = data or HUB_NAME
    asked: list[Problem] = []
    others: list[Problem] = []
    for path in _files(data, count):
        for place, row in _rows(path):
            day = _day(row["contest_date"], place)
            problem = _problem(place, row, day)
            if start <= day <= end:
                asked.append(problem)
                _unpacked(place, row)  # so that what is malformed is known before a model has run for hours
            else:
                others.append(problem)
    unique((problem.id for problem in (*asked, *others)), source, "question_id")
    if not asked:
        raise UserError(f"{source}: no problem of {start} to {end}, expected at least one")
    window = "all contests" if (start, end) == (date.min, date.max) else f"contests of {start} to {end}"
    where = data.name if data is not None and data.is_file() else release
    return LiveCodeBench("livecodebench", f"{where}, {window}, {len(asked)} problems, 1-shot", asked, others)


def _window(variant: str) -> tuple[str, int, date, date]:
    release, *days = variant.split("/")
    match = re.fullmatch(r"release_v([1-9])", release)
    count = RELEASES if release == "release_latest" else int(match[1]) if match else 0
    form = "expected release_vN or release_vN/START/END with days such as 2024-08-01"
    if not 1 <= count <= RELEASES or len(days) not in (0, 2):
        raise UserError(f"livecodebench variant {variant!r}: {form}, N up to {RELEASES}")
    try:
        start, end = (date.fromisoformat(day) for day in days) if days else (date.min, date.max)
    except ValueError as error:
        raise UserError(f"livecodebench variant {variant!r}: {form} ({error})") from error
    if start > end:
        raise UserError(f"livecodebench variant {variant!r}: {start} is after {end}, expected the first day first")
    return release, count, start, end


def _files(data: Path | None, count: int) -> list[Path]:
    """The files of a release."""
    names = [f"test{number if number > 1 else ''}.jsonl" for number in range(1, count + 1)]
    if data is None:
        return [_from_hub(name) for name in names]
    if not data.is_dir():
        return [data]
    found = []
    for name in names:
        plain, packed = data / name, data / f"{name}.gz"
        if not plain.is_file() and not packed.is_file():
            raise UserError(f"{plain}: no such file, expected {names[0]} to {names[-1]} for release_v{count}")
        found.append(plain if plain.is_file() else packed)
    return found


def _from_hub(name: str) -> Path:
    """A file of the data set; its loading script is no longer run by `datasets`, its files are plain JSON lines."""
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(HUB_NAME, name, repo_type="dataset"))
    except (OSError, ValueError, HfHubHTTPError, httpx.HTTPError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{HUB_NAME}: {name} cannot be loaded, pass a file with --data ({reason})") from error


def _rows(path: Path) -> Iterator[tuple[_Place, dict[str, Any]]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected JSON lines or a folder of them")
    packed = path.suffix == ".gz"
    offset, changed = 0, path.stat().st_mtime_ns
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    place = _Place(path, number, offset, changed, line if packed else None)
                    yield place, place.parsed(line)
                offset += len(line)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a readable file of JSON lines ({error})") from error


def _problem(place: _Place, row: Mapping[str, Any], day: date) -> Problem:
    name = _json(row["metadata"] or "{}", "metadata", place, dict).get("func_name") or ""
    if name and not (isinstance(name, str) and name.isidentifier()):
        raise UserError(f"{place} has {name!r} as func_name in field 'metadata', expected a function's name")
    starter = row["starter_code"]
    if name and not starter.strip():
        starter = f"class Solution:\n    def {name}(self, *arguments):"
    asked = question(row["question_content"], starter if name else "")
    extra = {"question": asked, "memory_mb": MEMORY_MB, "place": place, "contest_date": day.isoformat()}
    extra |= {field: row.get(field) for field in ("platform", "difficulty", "question_title", "contest_id")}
    return Problem(row["question_id"], one_shot(asked, bool(name)), name, row=extra)


def _day(text: str, place: _Place) -> date:
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise UserError(f"{place} has {text!r} in field 'contest_date', expected a date such as 2024-08-01") from None


# -- tests -------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)  # the samples of a problem are judged one after the other
def _tests(place: _Place) -> tuple[Check, ...] | tuple[StdioTest, ...]:
    return _unpacked(place, place.row())


def _unpacked(place: _Place, row: Mapping[str, Any]) -> tuple[Check, ...] | tuple[StdioTest, ...]:
    """Public and private tests, all of one kind. Raises UserError naming line and field."""
    found: list[Mapping[str, Any]] = []
    for field in ("public_test_cases", "private_test_cases"):
        text = row[field]
        if field == "private_test_cases" and not text.lstrip().startswith("["):
            text = _unpack(text, place)
        tests = _json(text, field, place, list)
        for test in tests:
            if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
                raise UserError(f"{place} has a test without text as input and output in field {field!r}")
        found += tests
    if not found:
        raise UserError(f"{place} has no test in 'public_test_cases' and 'private_test_cases', expected at least one")
    kind = "functional" if _json(row["metadata"] or "{}", "metadata", place, dict).get("func_name") else "stdin"
    if any(test.get("testtype", kind) != kind for test in found):
        raise UserError(f"{place} has tests that are not all of type {kind!r}, which field 'metadata' makes it")
    if kind == "stdin":
        return tuple(StdioTest(test["input"], test["output"], cpu_seconds=CPU_SECONDS) for test in found)
    return tuple(_call(test, place) for test in found)


def _call(test: Mapping[str, Any], place: _Place) -> Check:
    """One JSON value a line as arguments; the answer compared with ``==``, a tuple counting as a list at the top, not
    inside (official)."""
    try:
        arguments = tuple(json.loads(line) for line in test["input"].split("\n"))
        expected = json.loads(test["output"])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} has a test whose input and output are not JSON, a value a line ({error})") from error
    as_tuple = (tuple(expected),) if isinstance(expected, list) else ()
    return Check(arguments, expected, comparison="equal", alternatives=as_tuple, cpu_seconds=CPU_SECONDS)


def _json(text: str, field: str, place: _Place, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} has no JSON in field {field!r} ({error})") from error
    if not isinstance(value, kind):
        raise UserError(f"{place} has JSON of another form in field {field!r}, expected a {kind.__name__}")
    return value


def _unpack(text: str, place: _Place) -> str:
    """The JSON text inside base64(zlib(pickle(text)))."""
    try:
        unpacker = zlib.decompressobj()
        pickled = unpacker.decompress(base64.b64decode(text, validate=True), MAX_UNPACKED)
        if unpacker.unconsumed_tail:
            raise ValueError(f"more than {MAX_UNPACKED} bytes unpacked")
        if not unpacker.eof:
            raise ValueError("packed data end early")
        return unpickled_text(pickled)
    except (ValueError, binascii.Error, zlib.error) as error:
        expected = "expected JSON text or base64(zlib(pickle(JSON text)))"
        raise UserError(f"{place}, field 'private_test_cases': {error}, {expected}") from error


def unpickled_text(pickled: bytes) -> str:
    """The text that a pickle of nothing but one text holds; no other pickle is read, and none is run.

    Raises ValueError for a pickle that would do anything else.
    """
    texts = []
    position = 0
    for opcode, argument, at in pickletools.genops(pickled):
        if opcode.name in _TEXTS:
            texts.append(argument)
        elif opcode.name not in _HARMLESS:
            raise ValueError(f"a pickle with the instruction {opcode.name}")
        position = at or 0
    if len(texts) != 1 or position != len(pickled) - 1:
        raise ValueError("a pickle of something else than one text")
    return texts[0]
