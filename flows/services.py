"""`ra3 serve` and `ra3 stop`: Prefect, MLflow, a work pool with its worker and the deployments, on this machine only.

The services run in the background and outlive the command. While they run, a file prefect.toml in the checkout tells
the `prefect` command where the server is, and `ra3 run` uses that server too.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from ra3core.errors import UserError

POOL = "ra3"
START_SECONDS, STOP_SECONDS = 180.0, 20.0
HEARTBEAT_SECONDS = 30  # Prefect takes no less; a run that misses three is marked as crashed


def prefect_url(root: Path) -> str | None:
    """The API of the server that `ra3 serve` started in this checkout, as long as that runs."""
    try:
        state = json.loads(_state_file(root).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return state["url"] if _runs(state["processes"]["Prefect"]) else None


def serve(root: Path, checkout: Path, prefect_port: int, mlflow_port: int, flows: int) -> None:
    """Start what does not run yet, deploy prefect.yaml, and return when all of it answers.

    flows: flow runs that the worker executes at the same time. Raises UserError, with nothing left running, when a
    service does not start.
    """
    folder = _state_file(root).parent
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if url := prefect_url(root):
            raise UserError(f"the services of this checkout run already, at {url}; `ra3 stop` ends them")
        for port in (prefect_port, mlflow_port):
            if not _free(port):
                raise UserError(f"port {port} is taken, expected a free one: --prefect-port, --mlflow-port")
        _stop(root)
        services = _Services(root, checkout, prefect_port, mlflow_port)
        try:
            services.start("Prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect_port))
            services.start("MLflow")
            services.wait("Prefect", lambda: _answers(f"{services.url}/health"))
            services.prefect("work-pool", "create", "--type", "process", POOL, "--overwrite")
            services.start("worker", "worker", "start", "--pool", POOL, "--type", "process", "--limit", str(flows))
            services.prefect("deploy", "--all", "--prefect-file", str(checkout / "prefect.yaml"))
            services.python("flows.automations")
            services.wait("MLflow", lambda: _answers(f"http://127.0.0.1:{mlflow_port}/health"))
            services.wait("worker", services.worker_is_online)
        except BaseException:
            _stop(root)
            raise
        (root / "prefect.toml").write_text(
            f'# Written by `ra3 serve`, removed by `ra3 stop`.\n[api]\nurl = "{services.url}"\n'
        )
    print(
        f"Prefect  http://127.0.0.1:{prefect_port}",
        f"MLflow   http://127.0.0.1:{mlflow_port}",
        f"A worker of pool {POOL} executes {flows} flow run{'s' if flows > 1 else ''} at a time; logs are in {folder}.",
        "Start a run:  prefect deployment run 'pipeline/demo' -p preset=smoke --watch",
        "`make stop` ends them all.",
        sep="\n",
    )


def stop(root: Path) -> None:
    """End what `ra3 serve` started; flow runs that the worker executes are ended too, and can be started again."""
    _state_file(root).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_state_file(root).parent / "lock"):
        ended = _stop(root)
    print("Stopped: " + ", ".join(ended) if ended else "Nothing runs.")


class _Services:
    """Starts services one by one and writes down what runs."""

    def __init__(self, root: Path, checkout: Path, prefect_port: int, mlflow_port: int) -> None:
        self._root, self._checkout = root, checkout
        self.url = f"http://127.0.0.1:{prefect_port}/api"
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "RA3_ROOT": str(root),
            "PREFECT_HOME": str(root / ".cache" / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_UI_API_URL": self.url,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "MLFLOW_PORT": str(mlflow_port),
            "RA3_MLFLOW_UI": f"http://127.0.0.1:{mlflow_port}",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """A `prefect` command in the background; MLflow has its own script."""
        command = [sys.executable, "-m", "prefect", *arguments]
        if name == "MLflow":
            command = ["bash", str(self._checkout / "mlflow" / "serve.sh")]
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._checkout,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        state = {"url": self.url, "processes": {n: _identity(p.pid) for n, p in self._processes.items()}}
        temporary = _state_file(self._root).with_suffix(".tmp")
        temporary.write_text(json.dumps(state, indent=1))
        temporary.replace(_state_file(self._root))

    def prefect(self, *arguments: str) -> None:
        """A `prefect` command that ends; raises UserError when it fails."""
        self._run("prefect " + arguments[0], "prefect", "--no-prompt", *arguments)

    def python(self, module: str) -> None:
        """A module of ours that ends; raises UserError when it fails."""
        self._run(module, module)

    def _run(self, what: str, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(
            command, env=self._environment, cwd=self._checkout, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            self._log("setup").write_text(done.stdout + done.stderr)
            raise UserError(f"`{what}` failed, see {self._log('setup')}")

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Return when a service is ready; raises UserError when it ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._processes[name].poll() is not None:
                raise UserError(f"{name} ended as it started, see {self._log(name)}")
            if time.monotonic() > deadline:
                raise UserError(f"{name} does not answer after {START_SECONDS:.0f} s, see {self._log(name)}")
            time.sleep(0.3)

    def worker_is_online(self) -> bool:
        request = urllib.request.Request(
            f"{self.url}/work_pools/{POOL}/workers/filter", b"{}", {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return any(worker["status"] == "ONLINE" for worker in json.load(answer))

    def _log(self, name: str) -> Path:
        return _state_file(self._root).parent / f"{name.lower()}.log"


def _stop(root: Path) -> list[str]:
    """End the services that run, the worker first, and forget them; returns their names."""
    try:
        processes: Mapping[str, Any] = json.loads(_state_file(root).read_text())["processes"]
    except (FileNotFoundError, ValueError):
        return []
    ended = [name for name in ("worker", "MLflow", "Prefect") if name in processes and _end(processes[name])]
    (root / "prefect.toml").unlink(missing_ok=True)
    _state_file(root).unlink()
    return ended


def _end(process: Mapping[str, Any]) -> bool:
    """Ask a service and everything that it started to stop, then make them; whether it ran."""
    if not _runs(process):
        return False
    service = psutil.Process(process["pid"])
    family = [service, *service.children(recursive=True)]  # flow runs have sessions of their own
    for stop in (psutil.Process.terminate, psutil.Process.kill):
        for member in family:
            with suppress(psutil.NoSuchProcess):
                stop(member)
        _, family = psutil.wait_procs(family, STOP_SECONDS)
    return True


def _identity(pid: int) -> dict[str, Any]:
    return {"pid": pid, "started": _start_time(pid)}


def _runs(process: Mapping[str, Any]) -> bool:
    """Whether it is still the process that was started, not another one of its number."""
    return _start_time(process["pid"]) == process["started"] is not None


def _start_time(pid: int) -> str | None:
    """When a process started, in the system's own words; None when there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def _state_file(root: Path) -> Path:
    return root / ".cache" / "serve" / "state.json"
