"""Stages for the tests of the runner, in a module of their own: a child imports it by name."""

import gc
import os
import signal
import time
from pathlib import Path

from ra3core.config import Section
from ra3core.errors import UserError
from ra3core.stage import Context, Metrics


class ExampleConfig(Section):
    steps: int = 3
    sentence: str = ""
    penalty: float = 0.0


def report(config: ExampleConfig, context: Context) -> Metrics:
    """Logs each step and tells where it ran."""
    with context.log.progress("counting", config.steps) as advance:
        for step in range(1, config.steps + 1):
            context.log.metrics(step, square=step * step)
            advance(1)
    context.log.message("done")
    (context.out / "result.txt").write_text(config.sentence)
    return {
        "pid": os.getpid(),
        "threads": context.threads,
        "device": context.device,
        "environment": os.environ["OMP_NUM_THREADS"],
        "cwd": str(Path.cwd()),
        "seed": context.seed,
        "inputs": {name: str(path) for name, path in context.inputs.items()},
    }


def collector(config: ExampleConfig, context: Context) -> Metrics:
    """Whether cycles are looked for, and among how many of the objects that there were before."""
    return {"looks": gc.isenabled(), "old": len(gc.get_objects()), "frozen": gc.get_freeze_count()}


def user_error(config: ExampleConfig, context: Context) -> Metrics:
    raise UserError(config.sentence)


def bug(config: ExampleConfig, context: Context) -> Metrics:
    return {"value": 1 / (config.steps - config.steps)}


def no_metrics(config: ExampleConfig, context: Context) -> Metrics:
    return {"value": lambda: None}


def killed(config: ExampleConfig, context: Context) -> Metrics:
    context.log.message("about to die")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def leave(config: ExampleConfig, context: Context) -> Metrics:
    os._exit(7)


def sleep(config: ExampleConfig, context: Context) -> Metrics:
    """Writes its process id, then does not end."""
    context.log.message(str(os.getpid()))
    (context.out / "pid.tmp").write_text(str(os.getpid()))
    (context.out / "pid.tmp").rename(context.out / "pid")
    time.sleep(600)
    return {}


def meet(config: ExampleConfig, context: Context) -> Metrics:
    """Ends only once another stage is running at the same time."""
    mine, other = context.inputs["mine"], context.inputs["other"]
    mine.touch()
    deadline = time.monotonic() + 30
    while not other.exists():
        if time.monotonic() > deadline:
            raise UserError("nobody came")
        time.sleep(0.01)
    return {}


def allocate(config: ExampleConfig, context: Context) -> Metrics:
    block = bytearray(os.urandom(1 << 20)) * config.steps  # MiB
    return {"size": len(block)}


def flood(config: ExampleConfig, context: Context) -> Metrics:
    with context.log.progress("flood", config.steps) as advance:
        for _ in range(config.steps):
            advance(1)
    return {}


def rank() -> int:
    return int(os.environ["RANK"])


def together(config: ExampleConfig, context: Context) -> Metrics:
    """Every process writes who it is; the first one logs, and returns after the others."""
    (context.out / f"process-{rank()}").write_text(f"{os.getpid()} {os.environ['WORLD_SIZE']} {context.threads}")
    if rank() == 0:
        while not (context.out / "process-1").exists():
            time.sleep(0.01)
        context.log.metrics(1, square=1)
    return {"process": rank(), "sentence": config.sentence, "penalty": config.penalty}


def last_user_error(config: ExampleConfig, context: Context) -> Metrics:
    """The last process cannot go on; the first waits for it in vain."""
    (context.out / f"process-{rank()}").write_text(str(os.getpid()))
    while not (context.out / "process-0").exists():
        time.sleep(0.01)
    if rank() == 1:
        raise UserError(config.sentence)
    time.sleep(600)
    return {}


def last_killed(config: ExampleConfig, context: Context) -> Metrics:
    """The last process is killed as if the memory were full."""
    (context.out / f"process-{rank()}").write_text(str(os.getpid()))
    while not (context.out / "process-0").exists():
        time.sleep(0.01)
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
    return {}


def forever(config: ExampleConfig, context: Context) -> Metrics:
    """Writes which process it is, then does not end."""
    (context.out / f"process-{rank()}").write_text(str(os.getpid()))
    time.sleep(600)
    return {}
