"""How long a command takes before it works, and how long a run takes that has nothing to do.

    python bench/startup.py [--repeats 5] [--runs 3] [--json FILE]

Wall seconds of whole processes, from their start to their end: `ra3 --help`; an interpreter that imports everything of
ra3core that needs no torch; and, as what any Python takes, an interpreter that does nothing.

Then `ra3 run --preset smoke` of which every stage is in the store, as a user has it: a checkout with the data and the
artifacts of an earlier run (made here first, not measured), no server running, files in the page cache. Imports are
from the start of the process until Prefect, MLflow and the flow are imported; Prefect's server starts meanwhile, as in
every run. What follows is the wait for that server, the flow with its 22 stages (every file of every artifact is read
and verified), the end of the server and of the process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import CHECKOUT, Figure, finish, in_turns, options
from orchestration import checkout

WITH_TORCH = (
    *("ra3core.analysis", "ra3core.learning", "ra3core.lm"),
    *("ra3core.evaluation.evaluate", "ra3core.evaluation.samples"),
    *("ra3core.launch", "ra3core.processes"),
)
"""Rooms and modules of ra3core that compute; the others are imported without torch."""

RA3 = Path(sys.executable).with_name("ra3")
DATA = [
    *("data.web_documents=400", "data.outlines=150", "data.demonstrations=80"),
    *("data.rlvr_tasks=12", "data.evaluation_tasks=3"),
]
RUN = ["run", "--preset", "smoke", *(word for value in DATA for word in ("--set", value))]

STAMPED = """
import json, sys, time
import psutil
from flows import cli, environment

collect, stamp = environment.collect_cycles, sys.argv.pop()

def imported():
    started = psutil.Process().create_time()
    with open(stamp, "w") as file:
        json.dump(time.time() - started, file)
    environment.collect_cycles = collect
    collect()

environment.collect_cycles = imported
cli.main()
"""
"""The command, which writes down when its imports are done: that is when the cycle collector goes on."""


def main() -> None:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--runs", type=int, default=3, help="repeats of the whole run")
    given = parser.parse_args()
    modules = light_modules()
    contenders = {
        "nothing": [sys.executable, "-c", "pass"],
        "help": [str(RA3), "--help"],
        "import": [sys.executable, "-c", f"import {', '.join(modules)}"],
    }
    took = in_turns({name: seconds_of(command) for name, command in contenders.items()}, given.repeats)
    figures = [
        Figure("startup/python -c pass", "s", took["nothing"], "lower"),
        Figure("startup/ra3 --help", "s", took["help"], "lower", note="meant to be below 0.5"),
        Figure("startup/import of ra3core", "s", took["import"], "lower", note=f"{len(modules)} modules; below 1"),
    ]
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        root = checkout(Path(folder) / "checkout", DATA)
        call([str(RA3), *RUN], root)
        runs = [reused(root, Path(folder) / "imports.json") for _ in range(given.runs)]
    imports, rest, whole = zip(*runs, strict=True)
    figures += [
        Figure("startup/everything reused, whole command", "s", whole, "lower", note="ra3 run --preset smoke"),
        Figure("startup/everything reused, imports", "s", imports, "lower", note="Prefect's server starts meanwhile"),
        Figure("startup/everything reused, after imports", "s", rest, "lower", note="meant to be below 5"),
    ]
    finish(figures, given.json)


def light_modules() -> list[str]:
    """The modules of ra3core that do without torch."""
    files = sorted((CHECKOUT / "ra3core").rglob("*.py"))
    names = [".".join(file.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if not any(f"{name}.".startswith(f"{heavy}.") for heavy in WITH_TORCH)]


def seconds_of(command: list[str]) -> Callable[[], float]:
    """Measures a command that needs no checkout."""

    def run() -> float:
        started = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=CHECKOUT)
        return time.monotonic() - started

    return run


def reused(root: Path, file: Path) -> tuple[float, float, float]:
    """Seconds of imports, of what follows, and of the whole of a run that finds everything."""
    started = time.monotonic()
    said = call([sys.executable, "-c", STAMPED, *RUN, str(file)], root)
    whole = time.monotonic() - started
    if "0 stages run" not in said:
        sys.exit(f"expected a run that reuses everything: {said.strip().splitlines()[-1]}")
    imports = json.loads(file.read_text())
    return imports, whole - imports, whole


def call(command: list[str], root: Path) -> str:
    """What a command prints that works in the checkout `root`; ends this process when it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment["RA3_ROOT"] = str(root)
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"`ra3 run --preset smoke` failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
