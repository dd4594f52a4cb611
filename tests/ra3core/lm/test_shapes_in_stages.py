"""E-step, annotation, M-step, RLVR and evaluation with tokenizers of every shape, and with chat models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shapes import SHAPES, TEMPLATES, TURN_ENDS, add_template, checkpoint

from ra3core.config import (
    BenchmarkConfig,
    BootstrapConfig,
    EStepConfig,
    MStepConfig,
    RLVRConfig,
    VerifierConfig,
    load,
)
from ra3core.corpora.demonstrations import (
    Demonstration,
    Task,
    Test,
    annotate,
    comment_boundaries,
    read_annotated,
    write_demonstrations,
    write_tasks,
)
from ra3core.errors import UserError
from ra3core.evaluation.benchmarks.humaneval import HumanEval
from ra3core.evaluation.evaluate import evaluate
from ra3core.evaluation.samples import Sampler
from ra3core.learning.bootstrap import bootstrap
from ra3core.learning.e_step import e_step
from ra3core.learning.m_step import encode, m_step
from ra3core.learning.rlvr import rlvr
from ra3core.lm.chat import REQUEST, conversation
from ra3core.lm.engines import BuiltIn
from ra3core.lm.lines import LineTokenizer, end_token_id
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.stage import Context
from tasks import external

BODY = (
    "    out = []",
    "    for x in xs:",
    "        if x > {}:",
    "\t\t    out.append((x, '#'))",
    "    text = '''",
    "",
    "#  é'''",
    "    return out, text",
)


def demonstrations(count: int = 4) -> list[Demonstration]:
    found = []
    for i in range(count):
        prompt = f'def f{i}(xs):\n    """Keep (what is) above {i}."""'
        lines = tuple(line.format(i) for line in BODY)
        lines = tuple(line.replace("\t\t    ", "            ") if i % 2 else line for line in lines)
        found.append(Demonstration(f"d{i}", prompt, lines, comment_boundaries(prompt, lines)))
    return found


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    write_demonstrations(demonstrations(), folder / "demonstrations.parquet")
    tests = (Test(([1, 5],), None),)
    tasks = [Task(d.id, d.prompt, f"f{i}", tests) for i, d in enumerate(demonstrations(3))]
    write_tasks(tasks, folder / "rlvr_tasks.parquet")
    write_tasks(tasks, folder / "evaluation_tasks.parquet")
    return {"demonstrations": folder, "tasks": folder}


def run(stage, config, inputs, folder):
    return stage(config, Context(inputs, folder / "out", folder / "scratch"))


E_STEP = EStepConfig(iterations=1, warmup_iterations=0, demonstrations=2, states=2, group_size=2, rationale_tokens=6)
BOOTSTRAP = BootstrapConfig(batch_size=4, temperature=1.0, rationale_tokens=6, decision="gain")
M_STEP = MStepConfig(epochs=1, batch_size=2, held_out=0.2)
LIMITS = VerifierConfig(cpu_seconds=1)
RLVR = RLVRConfig(steps=1, prompts=1, group_size=2, max_new_tokens=8, held_out=0, verifier=LIMITS)


def through(model: Path, inputs: dict[str, Path], tmp_path: Path) -> Path:
    """The method's three stages on a model; stripped of rationales the demonstrations are as they were."""
    run(e_step, E_STEP, {"model": model, **inputs}, tmp_path / "e")
    given = {"policy": tmp_path / "e" / "out", "likelihood": model, **inputs}
    run(bootstrap, BOOTSTRAP, given, tmp_path / "b")
    found = read_annotated(tmp_path / "b" / "out" / "annotated.parquet")
    assert [a.demonstration.lines for a in found] == [d.lines for d in demonstrations()]
    assert any(a.rationales for a in found)
    metrics = run(m_step, M_STEP, {"model": model, "demonstrations": tmp_path / "b" / "out"}, tmp_path / "m")
    assert metrics["held_out_nats"] > 0
    return tmp_path / "m" / "out"


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "undecided"])
def test_the_method_runs_on_every_shape(name, inputs, tmp_path):
    checkpoint(name, tmp_path / "model")
    trained = through(tmp_path, inputs, tmp_path)
    lines = LineTokenizer(load_tokenizer(trained / "model"))
    (example,), _ = encode([annotate(demonstrations(1)[0], {0: "why"})], lines.tokenizer, 512)
    assert lines.decode(example.tokens[example.prompt :]).startswith(("\n    # why\n", "    # why\n"))


