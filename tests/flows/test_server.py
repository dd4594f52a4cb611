"""The private Prefect server: it answers, what it prints goes to its log, and it does not outlive its parent."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import environment
from flows.server import PrivateServer
from ra3core.errors import UserError

PARENT = """
import sys, time
from pathlib import Path
from flows.server import PrivateServer
server = PrivateServer(Path(sys.argv[1]))
server.start()
print(server._process.pid, flush=True)
time.sleep(60)
"""


def _gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_dies_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=environment.CHECKOUT)
    assert parent.stdout is not None
    server = int(parent.stdout.readline())
    time.sleep(1)
    assert not _gone(server)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while not _gone(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _gone(server)


def test_a_server_that_dies_is_a_user_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense://")
    server = PrivateServer(tmp_path)
    server.start()
    with pytest.raises(UserError, match=r"did not start, see .*server\.log"):
        server.wait()
    assert "nonsense" in server.log.read_text() or server.log.stat().st_size > 0
    server.stop()


def test_a_configured_server_is_used(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://example.invalid/api")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with environment.prefect_api(tmp_path) as ready:
        ready()
        assert os.environ["PREFECT_API_URL"] == "http://example.invalid/api"
    assert os.environ["PREFECT_API_URL"] == "http://example.invalid/api"


def test_cycles_are_looked_for_again_once_everything_is_imported(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with environment.prefect_api(tmp_path) as ready:
        assert not gc.isenabled()
        ready()
        assert gc.isenabled()
    gc.unfreeze()
    with pytest.raises(ZeroDivisionError), environment.prefect_api(tmp_path):
        raise ZeroDivisionError
    assert gc.isenabled()
