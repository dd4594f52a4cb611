"""Shards: a stage that works in chunks, shared out to tasks that may run on several machines.

What a chunk becomes depends on the seed and on which chunk it is, on nothing else. So a shard is a set of chunks, and
a stage that is given finished shards as inputs `shard_1`, `shard_2`, ... makes of them what it makes of its own chunks,
to the byte: the number of shards decides where the work is done, not what comes out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ra3core.errors import UserError

Chunk = TypeVar("Chunk")


def own(chunks: Sequence[Chunk], shard: int, shards: int) -> Sequence[Chunk]:
    """What shard `shard` (1 .. shards) does of a stage's chunks: every `shards`-th, because neighbours cost alike.

    Empty where there are fewer chunks than that.
    """
    return chunks[shard - 1 :: shards]


def folders(inputs: Mapping[str, Path]) -> list[Path]:
    """The shards among a stage's inputs; none: the stage does all of its chunks itself."""
    return [folder for name, folder in inputs.items() if re.fullmatch(r"shard_\d+", name)]


def require_each_once(stage: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Raises UserError unless the shards hold every chunk of `stage` exactly once, and no other."""
    counts = Counter(found)
    for chunk in expected:
        times = counts.pop(chunk, 0)
        if times != 1:
            hold = "hold" if times else "lack"
            more = " more than once" if times else ""
            raise UserError(f"{stage}: the shards {hold} chunk {chunk}{more}, expected every chunk once")
    if counts:
        raise UserError(f"{stage}: the shards hold chunk {next(iter(counts))}, which is none of this stage's")
