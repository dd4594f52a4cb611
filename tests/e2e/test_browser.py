"""What a person sees, in Chromium: a deployment's form, a finished run, MLflow's comparison of two runs, the report.

    RA3_SCREENSHOTS=docs/images .venv/bin/pytest -m slow tests/e2e/test_browser.py

makes the pictures of docs/orchestration.md on the way; its checkout is then /tmp/ra3, which must not be there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from flows.environment import CHECKOUT
from ra3core.config import load
from ra3core.report.style import BY_NAME

pytest.importorskip("playwright", reason="the package playwright drives the browser")
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

SCREENSHOTS = os.environ.get("RA3_SCREENSHOTS")
PENALTIES = 0.05, 0.3
DEMONSTRATIONS, ITERATIONS = (1500, 40) if SCREENSHOTS else (60, 4)  # pictures want more than a handful of steps
SMALL_DATA = (
    *("data.web_documents=400", "data.outlines=150", f"data.demonstrations={DEMONSTRATIONS + 500}"),
    *("data.rlvr_tasks=12", "data.evaluation_tasks=10"),
)
OVERRIDES = [  # of the smoke preset
    *SMALL_DATA,
    *(f"corpus.demonstrations={DEMONSTRATIONS}", f"e_step.iterations={ITERATIONS}"),
    *("evaluation.limit=10", "evaluation.max_new_tokens=128"),  # so that some tasks are solved
]
LABELLED = [BY_NAME[arm] for arm in load("smoke").arms.names]
# Prefect and MLflow ask their own servers for what is not there, and a browser says so.
THEIRS = "favicon.ico", "undefined.svg", "users/current", "ResizeObserver loop"


@dataclass(frozen=True)
class Served:
    """The services of a checkout of its own, with two finished runs that differ in one setting."""

    root: Path
    prefect: str
    mlflow: str
    runs: tuple[str, ...] = ()  # in Prefect, in the order of PENALTIES

    def command(self, name: str, *arguments: str) -> str:
        """What a command of the environment says on its standard output."""
        environment = {**os.environ, "RA3_ROOT": str(self.root), "OMP_NUM_THREADS": "1"}
        for variable in ("PREFECT_HOME", "PREFECT_API_URL"):
            environment.pop(variable, None)
        done = subprocess.run(
            [str(Path(sys.executable).with_name(name)), *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, penalty: float) -> str:
        """The id of a run that has come to its end."""
        settings = {"base_model": str(self.root / "base"), "think_penalty": penalty}
        given = {"preset": "smoke", "overrides": OVERRIDES, "settings": settings}
        parameters = [word for name, value in given.items() for word in ("-p", f"{name}={json.dumps(value)}")]
        self.command("prefect", "--no-prompt", "deployment", "run", "pipeline/demo", *parameters, "--watch")
        return self.newest_run()["id"]

    def newest_run(self) -> dict[str, Any]:
        runs = self.ask("/flow_runs/filter", {})
        return max(runs, key=lambda run: run["created"])

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Prefect's API."""
        return _ask(f"{self.prefect}/api{path}", body)

    def tracked(self, condition: str) -> list[dict[str, Any]]:
        """MLflow's runs, the oldest first."""
        body = {"experiment_ids": ["1"], "filter": condition, "order_by": ["attributes.start_time"]}
        return _ask(f"{self.mlflow}/api/2.0/mlflow/runs/search", body)["runs"]

    def artifact(self, run: str, key: str) -> str:
        """The page of an artifact in Prefect."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}}
        (found,) = self.ask("/artifacts/filter", wanted)
        return f"{self.prefect}/artifacts/artifact/{found['id']}"


def _ask(url: str, body: Mapping[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, new_checkout) -> Iterator[Served]:
    folder = Path("/tmp/ra3") if SCREENSHOTS else tmp_path_factory.mktemp("browser") / "ra3"
    folder.mkdir()
    root = new_checkout(folder, load("smoke", SMALL_DATA).data)
    shutil.copytree(CHECKOUT / "configs" / "base" / "0" / "model", root / "base")
    ports = free_port(), free_port()
    served = Served(root, *(f"http://127.0.0.1:{port}" for port in ports))
    served.command("ra3", "serve", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1]))
    try:
        yield Served(root, served.prefect, served.mlflow, tuple(served.run(penalty) for penalty in PENALTIES))
    finally:
        served.command("ra3", "stop")
        if SCREENSHOTS:
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield chromium
        chromium.close()


@dataclass
class Seen:
    """What a page asked for, and what went wrong in it."""

    requests: list[str]
    errors: list[str]

    def hosts(self) -> set[str]:
        return {urlsplit(url).hostname or "" for url in self.requests} - {""}


@contextmanager
def opened(browser: Browser) -> Iterator[tuple[Page, Seen]]:
    """A page of a browser that nobody has used before; pages that it opens are watched too."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, timezone_id="UTC", locale="en-GB")
    seen = Seen([], [])
    context.on("request", lambda request: seen.requests.append(request.url))
    context.on("weberror", lambda error: seen.errors.append(str(error.error)))
    context.on(
        "console",
        lambda said: seen.errors.append(f"{said.text} {said.location['url']}") if said.type == "error" else None,
    )
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        yield page, seen
    finally:
        context.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that asks this machine only, and in which nothing goes wrong."""
    with opened(browser) as (page, seen):
        yield page
        assert seen.hosts() == {"127.0.0.1"}
        assert not [error for error in seen.errors if not any(known in error for known in THEIRS)]


expect.set_options(timeout=60_000)


def until(condition: Callable[[], object], seconds: float, otherwise: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


def picture(page: Page, name: str) -> None:
    """A picture for the documentation, in 256 colours."""
    if SCREENSHOTS:
        page.mouse.move(0, 0)
        image = Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
        image.quantize(dither=Image.Dither.NONE).save(CHECKOUT / SCREENSHOTS / f"{name}.png", optimize=True)


def deployment(served: Served) -> dict[str, Any]:
    return served.ask("/deployments/name/pipeline/demo")


def field(page: Page, label: str) -> Any:
    """The innermost part of the form that has this label."""
    return page.locator(".schema-form-property").filter(has=page.get_by_text(label, exact=True)).last


def test_the_form_of_a_deployment_and_a_run_started_by_it(served: Served, page: Page) -> None:
    shown = deployment(served)
    page.goto(f"{served.prefect}/deployments/deployment/{shown['id']}/run")
    properties = shown["parameter_openapi_schema"]["properties"]
    assert list(properties) == ["preset", "seeds", "settings", "overrides", "refresh", "runtime", "rl"]
    for name, parameter in properties.items():
        expect(field(page, f"{name} (Optional)").get_by_text(parameter["description"], exact=True)).to_be_visible()
    picture(page, "form")

    field(page, "preset (Optional)").locator("textarea").fill("smoke")
    field(page, "seeds (Optional)").locator("input").fill("2")
    field(page, "Think Penalty (Optional)").locator("input").fill("0.07")
    overrides = field(page, "overrides (Optional)")
    overrides.get_by_role("button", name="Add item").click()
    overrides.locator("textarea").fill("e_step.window=4")
    before = served.newest_run()["id"]
    page.get_by_role("button", name="Submit").click()
    until(lambda: served.newest_run()["id"] != before, 30, "the form started no run")
    run = served.newest_run()
    served.command("prefect", "--no-prompt", "flow-run", "cancel", run["id"])
    assert run["deployment_id"] == shown["id"]
    given = {"preset": "smoke", "seeds": 2, "settings": {"think_penalty": 0.07}, "overrides": ["e_step.window=4"]}
    assert run["parameters"] == given | {"refresh": [], "rl": True, "runtime": None}
    ended = "Cancelled"
    until(lambda: served.ask(f"/flow_runs/{run['id']}")["state"]["name"] == ended, 90, "the run was not cancelled")


def test_a_value_that_the_flow_would_not_take_is_refused(served: Served, browser: Browser) -> None:
    before = served.newest_run()["id"]
    with opened(browser) as (page, seen):
        page.goto(f"{served.prefect}/deployments/deployment/{deployment(served)['id']}/run")
        field(page, "seeds (Optional)").locator("input").fill("0")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_text("field 'seeds'. Failure reason: 0 is less than the minimum of 1").first).to_be_visible()
        assert seen.hosts() == {"127.0.0.1"}
    assert served.newest_run()["id"] == before


def test_a_finished_run_with_its_graph_and_artifacts(served: Served, page: Page) -> None:
    run = served.runs[1]
    page.goto(f"{served.prefect}/runs/flow-run/{run}")
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    nodes = served.ask(f"/flow_runs/{run}/graph-v2")["nodes"]
    assert {"data", "e_step_1 seed 0", "evaluate_ra3 seed 0", "report"} <= {node["label"] for _, node in nodes}
    expect(page.get_by_text(f"{len(nodes)} Task runs", exact=True)).to_be_visible()
    graph = page.locator(".run-graph__stage")
    until(lambda: _green(graph.screenshot()) > 2000, 60, "the graph shows no finished tasks")
    page.get_by_text("Artifacts", exact=True).click()
    for key in ("results", "report", "progress", "mlflow-run"):
        expect(page.locator(".artifact-card__title").get_by_text(key, exact=True)).to_be_visible()
    picture(page, "run")
    page.goto(served.artifact(run, "progress"))
    expect(page.get_by_text("Progress: 100%")).to_be_visible()
    page.goto(served.artifact(run, "report"))
    expect(page.get_by_role("heading", name="RA3 mid-training: smoke")).to_be_visible()
    page.goto(served.artifact(run, "results"))
    table = page.get_by_role("table")
    for arm in LABELLED:
        expect(table.get_by_text(arm.label, exact=True)).to_be_visible()
    (tracked,) = served.tracked(f"tags.flow = 'pipeline' and params.`e_step.think_penalty` = '{PENALTIES[1]}'")
    solved = 100 * _metrics(tracked)["pass_at_1/ra3/free/all"]
    (row,) = [row for row in table.get_by_role("row").all() if row.get_by_text("RA3", exact=True).count()]
    assert f"{solved:.1f} [" in row.inner_text()
    picture(page, "results")

    page.goto(served.artifact(run, "mlflow-run"))
    with page.context.expect_page() as linked:
        page.get_by_role("link", name="The run in MLflow").click()
    expect(linked.value.get_by_role("heading", name=tracked["info"]["run_name"])).to_be_visible()


def _green(image: bytes) -> int:
    """How many pixels have the colour of what is completed."""
    colours = Image.open(BytesIO(image)).convert("RGB").getcolors(1 << 24) or []
    return sum(count for count, (red, green, blue) in colours if green > 130 and red < 80 and blue < 120)


def _metrics(run: Mapping[str, Any]) -> dict[str, float]:
    return {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}


def as_for_training(page: Page) -> None:
    """MLflow's pages without what is for applications of language models."""
    page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").click()
    page.get_by_text("Model training", exact=True).click()
    page.reload()  # to its full width


