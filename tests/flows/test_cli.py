"""What the `ra3` command answers, and how fast it can: bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows import cli
from flows.evaluation import data_files
from ra3core.config import RunConfig
from ra3core.verifier import Verifier


def ra3(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `ra3 ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ra3", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return int(exit.value.code or 0)


TASKS = (
    '{"task_id": "HumanEval/0", "prompt": "def one():\\n", "entry_point": "one", '
    '"canonical_solution": "    return 1\\n", "test": "def check(candidate):\\n    assert candidate() == 1\\n"}\n'
)
"""A benchmark of one task, in HumanEval's format."""

BAD = {
    "no such command": (("frobnicate",), "frobnicate"),
    "no such option": (("run", "--sede", "3"), "--sede"),
    "no such preset": (
        ("run", "--preset", "nope"),
        "demo, llama3.1-8b, llama3.2-1b, paper-mini, paper-small, qwen2.5-1.5b, smoke",
    ),
    "unknown key": (("run", "--set", "e_step.thnk_penalty=1"), "think_penalty"),
    "unknown section": (("run", "--set", "estep.window=1"), "e_step"),
    "wrong type": (("run", "--set", "rounds=many"), "rounds"),
    "impossible value": (("run", "--set", "m_step.learning_rate=-1"), "greater than 0"),
    "impossible pair": (("run", "--set", "evaluation.k=[9]"), "samples"),
    "no value": (("run", "--set", "rounds"), "section.key=value"),
    "negative seed": (("run", "--seed", "-1"), "seed"),
    "no seeds": (("run", "--seeds", "0"), "--seeds"),
    "seeds are words": (("run", "--seeds", "two"), "--seeds"),
    "a sweep without a grid": (("sweep", "/no/grid.yaml"), "/no/grid.yaml: cannot be read"),
    "a sweep of what is no grid": (("sweep", "FILE"), "FILE: unknown key task_id; expected one of preset"),
    "no such kind of device": (
        ("run", "--device", "gpu", "--dry-run"),
        "ra3: --device: expected cpu, cuda, or different ones of cuda:0,cuda:1,..., found 'gpu'",
    ),
    "no task runner": (("run", "--task-runner", "foo"), "ra3: --task-runner: input should be 'threads'"),
    "no workers": (("run", "--workers", "0"), "workers"),
    "unknown source": (("run", "--demonstrations", "ftp:somewhere"), "python:FOLDER"),
    "no such folder": (("run", "--demonstrations", "python:/no/such/folder"), "/no/such/folder"),
    "no such file": (("run", "--demonstrations", "parquet:/no/such.parquet"), "/no/such.parquet"),
    "a plan on no known GPU": (("run", "--dry-run", "--gpu", "abacus"), "--gpu abacus: expected one of h200, h100"),
    "a plan for nothing": (("run", "--dry-run", "--price", "0"), "--price 0.0: expected a number above 0"),
    "a plan beyond the peak": (("run", "--dry-run", "--utilisation", "1.5"), "at most 1"),
    "a plan of a model of unknown size": (
        ("run", "--dry-run", "--set", "base.model=no-one/knows"),
        "base.model no-one/knows: its size is not known here",
    ),
    "an option of the plan without one": (("run", "--gpus", "4"), "--gpus: an option of the plan, expected --dry-run"),
    "no such task set": (("run", "--set", "rlvr_tasks.source=file:/no/such.jsonl"), "/no/such.jsonl: no such file"),
    "unknown task source": (("run", "--set", "rlvr_tasks.source=ftp:x"), "expected embedded, file:PATH or hub:NAME"),
    "evaluate without a model": (("evaluate",), "model"),
    "evaluate without samples": (
        ("evaluate", "m", "--benchmark", "humaneval", "--data", "f", "--samples", "0"),
        "samples",
    ),
    "evaluate on no known benchmark": (("evaluate", "m", "--benchmark", "humanevil"), "'humanevil': expected one of"),
    "evaluate on one twice": (("evaluate", "m", "--benchmark", "mbpp,mbpp"), "mbpp is listed twice"),
    "evaluate without the file": (("evaluate", "m", "--benchmark", "mbpp", "--data", "/no/f"), "/no/f: no such file"),
    "evaluate with a file for whom": (
        ("evaluate", "m", "--benchmark", "mbpp,humaneval", "--data", "/no/f"),
        "--data /no/f: expected NAME=FILE",
    ),
    "evaluate with another's file": (
        ("evaluate", "m", "--benchmark", "mbpp", "--data", "humaneval=f"),
        "no benchmark humaneval is asked for",
    ),
    "evaluate with two files": (
        ("evaluate", "m", "--benchmark", "mbpp", "--data", "mbpp=f", "--data", "mbpp=g"),
        "a second file for mbpp",
    ),
    "evaluate without workers": (("evaluate", "m", "--benchmark", "mbpp", "--workers", "0"), "--workers"),
    "evaluate no model": (("evaluate", "/no/model", "--benchmark", "humaneval", "--data", "FILE"), "/no/model"),
    "evaluate no folder of a model": (("evaluate", ".", "--benchmark", "humaneval", "--data", "FILE"), "config.json"),
    "evaluate greedily again and again": (
        ("evaluate", "m", "--benchmark", "humaneval", "--data", "FILE", "--samples", "3"),
        "3 samples of greedy decoding",
    ),
    "evaluate k without samples": (
        ("evaluate", "m", "--benchmark", "humaneval", "--data", "FILE", "--k", "5"),
        "k = 5 needs at least as many samples",
    ),
    "grade nothing": (("grade", "humaneval"), "samples"),
    "grade by no known benchmark": (("grade", "humanevil", "FILE"), "'humanevil': expected one of"),
    "grade by no known variant": (("grade", "humaneval:9", "FILE", "--data", "FILE"), "humaneval:9"),
    "grade without the file": (("grade", "mbpp", "FILE", "--data", "/no/f"), "/no/f: no such file"),
    "grade no samples": (("grade", "humaneval", "/no/s", "--data", "FILE"), "/no/s: no such file"),
    "grade a folder": (("grade", "humaneval", ".", "--data", "FILE"), ".: is a folder, expected samples as JSON lines"),
    "grade what holds no samples": (("grade", "humaneval", "FILE", "--data", "FILE"), "FILE: line 1 has neither"),
    "grade over the samples": (("grade", "humaneval", "FILE", "--data", "FILE", "--out", "FILE"), "themselves"),
    "grade with another k": (("grade", "humaneval", "FILE", "--data", "FILE", "--k", "1,0"), "--k 1,0"),
    "grade without workers": (("grade", "humaneval", "FILE", "--data", "FILE", "--workers", "-1"), "--workers"),
    "grade a missing suite": (("grade", "embedded", "FILE"), "no such folder"),
    "run on no known benchmark": (
        ("run", "--set", "evaluation.benchmarks=embedded,humanevil"),
        "'humanevil', expected",
    ),
    "run without the file": (
        ("run", "--set", "evaluation.benchmarks=[{name: mbpp, data: /no/f}]"),
        "mbpp: /no/f: no such",
    ),
    "run on a benchmark twice": (("run", "--set", "evaluation.benchmarks=mbpp,mbpp"), "mbpp is listed twice"),
    "theory into a file": (("theory", "--out", "FILE"), "--out FILE: a file is in the way"),
    "theory below a file": (("theory", "--out", "FILE/theory"), "a file is in the way"),
    "theory of a negative seed": (("theory", "--seed", "-1"), "--seed: expected at least 0"),
    "config of no preset": (("config", "--preset", "missing.yaml"), "missing.yaml"),
}


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(monkeypatch, capsys, tmp_path, arguments, named) -> None:
    (tmp_path / "FILE").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    if arguments[0] in ("evaluate", "grade"):
        monkeypatch.setenv("RA3_ROOT", str(tmp_path))
    assert ra3(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ra3: ")
    assert named in err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RA3_ROOT", "/no/such/checkout"),
        ("RA3_WORKERS", "0"),
        ("RA3_THREADS", "two"),
        ("RA3_DEVICE", "gpu"),
        ("RA3_STAGE_MINUTES", "0"),  # there is no --stage-minutes
    ],
)
def test_bad_environment_is_one_sentence_too(monkeypatch, capsys, variable, value) -> None:
    monkeypatch.setenv(variable, value)
    assert ra3(monkeypatch, "run") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(f"ra3: {variable}: ")


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "load", broken)
    monkeypatch.setattr(sys, "argv", ["ra3", "config"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_config_prints_what_preset_takes(monkeypatch, capsys, tmp_path: Path) -> None:
    assert ra3(monkeypatch, "config", "--preset", "smoke", "--set", "e_step.think_penalty=.inf") == 0
    path = tmp_path / "again.yaml"
    path.write_text(capsys.readouterr().out)
    assert RunConfig.model_validate(yaml.safe_load(path.read_text())).e_step.think_penalty == float("inf")
    assert ra3(monkeypatch, "config", "--preset", str(path)) == 0
    assert capsys.readouterr().out == path.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["grade", "--help"],
        ["evaluate", "--help"],
        ["theory", "--help"],
        ["run", "--preset", "nope"],
    ],
)
def test_help_and_errors_import_nothing_slow(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['ra3', *{arguments!r}]\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'transformers', 'prefect', 'mlflow', 'datasets', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys) -> None:
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load", interrupted)
    assert ra3(monkeypatch, "config") == 130
    assert capsys.readouterr().err == "ra3: interrupted; the same command continues from here\n"


