"""Where demonstrations come from: a `source` is a scheme and what it needs.

    embedded                      the suite's own, data/demonstrations.parquet
    python:FOLDER                 functions cut out of every .py file below a folder (python_source.py)
    parquet:FILES, jsonl:FILES    a file, a folder, a pattern with * and ?, or several of these with commas between;
                                  JSON lines may be compressed (.gz, .zst, .bz2)
    hub:NAME[:SPLIT[:COLUMN]]     a dataset of the Hugging Face hub, streamed, or a local folder that `datasets` opens;
                                  NAME is OWNER/NAME[/FOLDER][@REVISION][#CONFIGURATION]

Rows have `prompt` and `lines`, or Python source in a column `content`, `code` or `text`, cut as a file is; a licence,
where there is one, is carried along. Everything is read as a stream of documents, in an order that depends on the
content alone, and a stream can be taken up where it was left: what it has read so far is a `Position`.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ra3core.corpora.demonstrations import Demonstration, read_demonstrations
from ra3core.corpora.python_source import normalise_newlines, python_files
from ra3core.errors import UserError

SCHEMES = ("python", "parquet", "jsonl", "hub")
EXPECTED = "embedded, python:FOLDER, parquet:FILES, jsonl:FILES or hub:NAME[:SPLIT[:COLUMN]]"
CODE_COLUMNS = ("content", "code", "text")  # of Python source, where none is named: the first there is
LICENCE_COLUMNS = ("license", "licenses", "licence", "max_stars_repo_licenses", "detected_licenses")
JSON_SUFFIXES = ("", ".gz", ".zst", ".bz2")
BATCH = 256  # rows of a parquet file in memory
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n*]*[\w)+])")
HEAD = 4_000  # characters at the head of a file where its licence would stand

Row = Mapping[str, Any]
Position = dict[str, Any]
"""JSON. documents: read so far. stream: of a hub dataset, what `datasets` needs to go on."""


@dataclass(frozen=True)
class Document:
    """What a source is made of: a Python source, or one demonstration.

    place: where it stands, for ids and messages. source: Python. demonstration: as the suite has it.
    prompt, lines: of a row that has them. problem: why it cannot be read ("not_utf8").
    licence: as the source names it, several with AND between; "" where it names none.
    """

    place: str
    source: str | None = None
    demonstration: Demonstration | None = None
    prompt: str = ""
    lines: tuple[str, ...] = ()
    problem: str = ""
    licence: str = ""


@dataclass
class Reader:
    """The documents of a source as a stream; goes on from `start` where one is given.

    data: the folder of the embedded suite. total: how many documents there are, as far as that is known ahead.
    Raises UserError for an unknown scheme, for a missing file or column, and for a malformed row, with its number.
    """

    source: str
    data: Path
    start: Position = field(default_factory=dict)
    total: int | None = None
    _read: int = 0
    _stream: Callable[[], Any] | None = None

    def __iter__(self) -> Iterator[Document]:
        scheme, rest = parse_source(self.source)
        self._read = skip = self.start.get("documents", 0)
        for document in getattr(self, f"_{scheme}")(rest, skip):
            self._read += 1
            yield document

    def position(self) -> Position:
        """Where a reader goes on that shall yield what comes after the document yielded last."""
        return {"documents": self._read} | ({"stream": self._stream()} if self._stream is not None else {})

    def _embedded(self, rest: str, skip: int) -> Iterator[Document]:
        demonstrations = read_demonstrations(self.data / "demonstrations.parquet")
        self.total = len(demonstrations)
        yield from (Document(d.id, demonstration=d) for d in demonstrations[skip:])

    def _python(self, rest: str, skip: int) -> Iterator[Document]:
        folder = Path(rest)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder, expected one with .py files")
        paths = python_files(folder)
        if not paths:
            raise UserError(f"{folder}: no .py files, expected at least one")
        self.total = len(paths)
        for path in paths[skip:]:
            name = path.relative_to(folder).as_posix()
            try:
                source = path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError:
                yield Document(name, problem="not_utf8")
                continue
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from error
            yield Document(name, source, licence=licence_of_file(source))

    def _parquet(self, rest: str, skip: int) -> Iterator[Document]:
        import pyarrow
        import pyarrow.parquet as parquet

        paths = files(rest, "parquet")
        try:
            counts = [parquet.read_metadata(path).num_rows for path in paths]
            self.total = sum(counts)
            for path, count in zip(paths, counts, strict=True):
                if skip >= count:
                    skip -= count
                    continue
                yield from (_document(place, row) for place, row in _parquet_rows(path, skip))
                skip = 0
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"parquet:{rest}: not readable parquet files ({' '.join(str(error).split())})") from error

    def _jsonl(self, rest: str, skip: int) -> Iterator[Document]:
        for path in files(rest, "jsonl"):
            for place, line in _json_lines(path):
                if skip:
                    skip -= 1  # without parsing it
                else:
                    yield _document(place, _json_row(place, line))

    def _hub(self, rest: str, skip: int) -> Iterator[Document]:
        import datasets
        from datasets.exceptions import DatasetsError

        where = Hub.of(rest)
        place = f"hub:{where.name}"
        failures = (OSError, ValueError, RuntimeError, DatasetsError)
        try:
            dataset = datasets.load_dataset(
                where.name,
                where.configuration,
                data_dir=where.folder,
                revision=where.revision,
                split=where.split,
                streaming=True,
            )
            if "stream" in self.start:
                dataset.load_state_dict(self.start["stream"])
            splits = dataset.info.splits
            self.total = splits[where.split].num_examples if splits and where.split in splits else None
            rows = iter(dataset)
        except failures as error:
            raise UserError(f"{place}: cannot be loaded ({' '.join(str(error).split())})") from error
        self._stream = dataset.state_dict
        number = skip
        while True:
            number += 1
            try:
                row = next(rows, None)
            except failures as error:
                reason = " ".join(str(error).split())
                what = "the stream broke off" if number > skip + 1 else "cannot be loaded"
                raise UserError(f"{place}:{number}: {what} ({reason})") from error
            if row is None:
                return
            yield _document(f"{place}:{number}", row, where.column)


@dataclass(frozen=True)
class Hub:
    """What of a hub dataset is read; `folder`: of its files (data_dir), as in owner/name/data/python."""

    name: str
    folder: str | None = None
    revision: str | None = None
    configuration: str | None = None
    split: str = "train"
    column: str | None = None

    @classmethod
    def of(cls, text: str) -> Hub:
        """From OWNER/NAME[/FOLDER][@REVISION][#CONFIGURATION][:SPLIT[:COLUMN]]."""
        path, split, column = [*text.split(":"), "", ""][:3]
        if Path(path).is_dir():
            return cls(path, split=split or "train", column=column or None)
        path, _, configuration = path.partition("#")
        path, _, revision = path.partition("@")
        owner, _, rest = path.partition("/")
        name, _, folder = rest.partition("/")
        name = f"{owner}/{name}" if name else owner
        return cls(name, folder or None, revision or None, configuration or None, split or "train", column or None)


def parse_source(source: str) -> tuple[str, str]:
    """Scheme and the rest of a source; raises UserError when there is no such scheme or nothing after it."""
    scheme, _, rest = source.partition(":")
    if source == "embedded" or (scheme in SCHEMES and rest):
        return scheme, rest
    raise UserError(f"corpus.source {source!r}: expected {EXPECTED}")


def files(text: str, scheme: str) -> list[Path]:
    """The files that FILES of a source names, each once, sorted within a pattern or folder.

    Raises UserError when one is missing or a pattern or folder holds none.
    """
    suffixes = ["parquet"] if scheme == "parquet" else [f"jsonl{end}" for end in JSON_SUFFIXES]
    found: dict[Path, None] = {}
    for part in text.split(","):
        path = Path(part)
        if path.is_dir():
            of_part = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(tuple(suffixes)))
        elif path.is_file():
            of_part = [path]
        else:
            matches = glob.glob(part, recursive=True)  # noqa: PTH207, Path's refuses some patterns with a ValueError
            of_part = sorted(p for p in map(Path, matches) if p.is_file())
        if not of_part:
            what = f"a folder with .{suffixes[0]} files" if path.is_dir() else "a file, a folder, or a pattern of files"
            raise UserError(f"corpus.source {scheme}:{text}: {part}: no such file, expected {what}")
        found |= dict.fromkeys(of_part)
    return list(found)


