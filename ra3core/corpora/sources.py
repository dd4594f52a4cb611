"""Where demonstrations come from: a `source` is a scheme and what it needs.

    embedded                      the suite's own, data/demonstrations.parquet
    python:FOLDER                 functions cut out of every .py file below a folder (python_source.py)
    parquet:FILE, jsonl:FILE      rows with `prompt` and `lines`, or with `text` (Python source, cut as above)
    hub:NAME[:SPLIT[:COLUMN]]     a dataset of the Hugging Face hub, or a local folder that `datasets` opens, streamed

All of them are read as a stream, in an order that depends on the content alone.
"""

from __future__ import annotations

import io
import json
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ra3core.corpora.demonstrations import Demonstration, comment_boundaries, read_demonstrations
from ra3core.corpora.python_source import Cutter, normalise_newlines, python_files
from ra3core.errors import UserError

SCHEMES = ("python", "parquet", "jsonl", "hub")
EXPECTED = "embedded, python:FOLDER, parquet:FILE, jsonl:FILE or hub:NAME[:SPLIT[:COLUMN]]"
CODE_COLUMNS = ("content", "code", "text")  # of a hub dataset, when none is named: the first there is

Row = Mapping[str, Any]


def load_demonstrations(source: str, data: Path, cutter: Cutter) -> Iterator[Demonstration]:
    """The demonstrations of a source, without duplicates and none longer than `cutter.max_lines`.

    data: the folder of the embedded suite. What was skipped, and why, is in `cutter.counts`.
    Raises UserError for an unknown scheme, a missing file or column, a malformed row (with its number), and when the
    source holds no demonstration.
    """
    scheme, rest = parse_source(source)
    if scheme == "embedded":
        found = (d for d in read_demonstrations(data / "demonstrations.parquet") if cutter.admit(d))
    elif scheme == "python":
        found = cutter.folder(Path(rest))
    elif scheme == "parquet":
        found = _from_rows(_parquet_rows(Path(rest)), cutter)
    elif scheme == "jsonl":
        found = _from_rows(_json_rows(Path(rest)), cutter)
    else:
        found = _hub(rest, cutter)
    yield from found
    if not cutter.counts["kept"]:
        skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(cutter.counts.items()) if reason != "files" and n)
        raise UserError(f"corpus.source {source}: holds no demonstration that can be used ({skipped or 'it is empty'})")


def parse_source(source: str) -> tuple[str, str]:
    """Scheme and the rest of a source; raises UserError when there is no such scheme or nothing after it."""
    scheme, _, rest = source.partition(":")
    if source == "embedded" or (scheme in SCHEMES and rest):
        return scheme, rest
    raise UserError(f"corpus.source {source!r}: expected {EXPECTED}")


def source_digest(source: str) -> str | None:
    """SHA-256 of the files that a source reads, for the cache key of what is made from them.

    None where there are none to read: the embedded source is covered by the digest of data/, and the content of a
    hub dataset is not known before it is streamed. Raises UserError when a file or folder is missing.
    """
    scheme, rest = parse_source(source)
    path = Path(rest)
    if scheme == "embedded" or (scheme == "hub" and not (path := Path(rest.split(":")[0])).is_dir()):
        return None
    if path.is_dir():
        files = python_files(path) if scheme == "python" else sorted(p for p in path.rglob("*") if p.is_file())
    elif scheme == "python" or not path.is_file():
        raise UserError(f"corpus.source {source}: no such {'folder' if scheme == 'python' else 'file'}")
    else:
        files, path = [path], path.parent
    digest = sha256()
    for file in files:
        content = sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(path).as_posix()}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _from_rows(rows: Iterable[tuple[str, Row]], cutter: Cutter) -> Iterator[Demonstration]:
    """Rows with prompt and lines as they are; rows with text cut into functions. Each row comes with its place."""
    for place, row in rows:
        if "prompt" in row and "lines" in row:
            demonstration = _given(place, row, cutter)
            if demonstration is not None and cutter.admit(demonstration):
                yield demonstration
        elif "text" in row:
            yield from cutter.source(_text(place, "text", row["text"]), place)
        else:
            raise UserError(f"{place}: expected columns prompt and lines, or text, found {', '.join(row) or 'none'}")


def _given(place: str, row: Row, cutter: Cutter) -> Demonstration | None:
    """The demonstration of a row with prompt and lines; None (and counted) when it cannot be one.

    Comments in the lines could not be told from rationales: such a row is skipped, and should come as `text`.
    """
    prompt = _text(place, "prompt", row["prompt"]).rstrip("\n")
    lines = row["lines"]
    if isinstance(lines, str):
        lines = normalise_newlines(lines).rstrip("\n").split("\n")
    if not isinstance(lines, list):
        raise UserError(f"{place}: lines: expected a list of lines or one text, found {type(lines).__name__}")
    if all(isinstance(line, str) and not line.strip() for line in lines):
        lines = []
    for line in lines:
        if "\n" in _text(place, "lines", line) or "\r" in line:
            raise UserError(f"{place}: lines: expected one line in each entry, found {line!r}")
    try:
        boundaries = comment_boundaries(prompt, lines)
    except UserError:
        cutter.counts["not_python"] += 1
        return None
    program = io.StringIO("\n".join((prompt, *lines)) + "\n")
    body = prompt.count("\n") + 2  # the first row of the body
    comments = (t for t in tokenize.generate_tokens(program.readline) if t.type == tokenize.COMMENT)
    if any(comment.start[0] >= body for comment in comments):
        cutter.counts["commented"] += 1
        return None
    return Demonstration(place, prompt, tuple(lines), boundaries)


def _text(place: str, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {column}: expected text, found {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {column}: expected valid Unicode, found a lone surrogate") from error
    return value


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise UserError(f"{path}: no such file, expected a parquet file")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = ["prompt", "lines"] if {"prompt", "lines"} <= set(names) else ["text"]
            if not set(columns) <= set(names):
                raise UserError(f"{path}: expected columns prompt and lines, or text, found {', '.join(names)}")
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({' '.join(str(error).split())})") from error


def _json_rows(path: Path) -> Iterator[tuple[str, Row]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected one JSON object a line")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # not JSON, or not UTF-8
                raise UserError(f"{path}, line {number}: not a JSON object ({error})") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
            yield f"{path.name}:{number}", row


def _hub(rest: str, cutter: Cutter) -> Iterator[Demonstration]:
    """Stream a dataset: a named column of code, or the first known one, or prompt and lines."""
    import datasets
    from datasets.exceptions import DatasetsError

    name, split, column = [*rest.split(":"), "", ""][:3]
    place = f"hub:{name}"
    try:
        rows = iter(datasets.load_dataset(name, split=split or "train", streaming=True))
        first = next(rows, None)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise UserError(f"{place}: cannot be loaded ({' '.join(str(error).split())})") from error
    if first is None:
        return
    given = not column and {"prompt", "lines"} <= set(first)
    if not given:
        column = column or next((c for c in CODE_COLUMNS if c in first), "")
        if column not in first:
            wanted = f"a column {column!r}" if column else f"prompt and lines, or one of {', '.join(CODE_COLUMNS)}"
            raise UserError(f"{place}: expected {wanted}, found {', '.join(first)}")
    number, row = 1, first
    while row is not None:
        numbered = f"{place}:{number}"
        yield from _from_rows([(numbered, row if given else {"text": row[column]})], cutter)
        try:
            row = next(rows, None)
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            raise UserError(f"{numbered}: the stream broke off ({' '.join(str(error).split())})") from error
        number += 1
