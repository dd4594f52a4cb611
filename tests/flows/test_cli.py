"""What the `ra3` command answers, and how fast it can: bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows import cli
from ra3core.config import RunConfig


def ra3(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `ra3 ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["ra3", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return int(exit.value.code or 0)


BAD = {
    "no such command": (("frobnicate",), "frobnicate"),
    "no such option": (("run", "--sede", "3"), "--sede"),
    "no such preset": (("run", "--preset", "nope"), "demo, smoke"),
    "unknown key": (("run", "--set", "e_step.thnk_penalty=1"), "think_penalty"),
    "unknown section": (("run", "--set", "estep.window=1"), "e_step"),
    "wrong type": (("run", "--set", "rounds=many"), "rounds"),
    "impossible value": (("run", "--set", "m_step.learning_rate=-1"), "greater than 0"),
    "impossible pair": (("run", "--set", "evaluation.k=[9]"), "samples"),
    "no value": (("run", "--set", "rounds"), "section.key=value"),
    "negative seed": (("run", "--seed", "-1"), "seed"),
    "no seeds": (("run", "--seeds", "0"), "--seeds"),
    "seeds are words": (("run", "--seeds", "two"), "--seeds"),
    "no workers": (("run", "--workers", "0"), "workers"),
    "unknown source": (("run", "--demonstrations", "ftp:somewhere"), "python:FOLDER"),
    "no such folder": (("run", "--demonstrations", "python:/no/such/folder"), "/no/such/folder"),
    "no such file": (("run", "--demonstrations", "parquet:/no/such.parquet"), "/no/such.parquet"),
    "evaluate without a model": (("evaluate",), "model"),
    "evaluate without samples": (
        ("evaluate", "m", "--benchmark", "humaneval", "--data", "f", "--samples", "0"),
        "samples",
    ),
    "config of no preset": (("config", "--preset", "missing.yaml"), "missing.yaml"),
}


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(monkeypatch, capsys, arguments, named) -> None:
    assert ra3(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("ra3: ")
    assert named in err


@pytest.mark.parametrize(
    ("variable", "value"), [("RA3_ROOT", "/no/such/checkout"), ("RA3_WORKERS", "0"), ("RA3_THREADS", "two")]
)
def test_bad_environment_is_one_sentence_too(monkeypatch, capsys, variable, value) -> None:
    monkeypatch.setenv(variable, value)
    assert ra3(monkeypatch, "run") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert variable in err


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


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "--preset", "nope"]])
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