def source_digest(source: str) -> str | None:
    """SHA-256 of the files that a source reads, for the cache key of what is made from them.

    None where there are none to read: the embedded source is covered by the digest of data/, and the content of a
    hub dataset is not known before it is streamed. Raises UserError when a file or folder is missing.
    """
    scheme, rest = parse_source(source)
    path = Path(rest.split(":")[0]) if scheme == "hub" else Path(rest)
    if scheme == "embedded" or (scheme == "hub" and not path.is_dir()):
        return None
    if scheme in ("parquet", "jsonl"):
        named = [(file.name, file) for file in files(rest, scheme)]
    elif not path.is_dir():
        raise UserError(f"corpus.source {source}: no such folder")
    else:
        found = python_files(path) if scheme == "python" else sorted(p for p in path.rglob("*") if p.is_file())
        named = [(file.relative_to(path).as_posix(), file) for file in found]
    digest = hashlib.sha256()
    for name, file in named:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def licence_of_file(source: str) -> str:
    """What a file's own SPDX line says, "" without one."""
    found = SPDX.search(source, 0, HEAD)
    return found[1].strip() if found else ""


def _licence(row: Row) -> str:
    """The licence of a row: of the first column there is; several, as of a repository, with AND between."""
    value = next((row[name] for name in LICENCE_COLUMNS if row.get(name)), "")
    names = [str(name).strip() for name in value] if isinstance(value, list | tuple) else [str(value).strip()]
    return " AND ".join(sorted({name for name in names if name}))


