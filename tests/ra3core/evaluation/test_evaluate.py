"""With a model that is trained to repeat known programs, so that what is right and wrong is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from completion_server import CompletionServer
from transformers import Lfm2ForCausalLM, PreTrainedTokenizerFast

from ra3core.config import BenchmarkConfig, BenchmarkShard, VerifierConfig
from ra3core.corpora.demonstrations import Demonstration, Task, Test, annotate, write_tasks
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation import evaluate as module
from ra3core.evaluation.benchmarks import embedded
from ra3core.evaluation.evaluate import Model, evaluate, evaluate_benchmark, evaluate_shard, limited
from ra3core.evaluation.grading import grading_code
from ra3core.evaluation.results import Sample, flat, summarise
from ra3core.evaluation.samples import Sampler
from ra3core.fingerprint import PACKAGE, _scan
from ra3core.lm import served
from ra3core.lm.engines import BuiltIn
from ra3core.lm.generation import Draw, Sampling
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_model, load_tokenizer, save_model
from ra3core.stage import Context, Servers, StageLog

LIMITS = VerifierConfig(cpu_seconds=1, wall_seconds=10)
CONFIG = BenchmarkConfig(samples=2, k=[1, 2], temperature=0.8, max_new_tokens=60, batch_size=4, verifier=LIMITS)


def task(demonstration: Demonstration, steps: int) -> Task:
    scope: dict[str, Any] = {}
    exec(demonstration.text, scope)
    inputs = ([3, -2, 0, 5], [-1, -7], [])
    tests = tuple(Test((values,), scope["f"](list(values))) for values in inputs)
    return Task(demonstration.id, demonstration.prompt, "f", tests, steps)


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory,
    demonstrations: list[Demonstration],
    tokenizer: PreTrainedTokenizerFast,
    make_model: Callable[..., Lfm2ForCausalLM],
) -> dict[str, Path]:
    """A model that knows the first demonstrations by heart, with and without their comments; 4 + 2 tasks."""
    root = tmp_path_factory.mktemp("evaluation")
    chosen = [demonstrations[i] for i in (0, 5, 10, 15)]
    lines = LineTokenizer(tokenizer)
    texts = []
    for d in chosen:
        for body in (d.lines, annotate(d, d.reference).body):
            texts.append([token for piece in lines.program(d.prompt, body) for token in piece])
    model = make_model(hidden_size=64, initializer_range=0.05).train()
    width = max(map(len, texts))
    ids = torch.full((len(texts), width), tokenizer.pad_token_id)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_model(model.eval(), tokenizer, root / "model" / "model")
    (root / "tasks").mkdir()
    known = [task(d, 2 + i % 2) for i, d in enumerate(chosen)]
    wrong = Task("wrong", chosen[0].prompt, "f", (Test(([1],), "never"),), 2)
    write_tasks([*known, wrong], root / "tasks" / "evaluation_tasks.parquet")
    return {"model": root / "model", "tasks": root / "tasks"}


def context(folders: dict[str, Path], root: Path, seed: int = 0) -> Context:
    return Context(folders, root / "out", root / "scratch", seed=seed)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_model_that_knows_the_answers_scores_and_the_modes_differ(folders: dict[str, Path], tmp_path: Path) -> None:
    metrics = evaluate(CONFIG, context(folders, tmp_path))
    samples = rows(tmp_path / "out" / "samples.jsonl")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(samples) == 3 * 5 * 2
    for row in samples:
        commented = any(line.lstrip().startswith("#") for line in row["completion"].split("\n"))
        assert not (row["mode"] == "banned" and commented)
        if row["mode"] == "forced":
            assert row["completion"].startswith("\n    #")
        assert row["passed"] == (row["category"] == "passed")
        assert not (row["task_id"] == "wrong" and row["passed"])
    for mode in CONFIG.modes:
        n_passed = {t: c for t, (_, c) in results["per_task"][mode].items()}
        assert n_passed == {
            t: sum(r["passed"] for r in samples if r["mode"] == mode and r["task_id"] == t) for t in n_passed
        }
        assert results[mode]["all"]["n_tasks"] == 5
        assert results[mode]["steps=2"]["n_tasks"] == 3
        score = results[mode]["all"]["pass@1"]
        assert score["low"] <= score["value"] <= score["high"]
        assert score["value"] <= 0.8  # one task of five has no answer
        assert metrics[f"{mode}/pass_at_1"] == score["value"]
    assert results["free"]["all"]["pass@1"]["value"] > 0.3
    assert results["forced"]["comments"]["share"] == 1.0
    assert results["banned"]["comments"]["lines"] == 0.0
    assert metrics["tokens"] == sum(row["tokens"] for row in samples)
    assert "free/pass_at_2_steps_3" in metrics


def test_a_killed_evaluation_goes_on_and_ends_the_same(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"batch_size": 1})  # several chunks a mode
    evaluate(config, context(folders, tmp_path / "whole"))
    draw, drawn = Sampler.draw, []

    def killed(self: Sampler, *arguments: Any) -> list[Sample]:
        drawn.append(arguments)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return draw(self, *arguments)

    monkeypatch.setattr(Sampler, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, context(folders, tmp_path / "killed"))
    assert not (tmp_path / "killed" / "out" / "results.json").exists()
    kept = len(list((tmp_path / "killed" / "scratch").glob("*[0-9].jsonl")))
    assert kept == 3
    assert len(list((tmp_path / "killed" / "scratch").glob("*.graded.jsonl"))) == 2
    evaluate(config, context(folders, tmp_path / "killed"))
    assert len(drawn) == 4 + 9 - kept
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "killed" / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()


def test_the_seed_decides_the_samples(folders: dict[str, Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"modes": ["free"], "temperature": 1.5})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        evaluate(config, context(folders, tmp_path / name, seed))
    a, b, c = ((tmp_path / name / "out" / "samples.jsonl").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_forcing_spends_the_same_budget(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    budgets = []

    def record(self: BuiltIn, prompts: Any, sampling: Sampling, **options: Any) -> list[list[Draw]]:
        budgets.append((len(prompts[0]), sampling.max_new_tokens, sampling.ban_comments))
        return [[Draw([], True) for _ in range(options["samples"])] for _ in prompts]

    monkeypatch.setattr(BuiltIn, "generate", record)
    evaluate(CONFIG, context(folders, tmp_path))
    (free, f_new, f_ban), (banned, b_new, b_ban), (forced, x_new, x_ban) = budgets
    assert forced > free == banned
    assert forced + x_new == free + f_new == banned + b_new
    assert (f_ban, b_ban, x_ban) == (False, True, False)


CHUNKS = CONFIG.model_copy(update={"batch_size": 1})  # 3 chunks a mode, 9 in all


def shard(folders: dict[str, Path], root: Path, number: int, shards: int) -> dict[str, Any]:
    config = BenchmarkShard(**CHUNKS.model_dump(), shard=number, shards=shards)
    return evaluate_shard(config, context(folders, root / str(number)))


def merge(folders: dict[str, Path], root: Path, shards: int) -> dict[str, Path]:
    """The inputs of the merge of shards below `root`."""
    return folders | {f"shard_{number}": root / str(number) / "out" for number in range(1, shards + 1)}


def no_model_and_no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on an evaluation that needs one fails."""
    for name in ("load_model", "Grader"):
        monkeypatch.delattr(module, name)


