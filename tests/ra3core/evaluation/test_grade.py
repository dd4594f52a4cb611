"""Sample files: what is wrong with one is said before anything runs; what was graded stays graded."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks, grade
from ra3core.evaluation.benchmarks import Benchmark, Problem
from ra3core.evaluation.grade import Graded, choose_ks, grade_samples
from ra3core.evaluation.grading import Grader, data_digest
from ra3core.evaluation.sample_file import check, read
from ra3core.stage import StageLog
from ra3core.verifier import Program

RIGHT, WRONG, BROKEN = "    return 2 * x\n", "    return x\n", "    return (\n"
TASKS = 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """HumanEval's format: every task wants its argument doubled."""
    path = tmp_path / "tasks.jsonl"
    row = {
        "prompt": 'def double(x):\n    """ Twice x """\n',
        "entry_point": "double",
        "canonical_solution": RIGHT,
        "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n",
    }
    path.write_text("".join(json.dumps({"task_id": f"HumanEval/{i}", **row}) + "\n" for i in range(TASKS)))
    return path


@pytest.fixture
def humaneval(data: Path) -> Benchmark:
    return benchmarks.load("humaneval", data)


def line(i: int | str, completion: str) -> dict[str, Any]:
    return {"task_id": f"HumanEval/{i}", "completion": completion}


