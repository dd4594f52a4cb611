"""What orchestration costs: the pipeline over stages that do nothing, beside the same stages called bare.

    python bench/orchestration.py [--repeats 3] [--stages 20] [--json FILE]

Both run the same 20 stage functions (tests/flows/fake_stages.py, milliseconds each) in child processes of the same
runner, two at a time, in one process and in turns. The bare calls have no Prefect, no MLflow, no artifact store and no
inputs to wait for; what the pipeline takes beyond them is orchestration, and all of it counts here, though in a real
run most of it happens while other stages compute. Database statements are those of MLflow's SQLite store, counted in
SQLAlchemy; Prefect's are its server's own. Imports and the start of the server are in bench/startup.py.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figures import CHECKOUT, Figure, finish, options

sys.path.insert(0, str(CHECKOUT / "tests" / "flows"))
SMALL = [
    *("data.web_documents=60", "data.outlines=20", "data.demonstrations=40", "data.rlvr_tasks=6"),
    *("data.evaluation_tasks=3", "registry.enabled=false"),
]
BARE = "the same stages, bare"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--stages", type=int, default=20, help="of the pipeline that its runner executes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        root = checkout(Path(folder) / "checkout")
        finish(measure(root, given.repeats, given.stages), given.json)


def checkout(root: Path, settings: Sequence[str] = SMALL) -> Path:
    """An empty repository with the data of these settings of the smoke preset."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from ra3core.config import load
    from ra3core.stage import StageLog
    from tasks.versioning import accept

    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    (root / ".dvc").mkdir()
    shutil.copy(CHECKOUT / ".dvc" / "config", root / ".dvc")
    (root / ".gitignore").write_text("/data\n")
    accept(load("smoke", settings).data, root, StageLog())
    return root


def measure(root: Path, repeats: int, stages: int) -> list[Figure]:
    """Bare calls, first runs and cached runs, in turns."""
    from flows import environment

    os.environ["PREFECT_HOME"] = str(root / ".cache" / "prefect")
    os.environ.pop("PREFECT_API_URL", None)
    with environment.prefect_api(root) as ready:
        from fake_stages import m_step  # pyright: ignore[reportMissingImports]
        from sqlalchemy import Engine, event

        from flows.pipeline import pipeline
        from ra3core.config import MStepConfig, RuntimeConfig
        from ra3core.stage import Context
        from tasks import runner, session

        original = session.StageFunction.__init__
        session.StageFunction.__init__ = lambda self, module, name: original(self, "fake_stages", name)
        runner.Runner.__init__.__defaults__ = ((),)  # the fakes need nothing preloaded
        statements = [0]

        @event.listens_for(Engine, "before_cursor_execute")
        def count(*_: object) -> None:
            statements[0] += 1

        runtime = RuntimeConfig(root=root, workers=2)

        def bare() -> None:
            with runner.Runner(runtime) as runs, ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory() as out:
                folders = [Path(out) / str(number) for number in range(stages)]
                for place in folders:
                    for name in ("out", "scratch"):
                        (place / name).mkdir(parents=True)
                contexts = [Context({}, place / "out", place / "scratch") for place in folders]
                list(pool.map(lambda context: runs.run(m_step, MStepConfig(), context), contexts))

        def whole() -> int:
            outcome = pipeline(preset="smoke", overrides=SMALL, runtime=runtime)
            return outcome.built

        ready()
        bare()
        whole()  # the databases are made, everything is imported
        rows: dict[str, list[tuple[float, float, int]]] = {"bare": [], "first run": [], "cached run": []}
        built = 0
        for _ in range(repeats):
            rows["bare"].append(timed(bare, statements))
            shutil.rmtree(root / "artifacts")
            rows["first run"].append(timed(whole, statements))
            rows["cached run"].append(timed(whole, statements))
            built = stages + 1  # and the report
        environment._send_what_waits()
    alone, first, cached = (list(zip(*found, strict=True)) for found in rows.values())
    added = tuple(seconds - least for seconds, least in zip(first[0], alone[0], strict=True))
    queries = tuple(count / built for count in first[2])
    return [
        Figure("orchestration/first run", "s", first[0], "lower", BARE, alone[0], f"{built} stages that do nothing"),
        Figure("orchestration/added to them", "s", added, "lower", note="meant to be below 10"),
        Figure("orchestration/everything reused", "s", cached[0], "lower"),
        Figure("orchestration/CPU of the flow's process", "s", first[1], "lower", note="a first run"),
        Figure("orchestration/statements a stage", "1", queries, "lower", note="to MLflow's SQLite"),
    ]


def timed(work: Callable[[], object], statements: list[int]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of this process alone, database statements."""
    before = statements[0]
    cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    work()
    wall, now = time.monotonic() - wall, resource.getrusage(resource.RUSAGE_SELF)
    return wall, now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime, statements[0] - before


if __name__ == "__main__":
    main()
