"""Flow runs whose process was killed: the next run of the same checkout and server marks them as crashed.

A running flow holds a lock on a file named after it, which the system releases when the process dies, however it dies.
A server that runs all the time has Prefect's heartbeats as well (flows/automations.py), which notice a dead machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from filelock import FileLock, Timeout
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.environment import PRIVATE


@contextmanager
def alive(root: Path) -> Iterator[None]:
    """Hold the present flow run's lock for the body; ahead of it, mark the runs that died as crashed."""
    folder = root / ".cache" / "flows"
    folder.mkdir(parents=True, exist_ok=True)
    _crash_the_dead(folder)
    name = f"{_server()}.{flow_run.id}.lock"
    with FileLock(folder / name):
        try:
            yield
        finally:
            (folder / name).unlink(missing_ok=True)


def _crash_the_dead(folder: Path) -> None:
    for file in folder.glob(f"{_server()}.*.lock"):
        lock = FileLock(file)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        run = UUID(file.name.split(".")[1])
        try:
            with get_client(sync_client=True) as client, suppress(ObjectNotFound):
                state = client.read_flow_run(run).state
                if state is None or not state.is_final():
                    client.set_flow_run_state(run, Crashed(message="its process was killed"), force=True)
            file.unlink(missing_ok=True)
        finally:
            lock.release()


def _server() -> str:
    """Which database a run is in: a server's, or the checkout's, which `ra3 run` serves at a port of the moment."""
    url = os.environ.get("PREFECT_API_URL", "")
    return "private" if os.environ.get(PRIVATE) == url else re.sub("[^A-Za-z0-9]", "-", url)