def write(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


class Numbered(Benchmark):
    """Tasks with numbers for ids, as MBPP's; `others` are not asked. The first test is the original one."""

    def program(self, problem: Problem, completion: str) -> Program:
        return Program(problem.prompt + completion, problem.entry_point, problem.tests)

    def solution(self, problem: Problem, text: str) -> Program:
        return Program(text, problem.entry_point, problem.tests)


def numbered(name: str = "mbpp", prefix: str = "", **row: Any) -> Numbered:
    tests = (Test((2,), 4), Test((3,), 6))
    problems = [Problem(f"{prefix}{i}", "def double(x):\n", "double", tests, row=row) for i in (11, 12, 600)]
    return Numbered(name, "a double", problems[:2], problems[2:])


@pytest.fixture
def graded(humaneval: Benchmark, tmp_path: Path) -> Callable[..., tuple[Graded, list[dict[str, Any]], list[str]]]:
    """Grade rows: the figures, the lines of the results, what was said."""

    def run(
        rows: Sequence[dict[str, Any] | str],
        benchmark: Benchmark = humaneval,
        limits: VerifierConfig | None = None,
        skip_bad: bool = False,
        **options: Any,
    ) -> tuple[Graded, list[dict[str, Any]], list[str]]:
        said: list[str] = []
        log = StageLog(sink=lambda event: said.append(event["text"]) if event["event"] == "message" else None)
        checked = check(write(tmp_path / "samples.jsonl", rows), benchmark, skip_bad)
        ks = choose_ks(benchmark, checked, options.pop("ks", None))
        out = tmp_path / "results.jsonl"
        figures = grade_samples(
            benchmark, checked, out, limits or VerifierConfig(), tmp_path / "cache", ks=ks, log=log, **options
        )
        return figures, results(out), said

    return run


def test_one_result_a_sample_in_the_order_of_the_file(graded: Callable[..., Any]) -> None:
    texts = [RIGHT, WRONG, BROKEN, "    while x: pass\n    return 0\n", "    raise KeyError(x)\n", RIGHT]
    rows = [line(i, text) for i, text in enumerate(texts)]
    tests = (Test((2,), 4), Test((0,), 0))
    problems = [Problem(f"HumanEval/{i}", "def double(x):\n", "double", tests) for i in range(TASKS)]
    doubles = Numbered("humaneval", "doubles", problems)
    rows = [*rows[::-1], {**rows[0], "model": "ours"}]
    figures, found, _ = graded(rows, doubles, limits=VerifierConfig(cpu_seconds=1))
    assert [row["task_id"] for row in found] == [f"HumanEval/{i}" for i in (5, 4, 3, 2, 1, 0, 0)]
    assert [row["category"] for row in found] == [
        *("passed", "exception", "timeout", "syntax", "wrong_answer", "passed", "passed"),
    ]
    assert [row["passed"] for row in found] == [row["category"] == "passed" for row in found]
    assert [row["line"] for row in found] == list(range(1, 8))
    assert [(row["tests_passed"], row["tests"]) for row in found[4:6]] == [(0, 2), (2, 2)]
    assert all(row["weak"] is False and row["cpu_seconds"] >= 0 and "output" not in row for row in found)
    assert figures.categories == {"passed": 3, "exception": 1, "timeout": 1, "syntax": 1, "wrong_answer": 1}
    assert figures.scores()["all"]["pass@1"]["value"] == pytest.approx(2 / 6)


def test_whole_programs_and_files_in_gzip(humaneval: Benchmark, tmp_path: Path) -> None:
    path = tmp_path / "packed"  # told by its content
    rows = [{"task_id": "HumanEval/0", "solution": f"def double(x):\n{text}"} for text in (RIGHT, WRONG)]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    figures = grade_samples(
        humaneval, check(path, humaneval), tmp_path / "out", VerifierConfig(), tmp_path, ks=[1, 2], output=True
    )
    assert [row["passed"] for row in results(tmp_path / "out")] == [True, False]
    assert figures.scores()["all"]["pass@2"]["value"] == 1.0
    assert all("output" in row for row in results(tmp_path / "out"))


BAD = {
    "broken JSON": ('{"task_id": ', "line 3 is not JSON"),
    "no object": ("[1]", "line 3 is not a JSON object"),
    "no task": ('{"completion": ""}', "line 3 has no task_id"),
    "unknown task": (json.dumps(line(77, "")), r'line 3 names a task that humaneval does not have \("HumanEval/77"\)'),
    "another benchmark's task": ('{"task_id": "Mbpp/1", "completion": ""}', "line 3 names a task"),
    "a task that is a list": ('{"task_id": [1], "completion": ""}', "line 3 has a task_id of another type"),
    "a task that is true": ('{"task_id": true, "completion": ""}', "line 3 has a task_id of another type"),
    "no text": ('{"task_id": "HumanEval/0"}', "line 3 has neither a completion nor a solution"),
    "both": ('{"task_id": "HumanEval/0", "completion": "", "solution": ""}', "line 3 has both"),
    "no string": ('{"task_id": "HumanEval/0", "completion": null}', r"line 3 has a completion that is not text \(null"),
    "deep": ("[" * 100_000, "line 3 is not JSON"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_line_is_told_by_its_number_before_anything_is_graded(
    graded: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(grade, "Grader", None)
    with pytest.raises(UserError, match=message):
        graded([line(0, RIGHT), "", text, line(1, RIGHT)])
    assert not list(tmp_path.glob("results*"))


def test_the_first_bad_lines_and_their_number(graded: Callable[..., Any], humaneval: Benchmark, tmp_path: Path) -> None:
    rows = [line(0, RIGHT), *["{"] * 10, line(1, WRONG)]
    with pytest.raises(UserError) as error:
        graded(rows)
    message = str(error.value)
    assert "\n" not in message
    assert [f"line {i} " in message for i in (1, 2, 3, 4, 5)] == [False, True, True, True, False]
    assert message.endswith("and 7 more bad lines (--skip-bad leaves them out)")
    figures, found, _ = graded(rows, skip_bad=True)
    assert (figures.skipped, [row["line"] for row in found]) == (10, [1, 12])
    for content, problem in ((["{"], "line 1"), ([], "no samples"), ([""], "no samples")):
        with pytest.raises(UserError, match=problem):
            graded(content, skip_bad=True)


def test_files_that_cannot_be_read(humaneval: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        check(tmp_path / "none.jsonl", humaneval)
    with pytest.raises(UserError, match="is a folder"):
        check(tmp_path, humaneval)
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(json.dumps(line(0, RIGHT)).encode())[:-9])
    with pytest.raises(UserError, match=r"torn.jsonl.gz: cannot be read"):
        check(torn, humaneval)
    (tmp_path / "latin").write_bytes(b'{"task_id": "HumanEval/0", "completion": "\xff"}\n')
    with pytest.raises(UserError, match="line 1 is not UTF-8"):
        check(tmp_path / "latin", humaneval)


@pytest.mark.parametrize("prefix", ["", "Mbpp/"])
@pytest.mark.parametrize("id", [11, "11", "Mbpp/11", "mbpp/11"])
def test_a_numbered_task_goes_by_every_usual_name(tmp_path: Path, prefix: str, id: int | str) -> None:
    benchmark = numbered("mbpp-plus" if prefix else "mbpp", prefix)
    path = write(tmp_path / "samples", [{"task_id": id, "completion": RIGHT}])
    (found,) = read(path, benchmark)
    assert (found.task, found.name) == (f"{prefix}11", id)
    for wrong in (13, "HumanEval/11", "x11"):
        with pytest.raises(UserError, match="names a task that mbpp"):
            check(write(path, [{"task_id": wrong, "completion": ""}]), benchmark)


def test_tasks_that_are_not_asked_count_apart(graded: Callable[..., Any]) -> None:
    rows = [{"task_id": 11, "completion": RIGHT}, {"task_id": 600, "completion": WRONG}]
    figures, _, _ = graded(rows, numbered())
    assert figures.asked == 2
    assert figures.scores()["all"]["n_tasks"] == figures.scores()["others"]["n_tasks"] == 1
    assert figures.scores()["all"]["pass@1"]["value"] == 1.0
    assert figures.scores()["others"]["pass@1"]["value"] == 0.0


def test_tasks_that_are_not_asked_may_have_fewer_samples(graded: Callable[..., Any]) -> None:
    rows = [{"task_id": task, "completion": RIGHT} for task in (11, 11, 600)]
    scores = graded(rows, numbered(), ks=[1, 2])[0].scores()
    assert {"pass@1", "pass@2"} < scores["all"].keys()
    assert "pass@1" in scores["others"] and "pass@2" not in scores["others"]


def test_a_plus_benchmark_has_two_figures(graded: Callable[..., Any]) -> None:
    only_base = "    return 4\n"
    rows = [{"task_id": i, "completion": text} for i, text in ((11, RIGHT), (11, only_base), (12, WRONG), (12, BROKEN))]
    figures, found, _ = graded(rows, numbered("mbpp-plus", "Mbpp/", base=1), ks=[1])
    assert [(row["passed"], row["base"]) for row in found] == [(1, 1), (0, 1), (0, 0), (0, 0)]
    scores = figures.scores()
    assert (scores["all"]["pass@1"]["value"], scores["base"]["pass@1"]["value"]) == (0.25, 0.5)


def test_k_needs_as_many_samples_of_every_task(graded: Callable[..., Any]) -> None:
    rows = [line(0, RIGHT)] * 5 + [line(1, WRONG)] * 4
    assert graded(rows)[0].ks == (1,)
    assert graded([*rows, line(1, WRONG)])[0].ks == (1, 5)
    assert graded(rows, ks=[2, 4])[0].scores()["all"]["pass@4"]["value"] == 0.5
    with pytest.raises(UserError, match="pass@5 needs as many samples of every task, found a task with 4"):
        graded(rows, ks=[1, 5])


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that reach the verifier."""
    texts: list[str] = []
    submit = Grader.submit

    def record(self: Grader, task: str, text: str, whole: bool = False) -> Any:
        texts.append(text)
        return submit(self, task, text, whole)

    monkeypatch.setattr(Grader, "submit", record)
    return texts


def test_equal_samples_of_a_task_are_judged_once(graded: Callable[..., Any], submitted: list[str]) -> None:
    rows = [line(0, WRONG), *[line(0, RIGHT)] * 300, line(1, RIGHT), line(0, WRONG)]
    figures, found, _ = graded(rows, workers=1)
    assert sorted(submitted) == sorted([WRONG, RIGHT, RIGHT])
    assert figures.samples == len(found) == 303
    assert len({row["digest"] for row in found}) == 303
    assert len({row["wall_seconds"] for row in found[1:301]}) == 1


def test_what_an_interrupted_call_graded_is_kept(
    graded: Callable[..., Any], submitted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [line(i % TASKS, f"    return 2 * x  # {i}\n") for i in range(40)]
    whole = graded(rows)[1]
    submitted.clear()
    write_row, written = grade._Partial.write, []

    def interrupted(self: Any, *arguments: Any) -> None:
        write_row(self, *arguments)
        written.append(arguments)
        if len(written) == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(grade._Partial, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            graded(rows)
    partial = tmp_path / "results.jsonl.partial"
    assert len(results(partial)) == 25
    kept = partial.read_bytes()
    partial.write_bytes(kept + b'{"task_id": "HumanEval/1", "li')  # torn by a kill
    submitted.clear()
    figures, found, said = graded(rows)
    assert said == ["25 of 40 samples were graded before"]
    assert submitted == [row["completion"] for row in rows[25:]]
    assert (tmp_path / "results.jsonl").read_bytes().startswith(kept)
    assert not partial.exists()
    assert (figures.kept, figures.samples, figures.categories["passed"]) == (25, 40, 40)
    timeless = [[{k: v for k, v in row.items() if "seconds" not in k} for row in some] for some in (whole, found)]
    assert timeless[0] == timeless[1]


def test_other_samples_tests_or_limits_are_not_mixed_in(
    graded: Callable[..., Any], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [line(i, RIGHT) for i in range(TASKS)]
    graded(rows)
    finished = (tmp_path / "results.jsonl").read_bytes()
    partial = tmp_path / "results.jsonl.partial"

    def resumed(some: Sequence[dict[str, Any]], **options: Any) -> list[str]:
        partial.write_bytes(finished)
        figures, found, said = graded(some, **options)
        assert figures.samples == len(found) == len(some)
        return said

    assert resumed(rows, data=None)[0] == "6 of 6 samples were graded before"
    dropped = [f"6 results of other samples or settings in {partial} are dropped"]
    assert resumed(rows, limits=VerifierConfig(cpu_seconds=3)) == dropped
    assert resumed(rows, output=True) == dropped
    data.write_text(data.read_text().replace("candidate(0) == 0", "candidate(0) == 1"))
    assert resumed(rows, benchmark=benchmarks.load("humaneval", data)) == dropped
    assert resumed([*rows[:4], line(4, WRONG), rows[5]]) == [
        "4 of 6 samples were graded before",
        f"2 results of other samples or settings in {partial} are dropped",
    ]
    assert resumed(rows[:3])[0] == "3 of 3 samples were graded before"
    assert resumed(rows[1:])[0].startswith("6 results of other samples")
    monkeypatch.setattr(grade, "grading_code", lambda benchmark: "another")
    assert resumed(rows) == dropped


def test_two_calls_do_not_write_the_same_file(graded: Callable[..., Any], tmp_path: Path) -> None:
    with (tmp_path / "results.jsonl.partial").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another call is writing it"):
            graded([line(0, RIGHT)])


def test_a_digest_of_tasks_that_were_in_no_file() -> None:
    def benchmark(values: Any) -> Numbered:
        problem = Problem("1", "p", "f", (Test((values,), 1),), row={"b": 1, "a": {"x", "y", None}})
        return Numbered("x", "a double", [problem])

    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_grade import *;"
        "p = Problem('1', 'p', 'f', (Test(({'u', 'v', 'w', 'x'},), 1),), row={'a': {'x', 'y', None}, 'b': 1});"
        "print(data_digest(Numbered('x', 'a double', [p]), None))"
    )
    here = str(Path(__file__).parent)
    found = {
        subprocess.run(
            [sys.executable, "-c", code, here],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }
    assert found == {data_digest(benchmark({"w", "v", "u", "x"}), None)}
    assert found != {data_digest(benchmark({"w", "v", "u"}), None)}


def test_killed_in_the_middle_it_goes_on(data: Path, tmp_path: Path) -> None:
    """The command itself, killed with SIGKILL."""
    busy = "    import time\n    end = time.process_time() + 0.05\n    while time.process_time() < end: pass\n"
    rows = [line(i % TASKS, f"{busy}    return 2 * x  # {i}\n") for i in range(60)]
    samples = write(tmp_path / "samples.jsonl", rows)
    command = [str(Path(sys.executable).with_name("ra3")), "grade", "humaneval", str(samples), "--data", str(data)]
    partial = tmp_path / "samples.results.jsonl.partial"
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 10):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    kept = partial.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept.splitlines())} of 60 samples were graded before" in done.stderr
    out = tmp_path / "samples.results.jsonl"
    assert out.read_bytes().startswith(kept)
    assert [row["line"] for row in results(out)] == list(range(1, 61))
    assert "passed 60" in done.stdout
    assert not partial.exists()


def test_grading_imports_no_torch_and_starts_soon(data: Path, tmp_path: Path) -> None:
    samples = write(tmp_path / "samples.jsonl", [line(0, RIGHT)])
    code = (
        "import sys\n"
        f"sys.argv = ['ra3', 'grade', 'humaneval', {str(samples)!r}, '--data', {str(data)!r}]\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert not exit.code\n"
        "slow = {'torch', 'transformers', 'prefect', 'mlflow', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pass@1      1    100.0" in done.stdout
