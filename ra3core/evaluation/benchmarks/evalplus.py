"""What HumanEval+ and MBPP+ share (EvalPlus, Liu et al. 2023): inputs in the file, expected outputs from the reference.

Rows of the official JSON lines: task_id, prompt, entry_point, canonical_solution, base_input, plus_input, atol,
contract. A program passes when it passes the base inputs and the plus inputs; the base tests come first, and
problem.row["base"] is their number, so that a verdict's outcomes tell the two apart.

    output right when   output == expected, or for floats (and where atol is set) same type and
                        abs(output - expected) <= atol + 1e-7 abs(expected), element by element; atol 1e-6 for floats

The time limit of a call is max(4 s, 4 times the reference's own time), of CPU time; of all calls min(60 s, their sum).
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import secrets
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ra3core.corpora.demonstrations import Test
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks.base import Benchmark, Decoding, Problem
from ra3core.evaluation.benchmarks.extraction import END_OF_TEXT
from ra3core.evaluation.benchmarks.files import checked, read_hub, read_rows, unique
from ra3core.fingerprint import PACKAGE, source_digest
from ra3core.verifier import Check, Program, Recording, Verifier, plain

STOP = (*END_OF_TEXT, "\nif __name__", "\ndef main(", "\nprint(")
DECODING = Decoding(max_new_tokens=768)
TEXTS = {"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str}
FIELDS = {**TEXTS, "base_input": list, "atol": float}

LEAST_SECONDS, TIMES_REFERENCE, MOST_SECONDS, MARGIN_SECONDS = 4.0, 4.0, 60.0, 2.0
SLEEP_SECONDS = 20.0  # of wall time beyond the CPU limit
MEMORY_MB = 2048
_RECORDING_SECONDS = 600.0
_FLOAT_TOLERANCE, _RELATIVE = 1e-6, 1e-7


@dataclass(frozen=True)
class EvalPlus(Benchmark):
    """Benchmarks whose expected outputs `prepared` computes; before that, no program can be judged."""

    def prepared(self, verifier: Verifier, cache: Path) -> EvalPlus:
        """With expected outputs and time limits, computed by `verifier` or read from a file in `cache`.

        The file is of this code and this Python; a task's line is of its row.
        Raises UserError when a reference solution fails.
        """
        code = source_digest(Path(inspect.getfile(type(self))).resolve(), PACKAGE)
        file = cache / f"{self.name}-py{sys.version_info[0]}.{sys.version_info[1]}-{code[:16]}.jsonl.gz"
        known = _read(file)
        missing = [p for p in self.problems if not _fits(known.get(p.row["digest"]), p)]
        if missing:
            known |= self._record(verifier, missing)
            _write(file, known)
        return replace(self, problems=[self._with_tests(p, known[p.row["digest"]]) for p in self.problems])

    def check(self, problem: Problem, arguments: tuple[Any, ...], expected: Any) -> Check:
        """The comparison with what the reference answers; some tasks have one of their own."""
        tolerance = problem.row["atol"] or (_FLOAT_TOLERANCE if _floats(expected) else 0.0)
        if tolerance:
            return Check(arguments, expected, comparison="allclose", tolerance=tolerance, relative=_RELATIVE)
        return Check(arguments, expected, comparison="equal")

    def driver(self, problem: Problem) -> tuple[str, str]:
        """Code that goes after the program, and the entry point then."""
        return "", problem.entry_point

    def judged(self, problem: Problem, sources: tuple[str, ...]) -> Program:
        """The program of these candidate sources; raises RuntimeError before `prepared`."""
        if not problem.tests:
            raise RuntimeError(f"{problem.id}: no expected outputs yet, prepare the benchmark first")
        code, entry_point = self.driver(problem)
        sources = tuple(source + code for source in sources)
        return Program(
            sources[0],
            entry_point,
            problem.tests,
            cpu_seconds=problem.row["cpu_seconds"],
            wall_seconds=problem.row["cpu_seconds"] + SLEEP_SECONDS,
            memory_mb=MEMORY_MB,
            readings=sources[1:],
        )

    def _record(self, verifier: Verifier, problems: Sequence[Problem]) -> dict[str, Recording]:
        futures = []
        for problem in problems:
            code, entry_point = self.driver(problem)
            program = Program(
                problem.row["reference"] + code,
                entry_point,
                tuple(Test(arguments, None) for arguments in problem.row["inputs"]),
                exhaustive=True,
                cpu_seconds=_RECORDING_SECONDS,
                memory_mb=2 * MEMORY_MB,
            )
            futures.append(verifier.record(program))
        recordings = {}
        for problem, future in zip(problems, futures, strict=True):
            try:
                recordings[problem.row["digest"]] = future.result()
            except ValueError as error:
                raise UserError(f"{self.name}: the reference solution of {problem.id} fails ({error})") from error
        return recordings

    def _with_tests(self, problem: Problem, recording: Recording) -> Problem:
        tests = []
        limits = [max(LEAST_SECONDS, TIMES_REFERENCE * seconds) for seconds in recording.cpu_seconds]
        for arguments, value, limit in zip(problem.row["inputs"], recording.values, limits, strict=True):
            tests.append(replace(self.check(problem, arguments, value), cpu_seconds=limit))
        total = min(MOST_SECONDS, sum(limits)) + MARGIN_SECONDS
        return replace(problem, tests=tuple(tests), row={**problem.row, "cpu_seconds": total})


def rows(data: Path | None, hub_name: str, file_name: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The rows of the official file, or of the hub's data set if that holds inputs; UserError otherwise."""
    if data is None:
        found = read_hub(hub_name, TEXTS)
        if not found or "plus_input" not in found[0]:
            raise UserError(f"{hub_name}: the hub's rows hold no inputs, pass the official {file_name} with --data")
        data = Path(hub_name)
        found = [checked(row, fields, f"{data}: row {number}") for number, row in enumerate(found, start=1)]
    else:
        found = read_rows(data, fields)
    unique((row["task_id"] for row in found), data)
    for row in found:
        if row.get("plus_input") == {}:  # how one of MBPP+'s rows says that it has none
            row["plus_input"] = []
        for name in ("base_input", "plus_input"):
            inputs = row.get(name)
            if not isinstance(inputs, list) or not all(isinstance(arguments, list) for arguments in inputs):
                raise UserError(f"{data}: task {row['task_id']!r} has no list of argument lists in field {name!r}")
        if not row["base_input"]:
            raise UserError(f"{data}: task {row['task_id']!r} has no inputs in field 'base_input', expected some")
    return found


