"""Collection: everything usable of a source, in shards of parquet files; the stage ahead of every seed's draw.

The paper mid-trains on 3.5 M Python snippets. What is read here is filtered (snippets.py), freed of copies and near
copies (near_duplicates.py) and decontaminated (decontamination.py) as a stream: memory holds a shard of SHARD
demonstrations and some 40 bytes of each demonstration and document read, whatever they are long.

Exact copies go first, whole documents before anything is cut out of them; then what gives an evaluation task away; then
near copies, when all is read: of what is alike the earliest stays, and it is a clean one.

A killed collection goes on behind the last shard that it wrote. shards/NNNNN.parquet has columns id, prompt, lines,
boundaries, reference, licence, tokens; collection.json what was left out and why.

Alone: `collect(CollectionConfig(source="python:FOLDER"), context)`; input "data" is the folder of the suite.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ra3core.config import CollectionConfig
from ra3core.corpora.decontamination import EvaluationIndex, Report, tokens_of
from ra3core.corpora.demonstrations import demonstration_row
from ra3core.corpora.held_out import evaluation_index
from ra3core.corpora.near_duplicates import ROW_BYTES, Digests, MinHash, Signatures, near_duplicates
from ra3core.corpora.snippets import Snippets, digest_of, filters_of, nothing
from ra3core.corpora.sources import Document, Position, Reader, source_digest
from ra3core.errors import UserError
from ra3core.stage import Context, Metrics

SHARD = 10_000  # demonstrations, and those of the documents that fill it up
CHUNK, CHUNK_CHARACTERS = 256, 1 << 22  # documents worked on at a time
SECONDS = 60  # between two lines about how fast it goes
FILE = "collection.json"

_NONE = np.zeros(0, np.uint64)


@dataclass
class State:
    """Where a collection is; what is written after every shard, and all that a later process needs.

    position: of the reader. kept: demonstrations in shards. counts: left out by filters and as copies.
    done: the source is read, as far as the limits allow. limit: which of them ended it.
    """

    shards: int = 0
    position: Position = field(default_factory=dict)
    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    report: Report = field(default_factory=Report)
    done: bool = False
    limit: str = ""

    @property
    def documents(self) -> int:
        """Documents read."""
        return self.position.get("documents", 0)

    @classmethod
    def of(cls, values: dict[str, Any]) -> State:
        """From its fields, by way of JSON."""
        report, counts = report_of(values["report"]), Counter(values["counts"])
        return cls(**values | {"report": report, "counts": counts})


def report_of(values: dict[str, Any]) -> Report:
    """A decontamination report from its fields, by way of JSON."""
    counters: dict[str, Any] = {name: Counter(values[name]) for name in ("removed", "benchmarks")}
    return Report(**{**values, **counters})


def collect(config: CollectionConfig, context: Context) -> Metrics:
    """Everything usable of `config.source`, in `context.out`.

    Metrics: documents (read), demonstrations (of all kept), tokens (of them, an estimate), removed (by
    decontamination), near_duplicates, skipped (by reason).
    Raises UserError when the source cannot be read or holds nothing usable.
    """
    collection = _Collection(config, context)
    collection.read()
    state = collection.state
    if not state.report.documents:
        raise nothing(config.source, state.counts)
    if not state.kept:
        raise UserError(f"corpus.source {config.source}: every demonstration gives an evaluation task away")
    gone = collection.near_duplicates()
    shown = collection.write(gone)
    state.counts["near_duplicate"] = int(gone.sum())
    content = {
        "source": config.source,
        "digest": source_digest(config.source),
        "documents": state.documents,
        "limit": state.limit,
        "counts": {name: n for name, n in sorted(state.counts.items()) if n},
        **shown,
        "report": vars(state.report),
    }
    (context.out / FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return {
        "documents": state.documents,
        "demonstrations": shown["demonstrations"],
        "tokens": shown["tokens"],
        "removed": state.report.removed.total(),
        "near_duplicates": state.counts["near_duplicate"],
        "skipped": content["counts"],
    }


class _Collection:
    """The shards so far, in `context.scratch`, and what is not in one yet."""

    def __init__(self, config: CollectionConfig, context: Context) -> None:
        self.config, self.context = config, context
        self.home = context.scratch / "collection"
        self.home.mkdir(parents=True, exist_ok=True)
        self.index: EvaluationIndex = evaluation_index(config, context.inputs)
        self.filters = filters_of(config.source, config.filters)
        self.minhash = MinHash() if self.filters and self.filters.near_duplicates else None
        self.documents, self.demonstrations = Digests(), Digests()
        self.state = self._resumed()
        self.snippets = Snippets(config.max_lines, self.filters, self.state.counts)
        self._rows: list[dict[str, Any]] = []
        self._signatures: list[np.ndarray] = []
        self._digests: dict[str, list[np.ndarray]] = {"documents": [], "demonstrations": []}

    def read(self) -> None:
        """Read the source to its end, or to a limit."""
        state, log = self.state, self.context.log
        log.resume(state.documents)
        if state.done:
            return
        reader = Reader(self.config.source, self.context.inputs["data"], state.position)
        started = told = time.monotonic()
        before = state.documents
        most = self.config.documents
        documents = islice(reader, None if most is None else max(0, most - before))
        for chunk in _chunks(documents):
            self._take(chunk)
            state.position = reader.position()
            total = max(reader.total or 0, state.documents) if most is None else most
            with log.progress("documents read", total=total, done=state.documents):
                pass
            now = time.monotonic()
            if now - told > SECONDS:
                rate, kept = (state.documents - before) / (now - started), state.kept + len(self._rows)
                log.message(f"{state.documents:,} documents, {kept:,} demonstrations kept, {rate:,.0f} documents/s")
                told = now
            if state.limit:
                break
            if len(self._rows) >= SHARD:
                self._flush()
                rate = (state.documents - before) / (time.monotonic() - started)
                log.metrics(state.documents, demonstrations=state.kept, documents_per_second=rate)
        if most is not None and state.documents >= most:
            state.limit = state.limit or "documents"
        state.done = True
        self._flush()

    def near_duplicates(self) -> np.ndarray:
        """(kept,) bool: which demonstrations go as near duplicates of earlier ones."""
        if self.minhash is None or self.filters is None or self.filters.near_duplicates is None:
            return np.zeros(self.state.kept, bool)
        return near_duplicates(Signatures(self.home / "signatures"), self.filters.near_duplicates)

    def write(self, gone: np.ndarray) -> dict[str, Any]:
        """The shards without what is `gone`, in the stage's folder; returns counts of what is left."""
        import pyarrow
        import pyarrow.parquet as parquet

        target = self.context.out / "shards"
        target.mkdir(parents=True, exist_ok=True)
        tally, start = Tally(), 0
        with self.context.log.progress("shards written", total=self.state.shards) as advance:
            for number in range(self.state.shards):
                table = parquet.read_table(self._shard(number), use_threads=False)
                left = table.filter(pyarrow.array(~gone[start : start + len(table)]))
                parquet.write_table(left, target / f"{number:05}.parquet", compression="zstd")
                tally.add(left)
                start += len(table)
                advance(1)
        return tally.as_dict()

    def _take(self, documents: list[Document]) -> None:
        """What is usable of some documents joins the next shard."""
        state, config = self.state, self.config
        admitted = [document for document in documents if self.snippets.admits(document)]
        contents = [document.place if document.source is None else document.source for document in admitted]
        new = self._new("documents", self.documents, contents)
        state.counts["duplicate_document"] += int((~new).sum())
        admitted = [document for document, is_new in zip(admitted, new, strict=True) if is_new]

        found = [demonstration for document in admitted for demonstration in self.snippets.of(document)]
        new = self._new("demonstrations", self.demonstrations, [one.text for one in found])
        state.counts["duplicate"] += int((~new).sum())
        found = [one for one, is_new in zip(found, new, strict=True) if is_new]
        if len(found) >= config.pool - state.report.documents:
            found, state.limit = found[: config.pool - state.report.documents], "pool"

        texts = [one.text for one in found]
        tokens = [tokens_of(text) for text in texts]
        clean: list[int] = []
        for i, finding in enumerate(self.index.check(texts, tokens)):
            state.report.record(texts[i], finding, self.index.benchmark_of.get(finding.task or "", ""))
            if finding.reason is None:
                clean.append(i)
                if config.tokens is not None and state.report.tokens >= config.tokens:
                    state.limit = "tokens"
                    break
        self._rows += [demonstration_row(found[i]) | {"tokens": len(tokens[i])} for i in clean]
        if self.minhash is not None:
            self._signatures.append(self.minhash.signatures([tokens[i] for i in clean]))

    def _new(self, name: str, known: Digests, texts: list[str]) -> np.ndarray:
        """Which of some texts are new; they are known from now on."""
        digests = np.array([digest_of(text) for text in texts], np.uint64)
        new = known.add(digests)
        self._digests[name].append(digests[new])
        return new

    # -- what outlives a kill --------------------------------------------------------------------------------------

    def _shard(self, number: int) -> Path:
        return self.home / f"{number:05}.parquet"

    def _digest_file(self, number: int) -> Path:
        return self.home / f"{number:05}.npz"

    def _flush(self) -> None:
        """Write a shard, then the state that says so: a shard without it is written again."""
        import pyarrow
        import pyarrow.parquet as parquet

        state = self.state
        parquet.write_table(
            pyarrow.Table.from_pylist(self._rows, schema=schema()), self._shard(state.shards), compression="zstd"
        )
        digests = {name: np.concatenate([_NONE, *parts]) for name, parts in self._digests.items()}
        np.savez(
            self._digest_file(state.shards), documents=digests["documents"], demonstrations=digests["demonstrations"]
        )
        with (self.home / "signatures").open("ab") as file:
            for part in self._signatures:
                part.tofile(file)
        state.shards += 1
        state.kept += len(self._rows)
        partial = self.home / "state.tmp"
        partial.write_text(json.dumps({**vars(state), "report": vars(state.report)}))
        partial.replace(self.home / "state.json")
        self._rows, self._signatures = [], []
        self._digests = {name: [] for name in self._digests}

    def _resumed(self) -> State:
        """The state of a killed process, and the files as they were then."""
        file = self.home / "state.json"
        state = State.of(json.loads(file.read_text())) if file.exists() else State()
        for number in range(state.shards):
            with np.load(self._digest_file(number)) as digests:
                self.documents.add(digests["documents"])
                self.demonstrations.add(digests["demonstrations"])
        signatures = self.home / "signatures"
        signatures.touch()
        if self.minhash is not None:
            os.truncate(signatures, state.kept * ROW_BYTES)
        return state


