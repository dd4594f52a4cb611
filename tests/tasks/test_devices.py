"""Devices: one stage each, over threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.environment import CHECKOUT
from ra3core.config import RuntimeConfig
from ra3core.errors import UserError
from tasks.devices import Devices, first


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


@pytest.mark.parametrize("names", ["cpu", "cuda", "cuda:1", "cuda:0,cuda:10"])
def test_what_are_devices(names: str) -> None:
    assert RuntimeConfig(device=names).device == names
    assert RuntimeConfig(device=f" {names.replace(',', ' , ')} ").device == names


@pytest.mark.parametrize("names", ["cuda:0,cuda:0", "cuda:0,", "", "gpu", "cuda:", "cuda:x", "cuda:01", "mps", "cpu:0"])
def test_what_are_no_devices(names: str) -> None:
    with pytest.raises(ValueError, match="expected cpu, cuda, or different ones of"):
        RuntimeConfig(device=names)


@pytest.mark.parametrize(
    ("there", "names", "expected"),
    [
        (0, "cuda", "cuda: not on this machine, expected cpu"),
        (0, "cuda:0,cuda:1", "cuda:0: not on this machine, expected cpu"),
        (2, "cuda:2", "cuda:2: not on this machine, expected cpu, cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, there: int, names: str, expected: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    with pytest.raises(UserError) as caught:
        first(names)
    assert str(caught.value) == f"--device (or RA3_DEVICE) {expected}"


def test_the_first_of_the_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [first(names) for names in ("cpu", "cuda", "cuda:1,cuda:0")] == ["cpu", "cuda", "cuda:1"]
