"""A small checkout of its own, and the pipeline over fake stages (fake_stages.py) in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows import environment
from ra3core.config import RuntimeConfig, load

SMALL_DATA = (
    "data.web_documents=60",
    "data.outlines=20",
    "data.demonstrations=40",
    "data.rlvr_tasks=6",
    "data.evaluation_tasks=3",
    "registry.enabled=false",  # the fakes make no models
)


@pytest.fixture(scope="session")
def small_data() -> tuple[str, ...]:
    """The settings of every run here."""
    return SMALL_DATA


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> Path:
    return new_checkout(tmp_path_factory.mktemp("checkout"), load("smoke", SMALL_DATA).data)


@pytest.fixture(scope="module")
def run_flow(checkout: Path) -> Iterator[Callable]:
    """run_flow(flow, *overrides, **parameters) with the smoke preset or a grid's, small data and fake stages; one
    server for a module."""
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("PREFECT_HOME", str(checkout / ".cache" / "prefect"))  # no two servers migrate one database
        ready = stack.enter_context(environment.prefect_api(checkout))
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from tasks import runner, session

        original = session.StageFunction.__init__
        patch.setattr(session.StageFunction, "__init__", lambda self, module, name: original(self, "fake_stages", name))
        patch.setattr(runner.Runner.__init__, "__defaults__", ((),))  # nothing to preload for the fakes
        ready()

        def run(flow: Callable, *overrides: str, settings: dict | None = None, **parameters):
            runtime = RuntimeConfig(root=checkout, **{"workers": 2, **(settings or {})})
            given = parameters if "grid" in parameters else {"preset": "smoke", **parameters}
            return flow(overrides=[*SMALL_DATA, *overrides], runtime=runtime, **given)

        # another test module may have imported Prefect, and with it its settings, before the server was there
        with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
            yield run
            environment._send_what_waits()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def run_pipeline(run_flow: Callable) -> Callable:
    """run_pipeline(*overrides, seeds=1)."""
    from flows.pipeline import pipeline

    return lambda *overrides, **parameters: run_flow(pipeline, *overrides, **parameters)
