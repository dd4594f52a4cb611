"""All scripts of bench/, one after the other, and what has changed since the committed baseline: `make bench`.

    python bench/run.py [--only e_step,m_step] [--accept]

Writes bench/RESULTS.md: the machine, the commit, every figure with its spread and its ratio to the peer, the wall time
of every script; with `--only` it prints that. bench/baseline.json has the figures to compare with; `--accept` writes
those of this run there.

What is compared is the ratio of a figure to its peer, measured in the same run; for a figure without a peer its value,
and only if the baseline is of the same CPU model. A change of more than 15 % is told, and one for the worse fails. A
figure that itself spreads over more than 15 % has changed only when all of its repeats lie beyond.

Exit code: 0, 1 (something is slower, failed, or missing), 2 (bad options or a bad baseline).
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import figures
import psutil
from figures import CHECKOUT, Figure

from tasks.display import Display

BENCH = Path(__file__).resolve().parent
RESULTS, BASELINE = BENCH / "RESULTS.md", BENCH / "baseline.json"
LOGS = CHECKOUT / ".cache" / "bench"
TOLERANCE = 0.15
LONGEST = 600  # seconds that a script may take; all of them together should stay below 900 on two cores
LIBRARIES = ("torch", "transformers", "trl", "prefect", "mlflow")


@dataclass(frozen=True)
class Script:
    """A script of bench/, and its options."""

    name: str
    arguments: tuple[str, ...] = ()


SCRIPTS = (
    Script("startup"),
    Script("orchestration"),
    Script("e_step"),
    Script("rlvr"),
    Script("m_step"),
    Script("annotation"),
    Script("limit"),
    Script("scaling", ("--quick",)),
    Script("verifier"),
)


class Problem(Exception):
    """What went wrong, in one sentence."""


@dataclass(frozen=True)
class Ran:
    """What became of a script: its figures, or why there are none."""

    name: str
    seconds: float = 0.0
    figures: tuple[Figure, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class Measured:
    """The figures of a script in the baseline, and where they were measured."""

    cpu: str
    commit: str
    date: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Change:
    """A figure that is no longer what it was. what: "ratio to <peer>", or the unit."""

    name: str
    what: str
    before: float
    now: float
    worse: bool

    def __str__(self) -> str:
        percent = f" ({100 * (self.now / self.before - 1):+.0f} %)" if self.before else ""
        kind = "worse" if self.worse else "better"
        return f"{kind}: {self.name}, {self.what}, {self.before:.4g} -> {self.now:.4g}{percent}"


def main() -> int:
    """Run, compare, write, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME[,NAME]", help=", ".join(script.name for script in SCRIPTS))
    parser.add_argument("--accept", action="store_true", help="make these figures the baseline")
    given = parser.parse_args()
    try:
        scripts = chosen(given.only)
        baseline = read_baseline(BASELINE)
    except Problem as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    started, revision = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), commit(CHECKOUT)
    heading = [f"- {started}, commit {revision}", *environment(os.getloadavg()[0])]
    ran = run_all(scripts)
    heading.append(f"- in all: {sum(done.seconds for done in ran) / 60:.1f} minutes")
    changes, notes = compare_all(ran, baseline, cpu())
    text = page(heading, ran, changes, notes)
    if given.only:
        print(text)
    else:
        RESULTS.write_text(text)
        print(*told(ran, changes, notes), f"{RESULTS.relative_to(CHECKOUT)} has the figures", sep="\n")
    if given.accept:
        write_baseline(BASELINE, accepted(baseline, ran, cpu(), revision, started))
        print(f"{BASELINE.relative_to(CHECKOUT)} has them as the baseline")
    failed = any(done.failure for done in ran)
    slower = any(change.worse for change in changes) or any(missing for missing, _ in notes)
    return int(failed or (slower and not given.accept))


def chosen(only: str | None) -> Sequence[Script]:
    """The scripts named in "a,b", in the order of SCRIPTS; all by default."""
    names = only.split(",") if only else [script.name for script in SCRIPTS]
    known = {script.name for script in SCRIPTS}
    for name in names:
        if name not in known:
            raise Problem(f"--only {name}: expected one of {', '.join(script.name for script in SCRIPTS)}")
    return [script for script in SCRIPTS if script.name in names]


def run_all(scripts: Sequence[Script]) -> list[Ran]:
    """Every script in a process of its own; one that fails does not keep the others from running."""
    done: list[Ran] = []
    with Display() as display, display.stage("bench") as show:
        for number, script in enumerate(scripts):
            show({"event": "progress", "description": "scripts", "done": number, "total": len(scripts)})
            done.append(run(script, display))
    return done


