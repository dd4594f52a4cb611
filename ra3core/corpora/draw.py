"""The draw: which of a collection's demonstrations a seed trains on, in random order, however many there are.

Every one of them has a random key, and those with the smallest are drawn, in the order of the keys. They are written
in that order without ever being in memory together: first spread over files by their place, then a file at a time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np

from ra3core.corpora.collect import SHARD, Tally, schema

BUCKETS = 200  # files open at a time, at most

Drawn = TypeVar("Drawn")


def drawn(available: int, count: int, seed: int) -> np.ndarray:
    """(min(count, available),): a uniform sample without replacement of 0 .. available - 1, in random order.

    A larger count with the same seed begins with the same ones.
    """
    rng = random.Random(f"{seed}/demonstrations")
    keys = np.fromiter((rng.random() for _ in range(available)), float, available)
    return np.argsort(keys, kind="stable")[:count]


def draw(found: Sequence[Drawn], count: int, seed: int) -> list[Drawn]:
    """What `drawn` takes of a list."""
    return [found[i] for i in drawn(len(found), count, seed)]


def write_drawn(collection: Path, order: np.ndarray, path: Path, scratch: Path) -> Tally:
    """Write the demonstrations order[0], order[1], ... of a collection to a parquet file; returns what they count.

    Memory: a shard and a bucket of SHARD demonstrations, or of a BUCKETSth of them all, besides 16 bytes of each.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    shards = sorted((collection / "shards").glob("*.parquet"))
    sizes = [parquet.read_metadata(shard).num_rows for shard in shards]
    place = np.full(sum(sizes), -1)
    place[order] = np.arange(len(order))
    size = max(SHARD, -(-len(order) // BUCKETS))
    placed = schema().append(pyarrow.field("place", pyarrow.int64()))
    files = [scratch / f"drawn-{number:03}.arrow" for number in range(-(-len(order) // size))]
    scratch.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        streams = [stack.enter_context(pyarrow.OSFile(str(file), "wb")) for file in files]
        buckets = [stack.enter_context(pyarrow.ipc.new_stream(stream, placed)) for stream in streams]
        start = 0
        for shard, count in zip(shards, sizes, strict=True):
            here = place[start : start + count]
            start += count
            table = parquet.read_table(shard, use_threads=False).append_column("place", pyarrow.array(here))
            for number in np.unique(here[here >= 0] // size).tolist():
                buckets[number].write_table(table.filter(pyarrow.array((here >= 0) & (here // size == number))))
    tally = Tally()
    with parquet.ParquetWriter(path, schema(), compression="zstd") as writer:
        for file in files:
            with pyarrow.OSFile(str(file)) as stream, pyarrow.ipc.open_stream(stream) as reader:
                table = reader.read_all()
            table = table.take(pyarrow.array(np.argsort(table["place"].to_numpy()))).drop_columns("place")
            tally.add(table)
            writer.write_table(table)
            file.unlink()
    return tally
