"""The display: plain lines in a log, bars on a terminal."""

import io
from typing import Any

import pytest

from tasks import display as module
from tasks.display import Display


def progress(done: int, total: int = 100, description: str = "training") -> dict[str, Any]:
    return {"event": "progress", "description": description, "done": done, "total": total}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_plain_lines_are_few_and_tell_rate_and_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(stream) as display, display.stage("m_step/0") as show, display.stage("other") as _:
        show(progress(20))  # resumed at 20
        for done in range(21, 71):
            clock.now += 0.5
            show(progress(done))
            show({"event": "metrics", "step": done, "values": {"loss": 0.5}})
        show({"event": "message", "text": "[red] not markup"})
    assert stream.getvalue().splitlines() == [
        "m_step/0: started",
        "other: started",
        "m_step/0: training 40/100, 2/s, 30 s left",
        "m_step/0: training 60/100, 2/s, 20 s left",
        "m_step/0: [red] not markup",
        "other: done in 25.0 s",
        "m_step/0: done in 25.0 s",
    ]


def test_the_rate_is_that_of_the_present_piece_of_work(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(stream) as display, display.stage("e_step/0") as show:
        show(progress(0))
        clock.now += 9
        show(progress(90))
        show(progress(0, 10, "evaluating"))
        clock.now += 2
        show(progress(1, 10, "evaluating"))
    assert "e_step/0: evaluating 1/10, 0.5/s, 18 s left" in stream.getvalue()


def test_long_lines_are_not_broken(clock: Clock) -> None:
    stream = io.StringIO()
    with Display(stream) as display:
        display.line("word " * 100)
        display.reused("base/0")
    assert stream.getvalue().splitlines() == ["word " * 100, "base/0: reused"]


def test_a_failed_stage_is_called_failed(clock: Clock) -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="bug"), Display(stream) as display, display.stage("base/0"):
        raise ValueError("bug")
    assert stream.getvalue().splitlines() == ["base/0: started", "base/0: failed after 0.0 s"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with Display(stream) as display, display.stage("base/0") as one, display.stage("ntp/0") as two:
        one(progress(0))
        two(progress(0, 8))
        for done in range(1, 8):
            one(progress(10 * done))
            two(progress(done, 8))
        display._bars.refresh()
    shown = stream.getvalue()
    assert "base/0: training" in shown
    assert " 70/100" in shown
    assert "7/8" in shown
    assert "/s" in shown
