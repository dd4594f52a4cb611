"""`ra3 abstractions` and `ra3 calibrate` on a run with tiny models: what names mean, what is written and refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM

from flows import cli, named
from ra3core.artifacts import Artifact, Store
from ra3core.config import BootstrapConfig, DataConfig, EStepConfig, ReportConfig
from ra3core.corpora.demonstrations import annotate, read_demonstrations, write_annotated, write_demonstrations
from ra3core.corpora.suite.generate import generate
from ra3core.errors import UserError
from ra3core.lm.models import save_model
from ra3core.lm.tokenizer import train_tokenizer
from ra3core.stage import StageLog
from tasks import external

SMALL = ["--set", "analysis.demonstrations=4", "--set", "analysis.resamples=50"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the artifacts and the report of one run of two seeds."""
    (tmp_path / "data").mkdir()
    generate(
        DataConfig(demonstrations=30, web_documents=4, outlines=4, rlvr_tasks=3, evaluation_tasks=3),
        tmp_path / "data",
        StageLog(),
    )
    demonstrations = read_demonstrations(tmp_path / "data" / "demonstrations.parquet")
    tokenizer = train_tokenizer([d.text for d in demonstrations] + ["    # A) add\n"] * 5, min_count=2)
    store = Store(tmp_path / "artifacts")
    settings = EStepConfig(group_size=2, window=2, rationale_tokens=6, think_penalty=0.4)

    def model(seed: int) -> Callable:
        def stage(config, context):
            torch.manual_seed(seed)
            shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
            layers = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
            made = Lfm2Config(
                vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **shape, **layers
            )
            save_model(Lfm2ForCausalLM(made), tokenizer, context.out / "model")
            return {}

        return stage

    def expert(config, context):
        write_demonstrations(demonstrations, context.out / "demonstrations.parquet")
        return {}

    def annotated(config, context):
        thoughts = [annotate(d, {0: f"A) seed {context.seed}", d.boundaries[-1]: "B) add"}) for d in demonstrations]
        write_annotated(thoughts, context.out / "annotated.parquet")
        return {}

    def page(config, context):
        (context.out / "report.html").write_text("")
        return {}

    inputs: dict[str, Artifact] = {}
    for seed in (0, 1):
        base = store.build("base", model(seed), ReportConfig(resamples=seed + 1), {})[0]
        given = store.build("demonstrations", expert, ReportConfig(), {}, seed=seed)[0]
        policy = store.build("e_step", model(seed + 10), settings, {"model": base, "demonstrations": given}, seed=seed)[
            0
        ]
        roles = {"policy": policy, "likelihood": base, "demonstrations": given}
        made = store.build("bootstrap", annotated, BootstrapConfig(), roles, seed=seed)[0]
        inputs |= {f"e_step_1/{seed}": policy, f"bootstrap_1/{seed}": made}
    report = store.build("report", page, ReportConfig(), inputs)[0]
    folder = tmp_path / "reports" / f"demo-{report.key[:8]}"
    shutil.copytree(report.path, folder, ignore=shutil.ignore_patterns("manifest.json"))
    (tmp_path / "reports" / "latest").symlink_to(folder.name)
    monkeypatch.setenv("RA3_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ra3(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ra3", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return int(exit.value.code or 0)


def test_a_run_by_its_name_its_folder_and_its_artifact(root: Path) -> None:
    folder = (root / "reports" / "latest").resolve()
    found = named.find("latest", "bootstrap", root)
    assert found.manifest.seed == 0 and found.path.parent.name == "bootstrap"
    for name in (folder.name, str(folder), str(root / "reports" / "latest"), str(found.path)):
        assert named.find(name, "bootstrap", root).key == found.key
    assert named.find("latest", "bootstrap", root, seed=1).manifest.seed == 1
    assert named.input_of(found, "likelihood").stage == "base"


def test_names_that_mean_nothing(root: Path) -> None:
    found = named.find("latest", "bootstrap", root)
    with pytest.raises(
        UserError, match=r"^nonsense: neither a run below .*/reports nor a folder with a manifest.json$"
    ):
        named.find("nonsense", "bootstrap", root)
    with pytest.raises(UserError, match=r"^latest: no bootstrap of seed 7, expected one of 0, 1$"):
        named.find("latest", "bootstrap", root, seed=7)
    with pytest.raises(UserError, match=r"an artifact of stage bootstrap, expected one of e_step$"):
        named.find(str(found.path), "e_step", root)
    shutil.rmtree(named.input_of(found, "likelihood").path)
    with pytest.raises(UserError, match=r"^likelihood of .*: no artifact with digest"):
        named.input_of(found, "likelihood")
    shutil.rmtree(root / "artifacts" / "report")
    with pytest.raises(UserError, match=r"its report .* is no longer in"):
        named.find("latest", "bootstrap", root)


def test_a_base_model_of_the_users_is_found_again(root: Path) -> None:
    base = external.model(str(named.find("latest", "e_step", root).path), root)
    made = Store(root / "artifacts").build("e_step", lambda config, context: {}, EStepConfig(), {"model": base})[0]
    assert (named.input_of(made, "model").path / "model" / "config.json").is_file()


def test_the_rationales_of_a_run(root: Path, monkeypatch, capsys) -> None:
    assert ra3(monkeypatch, "abstractions", "latest", "--seed", "1", *SMALL) == 0
    said = capsys.readouterr().out
    page = Path(next(line for line in said.splitlines() if line.startswith("Page: ")).removeprefix("Page: "))
    assert page.parent.parent == root / "reports" and "60 rationales, 2 abstractions" in said
    assert "seed N" in page.read_text() and (page.parent / "abstractions.parquet").is_file()
    assert ra3(monkeypatch, "abstractions", "latest", "--out", "here", *SMALL) == 0
    assert (root / "here" / "abstractions.html").is_file()


def test_a_penalty_for_a_run_and_for_a_model(root: Path, monkeypatch, capsys) -> None:
    assert ra3(monkeypatch, "calibrate", "latest", "--think-rate", "0.25", "--out", "run", *SMALL) == 0
    said = capsys.readouterr().out
    curve = json.loads((root / "run" / "calibration.json").read_text())
    assert curve["demonstrations"] <= 4 and curve["proposed"]["target"] == 0.25
    assert f"e_step.think_penalty={curve['proposed']['c']:.3g}" in said and "95 % interval" in said
    assert (root / "run" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    model = named.find("latest", "e_step", root).path / "model"
    assert ra3(monkeypatch, "calibrate", str(model), "--think-rate", "0.01", "--out", "model", *SMALL) == 0
    lower = json.loads((root / "model" / "calibration.json").read_text())
    assert lower["demonstrations"] == 4 and lower["proposed"]["think_rate"] <= 0.01


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("calibrate", "latest", "--think-rate", "1"), "--think-rate: expected a share between 0 and 1, found 1"),
        (("calibrate", "latest", "--demonstrations", "embedded"), "--demonstrations: a run has its own"),
        (("calibrate", "./nothing"), "calibrate: './nothing'"),
        (("calibrate", "MODEL", "--demonstrations", "python:EMPTY"), "EMPTY: no .py files, expected at least one"),
        (("calibrate", "latest", "--out", "data/suite.json"), "--out data/suite.json: a file is in the way"),
        (("abstractions", "latest", "--out", "data/suite.json"), "--out data/suite.json: a file is in the way"),
        (("abstractions", "nothing"), "nothing: neither a run"),
        (("abstractions",), "RUN_OR_FOLDER"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], sentence: str, root: Path, monkeypatch, capsys) -> None:
    (root / "EMPTY").mkdir()
    (root / "MODEL").symlink_to(named.find("latest", "e_step", root).path / "model")
    before = sorted((root / "reports").iterdir())
    assert ra3(monkeypatch, *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert sorted((root / "reports").iterdir()) == before


def test_a_device_that_is_not_there_leaves_nothing(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RA3_DEVICE", "cuda:99")
    before = sorted((root / "reports").iterdir())
    for command in ("abstractions", "calibrate"):
        assert ra3(monkeypatch, command, "latest", *SMALL) == 2
        assert "--device (or RA3_DEVICE) cuda:99: not on this machine, expected cpu" in capsys.readouterr().err
    assert sorted((root / "reports").iterdir()) == before
