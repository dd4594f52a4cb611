"""bench/run.py: what counts as a change against the baseline, and that a script that fails is told in a sentence."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
MACHINE = "EPYC, 2 cores"


@pytest.fixture(scope="module", autouse=True)
def bench() -> ModuleType:
    """bench/ is a folder of scripts, no package."""
    sys.path.insert(0, str(BENCH))
    try:
        import run
    finally:
        sys.path.remove(str(BENCH))
    return run


def rate(bench: ModuleType, *values: float, peer: tuple[float, ...] = (), better: str = "higher", name: str = "e/rate"):
    return bench.Figure(name, "1/s", values, better, "TRL" if peer else None, peer)


def measured(bench: ModuleType, *figures: object, cpu: str = MACHINE):
    return {"e": bench.Measured(cpu, "abc", "today", figures)}


@pytest.mark.parametrize(
    ("before", "now", "better", "worse"),
    [
        (100.0, 84.0, "higher", True),
        (100.0, 86.0, "higher", None),
        (100.0, 116.0, "higher", False),
        (100.0, 116.0, "lower", True),
        (100.0, 114.0, "lower", None),
        (100.0, 84.0, "lower", False),
        (0.0, 0.0, "lower", None),
        (0.0, 1.0, "lower", True),
    ],
)
def test_a_value_has_changed_by_more_than_15_percent(bench, before, now, better, worse):
    change = bench.compare(rate(bench, now, better=better), rate(bench, before, better=better))
    assert (None if change is None else change.worse) == worse


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_with_a_peer_it_is_the_ratio_that_changes(bench, better):
    def at(speed: float, machine: float):
        """Twice as slow a machine halves both."""
        own, peer = (speed * machine, 100 * machine) if better == "higher" else (machine / speed, machine / 100)
        return rate(bench, own, peer=(peer,), better=better)

    assert bench.compare(at(500, 0.5), at(500, 1)) is None
    change = bench.compare(at(400, 1), at(500, 1))
    assert change.worse
    assert str(change) == "worse: e/rate, ratio to TRL, 5 -> 4 (-20 %)"
    assert not bench.compare(at(600, 1), at(500, 1)).worse


def test_a_wide_spread_has_changed_only_as_a_whole(bench):
    base = rate(bench, 100.0)
    assert bench.compare(rate(bench, 70.0, 75.0, 90.0), base) is None
    assert bench.compare(rate(bench, 60.0, 75.0, 84.0), base).worse
    assert not bench.compare(rate(bench, 116.0, 130.0, 160.0), base).worse
    assert bench.compare(rate(bench, 79.0, 80.0, 90.0), base).worse  # 14 % wide: its median counts


def test_repeats_are_compared_with_the_peers_same_repeat(bench):
    slowing = rate(bench, 100.0, 50.0, 25.0, peer=(10.0, 5.0, 2.5))
    assert bench.measured(slowing) == (10, 10, 10)
    unequal = rate(bench, 100.0, 50.0, peer=(10.0,))
    assert bench.measured(unequal) == (7.5, 5, 10)


def test_values_without_a_peer_count_on_the_same_cpu_only(bench):
    done = [bench.Ran("e", 1.0, (rate(bench, 50.0), rate(bench, 10.0, peer=(10.0,), name="e/ratio")))]
    before = (rate(bench, 100.0), rate(bench, 50.0, peer=(10.0,), name="e/ratio"))
    changes, notes = bench.compare_all(done, measured(bench, *before), MACHINE)
    assert {change.name for change in changes} == {"e/rate", "e/ratio"}
    assert not notes
    changes, notes = bench.compare_all(done, measured(bench, *before, cpu="Xeon, 8 cores"), MACHINE)
    assert [change.name for change in changes] == ["e/ratio"]
    assert notes == [(False, "e: 1 figures without a peer, the baseline is of Xeon, 8 cores")]


def test_what_is_new_is_told_and_what_is_gone_is_a_failure(bench):
    done = [bench.Ran("e", 1.0, (rate(bench, 1.0, name="e/new"), rate(bench, 1.0, name="e/other")))]
    baseline = measured(bench, rate(bench, 1.0, name="e/old"), rate(bench, 1.0, peer=(1.0,), name="e/other"))
    changes, notes = bench.compare_all(done, baseline, MACHINE)
    assert not changes
    assert notes == [
        (False, "e/new: not in the baseline"),
        (False, "e/other: another peer or unit than in the baseline"),
        (True, "e/old: in the baseline, and no longer measured"),
    ]
    failed = [bench.Ran("e", 1.0, failure="exit code 1")]
    assert bench.compare_all(failed, baseline, MACHINE) == ([], [])  # told as failed, not once more for each figure


GOOD = {"name": "e/rate", "unit": "1/s", "values": [1.0], "better": "higher", "peer": None, "peer_values": []}
BAD = {
    "no JSON": "{",
    "no list": "3",
    "another field": [{**GOOD, "speed": 1}],
    "a missing field": [{key: value for key, value in GOOD.items() if key != "peer_values"}],
    "nothing": [],
    "no values": [{**GOOD, "values": []}],
    "a word": [{**GOOD, "values": ["fast"]}],
    "infinite": [{**GOOD, "values": [float("inf")]}],
    "negative": [{**GOOD, "values": [-1.0]}],
    "a ratio to nothing": [{**GOOD, "peer": "TRL"}],
    "a ratio to 0": [{**GOOD, "peer": "TRL", "peer_values": [0.0]}],
    "neither better": [{**GOOD, "better": "faster"}],
    "twice": [GOOD, GOOD],
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_file_of_no_figures_is_one_sentence(bench, tmp_path, content):
    file = tmp_path / "figures.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(bench.Problem) as problem:
        bench.read(file)
    assert "expected" in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("content", [*BAD.values(), {"e": {"cpu": MACHINE}}], ids=[*BAD, "half"])
def test_a_bad_baseline_is_one_sentence(bench, tmp_path, monkeypatch, capsys, content):
    file = tmp_path / "baseline.json"
    whole = {"e": {"cpu": MACHINE, "commit": "abc", "date": "today", "figures": content}}
    file.write_text(
        content if isinstance(content, str) else json.dumps(whole if isinstance(content, list) else content)
    )
    monkeypatch.setattr(bench, "BASELINE", file)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert bench.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"bench: {file}: expected what --accept writes")
    assert error.count("\n") == 1


def test_an_unknown_script_is_one_sentence(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "e_stpe"])
    assert bench.main() == 2
    assert capsys.readouterr().err.startswith("bench: --only e_stpe: expected one of startup, ")


SCRIPT = f'''"""What it measures.