def _query(**values: object) -> str:
    return "&".join(f"{name}={quote(json.dumps(value))}" for name, value in values.items())


def test_two_runs_compared_in_mlflow(served: Served, page: Page) -> None:
    runs = served.tracked("tags.flow = 'pipeline' and attributes.status = 'FINISHED'")
    assert len(runs) == len(PENALTIES)
    ids = [run["info"]["run_id"] for run in runs]
    page.goto(f"{served.mlflow}/#/compare-runs?{_query(runs=ids, experiments=['1'])}")
    expect(page.get_by_role("heading", name="Comparing 2 Runs from 1 Experiment")).to_be_visible()
    as_for_training(page)
    for run in runs:
        expect(page.get_by_text(run["info"]["run_name"], exact=True).first).to_be_visible()
    expect(page.get_by_role("row", name="base.batch_size")).to_be_visible()
    page.get_by_role("switch", name="Parameters - Show diff only").click()
    expect(page.get_by_role("row", name="base.batch_size")).to_have_count(0)
    different = page.get_by_role("row", name="e_step.think_penalty")
    assert [cell.inner_text() for cell in different.get_by_role("cell").all()[-2:]] == [str(p) for p in PENALTIES]
    expect(page.get_by_text("pass_at_1/base/free/all", exact=True).first).to_be_visible()
    page.get_by_text("Run details", exact=True).evaluate("title => title.scrollIntoView()")
    picture(page, "comparison")


