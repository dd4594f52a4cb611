"""RLVR on a toy: the base writes `return 1` or `return 2` by the toss of a coin, and the tests want 2."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ra3core.config import LoraConfig, MStepConfig, RLVRConfig, VerifierConfig
from ra3core.corpora.demonstrations import Demonstration, Task, Test, write_demonstrations, write_tasks
from ra3core.corpora.task_rows import parse
from ra3core.errors import UserError
from ra3core.evaluation import task_sets
from ra3core.learning.m_step import m_step
from ra3core.learning.rlvr import Completion, Judge, complete, read_task_folder, rlvr
from ra3core.learning.task_draw import draw
from ra3core.lm.engines import BuiltIn
from ra3core.lm.generation import Sampling
from ra3core.lm.models import load_model, load_tokenizer, save_model
from ra3core.lm.tokenizer import train_tokenizer
from ra3core.stage import Context, Metrics, StageLog, read_metrics
from ra3core.verifier import Program, Verdict, Verifier

CONFIG = RLVRConfig(
    steps=8,
    prompts=3,
    group_size=6,
    max_new_tokens=8,
    learning_rate=2e-3,
    held_out=3,
    eval_every=4,
    eval_samples=4,
    checkpoint_steps=3,
)
NAMES = "abcdefgh"


def prompt(name: str) -> str:
    return f"def {name}(xs):"


TASKS = [Task(f"t/{name}", prompt(name), name, (Test(([],), 2), Test(([1],), 2))) for name in NAMES]
COMPLETION = "\n    return 2\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_model) -> Path:
    """A tiny model that has learned the two programs, from next-token prediction."""
    folder = tmp_path_factory.mktemp("base")
    demonstrations = [
        Demonstration(f"{name}{value}", prompt(name), (f"    return {value}",), (0,))
        for name in NAMES
        for value in "12"
    ]
    tokenizer = train_tokenizer([one.text for one in demonstrations], min_count=2)
    model = make_model()
    model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    save_model(model, tokenizer, folder / "start" / "model")
    write_demonstrations(demonstrations, folder / "demonstrations.parquet")
    (folder / "out").mkdir()
    (folder / "scratch").mkdir()
    inputs = {"model": folder / "start", "demonstrations": folder}
    config = MStepConfig(epochs=100, learning_rate=1e-2, held_out=0.0)
    m_step(config, Context(inputs, folder / "out", folder / "scratch"))
    return folder / "out"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(TASKS, folder / "rlvr_tasks.parquet")
    return folder


def train(config: RLVRConfig, base: Path, tasks: Path, folder: Path, **log) -> tuple[Metrics, Context]:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    context = Context({"model": base, "tasks": tasks}, out, scratch, seed=1, log=StageLog(out / "metrics.jsonl", **log))
    return rlvr(config, context), context


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def reproducible(context: Context) -> list[dict]:
    rows = read_metrics(context.out / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bfloat16", "gradient_checkpointing": True}],
    ids=["float32", "bfloat16, layers computed again"],
)
def test_the_reward_rises(settings: dict, base: Path, tasks: Path, tmp_path: Path) -> None:
    metrics, context = train(CONFIG.model_copy(update=settings), base, tasks, tmp_path)
    rows = read_metrics(context.out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(9))
    assert 0.2 < rows[1]["reward"] < 0.8
    assert metrics["reward"] > 0.9  # from about a half
    assert 0.2 < metrics["held_out_pass_start"] < 0.8
    assert metrics["held_out_pass"] > 0.9
    assert [row["step"] for row in rows if "held_out_pass" in row] == [0, 4, 8]
    for row in rows[1:]:
        assert sum(value for name, value in row.items() if name.startswith("verdict_")) == pytest.approx(1)
        assert row["verdict_passed"] == row["reward"]
    assert rows[-1]["tokens"] == metrics["tokens"]
    assert all(("entropy" in row) == (row["zero_variance"] < 1) for row in rows[1:])
    assert rows[1]["zero_variance"] < 1
    assert metrics["train_tokens"] + metrics["evaluation_tokens"] < metrics["tokens"]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8)], ids=["full", "lora"])
def test_interrupted_equals_uninterrupted(base: Path, tasks: Path, tmp_path: Path, lora: LoraConfig | None) -> None:
    changes = {"lora": lora, "steps": 5, "eval_every": 2, "kl": 0.01, "epochs": 2}
    config = CONFIG.model_copy(update={**changes, "zero_variance": "downsample", "zero_variance_visits": 1})
    whole, whole_context = train(config, base, tasks, tmp_path / "whole")

    def kill(event: dict) -> None:
        if event["event"] == "metrics" and event["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, base, tasks, tmp_path / "killed", sink=kill)
    done: list[int] = []
    resumed, resumed_context = train(
        config,
        base,
        tasks,
        tmp_path / "killed",
        sink=lambda event: done.append(event["done"]) if event["event"] == "progress" else None,
    )
    assert done[0] == 3  # went on from the checkpoint
    assert resumed == whole
    assert weights(resumed_context.out) == weights(whole_context.out)
    assert reproducible(resumed_context) == reproducible(whole_context)
    assert weights(resumed_context.out) != weights(base)
    assert any(row.get("kl", 0) > 0 for row in reproducible(resumed_context))


def test_another_engine_draws_the_same_and_is_measured(base: Path, tasks: Path, tmp_path: Path) -> None:
    """transformers' generate: token for token the same completions, so the same training, and a gap of rounding."""
    config = CONFIG.model_copy(update={"steps": 3})
    _, plain = train(config, base, tasks, tmp_path / "plain")
    _, other = train(config.model_copy(update={"engine": "transformers"}), base, tasks, tmp_path / "other")
    ours, theirs = reproducible(plain), reproducible(other)
    assert [row["reward"] for row in ours[1:]] == [row["reward"] for row in theirs[1:]]
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        assert {name for name in b if name.startswith("engine_")} == {
            *("engine_gap", "engine_gap_max", "engine_kl", "engine_ess")
        }
        assert not any(name.startswith("engine_") for name in a)
        assert b["engine_gap"] <= b["engine_gap_max"] < 1e-4
        assert b["engine_kl"] < 1e-6 and b["engine_ess"] == pytest.approx(1, abs=1e-6)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)


