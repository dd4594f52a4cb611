"""`ra3 annotate`, `ra3 generate` and `ra3 export` on runs and models of a few thousand parameters."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import Field
from transformers import AutoModelForCausalLM, AutoTokenizer, Lfm2Config, Lfm2ForCausalLM

from flows import cli
from ra3core.artifacts import Artifact, Store
from ra3core.config import ReportConfig, RunConfig, Section
from ra3core.lm.models import save_model
from ra3core.lm.tokenizer import train_tokenizer

SOURCE = """\
def f(xs):
    '''Add.'''
    total = 0  # kept
    for x in xs:
        total += x
    return total
""".replace("\n", "\r\n")


class Made(Section):
    """weights: the seed of a model's. counts: of an evaluation, task -> [n, c]."""

    weights: int | None = None
    counts: dict[str, list[int]] = Field(default={})


def stage(config: Made, context) -> dict[str, Any]:
    if config.weights is not None:
        save_tiny(context.out / "model", config.weights)
    if config.counts:
        rows = [
            {"task_id": task, "steps": 2, "mode": "free", "completion": "", "passed": i < c, "category": "x"}
            for task, (n, c) in config.counts.items()
            for i in range(n)
        ]
        (context.out / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (context.out / "results.json").write_text(json.dumps({"per_task": {"free": config.counts}}))
    return {}


def save_tiny(folder: Path, seed: int) -> None:
    tokenizer = train_tokenizer([SOURCE.replace("\r", ""), "def g(x):\n    # add\n    return x\n"] * 3, min_count=2)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    layers = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}
    config = Lfm2Config(
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **shape, **layers
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_model(Lfm2ForCausalLM(config), tokenizer, folder)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the artifacts and the report of one run, whose last stage left its model as it was."""
    store = Store(tmp_path / "artifacts")
    (tmp_path / "data").mkdir()
    made: dict[str, Artifact] = {"data": Store.external("data", tmp_path / "data", "d" * 64)}

    def put(name: str, kind: str, config: Section, function: Callable = stage, **inputs: Artifact) -> Artifact:
        made[f"{name}/0"] = store.build(kind, function, config, inputs)[0]
        return made[f"{name}/0"]

    base = put("base", "base", Made(weights=0))
    trained = put("m_step_1", "m_step", Made(weights=1), model=base)
    final = put("ra3_rlvr", "rlvr", Made(weights=1), model=trained)
    assert final.digest == trained.digest
    counts = {f"eval-2-{i:04d}": [4, i] for i in range(4)}
    put("evaluate_base", "evaluate", Made(counts=counts), model=base)
    put("evaluate_ra3_rlvr", "evaluate", Made(counts=counts | {"eval-2-0000": [4, 4]}), model=final)

    def page(config, context):
        (context.out / "report.html").write_text("")
        return {}

    settings = RunConfig.model_validate({"name": "test", "registry": {"model": "ra3-test"}})
    config = ReportConfig(settings=settings.model_dump(mode="json", exclude={"report"}), commit="abc123")
    report = store.build("report", page, config, made)[0]
    folder = tmp_path / "reports" / f"test-{report.key[:8]}"
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


def artifact(root: Path, stage: str) -> Path:
    [found] = (root / "artifacts" / stage).glob("[!.]*")
    return found


# -- annotate ----------------------------------------------------------------------------------------------------------


def test_a_file_is_printed_with_its_rationales(root: Path, monkeypatch, capsysbinary) -> None:
    (root / "x.py").write_bytes(SOURCE.encode())
    assert ra3(monkeypatch, "annotate", "latest", "x.py", "--temperature", "6", "--scores") == 0
    printed = capsysbinary.readouterr()
    lines = printed.out.decode().split("\r\n")
    added = [line for line in lines if line.strip().startswith("#")]
    assert added and "\r\n".join(line for line in lines if line not in added) == SOURCE
    table = printed.err.decode().splitlines()
    assert table[0].split() == ["line", "nats", "rationale"] and len(table) == 1 + len(added)
    assert ra3(monkeypatch, "annotate", "latest", "x.py", "--penalty", "1000") == 0
    assert capsysbinary.readouterr().out == SOURCE.encode()


def test_json_and_standard_input(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + SOURCE.encode())))
    folder = str(artifact(root, "base") / "model")
    assert ra3(monkeypatch, "annotate", folder, "-", "--json", "--samples", "2", "--temperature", "6") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"].startswith("\ufeffdef f") and found["functions"] == 1 and found["skipped"] == []
    assert found["rationales"] and set(found["rationales"][0]) == {"function", "line", "rationale", "gain"}
    assert all(isinstance(one["gain"], float) for one in found["rationales"])


# -- generate ----------------------------------------------------------------------------------------------------------


def test_completions_are_printed(root: Path, monkeypatch, capsys) -> None:
    name = str(artifact(root, "rlvr"))
    arguments = ("generate", name, "def f(xs):", "--max-tokens", "6")
    assert ra3(monkeypatch, *arguments, "--seed", "3") == 0
    once = capsys.readouterr().out
    assert once.strip() and "---" not in once
    assert ra3(monkeypatch, *arguments, "--n", "3", "--seed", "3") == 0
    assert sorted(line for line in capsys.readouterr().out.split("\n") if line.startswith("--- ")) == [
        "--- 1",
        "--- 2",
        "--- 3",
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"def f(xs):")))
    assert ra3(monkeypatch, "generate", "latest", "--arm", "ra3_rlvr", "--max-tokens", "6", "--seed", "3") == 0
    assert capsys.readouterr().out == once


# -- export ------------------------------------------------------------------------------------------------------------


def test_a_run_is_exported_with_its_card(root: Path, monkeypatch, capsys) -> None:
    assert ra3(monkeypatch, "export", "latest", "out/model") == 0
    assert "RA3, then RLVR, seed 0" in capsys.readouterr().out
    folder = root / "out" / "model"
    assert AutoModelForCausalLM.from_pretrained(folder) and AutoTokenizer.from_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == (
        artifact(root, "rlvr") / "model" / "model.safetensors"
    ).read_bytes()
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(10 / 16)
    assert "# ra3-test: RA3, then RLVR" in card and "commit `abc123`" in card and "mlflow" not in card.lower()
    assert "Apache-2.0" in (folder / "LICENSE.txt").read_text()
    assert [path.name for path in (root / "out").iterdir()] == ["model"]  # nothing half-written is left


def test_an_arm_an_artifact_and_a_model_without_a_run(root: Path, monkeypatch, capsys) -> None:
    assert ra3(monkeypatch, "export", "latest", "base", "--arm", "base") == 0
    assert "# ra3-test: Base" in (root / "base" / "README.md").read_text()
    assert ra3(monkeypatch, "export", str(artifact(root, "m_step")), "trained") == 0
    assert "Results" in (root / "trained" / "README.md").read_text()
    shutil.rmtree(root / "artifacts" / "report")
    (root / "alone").mkdir()
    assert ra3(monkeypatch, "export", str(artifact(root, "m_step")), "alone") == 0
    card = (root / "alone" / "README.md").read_text()
    assert "has not been evaluated as part of a run that is on record" in card and "weights: 1" in card
    assert AutoModelForCausalLM.from_pretrained(root / "alone")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("annotate", "latest", "nothing.py"), "nothing.py: cannot be read (No such file or directory)"),
        (("annotate", "latest", "bad.py"), "bad.py: not Python ("),
        (("annotate", "latest", "latin.py"), "latin.py: not UTF-8 at byte 7"),
        (("annotate", "latest", "bad.py", "--samples", "0"), "--samples: expected at least 1, found 0"),
        (("annotate", "nothing/of/that", "x.py"), "x.py: cannot be read"),
        (("generate", "./nothing", "x"), "model ./nothing: no such folder"),
        (("generate", "latest", "x", "--arm", "brite"), "latest: the run has no model brite/0, expected an arm"),
        (("generate", "latest", "x", "--of-seed", "5"), "the run has no model ra3_rlvr/5"),
        (("generate", "EVALUATION", "x"), "an artifact of stage evaluate, which holds no model"),
        (("generate", "./data", "x", "--arm", "ra3"), "./data: no run below"),
        (("generate", "latest", "x", "--n", "0"), "--n: expected at least 1, found 0"),
        (("generate", "latest", "x", "--n", "2", "--temperature", "0"), "--n: 2 samples of greedy decoding"),
        (("generate", "latest", "x", "--top-p", "0"), "--top-p: expected a share above 0"),
        (
            ("generate", "latest", "x", "--stop", "\\n#"),
            "--stop: stop string '\\n#' would end a completion at a comment",
        ),
        (("generate", "latest", "x", "--seed", "-1"), "--seed: expected at least 0"),
        (("generate", "latest", "x", "--chat"), "--chat: the model's tokenizer has no chat template"),
        (("export", "nothing", "out"), "nothing: neither a run below"),
        (("export", "latest", "data.txt"), "data.txt: expected a new folder, or an empty one"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], sentence: str, root: Path, monkeypatch, capsys) -> None:
    (root / "bad.py").write_text("def f(:\n")
    (root / "latin.py").write_bytes(b"# caf\xc3\xa9\xe9\n".replace(b"\xc3\xa9", b"e "))
    (root / "data.txt").write_text("x")
    given = [str(artifact_of_an_evaluation(root)) if one == "EVALUATION" else one for one in arguments]
    assert ra3(monkeypatch, *given) == 2
    message = capsys.readouterr().err
    assert sentence in message and message.count("\n") == 1


def artifact_of_an_evaluation(root: Path) -> Path:
    return next((root / "artifacts" / "evaluate").glob("[!.]*"))