@dataclass
class Tally:
    """What is counted of demonstrations, a table at a time."""

    demonstrations: int = 0
    lines: int = 0
    boundaries: int = 0
    tokens: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    by_lines: Counter[int] = field(default_factory=Counter)  # bin -> demonstrations, see `bin_of`
    by_tokens: Counter[int] = field(default_factory=Counter)

    def add(self, table: Any) -> None:
        """Count a table of a shard."""
        lines = _lengths(table["lines"])
        tokens = table["tokens"].to_numpy()
        self.demonstrations += len(table)
        self.lines += int(lines.sum())
        self.boundaries += int(_lengths(table["boundaries"]).sum())
        self.tokens += int(tokens.sum())
        for row in table["licence"].value_counts().to_pylist():
            self.licences[row["values"]] += row["counts"]
        for counter, values in ((self.by_lines, lines), (self.by_tokens, tokens)):
            bins, counts = np.unique(np.ceil(np.log2(np.maximum(values, 1))).astype(int), return_counts=True)
            counter.update(dict(zip(bins.tolist(), counts.tolist(), strict=True)))

    def as_dict(self) -> dict[str, Any]:
        """JSON; histograms: the largest value of a bin, a power of two, -> how many."""
        histograms = {
            name: {str(2**power): counter[power] for power in sorted(counter)}
            for name, counter in (("lines", self.by_lines), ("tokens", self.by_tokens))
        }
        numbers = {name: getattr(self, name) for name in ("demonstrations", "lines", "boundaries", "tokens")}
        return numbers | {"licences": dict(self.licences.most_common()), "histograms": histograms}


def schema() -> Any:
    """Of a shard."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    lists = {"lines": pyarrow.list_(text), "boundaries": pyarrow.list_(number)}
    names = ("id", "prompt", "lines", "boundaries", "reference", "licence", "tokens")
    return pyarrow.schema([(name, lists.get(name, number if name == "tokens" else text)) for name in names])


def _lengths(column: Any) -> np.ndarray:
    """Of the lists of a table's column."""
    import pyarrow.compute as compute

    return compute.call_function("list_value_length", [column]).to_numpy()


def _chunks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """At most CHUNK documents at a time, fewer where they are long."""
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.source or "")
        if len(chunk) == CHUNK or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