def run(script: Script, display: Display) -> Ran:
    """One script."""
    started = time.monotonic()
    try:
        with display.stage(script.name):
            found = executed(BENCH / f"{script.name}.py", script.arguments, LOGS / f"{script.name}.log", LONGEST)
    except Problem as problem:
        display.line(f"{script.name}: {problem}")
        return Ran(script.name, time.monotonic() - started, failure=str(problem))
    return Ran(script.name, time.monotonic() - started, found)


def executed(script: Path, arguments: Sequence[str], log: Path, seconds: float) -> tuple[Figure, ...]:
    """The figures of a script that is run, its output in `log`. Raises Problem; nothing of it runs on then."""
    if not script.is_file():
        raise Problem(f"there is no {script.name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder, log.open("wb") as output:
        file = Path(folder) / "figures.json"
        command = [sys.executable, str(script), *arguments, "--json", str(file)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=CHECKOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Problem(f"took longer than {seconds:g} s, see {log}") from error
        finally:
            if process.poll() is None:  # too long, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            said = log.read_text(errors="replace").strip().splitlines()
            raise Problem(f"exit code {code}, {said[-1] if said else 'without a word'}; see {log}")
        return read(file)


def read(file: Path) -> tuple[Figure, ...]:
    """The figures that a script wrote. Raises Problem for a file that is none of figures."""
    try:
        found = tuple(figures.read(file))
    except FileNotFoundError as error:
        raise Problem("it wrote no figures") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Problem(f"{file.name}: expected figures, found something else ({error})") from error
    return checked(found)


def checked(found: tuple[Figure, ...]) -> tuple[Figure, ...]:
    """Figures whose values are numbers that can be compared."""
    names = [figure.name for figure in found]
    if not names:
        raise Problem("expected figures, found none of them")
    for name in names:
        if names.count(name) > 1:
            raise Problem(f"figure {name}: expected once, found {names.count(name)} times")
    for figure in found:
        values = [*figure.values, *figure.peer_values]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise Problem(f"figure {figure.name}: expected finite numbers, found {values}")
        if not figure.values or min(values) < 0:
            raise Problem(f"figure {figure.name}: expected numbers of 0 and above, found {values}")
        if figure.peer is not None and (not figure.peer_values or min(values) == 0):
            raise Problem(f"figure {figure.name}: expected numbers above 0 on both sides of a ratio, found {values}")
        if figure.better not in ("higher", "lower"):
            raise Problem(f"figure {figure.name}: expected better = higher or lower, found {figure.better!r}")
    return found


def measured(figure: Figure) -> tuple[float, float, float]:
    """What is compared of a figure, as (middle, lowest, highest): its ratio to the peer, else its value.

    As contenders take turns, the ratios of one figure are those of each repeat with the peer's same repeat.
    """
    if figure.ratio is None:
        return figure.value, min(figure.values), max(figure.values)
    own, peer = figure.values, figure.peer_values
    pairs = zip(own, peer, strict=True) if len(own) == len(peer) else itertools.product(own, peer)
    ratios = [mine / other if figure.better == "higher" else other / mine for mine, other in pairs]
    return figure.ratio, min(ratios), max(ratios)


def compare(figure: Figure, base: Figure) -> Change | None:
    """How a figure has changed against the same one of the baseline; None within 15 %."""
    now, low, high = measured(figure)
    before, _, _ = measured(base)
    if high - low <= TOLERANCE * now:  # else only the whole spread says anything
        low = high = now
    if not (high < (1 - TOLERANCE) * before or low > (1 + TOLERANCE) * before):
        return None
    wanted = figure.peer is not None or figure.better == "higher"
    what = figure.unit if figure.peer is None else f"ratio to {figure.peer}"
    return Change(figure.name, what, before, now, worse=(now > before) != wanted)


def compare_all(
    ran: Sequence[Ran], baseline: Mapping[str, Measured], machine: str
) -> tuple[list[Change], list[tuple[bool, str]]]:
    """What has changed, the worse first, and what could not be compared: (whether that is a failure, a sentence)."""
    changes: list[Change] = []
    notes: list[tuple[bool, str]] = []
    for done in ran:
        if not done.figures:
            continue
        if done.name not in baseline:
            notes.append((False, f"{done.name}: not in the baseline"))
            continue
        base = baseline[done.name]
        known = {figure.name: figure for figure in base.figures}
        others = 0
        for figure in done.figures:
            before = known.pop(figure.name, None)
            if before is None:
                notes.append((False, f"{figure.name}: not in the baseline"))
            elif (figure.peer, figure.unit, figure.better) != (before.peer, before.unit, before.better):
                notes.append((False, f"{figure.name}: another peer or unit than in the baseline"))
            elif figure.peer is None and base.cpu != machine:
                others += 1
            elif change := compare(figure, before):
                changes.append(change)
        notes += [(True, f"{name}: in the baseline, and no longer measured") for name in known]
        if others:
            notes.append((False, f"{done.name}: {others} figures without a peer, the baseline is of {base.cpu}"))
    return sorted(changes, key=lambda change: not change.worse), notes


def told(ran: Sequence[Ran], changes: Sequence[Change], notes: Sequence[tuple[bool, str]]) -> list[str]:
    """What a person has to know, a line each."""
    lines = [f"failed: {done.name}, {done.failure}" for done in ran if done.failure]
    lines += [str(change) for change in changes]
    lines += [f"{'missing' if missing else 'not compared'}: {note}" for missing, note in notes]
    return lines or ["no figure differs from the baseline by more than 15 %"]


def page(
    heading: Sequence[str], ran: Sequence[Ran], changes: Sequence[Change], notes: Sequence[tuple[bool, str]]
) -> str:
    """RESULTS.md."""
    lines = ["# Speed", "", "Written by `make bench`. Medians, lowest to highest in brackets; a ratio above 1 means"]
    lines += ["better than the peer, which did the same work in the same run.", "", *heading, ""]
    lines += ["## Against the baseline", "", *(f"- {line}" for line in told(ran, changes, notes)), ""]
    lines += ["## Scripts", "", "| script | wall s | |", "|---|---|---|"]
    for done in ran:
        outcome = f"**failed**: {done.failure}" if done.failure else f"{len(done.figures)} figures"
        lines.append(f"| {done.name} | {done.seconds:.1f} | {outcome} |")
    for done in ran:
        if done.figures:
            lines += ["", f"## {done.name}", "", summary(BENCH / f"{done.name}.py"), "", figures.table(done.figures)]
    return "\n".join(lines) + "\n"


def summary(script: Path) -> str:
    """The first paragraph of a script's docstring."""
    text = ast.get_docstring(ast.parse(script.read_text())) if script.is_file() else None
    return " ".join((text or "").split("\n\n")[0].split())


def read_baseline(file: Path) -> dict[str, Measured]:
    """Script -> its figures; empty without a file. Raises Problem for a file that is no baseline."""
    try:
        content = json.loads(file.read_text())
        return {name: _measured(entry) for name, entry in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError, Problem) as error:
        raise Problem(f"{file}: expected what --accept writes, found something else ({error})") from error


def _measured(entry: Mapping[str, Any]) -> Measured:
    rows = [
        Figure(**{**row, "values": tuple(row["values"]), "peer_values": tuple(row["peer_values"])})
        for row in entry["figures"]
    ]
    return Measured(str(entry["cpu"]), str(entry["commit"]), str(entry["date"]), checked(tuple(rows)))


def accepted(
    baseline: Mapping[str, Measured], ran: Sequence[Ran], machine: str, commit: str, date: str
) -> dict[str, Measured]:
    """The baseline with the figures of the scripts that ran in place of their old ones."""
    new = {done.name: Measured(machine, commit, date, done.figures) for done in ran if done.figures}
    found = {**baseline, **new}
    return {script.name: found[script.name] for script in SCRIPTS if script.name in found}


def write_baseline(file: Path, baseline: Mapping[str, Measured]) -> None:
    """The file, whole or not at all."""
    temporary = file.with_suffix(".tmp")
    content = {name: asdict(entry) for name, entry in baseline.items()}
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(file)


def environment(load: float) -> list[str]:
    """The machine and what is installed, as a list."""
    release = platform.freedesktop_os_release() if sys.platform == "linux" else {}
    system = release.get("PRETTY_NAME", platform.system())
    memory = psutil.virtual_memory().total / 2**30
    libraries = ", ".join(f"{name} {installed(name)}" for name in LIBRARIES)
    busy = f"; load {load:.1f} in the minute ahead of the start" if load > 0.5 else ""
    return [
        f"- {cpu()}, {memory:.0f} GiB, {system}, {platform.system()} {platform.release()}{busy}",
        f"- Python {platform.python_version()}, {libraries}",
    ]


def cpu() -> str:
    """The CPU model and the number of cores that this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def installed(name: str) -> str:
    """The version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def commit(root: Path) -> str:
    """The checkout's commit, and whether files other than those written here differ from it."""
    git = ["git", "-C", str(root)]
    revision = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if revision.returncode != 0:
        return "unknown"
    own = [f":(exclude){file.relative_to(CHECKOUT)}" for file in (RESULTS, BASELINE)]
    dirty = subprocess.run([*git, "status", "--porcelain", "--", ".", *own], capture_output=True, text=True).stdout
    return f"{revision.stdout.strip()}{', with uncommitted changes' if dirty.strip() else ''}"


if __name__ == "__main__":
    sys.exit(main())
