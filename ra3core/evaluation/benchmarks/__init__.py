"""Benchmarks: problems with prompts, how a completion becomes a program, what judges it, where a completion stops.

A benchmark is a file here with a `load` function, and a line in `_LOADERS`. Names are ``NAME`` or ``NAME:VARIANT``;
"+" at the end of a name stands for "-plus".
"""

from __future__ import annotations

import importlib
from pathlib import Path

from ra3core.errors import UserError
from ra3core.evaluation.benchmarks.base import Benchmark, Decoding, Problem

__all__ = ["NAMES", "Benchmark", "Decoding", "Problem", "load"]

NAMES = ("embedded", "humaneval", "humaneval-plus", "mbpp", "mbpp-plus", "livecodebench", "codeforces")


def load(name: str, data: Path | None = None) -> Benchmark:
    """A benchmark by name, from `data` (the embedded suite's folder, another benchmark's file) or from the hub.

    name: such as ``humaneval``, ``mbpp:3-shot``, ``livecodebench:release_v6/2024-08-01/2025-05-01``.
    Raises UserError when there is no such benchmark or variant, or its data are missing or malformed.
    """
    base, _, variant = name.partition(":")
    base = base.removesuffix("+") + "-plus" if base.endswith("+") else base
    if base not in NAMES:
        raise UserError(f"benchmark {name!r}: expected one of {', '.join(NAMES)}")
    module = importlib.import_module(f"ra3core.evaluation.benchmarks.{base.replace('-', '_')}")
    return module.load(data, variant)
