"""Every preset parses, overrides reach their field, and a bad value is one sentence that names it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from ra3core.config import PRESETS, RunConfig, load, parse, preset_names
from ra3core.errors import UserError


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_parses(path: Path) -> None:
    assert load(path.stem) == load(str(path))
    assert load(path.stem).name == path.stem
    assert path.stem in preset_names()


def test_there_are_presets() -> None:
    assert {"demo", "smoke"} <= set(preset_names())


def test_a_preset_survives_a_round_trip() -> None:
    config = load("smoke", ["e_step.think_penalty=.inf", "base.model=a/b", "m_step.lora={rank: 4}"])
    assert parse(config.model_dump()) == config
    assert parse(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_sections_are_immutable_and_every_key_has_a_default() -> None:
    config = RunConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
    assert parse({}) == config
    for name, field in RunConfig.model_fields.items():
        assert not field.is_required(), name


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("seed=3", None, "seed", 3),
        ("e_step.think_penalty=0.1", "e_step", "think_penalty", 0.1),
        ("e_step.think_penalty=.inf", "e_step", "think_penalty", math.inf),
        ("e_step.learning_rate=1.5e-5", "e_step", "learning_rate", 1.5e-5),
        ("evaluation.k=[1]", "evaluation", "k", [1]),
        ("evaluation.limit=7", "evaluation", "limit", 7),
        ("corpus.source=python:a=b", "corpus", "source", "python:a=b"),
        ("base.model=org/model", "base", "model", "org/model"),
        ("base.layers=[conv]", "base", "layers", ["conv"]),
    ],
)
def test_overrides(override: str, section: str | None, key: str, value: object) -> None:
    config = load("demo", [override])
    found = getattr(config if section is None else getattr(config, section), key)
    assert found == value and type(found) is type(value)
    changed = {name for name in RunConfig.model_fields if getattr(config, name) != getattr(load("demo"), name)}
    assert changed == {section or key}


def test_a_runs_precision_is_that_of_every_section_without_one() -> None:
    config = load("demo", ["precision=bfloat16", "e_step.precision=float32"])
    sections = [name for name in RunConfig.model_fields if hasattr(getattr(config, name), "precision")]
    assert sections == ["base", "e_step", "bootstrap", "m_step", "rlvr", "evaluation", "analysis"]
    found = {name: getattr(config, name).precision for name in sections}
    assert found == {**dict.fromkeys(sections, "bfloat16"), "e_step": "float32"}
    entry = config.evaluation.benchmarks[0]
    assert config.evaluation.settled(entry, {}).precision == "bfloat16"
    assert parse(config.model_dump()) == config and load("demo").e_step.precision == "float32"
    with pytest.raises(UserError, match="precision: input should be 'float32' or 'bfloat16', found 'half'"):
        load("demo", ["precision=half"])


def test_an_empty_value_is_none() -> None:
    assert load("demo", ["evaluation.limit=7", "evaluation.limit="]).evaluation.limit is None


def test_the_last_override_wins_and_lora_can_be_filled_in() -> None:
    config = load("demo", ["m_step.lora.rank=8", "seed=1", "seed=2"])
    assert config.seed == 2
    assert config.m_step.lora is not None and config.m_step.lora.rank == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", r"--set seed: expected section.key=value"),
        ("=1", r"--set =1: expected section.key=value"),
        ("seed=[", r"--set seed=\[: '\[' is not a valid value"),
        ("name.x=1", r"--set name.x=1: name is not a section"),
        ("seed=-1", r"seed: .*greater than or equal to 0, found -1"),
        ("e_step.group_size=0", r"e_step.group_size: .*greater than 0, found 0"),
        ("e_step.group_size=many", r"e_step.group_size: .*valid integer.*found 'many'"),
        ("e_step.think_penalty=-0.1", r"e_step.think_penalty: .*greater than or equal to 0"),
        ("e_step.think_penalty=.nan", r"e_step.think_penalty: "),
        ("m_step.held_out=1.5", r"m_step.held_out: .*less than or equal to 1, found 1.5"),
        ("base.layers=[mamba]", r"base.layers.0: .*'conv' or 'full_attention', found 'mamba'"),
        ("evaluation.k=[1,64]", r"evaluation: k = 64 needs at least as many samples"),
        ("e_stepp.think_penalty=1", r"unknown key e_stepp; expected one of name, seed, seeds, rounds, arms"),
        ("e_step.thinkpenalty=1", r"unknown key e_step.thinkpenalty; expected one of think_penalty, iterations"),
        ("e_step={a.b: 1}", r"unknown key e_step.a.b; expected one of think_penalty, iterations"),
        ("m_step={lora.rank: 1}", r"unknown key m_step.lora.rank; expected a section, lora: {rank: ...}$"),
        ("m_step.lora.ranks=1", r"unknown key m_step.lora.ranks; expected one of rank, alpha"),
        ("arms.during=[ntp]", r"arms.during: m_step.snapshots is 0, expected how many"),
        ("m_step.snapshots=4", r"m_step.snapshots: arms.during is empty, expected the arms"),
        ("m_step.token_budget=9", r"m_step.token_budget: a run fills it in, .*; expected m_step.epochs"),
        ("arms.during=[brite]", r"arms: during: this run has no brite, expected some of"),
        ("rlvr.engine=http", r"rlvr.engine: http: a server's weights would have to follow every step"),
        ("rlvr.importance_cap=0.5", r"rlvr.importance_cap: input should be greater than or equal to 1"),
        ("evaluation.engine=vllm", r"evaluation.engine: input should be 'built-in'"),
        ("evaluation.k=[]", r"evaluation.k: list should have at least 1 item"),
        ("evaluation.k=[1,64]", r"found samples = \d+$"),
        ("e_step.kl=.inf", r"e_step.kl: .*finite number, found inf"),
        ("corpus=3", r"corpus: .*found 3"),
        ("evaluation.benchmarks=[]", r"evaluation.benchmarks: list should have at least 1 item"),
        ("evaluation.benchmarks=humaneval,humaneval", r"benchmark humaneval is listed twice, expected each once"),
        ("evaluation.benchmarks=[{name: embedded, data: f}]", r"benchmark embedded has its tasks in data/"),
        (
            "evaluation.modes=[banned, forced]",
            r"evaluation.modes: banned, forced: results are those of free decoding, expected free in the list too",
        ),
        (
            "evaluation.benchmarks=[{name: mbpp, sample: 3}]",
            r"unknown key evaluation.benchmarks.0.sample; expected one of name, data, limit, samples",
        ),
    ],
)
def test_bad_overrides_are_one_sentence(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load("demo", [override])
    assert "\n" not in str(error.value)


OFFICIAL = {"samples": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 512}


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.benchmarks=embedded,humaneval+",
        "evaluation.benchmarks=[embedded, humaneval-plus]",
        "evaluation.benchmarks=[{name: embedded}, {name: humaneval+}]",
    ],
)
def test_benchmarks_are_names_or_entries(override: str) -> None:
    config = load("demo", [override])
    assert [entry.name for entry in config.evaluation.benchmarks] == ["embedded", "humaneval-plus"]
    assert config.model_dump(mode="json")["evaluation"]["benchmarks"] == ["embedded", "humaneval-plus"]
    assert parse(config.model_dump(mode="json")) == config


def test_a_benchmark_is_sampled_officially_unless_its_entry_says_otherwise() -> None:
    evaluation = load(
        "demo", ["evaluation.benchmarks=[embedded, mbpp:3-shot, {name: x, samples: 9, temperature: 0.2}]"]
    )
    embedded, mbpp, other = (evaluation.evaluation.settled(e, OFFICIAL) for e in evaluation.evaluation.benchmarks)
    assert (embedded.samples, embedded.temperature, embedded.k, len(embedded.modes)) == (2, 0.5, [1, 2], 3)
    assert (mbpp.benchmark, mbpp.slug, mbpp.samples, mbpp.temperature) == ("mbpp:3-shot", "mbpp-3-shot", 1, 0.0)
    assert (mbpp.k, mbpp.modes, mbpp.max_new_tokens, mbpp.limit) == ([1], ["free"], 512, None)
    assert (other.samples, other.temperature, other.k, other.max_new_tokens) == (9, 0.2, [1, 5], 512)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: x, samples: 2}", "x: 2 samples of greedy decoding are all the same, expected a temperature above 0"),
        ("{name: x, k: [5]}", "x: k = 5 needs at least as many samples, found samples = 1"),
    ],
)
def test_entries_that_do_not_go_together(entry: str, message: str) -> None:
    evaluation = load("demo", [f"evaluation.benchmarks=[{entry}]"]).evaluation
    with pytest.raises(UserError, match=f"^{message}$"):
        evaluation.settled(evaluation.benchmarks[0], OFFICIAL)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preset 'nope': expected one of .*demo.*smoke"):
        load("nope")
    with pytest.raises(UserError, match="expected one of"):
        load(str(tmp_path / "missing.yaml"))
    own = tmp_path / "own.yaml"
    own.write_text("seed: [1")
    with pytest.raises(UserError, match=r"own\.yaml: not valid YAML"):
        load(str(own))
    own.write_text("- 1\n")
    with pytest.raises(UserError, match="expected a mapping of sections, found list"):
        load(str(own))
    own.write_bytes(b"name: \xff\n")
    with pytest.raises(UserError, match=r"own\.yaml: not valid YAML"):
        load(str(own))
    own.write_text("foo.bar: 0.1\n")
    with pytest.raises(UserError, match=r"own\.yaml: unknown key foo\.bar; expected one of name, seed"):
        load(str(own))
    own.write_text("m_step.lora.rank: 2\n")
    with pytest.raises(UserError, match=r"key m_step\.lora\.rank; expected a section, m_step: {lora: {rank: \.\.\.}}$"):
        load(str(own))
    own.write_text("")
    assert load(str(own)) == RunConfig(name="own")


def test_every_key_is_documented() -> None:
    page = (PRESETS.parent / "docs" / "configuration.md").read_text()

    keys = []
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        inner = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else None
        keys += [name] if inner is None else [f"{name}.{key}" for key in inner]
    missing = [key for key in keys if f"`{key}`" not in page]
    assert not missing, f"docs/configuration.md says nothing about {', '.join(missing)}"


def test_configuration_needs_no_torch() -> None:
    code = "import sys, ra3core.config; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PRESETS.parent)
