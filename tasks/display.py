"""What a person sees of a run: bars with rate and time left on a terminal, plain lines elsewhere (a log, CI).

with Display() as display, display.stage("m_step/0") as show:
    runner.run(m_step, config, context, sink=show)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_SECONDS = 10.0  # the least time between two plain lines about a stage's progress


class Display:
    """Shows several stages at a time, from several threads; `stream` is standard error by default.

    bars: on a terminal; several processes that share one have to write lines.
    """

    def __init__(self, stream: TextIO | None = None, bars: bool = True) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._lines = not (bars and self._console.is_terminal)
        self._bars = Progress(*columns, console=self._console, disable=self._lines)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        """One line, above the bars if there are any."""
        self._console.print(text)

    def reused(self, name: str) -> None:
        """A stage whose artifact was there already."""
        self.line(f"{name}: reused")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """While the stage runs; yields the sink for its log events. Tells the start, the end and the seconds."""
        started = time.monotonic()
        self.line(f"{name}: started")
        bar = self._bars.add_task(name, total=None)
        progress = _Progress()

        def show(event: dict[str, Any]) -> None:
            if event["event"] == "message":
                self.line(f"{name}: {event['text']}")
            elif event["event"] == "progress":
                description, done, total = event["description"], event["done"], event["total"]
                if progress.update(description, done, time.monotonic()):
                    self._bars.reset(bar, description=f"{name}: {description}", total=total, completed=done)
                self._bars.update(bar, completed=done, total=total)
                if self._lines and (text := progress.line(done, total, time.monotonic())):
                    self.line(f"{name}: {text}")

        try:
            yield show
        except BaseException:
            self.line(f"{name}: failed after {time.monotonic() - started:.1f} s")
            raise
        else:
            self.line(f"{name}: done in {time.monotonic() - started:.1f} s")
        finally:
            self._bars.remove_task(bar)


class _Progress:
    """How fast the present piece of work of a stage goes, counted from its first event (a resumed one starts late)."""

    def __init__(self) -> None:
        self.description: str | None = None
        self.first_done = 0
        self.first_seconds = 0.0
        self.last_line = time.monotonic()

    def update(self, description: str, done: int, now: float) -> bool:
        """Whether another piece of work has begun."""
        if begun := description != self.description:
            self.description, self.first_done, self.first_seconds = description, done, now
        return begun

    def line(self, done: int, total: int, now: float) -> str | None:
        """A plain line, when one is due."""
        if now - self.last_line < LINE_SECONDS or now <= self.first_seconds:
            return None
        self.last_line = now
        text = f"{self.description} {done}/{total}"
        rate = (done - self.first_done) / (now - self.first_seconds)
        return f"{text}, {rate:.3g}/s, {(total - done) / rate:.0f} s left" if rate > 0 else text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s")
