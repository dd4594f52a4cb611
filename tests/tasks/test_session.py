"""Slots: how many stages run at a time, and who is next; and two arms that need the very same artifact."""

from __future__ import annotations

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from example_stages import ExampleConfig

from ra3core.config import RunConfig, RuntimeConfig
from tasks import tracking as tracking_module
from tasks.display import Display
from tasks.session import Session, Slots, StageFunction
from tasks.tracking import Tracking


def test_no_more_than_count_at_a_time() -> None:
    slots, lock, running, most = Slots(2), threading.Lock(), [0], [0]

    def work() -> None:
        with slots.take(0):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.01)
            with lock:
                running[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 2


def test_lower_ranks_first_then_first_come() -> None:
    slots, order = Slots(1), []

    def work(name: str, rank: int) -> None:
        with slots.take(rank):
            order.append(name)

    threads = []
    with slots.take(0):
        for name, rank in (("leaf", 3), ("long", 1), ("first", 0), ("second", 0)):
            threads.append(threading.Thread(target=work, args=(name, rank)))
            threads[-1].start()
            while len(slots._waiting) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["first", "second", "long", "leaf"]


def test_closing_wakes_and_refuses_those_that_wait() -> None:
    slots, refused = Slots(1), threading.Event()

    def work() -> None:
        with pytest.raises(RuntimeError, match="interrupted"), slots.take(0):
            raise AssertionError("a slot was given")
        refused.set()

    with slots.take(0):
        thread = threading.Thread(target=work)
        thread.start()
        slots.close()
        thread.join(5)
    assert refused.is_set()


def test_a_failed_stage_gives_its_slot_back() -> None:
    slots = Slots(1)
    with pytest.raises(ZeroDivisionError), slots.take(0):
        raise ZeroDivisionError
    with slots.take(0):
        pass


def test_a_slot_waits_for_what_follows_a_stage_of_lower_rank_only() -> None:
    slots = Slots(1)

    def seconds(rank: int) -> float:
        asked = time.monotonic()
        with slots.take(rank):
            return time.monotonic() - asked

    assert seconds(0) < 0.1
    assert seconds(3) > 0.4  # what follows the stage of rank 0 may come yet
    assert seconds(3) < 0.1
    assert seconds(2) < 0.1
    assert seconds(3) > 0.4


@pytest.mark.parametrize("refresh", ["bootstrap", "bootstrap_1", "bootstrap_1/0"])
def test_a_shard_is_refreshed_with_the_stage_that_it_is_a_part_of(tmp_path: Path, refresh: str) -> None:
    ran: list[int] = []

    def build(label: str, *names: str) -> str | None:
        tracking, display = Tracking(tmp_path), Display(io.StringIO())
        tracking.start("demo", {}, {}, "")
        with display, Session(RunConfig(), RuntimeConfig(root=tmp_path), tracking, display, names) as session:
            session.machine.runner.run = lambda *_: ran.append(1) or {}  # type: ignore[method-assign]
            states = [
                session.stage(
                    "annotate_shard",
                    StageFunction("example_stages", "report"),
                    ExampleConfig(),
                    {},
                    label=f"{label}:shard_1_of_2",
                    seed=0,
                    part_of=("bootstrap", label),
                )
                for _ in range(2)
            ]
        tracking.fail("stop")
        assert states[1].name == "Cached"  # once a run
        return states[0].name

    assert build("bootstrap_1") == "Completed"
    assert build("bootstrap_1") == build("bootstrap_2", "bootstrap_1") == "Cached"
    assert build("bootstrap_1", refresh) == "Completed" and len(ran) == 2


def test_arms_with_equal_inputs_share_one_artifact_and_both_name_the_run_that_made_it(
    tmp_path: Path, monkeypatch
) -> None:
    write_link = tracking_module.write_link

    def late(*link) -> None:
        time.sleep(0.5)
        write_link(*link)

    monkeypatch.setattr(tracking_module, "write_link", late)
    tracking, display = Tracking(tmp_path), Display(io.StringIO())
    tracking.start("demo", {}, {}, "")
    with display, Session(RunConfig(), RuntimeConfig(root=tmp_path, workers=2), tracking, display) as session:
        function = StageFunction("example_stages", "report")

        def slow(stage, config, context, sink, timeout, device):
            sink({"event": "metrics", "step": 1, "values": {"loss": 1.0}})
            return {}

        session.machine.runner.run = slow  # type: ignore[method-assign]

        def build(label: str):
            return session.stage("m_step", function, ExampleConfig(), {}, label=label, seed=0)

        with ThreadPoolExecutor() as pool:
            states = list(pool.map(build, ["ntp", "ra3_no_rl", "other"]))
    assert sorted(state.name or "" for state in states) == ["Cached", "Cached", "Completed"]
    links = tracking.links
    assert set(links) == {"ntp/0", "ra3_no_rl/0", "other/0"}
    assert len(set(links.values())) == 1
    tracking.fail("stop")