def test_the_number_of_shards_decides_nothing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(CHUNKS, context(folders, tmp_path / "whole"))
    counts = (1, 2, 3, 11)  # the last two of 11 are empty
    costs = {n: [shard(folders, tmp_path / str(n), number, n) for number in range(1, n + 1)] for n in counts}
    no_model_and_no_judge(monkeypatch)
    for n in counts:
        merged = evaluate(CHUNKS, context(merge(folders, tmp_path / str(n), n), tmp_path / f"merged {n}"))
        assert merged == whole
        for cost in ("tokens", "samples"):
            assert sum(metrics[cost] for metrics in costs[n]) == whole[cost]
        for name in ("samples.jsonl", "results.json"):
            ours, theirs = (tmp_path / folder / "out" / name for folder in (f"merged {n}", "whole"))
            assert ours.read_bytes() == theirs.read_bytes()


def test_an_empty_shard_loads_no_model(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_model_and_no_judge(monkeypatch)
    assert shard(folders, tmp_path, 10, 10) == {"tokens": 0, "train_tokens": 0, "samples": 0}
    assert list((tmp_path / "10" / "out").iterdir()) == []
    with pytest.raises(NameError):
        shard(folders, tmp_path, 9, 10)


def test_a_killed_shard_goes_on_and_has_the_same_content(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content(root: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (root / "2" / "out").iterdir()}

    shard(folders, tmp_path / "whole", 2, 2)
    draw, drawn = Sampler.draw, []

    def killed(self: Sampler, *arguments: Any) -> list[Sample]:
        drawn.append(arguments)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw(self, *arguments)

    monkeypatch.setattr(Sampler, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        shard(folders, tmp_path / "killed", 2, 2)
    assert content(tmp_path / "killed") == {}
    shard(folders, tmp_path / "killed", 2, 2)
    assert len(drawn) == 3 + 4 - 2
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert len(content(tmp_path / "whole")) == 4


def test_shards_that_do_not_hold_every_chunk_once(folders: dict[str, Path], tmp_path: Path) -> None:
    for number in (1, 2):
        shard(folders, tmp_path / "two", number, 2)

    def refused(inputs: dict[str, Path], config: BenchmarkConfig = CHUNKS) -> str:
        with pytest.raises(UserError) as raised:
            evaluate(config, context(inputs, tmp_path / "merged"))
        return str(raised.value)

    inputs = merge(folders, tmp_path / "two", 2)
    missing = {name: path for name, path in inputs.items() if name != "shard_2"}
    assert refused(missing) == ("evaluation: the shards lack chunk free-00001, expected every chunk once")
    assert refused(inputs | {"shard_3": inputs["shard_2"]}) == (
        "evaluation: the shards hold chunk free-00001 more than once, expected every chunk once"
    )
    assert refused(inputs, CHUNKS.model_copy(update={"modes": ["free"]})) == (
        "evaluation: the shards hold chunk banned-00001, which is none of this stage's"
    )
    chunk = inputs["shard_1"] / "free-00000.graded.jsonl"
    chunk.write_text("".join(chunk.read_text().splitlines(keepends=True)[:-1]))
    assert refused(inputs).startswith(f"{chunk}: other tasks than expected")


OnHumaneval = Callable[..., tuple[dict[str, Any], list[str]]]
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def f(xs):\n    """ Any prompt """\n',
    "entry_point": "f",
    "test": "def check(candidate):\n    assert candidate([1]) == [1]\n",
}


@pytest.fixture
def humaneval(tmp_path: Path) -> Path:
    path = tmp_path / "he.jsonl"
    path.write_text(json.dumps(HUMANEVAL) + "\n")
    return path


@pytest.fixture
def on_humaneval(folders: dict[str, Path], humaneval: Path, tmp_path: Path) -> OnHumaneval:
    """evaluate_benchmark on the one task, below tmp_path / "out": its results, and what it said."""

    def run(config: BenchmarkConfig = CONFIG, model: Path | None = None) -> tuple[dict[str, Any], list[str]]:
        said: list[str] = []
        log = StageLog(sink=lambda event: said.append(event["text"]) if event["event"] == "message" else None)
        out = tmp_path / "out"
        config = config.model_copy(update={"benchmark": "humaneval"})
        benchmark = benchmarks.load("humaneval", humaneval)
        loaded = Model(model or folders["model"] / "model")
        return evaluate_benchmark(loaded, benchmark, config, out, Context({}, out, out, log=log), data=humaneval), said

    return run


def test_any_model_on_a_benchmark_file(on_humaneval: OnHumaneval, tmp_path: Path) -> None:
    results, said = on_humaneval()
    samples = rows(tmp_path / "out" / "samples.jsonl")
    assert said == []
    assert {(row["task_id"], row["mode"]) for row in samples} == {("HumanEval/0", mode) for mode in CONFIG.modes}
    assert all(row["completion"].startswith("    #") for row in samples if row["mode"] == "forced")
    assert results["free"]["all"]["n_tasks"] == 1
    assert results["benchmark"] == "humaneval" and "zero-shot" in results["variant"]
    assert results["sampling"]["temperature"] == CONFIG.temperature
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results


def test_samples_are_kept_and_graded_again_where_the_judge_changes(
    on_humaneval: OnHumaneval,
    humaneval: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_humaneval()
    first = (tmp_path / "out" / "samples.jsonl").read_bytes()
    loads = []
    monkeypatch.setattr(module, "load_model", lambda *arguments: loads.append(arguments))

    assert on_humaneval()[1] == ["6 samples kept"]
    stricter = CONFIG.model_copy(update={"verifier": LIMITS.model_copy(update={"memory_mb": 300})})
    assert on_humaneval(stricter)[1] == ["6 samples kept, graded again"]
    monkeypatch.setattr(module, "grading_code", lambda benchmark: "another")
    assert on_humaneval(stricter)[1] == ["6 samples kept, graded again"]
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == first

    humaneval.write_text(json.dumps({**HUMANEVAL, "test": HUMANEVAL["test"].replace("== [1]", "is None")}) + "\n")
    assert on_humaneval(stricter)[1] == ["6 samples kept, graded again"]
    for one, other in zip(rows(tmp_path / "out" / "samples.jsonl"), map(json.loads, first.splitlines()), strict=True):
        assert one["completion"] == other["completion"]
    assert loads == []


def test_other_sampling_is_drawn_anew_and_does_not_overwrite(on_humaneval: OnHumaneval, tmp_path: Path) -> None:
    on_humaneval()
    first = (tmp_path / "out" / "samples.jsonl").read_bytes()
    assert on_humaneval(CONFIG.model_copy(update={"temperature": 1.5}))[1] == []
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() != first
    assert on_humaneval()[1] == ["6 samples kept"]
    assert (tmp_path / "out" / "samples.jsonl").read_bytes() == first


def test_the_stage_on_a_benchmark_reads_its_file_from_the_input(
    folders: dict[str, Path], humaneval: Path, tmp_path: Path
) -> None:
    home = tmp_path / "external"
    home.mkdir()
    (home / "data.jsonl").symlink_to(humaneval)
    config = CONFIG.model_copy(update={"benchmark": "humaneval", "modes": ["free"]})
    metrics = evaluate(config, context({**folders, "tasks": home}, tmp_path))
    assert {"humaneval/pass_at_1", "humaneval/pass_at_2"} <= metrics.keys()
    assert metrics["samples"] == 2
    assert json.loads((tmp_path / "out" / "results.json").read_text())["benchmark"] == "humaneval"


def test_the_files_hold_nothing_that_varies_between_runs(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What programs say of themselves holds addresses, which no two processes share."""
    said = '\n    def g(): pass\n    raise KeyError(f"{g} {object()}")'
    draw = Sampler.draw

    def drawn(self: Sampler, *arguments: Any) -> list[Sample]:
        return [replace(sample, completion=said) for sample in draw(self, *arguments)]

    monkeypatch.setattr(Sampler, "draw", drawn)
    for name in ("a", "b"):
        evaluate(CONFIG, context(folders, tmp_path / name))
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "a" / "out" / name).read_bytes() == (tmp_path / "b" / "out" / name).read_bytes()
    row = rows(tmp_path / "a" / "out" / "samples.jsonl")[0]
    assert row["category"] == "exception" and "object at 0x..." in row["detail"]
    assert not {name for name in row if "seconds" in name}


def test_a_model_folder_without_a_tokenizer_is_named(
    folders: dict[str, Path], on_humaneval: OnHumaneval, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((folders["model"] / "model" / name).read_bytes())
    with pytest.raises(UserError, match="no tokenizer"):
        on_humaneval(model=bare)


def test_the_code_of_every_benchmark_is_part_of_what_decides_its_grades(
    folders: dict[str, Path], humaneval: Path
) -> None:
    suite = benchmarks.load("embedded", folders["tasks"])
    assert grading_code(suite) != grading_code(benchmarks.load("humaneval", humaneval))
    stage = Path(module.__file__)
    seen, waiting = set(), [stage]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting.extend(_scan(file, PACKAGE)[1])
    assert Path(embedded.__file__) in seen


def test_limit_counts_by_number_of_steps(folders: dict[str, Path]) -> None:
    problems = benchmarks.load("embedded", folders["tasks"]).problems
    assert [p.steps for p in limited(problems, 1)] == [2, 3]
    assert len(limited(problems, None)) == 5


def test_summary_of_known_counts() -> None:
    def sample(task: str, steps: int, passed: bool, text: str = "") -> Sample:
        return Sample(task, steps, "free", 0, text, 1, passed, "passed" if passed else "timeout")

    samples = [
        sample("a", 2, True),
        sample("a", 2, False, "\n    # x\n  # y"),
        sample("b", 3, False),
        sample("b", 3, False),
    ]
    results = summarise(samples, [1, 2])
    assert results["free"]["all"]["pass@1"]["value"] == 0.25
    assert results["free"]["all"]["pass@2"]["value"] == 0.5
    assert results["free"]["steps=2"]["pass@2"]["value"] == 1.0
    assert results["free"]["comments"] == {"lines": 0.5, "share": 0.25}
    assert results["free"]["categories"] == {"passed": 1, "timeout": 3}
    assert results["per_task"] == {"free": {"a": [2, 1], "b": [2, 0]}}


def test_summary_of_a_benchmark_with_further_tests() -> None:
    def sample(task: str, passed: bool, base: bool) -> Sample:
        return Sample(task, 0, "free", 0, "", 1, passed, "passed" if passed else "wrong_answer", base=base)

    results = summarise([sample("a", True, True), sample("b", False, True)], [1], head={"benchmark": "x-plus"})
    assert next(iter(results)) == "benchmark"
    assert results["free"]["all"]["pass@1"]["value"] == 0.5
    assert results["free"]["base"]["pass@1"]["value"] == 1.0
    assert results["per_task_base"] == {"free": {"a": [1, 1], "b": [1, 1]}}
    figures = flat(results, "x-plus")
    assert (figures["x-plus/pass_at_1"], figures["x-plus/pass_at_1_base"]) == (0.5, 1.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "PAUSE", 0.01)


def asking(folders: dict[str, Path], root: Path, *running: CompletionServer) -> Context:
    where = Servers(tuple(one.url for one in running), concurrency=4, timeout=20, retries=1)
    return replace(context(folders, root), servers=where)


def serving(folders: dict[str, Path], **how: Any) -> CompletionServer:
    folder = folders["model"] / "model"
    return CompletionServer(load_model(folder), load_tokenizer(folder), str(folder), **how)


GREEDY = CONFIG.model_copy(update={"temperature": 0.0, "samples": 1, "k": [1], "batch_size": 2})


@pytest.mark.parametrize("tells", ["token_ids", "text"])
def test_a_served_model_is_evaluated_without_loading_it(
    tells: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = evaluate(GREEDY, context(folders, tmp_path / "plain"))
    with serving(folders, tells=tells) as server:
        monkeypatch.delattr(module, "load_model")
        found = evaluate(GREEDY.model_copy(update={"engine": "http"}), asking(folders, tmp_path / "served", server))
    texts = [
        [row["completion"] for row in rows(tmp_path / name / "out" / "samples.jsonl")] for name in ("plain", "served")
    ]
    assert texts[0] == texts[1]
    assert found.pop("servers") == [f"{server.url}: {folders['model'] / 'model'}"]
    if tells == "token_ids":
        assert found == plain
    results = json.loads((tmp_path / "served" / "out" / "results.json").read_text())
    assert results["sampling"]["engine"] == "http"
    assert "engine" not in json.loads((tmp_path / "plain" / "out" / "results.json").read_text())["sampling"]


def test_an_evaluation_whose_server_dies_goes_on_with_another(
    folders: dict[str, Path], impatient: None, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"engine": "http", "batch_size": 1})
    with serving(folders) as server:
        evaluate(config, asking(folders, tmp_path / "whole", server))
    needed = len(server.requests)
    with (
        serving(folders, fail=lambda n: "die" if n > needed / 2 else None) as server,
        pytest.raises(UserError, match=r"no answer from the server after 2 attempts"),
    ):
        evaluate(config, asking(folders, tmp_path / "killed", server))
    with pytest.raises(UserError, match=r"no answer from the server \("):
        evaluate(config, asking(folders, tmp_path / "killed", server))
    with serving(folders) as another:
        found = evaluate(config, asking(folders, tmp_path / "killed", another))
    assert 0 < len(another.requests) < needed
    assert len(found["servers"]) == 2
    for name in ("samples.jsonl", "results.json"):
        assert (tmp_path / "killed" / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()


def test_a_served_model_of_another_folder_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with (
        CompletionServer(torch.nn.Linear(1, 1), None, "gpt") as server,
        pytest.raises(UserError, match=r"engine http: no server of RA3_SERVERS serves .*model, found gpt; expected"),
    ):
        evaluate(CONFIG.model_copy(update={"engine": "http"}), asking(folders, tmp_path, server))