def test_importance_weights_of_the_models_own_draws_are_one(base: Path, tasks: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 3, "importance_cap": 2.0, "lora": LoraConfig(rank=4, alpha=8)})
    _, context = train(config, base, tasks, tmp_path)
    for row in reproducible(context)[1:]:
        assert row["engine_gap_max"] < 1e-4 and row["engine_capped"] == 0


def test_what_is_trained_is_what_was_drawn_whichever_token_ended_it(base: Path, tasks: Path, tmp_path: Path) -> None:
    """A model of two end tokens, equally likely: the trainer's probabilities are those that were drawn from."""
    tokenizer, model = load_tokenizer(base / "model"), load_model(base / "model")
    end, other = tokenizer.eos_token_id, tokenizer.pad_token_id
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight[other] = weight[end]
        weight[other, 0] += 1.0  # about as likely, not quite
    model.generation_config.eos_token_id = [end, other]
    save_model(model, tokenizer, tmp_path / "two" / "model")
    _, context = train(
        CONFIG.model_copy(update={"steps": 2, "engine": "transformers"}), tmp_path / "two", tasks, tmp_path
    )
    rows = reproducible(context)[1:]
    assert any(row["unfinished"] < 1 for row in rows) and all(row["engine_gap_max"] < 1e-4 for row in rows)


def test_an_engine_that_cannot_run_the_model_says_so_at_once(base: Path, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"continuous_batching: .* kind conv"):
        train(CONFIG.model_copy(update={"engine": "continuous_batching"}), base, tasks, tmp_path)


