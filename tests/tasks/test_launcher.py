"""Stages in several processes: accelerate launch as the runner starts it, and that nothing of it is ever left."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import example_stages
import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from example_stages import ExampleConfig

from ra3core.config import RuntimeConfig
from ra3core.errors import UserError
from ra3core.launch import Order, run
from ra3core.stage import Context, StageLog, read_metrics
from tasks import launcher
from tasks.runner import Runner, StageError, StageKilled

FILES = sorted(launcher.CONFIGS.glob("*.yaml"))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setattr(launcher, "SHARING", frozenset({"example_stages"}))
    with Runner(RuntimeConfig(processes=2), preload=()) as runner:
        yield runner


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    log = StageLog(tmp_path / "out" / "metrics.jsonl")
    return Context({}, tmp_path / "out", tmp_path / "scratch", seed=5, log=log)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def processes(context: Context) -> list[int]:
    """The process ids of both processes, once they run."""
    files = [context.out / "process-0", context.out / "process-1"]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text().split()[0]) for file in files]


def wait_until(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_configurations_are_accelerates(file: Path) -> None:
    config = load_config_from_file(str(file))  # refuses keys that accelerate does not know
    assert isinstance(config, ClusterConfig)
    assert config.mixed_precision == "no"  # a stage's section says in what it computes
    device = "cpu" if config.use_cpu else "cuda"
    assert launcher.config_file(RuntimeConfig(processes=2, device=device, accelerate=file)) == file


def test_there_is_a_configuration_for_each_device() -> None:
    assert launcher.config_file(RuntimeConfig(processes=2)).name == "cpu.yaml"
    assert launcher.config_file(RuntimeConfig(processes=2, device="cuda")).name == "ddp.yaml"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "cuda:0,cuda:1"}, "expected --device cpu or cuda, found cuda:0,cuda:1"),
        ({"accelerate": Path("/no/such.yaml")}, r"RA3_ACCELERATE: /no/such.yaml: expected a configuration"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Runner(RuntimeConfig(processes=2, **settings))
    Runner(RuntimeConfig(processes=1, **settings))  # they concern nobody


def test_a_file_for_several_machines_is_refused(tmp_path: Path) -> None:
    values = yaml.safe_load((launcher.CONFIGS / "ddp.yaml").read_text()) | {"num_machines": 2}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match="expected one machine, found 2"):
        launcher.config_file(RuntimeConfig(processes=16, accelerate=tmp_path / "two.yaml"))


def test_an_order_comes_back_as_it_was(tmp_path: Path) -> None:
    config = {"penalty": math.inf}
    order = Order(stage="a:b", config=config, inputs={"a": tmp_path}, out=tmp_path, scratch=tmp_path)
    order.write(tmp_path / "order.json")
    assert Order.read(tmp_path / "order.json") == order
    (tmp_path / "order.json").write_text('{"stage": "a:b", "steps": 3}')
    with pytest.raises(UserError, match=r"order.json: expected the order of a stage \(stage, config"):
        Order.read(tmp_path / "order.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stage": "example_stages"}, "expected MODULE:FUNCTION"),
        ({"stage": "example_stages:nothing"}, "expected MODULE:FUNCTION"),
        ({"config": {"steps": "many"}}, r"config of example_stages:user_error: steps: .* found 'many'"),
    ],
)
def test_an_order_that_cannot_be_done_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    order = Order(stage="example_stages:user_error", config={}, inputs={}, out=tmp_path, scratch=tmp_path)
    with pytest.raises(UserError, match=message):
        run(order.model_copy(update=changed), lambda event: None)


def test_stages_that_do_not_share_run_alone(context: Context) -> None:
    with Runner(RuntimeConfig(processes=2), preload=()) as runner:
        metrics = runner.run(example_stages.report, ExampleConfig(), context)
    assert metrics["threads"] == 1
    assert "WORLD_SIZE" not in os.environ


@pytest.mark.slow
def test_the_first_process_speaks_for_all(runner: Runner, context: Context) -> None:
    events: list[dict[str, Any]] = []
    config = ExampleConfig(sentence="hello", penalty=3.5)
    metrics = runner.run(example_stages.together, config, context, events.append)
    assert metrics.pop("peak_memory_mb") > 5
    assert metrics == {"process": 0, "sentence": "hello", "penalty": 3.5}
    assert [event["values"] for event in events] == [{"square": 1.0}]
    assert [row["square"] for row in read_metrics(context.out / "metrics.jsonl")] == [1.0]
    pids = processes(context)
    assert len(set(pids)) == 2
    assert (context.out / "process-1").read_text().endswith("2 1")
    assert not any(map(is_alive, pids))


@pytest.mark.slow
def test_one_failing_process_fails_the_stage_with_its_sentence(runner: Runner, context: Context) -> None:
    with pytest.raises(UserError) as caught:
        runner.run(example_stages.last_user_error, ExampleConfig(sentence="data/x: expected a column"), context)
    assert str(caught.value) == "data/x: expected a column"
    assert not any(map(is_alive, processes(context)))
    with pytest.raises(StageError, match="stage bug failed: ZeroDivisionError") as wrong:
        runner.run(example_stages.bug, ExampleConfig(), context)
    assert "config.steps - config.steps" in str(wrong.value)


@pytest.mark.slow
def test_a_killed_process_is_a_killed_stage(runner: Runner, context: Context) -> None:
    with pytest.raises(StageKilled, match="one of its processes died without a word"):
        runner.run(example_stages.last_killed, ExampleConfig(), context)
    assert not any(map(is_alive, processes(context)))


@pytest.mark.slow
def test_close_ends_all_processes(runner: Runner, context: Context) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(runner.run, example_stages.forever, ExampleConfig(), context)
        pids = processes(context)
        runner.close()
        with pytest.raises(StageError, match="cancelled"):
            running.result(20)
    assert not any(map(is_alive, pids))


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import example_stages
from ra3core.config import RuntimeConfig
from ra3core.stage import Context
from tasks import launcher
from tasks.runner import Runner

launcher.SHARING = frozenset(["example_stages"])
out = Path({out!r})
Runner(RuntimeConfig(processes=2), preload=()).run(
    example_stages.forever, example_stages.ExampleConfig(), Context({{}}, out, out)
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_run(stop: signal.Signals, context: Context, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT.format(tests=str(Path(__file__).parent), out=str(context.out))))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        pids = processes(context)
        os.kill(parent.pid, stop)
        wait_until(lambda: not any(map(is_alive, pids)), 20)
