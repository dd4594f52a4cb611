"""Where a run happens and which services it speaks to: settled in the environment, before Prefect is imported.

Prefect reads its settings once, at import, so this module imports neither. Whatever the user has set stays as it is.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import ValidationError

from flows import services
from flows.server import PrivateServer
from ra3core.config import RuntimeConfig
from ra3core.errors import UserError

CHECKOUT = Path(__file__).resolve().parent.parent

PRIVATE = "RA3_PRIVATE_SERVER"  # the URL of a server that lasts as long as this command

OFF_SWITCHES = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # its pages ask an analytics service, whatever the line above says
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
MLFLOW_CLIENT = {
    # By default it tries for minutes before it says that a server is away. Ours keeps what it could not send, and
    # tries again without holding up the run (tasks/outbox.py); MLflow's own second attempt could make a run twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines at the end of every stage
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for _name, _value in (OFF_SWITCHES | MLFLOW_CLIENT).items():  # at import: a flow may be started by a Prefect worker
    os.environ.setdefault(_name, _value)


def runtime(**options: object) -> RuntimeConfig:
    """The runtime settings: options that are given, else RA3_ROOT, RA3_WORKERS, RA3_THREADS and RA3_DEVICE.

    The root is the checkout this module lies in, unless told otherwise. Raises UserError naming the bad setting.
    """
    values: dict[str, object] = {"root": CHECKOUT}
    for name in RuntimeConfig.model_fields:
        variable = os.environ.get(f"RA3_{name.upper()}")
        if variable:
            values[name] = variable
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        settings = RuntimeConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        said = first["msg"].removeprefix("Value error, ")
        what = said[0].lower() + said[1:]
        where = f"RA3_{name.upper()}" if options.get(name) is None else f"--{name.replace('_', '-')}"
        raise UserError(f"{where}: {what}, found {first['input']!r}") from error
    if not settings.root.is_dir():
        raise UserError(f"RA3_ROOT: {settings.root} is not a folder, expected the checkout")
    return settings.model_copy(update={"root": settings.root.resolve()})


def chosen(given: RuntimeConfig | None) -> RuntimeConfig:
    """What a flow's parameter says about the runtime, and what it leaves out as RA3_* variables say.

    A form's own root, ".", is left out too: it would be whatever folder the worker is in.
    """
    own = runtime()
    if given is None:
        return own
    values = {name: getattr(given, name) for name in given.model_fields_set}
    if given.root == Path():
        values.pop("root", None)
    return own.model_copy(update=values)


def prepare(root: Path) -> None:
    """Prefect's home inside the checkout, and no log lines between the lines of the display."""
    defaults = {
        "PREFECT_HOME": str(root / ".cache" / "prefect"),
        # The API still gets every line, so that the Prefect UI shows them; errors reach the user as an exception.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "ALEMBIC_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",  # the display shows progress
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def commit(root: Path) -> str | None:
    """The git commit of the checkout, with "-dirty" when tracked files differ; None outside git."""
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip() or None


@contextmanager
def prefect_api(root: Path) -> Iterator[Callable[[], None]]:
    """Prefect's API for the body: the server at PREFECT_API_URL, else that of `ra3 serve`, else one of our own
    (flows/server.py).

    Yields a function that waits until it answers; import what is slow to import before calling it: until then no
    cycles are looked for, which takes a third of the time of importing, and finds nothing.
    """
    prepare(root)
    gc.disable()
    try:
        if os.environ.get("PREFECT_API_URL"):
            yield collect_cycles
            return
        if url := services.prefect_url(root):
            os.environ["PREFECT_API_URL"] = url
            yield collect_cycles
            _send_what_waits()
            return
        with _private_server() as ready:
            yield ready
    finally:
        gc.enable()


@contextmanager
def _private_server() -> Iterator[Callable[[], None]]:
    server = PrivateServer(Path(os.environ["PREFECT_HOME"]))
    server.start()
    os.environ["PREFECT_API_URL"] = os.environ[PRIVATE] = server.url
    with ExitStack() as settings:

        def ready() -> None:
            collect_cycles()
            if session := sys.modules.get("tasks.session"):
                session.read_sources()
            server.wait()
            settings.enter_context(_without_heartbeats())

        try:
            yield ready
        finally:
            _send_what_waits()
            del os.environ["PREFECT_API_URL"], os.environ[PRIVATE]
            server.stop()


def collect_cycles() -> None:
    """Look for cycles from now on, among what is made from now on."""
    gc.freeze()
    gc.enable()


@contextmanager
def _without_heartbeats() -> Iterator[None]:
    """A private server watches none; a flow waits up to a second for the thread that sends them."""
    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" in os.environ:
        yield
        return
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _send_what_waits() -> None:
    """Let Prefect's background threads send their last events (task states) and log lines while there is a server;
    at exit they would retry for a minute and print tracebacks."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    EventsWorker.drain_all(timeout=10)
    APILogWorker.drain_all(timeout=10)