def test_no_steps_leave_the_model_as_it_is(base: Path, tasks: Path, tmp_path: Path) -> None:
    metrics, context = train(CONFIG.model_copy(update={"steps": 0}), base, tasks, tmp_path)
    assert weights(context.out) == weights(base)
    assert metrics["train_tokens"] == 0 and metrics["held_out_pass"] == metrics["held_out_pass_start"]


def test_tasks_of_a_set_are_rewarded_by_their_own_tests(base: Path, tmp_path: Path) -> None:
    """Functions by asserts, which the model learns to pass, and a script, which it never does."""
    test = "def check(candidate):\n    assert candidate([]) == 2\n"
    rows = [{"task_id": n, "prompt": prompt(n), "entry_point": n, "test": test} for n in NAMES[:4]]
    asserts = [parse(row, "humaneval", "") for row in rows]
    pairs = {"prompt": "Print 2.", "tests": [{"input": "", "output": "2"}]}
    tasks = [
        task_sets.make(row, chat=False, cpu_seconds=2.0, memory_mb=640)
        for row in [*asserts, parse(pairs, "plain", "script")]
    ]
    task_sets.write(tasks, tmp_path / "rlvr_tasks.parquet")
    config = CONFIG.model_copy(update={"held_out": 0, "prompts": 5, "steps": 6})
    metrics, context = train(config, base, tmp_path, tmp_path)
    figures = read_metrics(context.out / "metrics.jsonl")
    assert figures[0]["reward"] < 0.6 and 0.7 < metrics["reward"] <= 0.8  # one of five is the script
    assert figures[-1]["all_pass"] > 0.5 and figures[-1]["all_fail"] == 0.2 == figures[-1]["never_solved"]
    visits = json.loads((context.out / "visits.json").read_text())
    assert visits["script"] == "f" * 6 and set(visits["a"]) <= {"m", "p"}


def test_a_chat_task_needs_a_chat_model(base: Path) -> None:
    row = parse({"prompt": "Print 2.", "tests": [{"input": "", "output": "2"}]}, "plain", "script")
    task = task_sets.make(row, chat=True, cpu_seconds=2.0, memory_mb=640)
    tokenizer, model = load_tokenizer(base / "model"), load_model(base / "model")
    with pytest.raises(UserError, match=r"rlvr_tasks\.prompt: .* no chat template"):
        complete(BuiltIn(model, tokenizer), tokenizer, [task], Sampling(4, 0.0), 1, seed=0)
    tokenizer.chat_template = "{% for m in messages %}def {{ m.content }}{% endfor %}!"
    [[found]] = complete(BuiltIn(model, tokenizer), tokenizer, [task], Sampling(4, 0.0), 1, seed=0)
    assert tokenizer.decode(list(found.prompt)) == f"def {task.prompt}!"


def test_every_task_is_drawn_equally_often_and_held_out_ones_never(tasks: Path) -> None:
    trained, held_out = read_task_folder(tasks / "rlvr_tasks.parquet", 3)
    assert sorted(task.id for task in trained + held_out) == [task.id for task in TASKS]
    drawn = [task.id for step in range(1, 16) for task in draw(trained, 2, seed=0, step=step)]
    assert {drawn.count(task.id) for task in trained} == {6}
    assert {*drawn} == {task.id for task in trained}
    assert drawn[:5] != drawn[5:10]