def test_two_curves_compared_in_mlflow(served: Served, page: Page) -> None:
    runs = served.tracked("tags.stage = 'e_step'")
    assert len(runs) == len(PENALTIES)
    ids, key = [run["info"]["run_id"] for run in runs], "reward"
    query = _query(runs=ids, metric=key, experiments=["1"], plot_metric_keys=[key])
    page.goto(f"{served.mlflow}/#/metric?{query}")
    as_for_training(page)
    expect(page.get_by_text("e_step_1/0 (reward)")).to_have_count(2)
    expect(page.locator(".scatterlayer .js-line").nth(1)).to_be_visible()
    for run in runs:
        expect(page.get_by_text(f"{_metrics(run)[key]}"[:12]).first).to_be_visible()


def test_the_report_opens_without_a_server(served: Served, browser: Browser) -> None:
    with opened(browser) as (page, seen):
        page.goto((served.root / "reports" / "latest" / "report.html").as_uri())
        assert page.title() == "RA3 mid-training: smoke"
        results = page.locator("#table-paper")
        for arm in LABELLED:
            expect(results.get_by_text(arm.label, exact=True)).to_be_visible()
        assert page.locator("img").count() >= 5
        for figure in page.locator("img").all():
            assert figure.evaluate("image => image.complete && image.naturalWidth") > 100
            assert figure.get_attribute("alt")
        picture(page, "report")
        assert {urlsplit(url).scheme for url in seen.requests} <= {"file", "data"}
        assert seen.errors == []
