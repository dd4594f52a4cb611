"""`ra3 ui`: the web pages of MLflow and Prefect over the runs of this checkout, on this machine only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flows.environment import CHECKOUT
from ra3core.errors import UserError


def serve(root: Path, mlflow_port: int, prefect_port: int) -> None:
    """Run both servers until Ctrl-C; raises UserError when one of them ends by itself."""
    prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect_port)]
    servers = {
        f"MLflow   http://127.0.0.1:{mlflow_port}": ["bash", str(CHECKOUT / "mlflow" / "serve.sh")],
        f"Prefect  http://127.0.0.1:{prefect_port}": prefect,
    }
    environment = {
        **os.environ,
        "RA3_ROOT": str(root),
        "PYTHON": sys.executable,
        "MLFLOW_PORT": str(mlflow_port),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{prefect_port}/api",
    }
    log = root / ".cache" / "ui.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as file:
        processes = {  # in sessions of their own: Ctrl-C is for us, who end them in order
            name: subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
            for name, command in servers.items()
        }
    try:
        print(*servers, "They answer within half a minute; Ctrl-C stops them.", sep="\n", flush=True)
        while True:
            for name, process in processes.items():
                if process.poll() is not None:
                    raise UserError(f"the server of {' at '.join(name.split())} ended, see {log}; is its port taken?")
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        for process in processes.values():
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a server and its workers to stop, then make them."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        return
