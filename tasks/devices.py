"""Devices to share out: each holds one stage at a time, of all the runs of this checkout on this machine.

The lock is a file that the system releases when its holder dies, so a killed run blocks no device. Stages on the CPU
share it; `RuntimeConfig.workers` limits them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ra3core.errors import UserError

POLL_SECONDS = 0.2


def check(name: str) -> None:
    """Raises UserError for a GPU that is not on this machine."""
    kind, _, number = name.partition(":")
    if kind != "cuda":
        return
    import torch

    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        expected = ", ".join(["cpu", *(f"cuda:{there}" for there in range(count))])
        raise UserError(f"--device (or RA3_DEVICE) {name}: not on this machine, expected {expected}")


def first(names: str) -> str:
    """Of devices to share out, the one for a command that shares nothing out. Raises UserError as `check` does."""
    name = names.partition(",")[0]
    check(name)
    return name


class Devices:
    """names: as in RuntimeConfig.device, such as "cpu" or "cuda:0,cuda:1". folder: for the lock files."""

    def __init__(self, names: str, folder: Path) -> None:
        self._names = names.split(",")
        self._folder = folder
        self._closed = threading.Event()

    @contextmanager
    def take(self) -> Iterator[str]:
        """Wait for a free device and hold it; raises RuntimeError once closed."""
        if self._names == ["cpu"]:
            yield "cpu"
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        locks = {name: FileLock(self._folder / f"{name.replace(':', '-')}.lock") for name in self._names}
        while not self._closed.is_set():
            for name, lock in locks.items():
                try:
                    lock.acquire(blocking=False)
                except Timeout:
                    continue
                try:
                    yield name
                finally:
                    lock.release()
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError("the run was interrupted")

    def close(self) -> None:
        """Whoever waits stops waiting."""
        self._closed.set()
