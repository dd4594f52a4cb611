"""A Prefect API server for the length of one command, for users who run none.

Prefect would start one by itself. This one differs in four ways that are worth a hundred lines: it starts in the
background before Prefect and MLflow are imported, which hides most of its seconds; what it prints goes to a file
(Prefect's own prints tracebacks when it is stopped soon after a flow); it cannot outlive a killed parent; and its
port is bound by the parent, so that two runs never take the same one. History lies in PREFECT_HOME, where
`ra3 ui` finds it.

    python -m flows.server FD PARENT    (FD: an inherited listening socket; PARENT: a process id)
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from ra3core.errors import UserError

START_TIMEOUT = 180.0  # seconds; migrating a fresh database takes 5 to 20
LOG_BYTES = 1_000_000  # the log is begun anew when it is longer than this


class PrivateServer:
    """Start, wait for, and stop the server; `url` is known as soon as it is started."""

    def __init__(self, home: Path) -> None:
        self.log = home / "server.log"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server process and return at once; to be called from the main thread (see `_die_with_parent`)."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.log.exists() and self.log.stat().st_size > LOG_BYTES
        with socket.create_server(("127.0.0.1", 0)) as listener, self.log.open("wb" if fresh else "ab") as log:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.server", str(listener.fileno()), str(os.getpid())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parent.parent,
                start_new_session=True,  # Ctrl-C is for the flow, which still reports to this server
            )

    def wait(self) -> None:
        """Return when the server answers; raises UserError when it died or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise UserError(f"Prefect's server did not start, see {self.log}")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=START_TIMEOUT):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise UserError(f"Prefect's server did not answer within {START_TIMEOUT:.0f} s, see {self.log}")

    def stop(self) -> None:
        """Let the server write what it has received, then end it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _die_with_parent(parent: int) -> None:
    """On Linux, have the kernel end this process with its parent's (main) thread, even when that is killed."""
    if sys.platform == "linux":
        prctl, set_parent_death_signal = ctypes.CDLL(None).prctl, 1
        prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the line above
            sys.exit(1)


def main() -> None:
    """Serve on the inherited socket until SIGTERM."""
    _die_with_parent(int(sys.argv[2]))
    gc.disable()  # what is imported stays: looking through it for cycles takes a third of the start
    # Block types are for storage and credentials, of which a private server has none: saves a second.
    os.environ.setdefault("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")

    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)  # without the UI and the scheduling services
    gc.freeze()
    gc.enable()
    uvicorn.run(app, fd=int(sys.argv[1]), log_level="error", lifespan="on", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
