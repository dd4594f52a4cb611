"""Tokens by the settings that decide them, and benchmarks sampled as they themselves say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ra3core.config import (
    BaseConfig,
    BenchmarkConfig,
    BootstrapConfig,
    CorpusConfig,
    DataConfig,
    EStepConfig,
    MStepConfig,
    RLVRConfig,
)
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import contest, evalplus
from ra3core.plan import work
from ra3core.plan.work import Counts
from ra3core.task_set import RLVRTasksConfig

COUNTS = Counts(1000, 100.0, 10.0)
ROWS = {
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def f():\n",
        "entry_point": "f",
        "canonical_solution": "",
        "test": "",
    },
    "mbpp": {"task_id": 11, "text": "One.", "code": "def f():\n    return 1", "test_list": ["assert f() == 1"]},
}


@pytest.mark.parametrize("name", ROWS)
def test_benchmarks_are_sampled_as_they_are_officially(name: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"test_setup_code": "", **ROWS[name]}) + "\n")
    assert decoding(work.BENCHMARKS[name]) == vars(benchmarks.load(name, file).decoding) | {"top_p": 1.0}


def test_the_others_too() -> None:
    for name in ("humaneval-plus", "mbpp-plus"):
        assert decoding(work.BENCHMARKS[name]) == vars(evalplus.DECODING)
    for name in ("livecodebench", "codeforces"):
        assert decoding(work.BENCHMARKS[name]) == vars(contest.DECODING)
    assert {"embedded", *work.BENCHMARKS} == set(benchmarks.NAMES)


def decoding(one: work.Benchmark) -> dict[str, float]:
    return {name: getattr(one, name) for name in ("samples", "temperature", "top_p", "max_new_tokens")}


def test_rlvrs_tasks_are_the_suites_or_those_that_a_set_is_asked_for() -> None:
    suite, own = DataConfig(rlvr_tasks=7), RLVRTasksConfig(source="hub:some/set", tasks=9)
    assert work.tasks(suite, RLVRTasksConfig()) == Counts(7, work.PROMPT_TOKENS)
    assert work.tasks(suite, own) == Counts(9, work.SET_PROMPT_TOKENS)
    assert work.tasks(suite, own, {"tasks": 4, "tokens": 400}) == Counts(4, 100, basis="data")


def test_counts_come_from_the_store_where_it_has_them() -> None:
    metrics = {"demonstrations": 48, "available": 4497, "lines": 457, "tokens": 444_380}
    found = work.demonstrations(CorpusConfig(demonstrations=48), metrics)
    assert (found.documents, found.basis) == (48, "data")
    assert found.tokens == pytest.approx(98.8, abs=0.1) and found.lines == pytest.approx(9.5, abs=0.1)
    paper = work.demonstrations(CorpusConfig(source="hub:a/b", demonstrations=3_500_000))
    assert paper.documents * paper.tokens == pytest.approx(1e9, rel=0.01)  # 1 B tokens

    thought = {"thinks_per_demonstration": 2.0, "rationale_tokens": 5.0}
    assert work.annotated(found, BootstrapConfig(), thought).text == pytest.approx(found.tokens + 2 * 7)
    assert work.annotated(found, BootstrapConfig(think_penalty=math.inf)) == found


def test_an_m_step_trains_on_what_is_not_held_out_once_an_epoch() -> None:
    config = MStepConfig(epochs=3, held_out=0.1, max_tokens=512)
    assert work.m_step(config, COUNTS, (), "cuda").trained == 3 * 900 * 100
    assert work.m_step(config, replace(COUNTS, tokens=600.0), (), "cuda").trained == 3 * 900 * 512  # the cap
    matched = [replace(COUNTS, thinks=1.0, rationale=8.0)]
    budget = config.model_copy(update={"token_budget": 5000})
    assert work.m_step(budget, COUNTS, matched, "cuda").trained == 5000 + 3 * 900 * 110


def test_without_thinking_nothing_is_annotated() -> None:
    assert work.bootstrap(BootstrapConfig(think_penalty=math.inf), COUNTS, 400, "cuda").tokens == 0
    never = work.e_step(EStepConfig(think_penalty=math.inf), COUNTS, 400, "cuda")
    assert (never.trained, never.written) == (0, 0)


def test_more_of_a_setting_is_more_work() -> None:
    def e_step(**changes: int) -> float:
        return work.e_step(EStepConfig(**changes), COUNTS, 400, "cuda").tokens

    def bootstrap(**changes: object) -> float:
        return work.bootstrap(BootstrapConfig.model_validate(changes), COUNTS, 400, "cuda").tokens

    assert e_step(iterations=200) / e_step(iterations=100) == pytest.approx(2, rel=0.1)
    assert e_step(states=8) > e_step(group_size=12) > e_step() > e_step(window=1)
    assert bootstrap(decision="gain") > bootstrap(samples=6) > bootstrap()


def test_rlvr_and_evaluation_are_bounded_by_their_caps() -> None:
    config = RLVRConfig(steps=10, prompts=4, group_size=8, max_new_tokens=100, held_out=0, eval_every=5, batch_size=16)
    found = work.rlvr(config, Counts(100, 50.0), 400, "cuda")
    assert found.trained == 10 * 4 * (50 + 8 * 100)
    assert found.written == 10 * 4 * 8 * 100
    assert found.steps == 10 * 2 * 100  # two batches of 16 a step
    evaluated = work.evaluate(BenchmarkConfig(samples=2, k=[1], max_new_tokens=30, modes=["free", "banned"]), 60)
    assert evaluated.written == 4 * 60 * 2 * 2 * 30
    limited = BenchmarkConfig(benchmark="humaneval", samples=1, k=[1], max_new_tokens=30, modes=["free"], limit=10)
    assert work.evaluate(limited, None).written == 10 * 30


def test_the_embedded_base_trains_on_its_web_tokens() -> None:
    assert work.pretrain(BaseConfig(outline_steps=0, web_tokens=7000)).trained == 7000