More of it."""
import json, os, sys, time
from pathlib import Path
name = Path(__file__).stem
if name == "rlvr":
    print("starting")
    sys.exit("it broke")
if name == "m_step":
    sys.exit()
if name == "annotation":
    time.sleep(60)
row = {GOOD!r} | {{"name": name + "/rate", "values": [float(os.environ.get("SPEED", "100"))]}}
Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps([row]))
'''


@pytest.fixture
def folder(bench, tmp_path, monkeypatch) -> Path:
    """bench/ as a folder of short scripts, of which some fail."""
    scripts = [bench.Script(name) for name in ("e_step", "rlvr", "m_step", "annotation", "gone", "limit")]
    for script in scripts:
        if script.name != "gone":
            (tmp_path / f"{script.name}.py").write_text(SCRIPT)
    monkeypatch.setattr(bench, "SCRIPTS", tuple(scripts))
    monkeypatch.setattr(bench, "BENCH", tmp_path)
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(bench, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(bench, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(bench, "LONGEST", 2)
    return tmp_path


def run_bench(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["run.py", *options])
    return bench.main()


def test_scripts_that_fail_do_not_keep_the_others_from_running(bench, folder, monkeypatch, capsys):
    assert run_bench(bench, monkeypatch) == 1
    told = capsys.readouterr().out
    assert f"failed: rlvr, exit code 1, it broke; see {folder / 'logs' / 'rlvr.log'}" in told
    assert "failed: m_step, it wrote no figures" in told
    assert "failed: annotation, took longer than 2 s" in told
    assert "failed: gone, there is no gone.py" in told
    page = (folder / "RESULTS.md").read_text()
    assert "| rlvr | 0" in page.replace("**failed**: exit code 1, it broke", "failed")
    assert "## e_step\n\nWhat it measures.\n\n| figure |" in page
    assert "| limit/rate (1/s) | 100 |" in page


def test_a_slower_run_fails_until_it_is_accepted(bench, folder, monkeypatch, capsys):
    assert run_bench(bench, monkeypatch, "--only", "e_step,limit", "--accept") == 0
    assert run_bench(bench, monkeypatch, "--only", "e_step") == 0
    monkeypatch.setenv("SPEED", "120")
    assert run_bench(bench, monkeypatch, "--only", "e_step") == 0
    assert "better: e_step/rate, 1/s, 100 -> 120 (+20 %)" in capsys.readouterr().out
    monkeypatch.setenv("SPEED", "80")
    assert run_bench(bench, monkeypatch, "--only", "e_step") == 1
    assert "worse: e_step/rate, 1/s, 100 -> 80 (-20 %)" in capsys.readouterr().out
    assert run_bench(bench, monkeypatch, "--only", "e_step", "--accept") == 0
    assert run_bench(bench, monkeypatch, "--only", "e_step") == 0
    kept = bench.read_baseline(folder / "baseline.json")
    assert {name: entry.figures[0].value for name, entry in kept.items()} == {"e_step": 80, "limit": 100}
    assert not (folder / "RESULTS.md").exists()  # which is of all scripts


def test_the_committed_baseline_is_one(bench):
    baseline = bench.read_baseline(bench.BASELINE)
    assert baseline.keys() <= {script.name for script in bench.SCRIPTS}


def test_a_figure_keeps_what_it_was_given(bench, tmp_path, capsys):
    given = replace(rate(bench, 3.0, 1.0, 2.0, peer=(1.0, 4.0, 2.0)), note="three times")
    bench.figures.finish([given], tmp_path / "figures.json")
    assert bench.read(tmp_path / "figures.json") == (given,)
    assert "| e/rate (1/s) | 2 (1 to 3) | TRL: 2 (1 to 4) | **1.00** | three times |" in capsys.readouterr().out
