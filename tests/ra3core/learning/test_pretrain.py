"""The base model: a stock model and its tokenizer; a kill changes nothing; a kept one is used only while it is true."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ra3core.config import BaseConfig, DataConfig, load
from ra3core.corpora.demonstrations import read_rows
from ra3core.corpora.prepare import prepare_corpus
from ra3core.corpora.suite.generate import generate
from ra3core.errors import UserError
from ra3core.learning.pretrain import encode, pretrain, recipe_of
from ra3core.lm.tokenizer import train_tokenizer
from ra3core.stage import Context, Metrics, StageLog, read_metrics

ROOT = Path(__file__).resolve().parents[3]
TINY = BaseConfig(
    layers=["conv", "full_attention"],
    hidden_size=32,
    intermediate_size=48,
    heads=2,
    outline_steps=4,
    web_tokens=20_000,
    batch_size=8,
    warmup_steps=2,
    checkpoint_steps=5,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    generate(DataConfig(web_documents=500, outlines=100, demonstrations=5, rlvr_tasks=3, evaluation_tasks=2), folder)
    return folder


def run(folder: Path, corpus: Path, config: BaseConfig = TINY, sink=lambda event: None) -> Metrics:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    log = StageLog(folder / "out" / "metrics.jsonl", sink)
    return pretrain(config, Context({"corpus": corpus}, folder / "out", folder / "scratch", seed=3, log=log))


def test_it_learns_and_any_program_can_load_it(corpus: Path, tmp_path: Path) -> None:
    metrics = run(tmp_path, corpus)
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert metrics["held_out"] < rows[0]["held_out"] - 0.5
    assert metrics["train_tokens"] == rows[-1]["tokens"] and len(rows) == metrics["steps"] + 1
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert model.num_parameters() == metrics["parameters"]
    text = "def f(a):\n    # naïve\n    return a\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokens_that_the_method_relies_on(corpus: Path) -> None:
    tokenizer = train_tokenizer(row["text"] for row in read_rows(corpus / "web.parquet"))
    pieces = [tokenizer.decode([i]) for i in tokenizer("\n        # D keep even\n    b")["input_ids"]]
    assert pieces == ["\n        ", "#", " D", " keep", " even", "\n    ", "b"]


def test_the_docstring_carries_no_loss(corpus: Path) -> None:
    texts = [row["text"] for row in read_rows(corpus / "web.parquet")][:20]
    tokenizer = train_tokenizer(texts, min_count=2)
    for text, example in zip(texts, encode(texts, tokenizer), strict=True):
        assert tokenizer.decode(example.tokens[: example.prompt]) == text[: text.index('"""\n') + 3]
        assert tokenizer.decode(example.tokens[:-1]) == text
        assert example.tokens[-1] == tokenizer.eos_token_id


def test_a_killed_run_ends_like_one_that_was_not(corpus: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(event: dict) -> None:
        if event["event"] == "metrics" and event["step"] == 12:
            raise Killed

    whole = run(tmp_path / "whole", corpus)
    with pytest.raises(Killed):
        run(tmp_path / "killed", corpus, sink=kill)
    assert run(tmp_path / "killed", corpus) == whole
    for name in ("model/model.safetensors", "metrics.jsonl", "recipe.json"):
        assert (tmp_path / "killed/out" / name).read_bytes() == (tmp_path / "whole/out" / name).read_bytes(), name


def test_a_kept_model_is_used_only_while_the_recipe_is_its_own(corpus: Path, tmp_path: Path) -> None:
    made = run(tmp_path / "made", corpus)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "made" / "out", kept)
    said: list[str] = []

    def hear(event: dict) -> None:
        said.extend([event["text"]] if event["event"] == "message" else [])

    again = run(tmp_path / "again", corpus, TINY.model_copy(update={"checkpoint": str(kept)}), sink=hear)
    assert again == {**made, "kept": True}
    (kept / "manifest.json").write_text('{"code": "0123456789abcdef"}')
    noted = run(tmp_path / "noted", corpus, TINY.model_copy(update={"checkpoint": str(kept)}), sink=hear)
    assert noted == {**made, "kept": True, "kept_code": "0123456789abcdef"}
    assert {path.name for path in (tmp_path / "noted/out").iterdir()} == {"model", "recipe.json"}
    assert [one.partition("recipe, ")[2].partition(",")[0] for one in said] == [
        "made by code that is not on record",
        "made by code 0123456789ab",
    ]
    assert load_file(tmp_path / "again/out/model/model.safetensors").keys()
    changed = TINY.model_copy(update={"checkpoint": str(kept), "learning_rate": 1e-3})
    assert run(tmp_path / "changed", corpus, changed)["kept"] is False


def test_a_corpus_that_is_too_small_is_refused(corpus: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    generate(DataConfig(web_documents=100, outlines=10, demonstrations=5, rlvr_tasks=3, evaluation_tasks=2), small)
    with pytest.raises(UserError, match="100 web documents and 10 outlines"):
        run(tmp_path, small)


@pytest.fixture(scope="module")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of the demo preset, as the pipeline makes it."""
    folder = tmp_path_factory.mktemp("demo")
    config = load("demo")
    generate(config.data, folder / "data")
    (folder / "corpus").mkdir()
    prepare_corpus(config.corpus, Context({"data": folder / "data"}, folder / "corpus", folder / "scratch"))
    return folder / "corpus"


def kept_base() -> Path:
    """The folder in the repository: the demo preset's base for seed 0."""
    checkpoint = load("demo").base.checkpoint
    assert checkpoint is not None
    return ROOT / checkpoint.replace("{seed}", "0")


def test_the_kept_base_is_the_demo_presets(demo_corpus: Path, tmp_path: Path) -> None:
    recipe = json.loads((kept_base() / "recipe.json").read_text())["recipe"]
    assert recipe == recipe_of(load("demo").base, Context({"corpus": demo_corpus}, tmp_path, tmp_path, seed=0))
    assert sum(path.stat().st_size for path in kept_base().rglob("*") if path.is_file()) < 8_000_000


@pytest.mark.slow
def test_the_recipe_still_makes_the_kept_base(demo_corpus: Path, tmp_path: Path) -> None:
    config = load("demo").base
    kept = json.loads((kept_base() / "recipe.json").read_text())["metrics"]
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    anew = pretrain(
        config.model_copy(update={"checkpoint": None}),
        Context({"corpus": demo_corpus}, tmp_path / "out", tmp_path / "scratch", seed=0, threads=2),
    )
    assert anew["train_tokens"] == kept["train_tokens"]
    assert abs(anew["held_out"] - kept["held_out"]) < 0.02