def problem(row: Mapping[str, Any], inputs: Sequence[tuple[Any, ...]]) -> Problem:
    """The problem of a row; inputs: base and plus, with the types that JSON lost."""
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
    return Problem(
        row["task_id"],
        row["prompt"].strip() + "\n",
        row["entry_point"],
        row={
            "base": len(row["base_input"]),
            "inputs": tuple(inputs),
            "atol": float(row["atol"]),
            "reference": row["prompt"] + row["canonical_solution"],
            "digest": digest,
        },
    )


def _floats(value: Any) -> bool:
    """Whether a value is compared with a tolerance: a float, or a list or tuple of floats alone."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _fits(recording: Recording | None, problem: Problem) -> bool:
    """Whether there is an answer and a time for each input."""
    return recording is not None and len(recording.values) == len(recording.cpu_seconds) == len(problem.row["inputs"])


def _read(file: Path) -> dict[str, Recording]:
    """The recordings of a file by row digest; none when it is missing or damaged."""
    try:
        lines = gzip.decompress(file.read_bytes()).splitlines()
        return {digest: Recording(values, seconds) for digest, values, seconds in map(plain.loads, lines)}
    except (OSError, EOFError, ValueError, TypeError, zlib.error, plain.NotPlain):
        return {}


def _write(file: Path, recordings: Mapping[str, Recording]) -> None:
    """All or nothing, whoever else writes the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (plain.dumps([digest, tuple(r.values), tuple(r.cpu_seconds)]) for digest, r in recordings.items())
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_bytes(gzip.compress(b"\n".join(lines), 6, mtime=0))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
