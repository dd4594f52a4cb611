"""Rows of a benchmark, from a file in its official format or the hub; what is malformed is named by line and field.

A field is described by the type that JSON gives it: ``{"task_id": int, "prompt": str, "test_list": list}``.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ra3core.errors import UserError

Fields = Mapping[str, type]

_WORDS: Mapping[type, str] = {str: "text", int: "integer", float: "number", list: "list", dict: "object", bool: "truth"}


def read_rows(path: Path, fields: Fields) -> list[dict[str, Any]]:
    """All rows of a file: a JSON array when it is named .json (.json.gz), else JSON lines.

    Raises UserError for a missing, unreadable or empty file, and with its number for a row that is malformed.
    """
    array = path.name.removesuffix(".gz").endswith(".json")
    rows = list(read_json_array(path, fields) if array else read_jsonl(path, fields))
    if not rows:
        raise UserError(f"{path}: no tasks, expected at least one")
    return rows


def read_jsonl(path: Path, fields: Fields | Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, gzipped or not, one at a time.

    fields: what every row holds, with types, or names alone for text.
    Raises UserError for a missing or unreadable file, and with its number for a line that is no JSON object or lacks a
    field.
    """
    fields = fields if isinstance(fields, Mapping) else dict.fromkeys(fields, str)
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {number} is not JSON ({error})") from error
        yield checked(row, fields, f"{path}: line {number}")


def read_json_array(path: Path, fields: Fields) -> Iterator[dict[str, Any]]:
    """Rows of a file that holds one JSON array of objects, gzipped or not; errors as in `read_jsonl`, by row."""
    try:
        rows = json.loads("".join(_lines(path)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(rows, list):
        raise UserError(f"{path}: not a JSON array, expected one of objects")
    for number, row in enumerate(rows, start=1):
        yield checked(row, fields, f"{path}: row {number}")


def read_hub(name: str, fields: Fields, config: str | None = None, splits: Iterable[str] = ("test",)) -> list[dict]:
    """All rows of a data set on the hub, of the splits named in order.

    Raises UserError when it cannot be loaded or a row lacks a field.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    rows = []
    for split in splits:
        try:
            loaded = [dict(row) for row in datasets.load_dataset(name, config, split=split)]  # type: ignore[arg-type]
        except (OSError, ValueError, DatasetsError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{name}: cannot be loaded from the hub, pass a file with --data ({reason})") from error
        rows += [checked(row, fields, f"{name}: {split} row {i}") for i, row in enumerate(loaded, start=1)]
    return rows


def checked(row: Any, fields: Fields, where: str) -> dict[str, Any]:
    """`row` when it is an object that holds the fields; UserError that begins with `where` otherwise."""
    if not isinstance(row, dict):
        raise UserError(f"{where} is not a JSON object")
    for name, kind in fields.items():
        value = row.get(name)
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise UserError(f"{where} has no {_WORDS[kind]} in field {name!r}")
    return row


def unique(ids: Iterable[Any], source: object, field: str = "task_id") -> None:
    """Raises UserError when an id occurs twice; `source` is the file or data set."""
    seen = set()
    for each in ids:
        if each in seen:
            raise UserError(f"{source}: {field} {each!r} occurs twice, expected each once")
        seen.add(each)


def no_variants(name: str, variant: str) -> None:
    """Raises UserError when a variant is asked for of a benchmark that has none."""
    if variant:
        raise UserError(f"benchmark {name}:{variant}: expected {name} alone, it has no variants")


def _lines(path: Path) -> Iterator[str]:
    """Lines ended by line feeds alone: other separators may stand unescaped inside JSON strings."""
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected JSON lines")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            yield from file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{path}: not a readable file of JSON lines ({error})") from error
