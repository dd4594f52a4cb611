"""prefect.yaml against a real server, work pool and worker on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.environment import CHECKOUT
from ra3core.artifacts import Store
from ra3core.config import load

pytestmark = pytest.mark.slow

SMALL_DATA = [
    *("data.web_documents=400", "data.outlines=150", "data.demonstrations=80"),
    *("data.rlvr_tasks=12", "data.evaluation_tasks=3"),
]


@contextmanager
def running(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A Prefect command in the background, asked to stop afterwards, then made to."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            prefect(*arguments), env=environment, stdout=file, stderr=file, cwd=CHECKOUT, start_new_session=True
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> Iterator[tuple[Path, dict[str, str]]]:
    """A checkout, and the environment in which its deployment can be run."""
    root = new_checkout(tmp_path_factory.mktemp("deployed"), load("smoke", SMALL_DATA).data)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(root / "prefect-home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "RA3_ROOT": str(root),
    }
    with running(["server", "start", "--host", "127.0.0.1", "--port", str(port)], environment, root / "server.log"):
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health", timeout=10).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert time.monotonic() < deadline, (root / "server.log").read_text()
                time.sleep(0.5)
        for command in (["work-pool", "create", "--type", "process", "ra3"], ["deploy", "--all"]):
            done = subprocess.run(prefect(*command), env=environment, cwd=CHECKOUT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        with running(["worker", "start", "--pool", "ra3"], environment, root / "worker.log"):
            yield root, environment


def run(environment: dict[str, str], **parameters: object) -> subprocess.CompletedProcess[str]:
    """`prefect deployment run ra3/demo --watch` with parameters, from a folder that is not the checkout."""
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}={json.dumps(value)}")]
    command = prefect("deployment", "run", "ra3/demo", *given, "--watch")
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=900)


def test_the_deployed_flow_makes_a_report_and_fails_when_it_should(deployed) -> None:
    root, environment = deployed
    done = run(environment, preset="smoke", overrides=SMALL_DATA)
    assert done.returncode == 0, done.stdout + done.stderr + (root / "worker.log").read_text()
    assert (root / "reports" / "latest" / "report.html").is_file()
    artifacts = len(Store(root / "artifacts").artifacts())

    refused = run(environment, preset="smoke", seeds=0)
    assert refused.returncode != 0
    failed = run(environment, preset="smoke", overrides=["rounds=none"])
    assert failed.returncode != 0
    assert len(Store(root / "artifacts").artifacts()) == artifacts
