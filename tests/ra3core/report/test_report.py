"""The page: complete, self-contained, deterministic, and right about what was not run."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from ra3core.config import ReportConfig, RunConfig
from ra3core.errors import UserError
from ra3core.report import terminal
from ra3core.report.report import report
from ra3core.stage import Context

Inputs = dict[str, Path]
SETTINGS = RunConfig().model_dump(mode="json")


def render(inputs: Inputs, out: Path, **options: object) -> str:
    """Run the stage; returns the page."""
    config = ReportConfig.model_validate({"resamples": 200, "settings": SETTINGS, **options})
    context = Context(inputs=inputs, out=out, scratch=out / "scratch")
    (out).mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(report(config, context)))
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A report on three seeds with every arm."""
    folder = tmp_path_factory.mktemp("whole")
    inputs = request.getfixturevalue("write_artifacts")(folder)
    render(inputs, folder / "out", commit="0123456789abcdef", mlflow_runs={"ntp/1": "feedbeef"})
    return folder / "out"


class References(HTMLParser):
    """Everything a browser would fetch or follow, and the tags left open."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_needs_nothing_from_outside(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    page = References()
    page.feed(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for reference in page.found:
        assert reference.startswith("data:") or reference.removeprefix("#") in page.ids, reference
    assert not re.search(r"@import|url\(|<script|<iframe", text)
    images = re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", text)
    assert len(images) == 10
    for image in images:
        svg = base64.b64decode(image).decode()
        assert not re.search(r"href=\"(?!#)|url\((?!#)|@import", svg)  # names of XML namespaces are no requests


def test_markdown_has_the_same_tables_and_pictures(whole: Path) -> None:
    page, text = (whole / "report.html").read_text(), (whole / "report.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == page.count("<figure") == 10
    for picture in pictures:
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")
    assert text.count("**Table ") == page.count('<section class="table"')
    for words in ("RA3 solves more tasks than NTP on the same demonstrations", "feedbeef", "0123456789ab"):
        assert words in page and words in text


def test_same_inputs_same_bytes(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    render(inputs, tmp_path / "a")
    render(inputs, tmp_path / "b")
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_absent_arms_are_named_and_nowhere_else(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(
        seeds=(0,), tasks=5, missing=("ntp_compute", "ntp_rlvr", "ra3_rlvr", "bootstrap_no_rl", "ra3_no_rl")
    )
    arms = {"mid_trained": ["ntp", "ntp_compute", "ra3_no_rl", "ra3"], "rlvr": ["ntp", "ra3"]}
    page = render(inputs, tmp_path / "out", settings={**SETTINGS, "arms": arms})
    sentence = (
        "Not run, and absent from every table and figure: NTP, compute-matched and RA3 without E-step RL. "
        "RLVR was not run from: NTP, data-matched and RA3."
    )
    assert page.count(sentence) == 1
    assert "NTP, compute-matched" not in page.replace(sentence, "")
    assert not (tmp_path / "out" / "rlvr.png").exists()
    assert "next-token prediction and RA3 on the same demonstrations, measured on held-out tasks." in page


def test_captions_of_curves_say_what_is_drawn(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    assert "then reinforcement learning from unit tests, measured on held-out tasks." in text
    assert "Every seed and their mean, smoothed by a centred moving average, without bands." in text
    assert "**The paper's figure 5.** RLVR from NTP and RA3: the same tasks" in text  # not from the other arms


def test_only_an_evaluation_is_enough(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = {name: folder for name, folder in artifacts(seeds=(0,), tasks=5).items() if name == "evaluate_base/0"}
    page = render(inputs, tmp_path / "out", settings={})
    assert "nothing is claimed" in page
    assert "Table 1" in page


def test_only_training_is_enough(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = {name: folder for name, folder in artifacts(seeds=(0,)).items() if name in ("m_step_1/0", "e_step_1/0")}
    page = render(inputs, tmp_path / "out")
    assert "No model was evaluated." in page
    assert (tmp_path / "out" / "m_step.png").exists()


def test_text_from_models_and_settings_is_escaped(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    before = "def f(xs):\n    return '<script>alert(1)</script>' < xs\n"
    after = before.replace("    return", "    # <b>bold & brash</b>\n    return")
    examples = [{"id": "<i>demo</i>", "before": before, "after": after}]
    (inputs["bootstrap_1/0"] / "examples.json").write_text(json.dumps(examples))
    page = render(inputs, tmp_path / "out", settings={"name": "<u>run</u>"})
    assert "<script" not in page and "<b>bold" not in page and "<i>demo" not in page and "<u>run" not in page
    assert "&lt;b&gt;bold &amp; brash&lt;/b&gt;" in page


def test_changed_expert_line_is_refused(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    examples = [
        {"id": "demo-7", "before": "def f(xs):\n    return xs\n", "after": "def f(xs):\n    # a\n    return ys\n"}
    ]
    (inputs["bootstrap_1/0"] / "examples.json").write_text(json.dumps(examples))
    with pytest.raises(UserError, match="demo-7: line 2 is missing after annotation"):
        render(inputs, tmp_path / "out")


def cut(file: Path) -> None:
    """As a full disk leaves it."""
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda inputs: inputs.update({"ntp": inputs["ntp/0"]}), "expected a name such as ntp/0"),
        (lambda inputs: (inputs["ntp/0"] / "manifest.json").unlink(), "no such file, expected the manifest of ntp/0"),
        (lambda inputs: (inputs["ntp/0"] / "manifest.json").write_text("{}"), "not a valid manifest of ntp/0"),
        (lambda inputs: (inputs["evaluate_ntp/0"] / "results.json").write_text("{"), "not valid JSON"),
        (lambda inputs: (inputs["evaluate_ntp/0"] / "results.json").write_text("{}"), "with per_task counts"),
        (lambda inputs: (inputs["evaluate_ntp/0"] / "samples.jsonl").unlink(), "one graded sample a line"),
        (
            lambda inputs: cut(inputs["evaluate_ntp/0"] / "samples.jsonl"),
            r"ntp/0/samples.jsonl: line 240 is not a graded",
        ),
        (lambda inputs: (inputs["evaluate_ntp/0"] / "samples.jsonl").write_text("{}"), "line 1 is not a graded sample"),
        (lambda inputs: inputs.clear(), "expected at least one artifact"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, artifacts: Callable[..., Inputs], damage: Callable[[Inputs], object], message: str
) -> None:
    inputs = artifacts(seeds=(0,), tasks=5)
    damage(inputs)
    with pytest.raises(UserError, match=message) as raised:
        render(inputs, tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_terminal_fits_eighty_columns(whole: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    console = Console(width=80, record=True, file=(whole / "terminal.txt").open("w"))
    console.print(terminal.render(metrics))
    text = console.export_text()
    assert "…" not in text
    value = 100 * metrics["results"]["ra3"]["free"]["value"]
    assert re.search(rf"RA3 .*{value:.1f} \[", text)
    assert "RA3 − NTP, data-matched" in text


def test_bootstrap_without_a_rationale_is_said(tmp_path: Path, artifacts: Callable[..., Inputs]) -> None:
    inputs = artifacts(seeds=(0,), rates={})
    examples = [{"id": "demo-1", "before": "def f(xs):\n    return xs\n", "after": "def f(xs):\n    return xs\n"}]
    (inputs["bootstrap_1/0"] / "examples.json").write_text(json.dumps(examples))
    assert "wrote no rationale: the demonstrations are as they were." in render(inputs, tmp_path / "out")