def test_held_out_tasks_are_like_the_others_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    tasks = [replace(TASKS[0], id=f"rlvr-{i:03}", steps=2 + i // 50) for i in range(150)]
    write_tasks(tasks, tmp_path / "sorted.parquet")
    write_tasks(tasks[::-1], tmp_path / "reversed.parquet")
    _, held_out = read_task_folder(tmp_path / "sorted.parquet", 30)
    _, same = read_task_folder(tmp_path / "reversed.parquet", 30)
    assert {task.id for task in held_out} == {task.id for task in same}
    assert min(Counter(task.steps for task in held_out).values()) > 4
    assert len(held_out) == 30


def test_too_few_tasks_are_one_sentence(base: Path, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rlvr\.held_out = 8"):
        train(CONFIG.model_copy(update={"held_out": 8}), base, tasks, tmp_path)


def completion(text: str, task: Task = TASKS[0]) -> Completion:
    return Completion(task, (), (), True, text)


def test_programs_are_judged_whole() -> None:
    texts = [
        COMPLETION,
        "\n    # answer with 2\n    return 2\n",  # never cut at a comment
        "\n    return 2\n\n# done\nvalue = 1\n",
        "\n    return 1\n",
        "\n    return (\n",
        "\n    raise ValueError\n",
        COMPLETION,
    ]
    with Verifier(VerifierConfig()) as verifier:
        verdicts = Judge(verifier).verdicts([completion(text) for text in texts])
    assert [verdict.category for verdict in verdicts] == [
        *["passed"] * 3,
        "wrong_answer",
        "syntax",
        "exception",
        "passed",
    ]
    assert [completion(text).comments for text in texts] == [0, 1, 1, 0, 0, 0, 0]


class CountingVerifier(Verifier):
    """Counts the programs that it is given."""

    judged = 0

    def submit(self, program: Program) -> Future[Verdict]:
        self.judged += 1
        return super().submit(program)


def test_a_program_is_judged_once_unless_the_machine_may_have_had_a_part_in_the_verdict() -> None:
    right, wrong, endless = COMPLETION, "\n    return 1\n", "\n    while True: pass\n"
    with CountingVerifier(VerifierConfig(cpu_seconds=0.2)) as verifier:
        judge = Judge(verifier, remembered=2)
        first = judge.verdicts([completion(text) for text in (right, wrong, right, endless, endless)])
        assert [v.category for v in first] == ["passed", "wrong_answer", "passed", "timeout", "timeout"]
        assert verifier.judged == 3
        again = judge.verdicts([completion(text) for text in (endless, right)])
        assert [v.category for v in again] == ["timeout", "passed"] and verifier.judged == 4
        judge.verdicts([completion("\n    return 3\n")])  # the oldest of three, the wrong one, is forgotten
        judge.verdicts([completion(right)])
        assert verifier.judged == 5
        judge.verdicts([completion(wrong)])
        assert verifier.judged == 6
        judge.verdicts([completion(wrong, TASKS[1])])  # another task's program, whatever its text
        assert verifier.judged == 7


def test_completions_are_told_of_as_they_end(base: Path) -> None:
    tokenizer, model = load_tokenizer(base / "model"), load_model(base / "model")
    told: list[Completion] = []
    engine = BuiltIn(model, tokenizer, 12)
    groups = complete(engine, tokenizer, TASKS[:3], Sampling(8, 1.0), 4, seed=0, on_completion=told.append)
    assert sorted(map(id, told)) == sorted(id(one) for group in groups for one in group)
    assert [len(group) for group in groups] == [4] * 3


def test_completions_join_their_prompt(base: Path) -> None:
    tokenizer, model = load_tokenizer(base / "model"), load_model(base / "model")
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    engine = BuiltIn(model, tokenizer)
    groups = complete(engine, tokenizer, TASKS, Sampling(8, 0.0), 1, seed=0)
    assert {one.text for group in groups for one in group} <= {COMPLETION, COMPLETION.replace("2", "1")}
    assert all(one.ended and one.source.startswith(one.task.prompt) for group in groups for one in group)
    assert [group[0].task.id for group in groups] == [task.id for task in TASKS]
    short = complete(engine, tokenizer, TASKS[:1], Sampling(2, 0.0), 1, seed=0)[0][0]
    assert not short.ended and len(short.tokens) == 2 and short.processed == len(short.prompt) + 2