def test_grade_prints_figures_and_says_what_it_left_out(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text(TASKS)
    texts = ["    return 1", "    return 2", "    return 1"]
    rows = [{"task_id": "HumanEval/0", "completion": text} for text in texts]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    monkeypatch.chdir(tmp_path)
    command = ("grade", "humaneval", "samples.jsonl", "--data", "tasks.jsonl")
    assert ra3(monkeypatch, *command) == 2
    assert "line 4 is not JSON" in capsys.readouterr().err
    assert ra3(monkeypatch, *command, "--skip-bad") == 0
    out = capsys.readouterr().out
    for words in ("zero-shot", "3 samples of 1 of 1 tasks; 1 bad lines skipped", "66.7", "passed 2, wrong answer 1"):
        assert words in out
    assert "left out, for a task has fewer samples: pass@5, pass@10, pass@100" in out
    assert "samples.results.jsonl" in out
    assert [json.loads(line)["passed"] for line in (tmp_path / "samples.results.jsonl").open()] == [True, False, True]
    assert ra3(monkeypatch, *command, "--skip-bad", "--k", "2,3", "--out", "elsewhere/r.jsonl") == 0
    out = capsys.readouterr().out
    assert "pass@3" in out and "pass@1" not in out and "left out" not in out
    assert (tmp_path / "elsewhere" / "r.jsonl").is_file()


def test_grade_shows_tasks_that_are_not_asked_as_far_as_they_have_samples(monkeypatch, capsys, tmp_path: Path) -> None:
    task = {"text": "One.", "code": "def one():\n    return 1\n", "test_list": ["assert one() == 1"]}
    tasks = [{"task_id": number, **task, "test_setup_code": ""} for number in (11, 600)]
    samples = [{"task_id": number, "solution": task["code"]} for number in (*[11] * 5, 600)]
    for name, rows in (("tasks", tasks), ("samples", samples)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    assert ra3(monkeypatch, "grade", "mbpp", "samples.jsonl", "--data", "tasks.jsonl") == 0
    out = capsys.readouterr().out
    assert "pass@5 " in out and "pass@1, tasks that the benchmark does not ask" in out
    assert "left out of tasks that the benchmark does not ask, for one has fewer samples: pass@5\n" in out


def test_grade_says_once_what_protection_is_missing(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text(TASKS)
    (tmp_path / "s.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    return 1"}\n')
    monkeypatch.setattr(Verifier, "missing", property(lambda self: ("a network of its own", "a wall")))
    command = ("grade", "humaneval", str(tmp_path / "s.jsonl"), "--data", str(tmp_path / "tasks.jsonl"))
    assert ra3(monkeypatch, *command) == 0
    err = capsys.readouterr().err
    assert err.count("programs run without a network of its own, a wall: this machine refuses it") == 1
    assert ra3(monkeypatch, *command, "--require-isolation") == 2
    assert "a network of its own" in capsys.readouterr().err.splitlines()[-1]


def test_data_files_go_to_the_benchmark_they_are_named_for(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.jsonl"
    odd.touch()
    assert data_files([str(odd)], ["mbpp"]) == {"mbpp": str(odd)}
    assert data_files([f"mbpp={odd}"], ["mbpp"]) == {"mbpp": str(odd)}
    assert data_files(["humaneval+=f", "mbpp:3-shot=g"], ["humaneval-plus", "mbpp:3-shot"]) == {
        "humaneval-plus": "f",
        "mbpp:3-shot": "g",
    }
