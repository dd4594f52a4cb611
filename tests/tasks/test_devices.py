"""Devices: one stage each, over threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.environment import CHECKOUT
from ra3core.errors import UserError
from tasks.devices import Devices


def test_each_device_holds_one_stage(tmp_path: Path) -> None:
    held: list[str] = []
    together: list[tuple[str, ...]] = []
    lock = threading.Lock()

    def work() -> None:
        with Devices("cuda:0,cuda:1", tmp_path).take() as device:
            with lock:
                held.append(device)
                together.append(tuple(held))
            time.sleep(0.05)
            with lock:
                held.remove(device)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {device for devices in together for device in devices} == {"cuda:0", "cuda:1"}
    assert all(len(set(devices)) == len(devices) for devices in together)


def test_another_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tasks.devices import Devices\n"
        f"with Devices('cuda', Path({str(tmp_path)!r})).take(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=CHECKOUT)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    taken = threading.Event()

    def take() -> None:
        with Devices("cuda", tmp_path).take():
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.6)
    holder.kill()
    holder.wait()
    assert taken.wait(10)
    thread.join()


def test_the_cpu_is_shared_and_closing_wakes(tmp_path: Path) -> None:
    devices = Devices("cpu", tmp_path)
    with devices.take() as one, devices.take() as another:
        assert one == another == "cpu"
    busy = Devices("cuda", tmp_path)
    with busy.take():
        other = Devices("cuda", tmp_path)
        threading.Timer(0.3, other.close).start()
        with pytest.raises(RuntimeError, match="interrupted"), other.take():
            raise AssertionError("a device was given")


@pytest.mark.parametrize("names", ["cuda:0,cuda:0", "cuda:0,", ""])
def test_what_are_no_devices(tmp_path: Path, names: str) -> None:
    with pytest.raises(UserError, match="expected different devices"):
        Devices(names, tmp_path)