def test_boundaries_that_no_token_decides_are_told(inputs, tmp_path):
    checkpoint("undecided", tmp_path / "model")
    with pytest.raises(UserError, match=r"no demonstration has a line .*24 of 24 boundaries left out"):
        run(e_step, E_STEP, {"model": tmp_path, **inputs}, tmp_path / "e")


# -- chat --------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=TEMPLATES)
def chat(request, tmp_path) -> tuple[str, Path]:
    """The folder of a model that base.chat has marked."""
    checkpoint(request.param, tmp_path / "hub")
    add_template(request.param, tmp_path / "hub")
    return request.param, external.model(str(tmp_path / "hub"), tmp_path, chat=True).path


def test_every_stage_prompts_a_chat_model_through_its_template(chat, inputs, tmp_path):
    name, model = chat
    trained = through(model, inputs, tmp_path)
    tokenizer = load_tokenizer(trained / "model")
    lines = LineTokenizer(tokenizer)
    turn_ends = tokenizer.convert_tokens_to_ids(TURN_ENDS[name])
    one = demonstrations(1)[0]
    program = lines.demonstration(one)
    message = tokenizer.apply_chat_template(
        [{"role": "user", "content": REQUEST + one.prompt}], tokenize=False, add_generation_prompt=True
    )
    assert lines.decode(program.tokens()) == message + one.text + TURN_ENDS[name]
    assert program.tokens()[-1] == turn_ends == end_token_id(tokenizer)
    assert lines.text("x")[:1] != program.prompt[:1] or name == "llama3"
    assert program.prompt.count(tokenizer.bos_token_id) == (name == "llama3")
    (example,), _ = encode([annotate(one, {})], tokenizer, 512)
    assert example.tokens == tuple(program.tokens()) and example.prompt == len(program.prompt)

    run(rlvr, RLVR, {"model": trained, **inputs}, tmp_path / "r")
    config = BenchmarkConfig(samples=2, k=[1], max_new_tokens=8, modes=["free", "forced"], verifier=LIMITS)
    run(evaluate, config, {"model": tmp_path / "r" / "out", **inputs}, tmp_path / "v")
    for line in (tmp_path / "v" / "out" / "samples.jsonl").read_text().splitlines():
        sample = json.loads(line)
        assert sample["completion"].startswith("\n")
        assert sample["mode"] == "free" or sample["completion"].startswith("\n    #")


def test_a_benchmark_s_question_is_the_user_s_message(chat):
    _, model = chat
    tokenizer = load_tokenizer(model / "model")
    engine = BuiltIn(load_model(model / "model"), tokenizer)
    sampler = Sampler(engine, tokenizer, HumanEval("humaneval", "", [], stop=("\ndef ",)))
    text = "def f(x):\n"
    assert sampler.lines.question(text) == conversation(tokenizer, text)
    assert sampler._prompt(text) == conversation(tokenizer, text)
    assert tokenizer.decode(list(conversation(tokenizer, text))).endswith(
        ("assistant\n", "assistant<|end_header_id|>\n\n")
    )


def test_a_model_without_a_template_is_no_chat_model(tmp_path):
    checkpoint("qwen2", tmp_path / "hub")
    with pytest.raises(UserError, match=r"^base\.chat: the tokenizer of hub has no chat template"):
        external.model(str(tmp_path / "hub"), tmp_path, chat=True)
    with pytest.raises(UserError, match=r"^--chat: .* no chat template"):
        conversation(load_tokenizer(tmp_path / "hub"), "x", "--chat")
    with pytest.raises(UserError, match=r"base: chat: .* expected base\.model"):
        load("smoke", ["base.chat=true"])


def test_the_mark_is_another_model_and_leaves_the_user_s_alone(tmp_path):
    checkpoint("llama3", tmp_path / "hub")
    add_template("llama3", tmp_path / "hub")
    before = {file.name: file.read_bytes() for file in (tmp_path / "hub").iterdir()}
    plain, marked = (external.model(str(tmp_path / "hub"), tmp_path, chat=chat) for chat in (False, True))
    again = external.model(str(tmp_path / "hub"), tmp_path, chat=True)
    assert plain.digest != marked.digest == again.digest and marked.path != plain.path
    assert {file.name: file.read_bytes() for file in (tmp_path / "hub").iterdir()} == before
    assert not LineTokenizer(load_tokenizer(plain.path / "model")).chat
    assert LineTokenizer(load_tokenizer(marked.path / "model")).chat
