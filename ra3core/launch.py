"""One of the processes of a stage that `accelerate launch` starts on one machine or on several.

    accelerate launch --config_file configs/accelerate/ddp.yaml --num_processes 8 -m ra3core.launch ORDER.json

The order is a JSON file that says which stage to call with what (`Order`); every process reads it. Whoever started the
launcher from a program (tasks/launcher.py) is told of events and of the end through the socket at RA3_STAGE_SOCKET;
without it the first process prints what it does, a JSON object a line.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from ra3core.errors import UserError
from ra3core.stage import METRICS_FILE, Context, Metrics, StageLog

SOCKET = "RA3_STAGE_SOCKET"

Tell = Callable[[str, Any], None]
"""tell(kind, content): "event" (of the stage's log), "done" (which process, and its metrics),
"user_error" or "error" (text)."""


class Order(BaseModel):
    """What every process is to do: fields of a Context, and the stage.

    stage: a function, such as "ra3core.learning.m_step:m_step". config: its section of the configuration. inputs: name
    -> folder. Paths are the same on every machine. metrics: the file of step-wise figures; out/metrics.jsonl.
    """

    model_config = ConfigDict(extra="forbid")

    stage: str
    config: dict[str, Any]
    inputs: dict[str, Path]
    out: Path
    scratch: Path
    seed: int = 0
    threads: int = 1
    device: str = "cuda"
    metrics: Path | None = None

    @classmethod
    def read(cls, file: Path) -> Order:
        """Raises UserError when the file is not an order."""
        try:
            return cls.model_validate(json.loads(file.read_text()))
        except (OSError, json.JSONDecodeError, ValidationError) as error:
            why = str(error.errors()[0]["loc"][0]) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"{file}: expected the order of a stage ({', '.join(cls.model_fields)}): {why}") from error

    def write(self, file: Path) -> None:
        """As `read` reads it: an infinite think penalty, too."""
        file.write_text(json.dumps(self.model_dump(mode="python"), default=str))


def run(order: Order, sink: Callable[[dict[str, Any]], None]) -> Metrics:
    """Call the stage in this process; raises what it raises, and UserError for a stage or section that is none."""
    module, _, name = order.stage.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"stage {order.stage!r}: expected MODULE:FUNCTION ({error})") from error
    section = get_type_hints(function)["config"]
    try:
        config = section.model_validate(order.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"config of {order.stage}: {where}: {first['msg']}, found {first['input']!r}") from error
    for folder in (order.out, order.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    log = StageLog(order.metrics or order.out / METRICS_FILE, sink)
    context = Context(order.inputs, order.out, order.scratch, order.seed, order.threads, order.device, log=log)
    return function(config, context)


def main(file: Path) -> int:
    """The life of one process; returns its exit status."""
    tell = _teller()
    try:
        metrics = run(Order.read(file), lambda event: tell("event", event))
    except UserError as error:
        tell("user_error", str(error))
        return 2
    except BaseException as error:
        tell("error", f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}")
        return 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    tell("done", (int(os.environ.get("RANK", "0")), {**metrics, "peak_memory_mb": round(peak, 1)}))
    if "accelerate" in sys.modules:
        sys.modules["accelerate"].PartialState().destroy_process_group()
    return 0


def _teller() -> Tell:
    """How this process says what happens; it dies with whom it tells."""
    path = os.environ.get(SOCKET)
    if path is None:
        return _print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    connection = Connection(client.detach())
    connection.send(("hello", os.getpid()))
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
    return lambda kind, content: connection.send((kind, content))


def _die_with(connection: Connection) -> None:
    """Ends this process at once when nobody listens any more: a new run may already want its folder."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)


def _print(kind: str, content: Any) -> None:
    if kind in ("error", "user_error"):
        print(content, file=sys.stderr, flush=True)
    elif kind == "event":
        print(json.dumps(content), flush=True)
    elif content[0] == 0:
        print(json.dumps(content[1]), flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