def _document(place: str, row: Row, column: str | None = None) -> Document:
    """A row with prompt and lines, or with Python source in `column` or one of CODE_COLUMNS."""
    if column is None and "prompt" in row and "lines" in row:
        prompt, lines = _text(place, "prompt", row["prompt"]).rstrip("\n"), row["lines"]
        if isinstance(lines, str):
            lines = normalise_newlines(lines).rstrip("\n").split("\n")
        if not isinstance(lines, list):
            raise UserError(f"{place}: lines: expected a list of lines or one text, found {type(lines).__name__}")
        for line in lines:
            if "\n" in _text(place, "lines", line) or "\r" in line:
                raise UserError(f"{place}: lines: expected one line in each entry, found {line!r}")
        if not any(line.strip() for line in lines):
            lines = []
        return Document(place, prompt=prompt, lines=tuple(lines), licence=_licence(row))
    column = column or next((name for name in CODE_COLUMNS if name in row), "")
    if column not in row:
        wanted = f"a column {column!r}" if column else f"prompt and lines, or one of {', '.join(CODE_COLUMNS)}"
        raise UserError(f"{place}: expected {wanted}, found {', '.join(row) or 'none'}")
    source = _text(place, column, row[column])
    return Document(place, source, licence=_licence(row) or licence_of_file(source))


def _text(place: str, column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {column}: expected text, found {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {column}: expected valid Unicode, found a lone surrogate") from error
    return value


def _parquet_rows(path: Path, skip: int) -> Iterator[tuple[str, Row]]:
    """Rows after the first `skip`, with their numbers; row groups that lie before them are not read."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        known = ("prompt", "lines", *CODE_COLUMNS, *LICENCE_COLUMNS)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        first = next((i for i in range(len(groups)) if sum(groups[: i + 1]) > skip), len(groups))
        number = sum(groups[:first])
        columns = [name for name in names if name in known] or names
        wanted = range(first, len(groups))
        for batch in file.iter_batches(BATCH, row_groups=wanted, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                if number > skip:
                    yield f"{path.name}:{number}", row


def _json_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Lines that are not empty, with their numbers; decompressed as the name says."""
    import pyarrow

    try:
        with pyarrow.input_stream(str(path), compression="detect") as stream:
            for number, line in enumerate(io.BufferedReader(stream, 1 << 20), start=1):
                if line.strip():
                    yield f"{path.name}:{number}", line
    except OSError as error:  # pyarrow's errors of damaged streams are, too
        raise UserError(f"{path}: cannot be read ({error})") from error


def _json_row(place: str, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise UserError(f"{place}: not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected a JSON object, found {type(row).__name__}")
    return row
