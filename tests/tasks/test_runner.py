"""The runner: what crosses between parent and child, and that no child outlives its use."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import example_stages
import pytest
from example_stages import ExampleConfig

from ra3core.artifacts import Store
from ra3core.config import RuntimeConfig
from ra3core.errors import UserError
from ra3core.stage import Context, StageLog, read_metrics
from tasks.runner import Runner, StageError


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runtime = RuntimeConfig(threads=3).model_copy(update={"device": "somewhere"})  # no device that would be looked for
    with Runner(runtime, preload=["tasks.runner"]) as runner:
        yield runner


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    log = StageLog(tmp_path / "out" / "metrics.jsonl")
    return Context({"model": tmp_path}, tmp_path / "out", tmp_path / "scratch", seed=5, log=log)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def sleeper(context: Context) -> int:
    """The process id of the stage `sleep`, once it runs."""
    return int(wait_until(lambda: (context.out / "pid").exists() and (context.out / "pid").read_text()))


def test_a_stage_looks_for_cycles_but_not_among_the_servers_modules(runner, context) -> None:
    found = runner.run(example_stages.collector, ExampleConfig(), context)
    assert found["looks"]
    assert found["frozen"] > 10 * found["old"]


def test_metrics_events_and_files_come_back(
    runner: Runner, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events: list[dict[str, Any]] = []
    metrics = runner.run(example_stages.report, ExampleConfig(sentence="hello"), context, events.append)
    assert metrics.pop("pid") != os.getpid()
    assert metrics.pop("peak_memory_mb") > 5
    assert metrics == {
        "threads": 3,
        "device": "somewhere",
        "environment": "3",
        "cwd": str(tmp_path),
        "seed": 5,
        "inputs": {"model": str(tmp_path)},
    }
    assert [event["values"] for event in events if event["event"] == "metrics"] == [
        {"square": 1.0},
        {"square": 4.0},
        {"square": 9.0},
    ]
    assert events[0] == {"event": "progress", "description": "counting", "done": 0, "total": 3}
    assert events[-1] == {"event": "message", "text": "done"}
    assert [row["square"] for row in read_metrics(context.out / "metrics.jsonl")] == [1.0, 4.0, 9.0]
    assert (context.out / "result.txt").read_text() == "hello"


def test_user_errors_cross_with_their_sentence(runner: Runner, context: Context) -> None:
    with pytest.raises(UserError) as caught:
        runner.run(example_stages.user_error, ExampleConfig(sentence="data/x.parquet: expected a text column"), context)
    assert str(caught.value) == "data/x.parquet: expected a text column"


def test_a_device_that_is_not_there_is_one_sentence(runner: Runner, context: Context) -> None:
    with pytest.raises(UserError, match=r"^--device \(or RA3_DEVICE\) cuda:99: not on this machine, expected cpu"):
        runner.run(example_stages.report, ExampleConfig(), context, device="cuda:99")
    assert list(context.out.iterdir()) == []


def test_other_errors_carry_the_childs_traceback(runner: Runner, context: Context) -> None:
    with pytest.raises(StageError, match="stage bug failed: ZeroDivisionError") as caught:
        runner.run(example_stages.bug, ExampleConfig(), context)
    assert "config.steps - config.steps" in str(caught.value)


def test_metrics_that_cannot_be_sent_are_an_error(runner: Runner, context: Context) -> None:
    with pytest.raises(StageError, match=r"stage no_metrics failed: .*pickle"):
        runner.run(example_stages.no_metrics, ExampleConfig(), context)


def test_a_stage_that_cannot_be_imported_is_an_error(runner: Runner, context: Context) -> None:
    def local(config: ExampleConfig, context: Context) -> dict[str, Any]:
        return {}

    with pytest.raises(StageError, match=r"<locals>"):
        runner.run(local, ExampleConfig(), context)


def test_a_killed_child_is_named_with_its_signal(runner: Runner, context: Context) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(StageError, match=r"stage killed was killed by SIGKILL \(out of memory\?\)"):
        runner.run(example_stages.killed, ExampleConfig(), context, events.append)
    assert events == [{"event": "message", "text": "about to die"}]  # what it said before is not lost
    with pytest.raises(StageError, match=r"stage leave ended without a result \(exit code 7\)"):
        runner.run(example_stages.leave, ExampleConfig(), context)


def test_a_timeout_kills_the_child(runner: Runner, context: Context) -> None:
    with pytest.raises(StageError, match=r"longer than 1\.5 s"):
        runner.run(example_stages.sleep, ExampleConfig(), context, timeout=1.5)
    assert not is_alive(sleeper(context))


def test_close_kills_what_still_runs(context: Context) -> None:
    with ThreadPoolExecutor() as pool:
        with Runner(RuntimeConfig(), preload=()) as runner:
            running = pool.submit(runner.run, example_stages.sleep, ExampleConfig(), context)
            pid = sleeper(context)
            assert is_alive(pid)
        with pytest.raises(StageError, match="cancelled"):
            running.result(20)
        assert not is_alive(pid)


def test_an_error_of_the_sink_kills_the_child(runner: Runner, context: Context) -> None:
    def sink(event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(example_stages.sleep, ExampleConfig(), context, sink)
    wait_until(lambda: not (context.out / "pid").exists() or not is_alive(sleeper(context)))


def test_two_threads_run_stages_at_the_same_time(runner: Runner, context: Context, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    contexts = [
        Context({"mine": mine, "other": other}, context.out, context.scratch)
        for mine, other in ((one, two), (two, one))
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: runner.run(example_stages.meet, ExampleConfig(), each), contexts))


def test_many_threads_get_their_own_answers(runner: Runner, context: Context) -> None:
    """Starting and ending children at the same time mixes up nothing; half of them die."""

    def run(number: int) -> str:
        stage = example_stages.killed if number % 2 else example_stages.user_error
        try:
            runner.run(stage, ExampleConfig(sentence=f"sentence {number}"), context)
        except (StageError, UserError) as error:
            return str(error)
        return "no error"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(run, range(24)))
    expected = "stage killed was killed by SIGKILL (out of memory?)"
    assert answers == [expected if number % 2 else f"sentence {number}" for number in range(24)]


def test_memory_is_the_childs_own(runner: Runner, context: Context) -> None:
    small = runner.run(example_stages.allocate, ExampleConfig(steps=1), context)["peak_memory_mb"]
    large = runner.run(example_stages.allocate, ExampleConfig(steps=200), context)["peak_memory_mb"]
    again = runner.run(example_stages.allocate, ExampleConfig(steps=1), context)["peak_memory_mb"]
    assert 190 < large - small < 210
    assert abs(again - small) < 10


def test_progress_is_thinned_but_its_end_is_told(runner: Runner, context: Context) -> None:
    events: list[dict[str, Any]] = []
    runner.run(example_stages.flood, ExampleConfig(steps=100_000), context, events.append)
    assert len(events) < 1000
    assert events[0]["done"] == 0
    assert events[-1]["done"] == 100_000


def test_the_store_builds_through_the_runner(runner: Runner, tmp_path: Path) -> None:
    store = Store(tmp_path)
    events: list[dict[str, Any]] = []
    artifact, reused = store.build(
        "report", example_stages.report, ExampleConfig(), {}, seed=7, execute=runner.run, sink=events.append
    )
    assert not reused
    assert artifact.metrics["seed"] == 7
    assert artifact.metrics["peak_memory_mb"] > 5
    assert len(events) > 4
    with pytest.raises(UserError, match="a sentence"):
        store.build("error", example_stages.user_error, ExampleConfig(sentence="a sentence"), {}, execute=runner.run)
    assert store.artifacts() == [artifact]


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import example_stages
from ra3core.config import RuntimeConfig
from ra3core.stage import Context
from tasks.runner import Runner

runner = Runner(RuntimeConfig(), preload=())
print("torch" in sys.modules, flush=True)
out = Path({out!r})
runner.run(example_stages.sleep, example_stages.ExampleConfig(), Context({{}}, out, out))
"""  # without a guard: a child must not run it again


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_parents_death_kills_the_child(context: Context, tmp_path: Path, stop: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT.format(tests=str(Path(__file__).parent), out=str(context.out))))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    ) as parent:
        pid = sleeper(context)
        server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent.pid, stop)
        wait_until(lambda: not is_alive(pid), 10)
        wait_until(lambda: not is_alive(server), 10)
        output, errors = parent.communicate(timeout=20)
    assert output == "False\n"
    assert ("KeyboardInterrupt" in errors) == (stop == signal.SIGINT)


def test_nothing_starts_before_it_is_needed() -> None:
    code = (
        "import sys, multiprocessing.forkserver as f; from tasks.runner import Runner; "
        "from ra3core.config import RuntimeConfig; Runner(RuntimeConfig()).close(); "
        "print(f._forkserver._forkserver_pid, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "None False\n"


def test_threads_do_not_outlive_a_stage(runner: Runner, context: Context) -> None:
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        runner.run(example_stages.report, ExampleConfig(), context)
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before
