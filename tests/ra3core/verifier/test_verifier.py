from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Check, Program, SandboxError, Script, Verdict, Verifier

LIMITS = VerifierConfig(cpu_seconds=1, wall_seconds=10, memory_mb=256)
ADD_ONE = [Test((i,), i + 1) for i in range(3)]


@pytest.fixture(scope="module", params=[True, False], ids=["namespaces", "without"])
def verifier(request: pytest.FixtureRequest) -> Iterator[Verifier]:
    with Verifier(LIMITS, workers=2, namespaces=request.param) as verifier:
        yield verifier


def judge(verifier: Verifier, source: str, tests: Sequence[Test] = ADD_ONE, **options: object) -> Verdict:
    return verifier.judge([Program(source, "f", tests, **options)])[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "category", "detail"),
    [
        ("def f(x): return x + 1", "passed", ""),
        ("def f(x): return x", "wrong_answer", "test 1: expected 1, found 0"),
        ("def f(x): return x + 1.0", "wrong_answer", "found 1.0"),
        ("def f(x): return f", "wrong_answer", "function"),
        ("def f(x): return 1 / x", "exception", "ZeroDivisionError: division by zero"),
        ("def f(x: return", "syntax", "SyntaxError"),
        ("def g(x): return x", "exception", "name 'f' is not defined"),
        ("f = 3", "exception", "TypeError: 'int' object is not callable"),
        ("raise SystemExit(0)", "exception", "SystemExit: 0"),
        ("def f(x): return [0] * 10**10", "memory", "MemoryError"),
        ("import os\ndef f(x): os._exit(3)", "crash", "status 3"),
        ("def f(x):\n  while True: pass", "timeout", "CPU limit of 1 s"),
        ("def f(x): return int(input())", "exception", "EOFError"),
    ],
)
def test_categories(verifier: Verifier, source: str, category: str, detail: str) -> None:
    verdict = judge(verifier, source)
    assert verdict.category == category
    assert detail in verdict.detail
    assert verdict.passed is (category == "passed")


def test_outcomes_stop_at_the_first_failure_unless_all_are_asked_for(verifier: Verifier) -> None:
    source = "def f(x): return x + 1 if x != 1 else 0"
    assert judge(verifier, source).outcomes == ("passed", "wrong_answer", "not_run")
    assert judge(verifier, source, exhaustive=True).outcomes == ("passed", "wrong_answer", "passed")


def test_verdicts_keep_the_order_of_the_programs(verifier: Verifier) -> None:
    slow = "import time\ntime.sleep(0.2)\n"
    sources = [slow + "def f(x): return x + 1", "def f(x): return 0", "def f(x): return x + 1", "x"]
    verdicts = verifier.judge(Program(source, "f", ADD_ONE) for source in sources)
    assert [v.category for v in verdicts] == ["passed", "wrong_answer", "passed", "exception"]


def test_the_wall_limit_ends_what_uses_no_cpu(verifier: Verifier) -> None:
    started = time.monotonic()
    verdict = judge(verifier, "import time\ndef f(x): time.sleep(60)", wall_seconds=0.5)
    assert verdict.category == "timeout"
    assert "wall" in verdict.detail
    assert time.monotonic() - started < 5


def test_printing_is_kept_in_part_and_disturbs_nothing(verifier: Verifier) -> None:
    verdict = judge(verifier, "def f(x):\n    print('hello', x)\n    print('y' * 10**6)\n    return x + 1")
    assert verdict.passed
    assert verdict.output.startswith("hello 0\n")
    assert len(verdict.output) <= 4096


def test_programs_leave_nothing_to_each_other(verifier: Verifier) -> None:
    source = "import os, builtins\nseen = os.listdir('.') + [hasattr(builtins, 'mark')]\nopen('mark', 'w').close()\n"
    source += "builtins.mark = 1\ndef f(x): return seen"
    assert judge(verifier, source, [Test((0,), [False])]).passed
    assert judge(verifier, source, [Test((0,), [False])]).passed


def test_equal_programs_get_equal_verdicts(verifier: Verifier) -> None:
    source = "import random\ndraw = [random.random(), list({'a', 'b', 'c', 'd'})]\ndef f(): return draw"
    details = {v.detail for v in verifier.judge([Program(source, "f", [Test((), None)])] * 6)}
    assert len(details) == 1


def test_inputs_may_be_large_and_are_copied_for_each_call(verifier: Verifier) -> None:
    big = list(range(200_000))
    source = "def f(xs):\n    xs.append(0)\n    return len(xs)"
    assert judge(verifier, source, [Test((big,), 200_001)] * 2).passed


def test_script_runs_on_the_judges_side(verifier: Verifier) -> None:
    setup = "def helper(x):\n    return x + 1\n"
    code = "import random\nfor _ in range(20):\n    x = random.randint(0, 9)\n"
    code += "    assert candidate(x) == helper(x) == f(x)\n"
    right = Program(setup + "def f(x): return helper(x)", "f", script=Script(setup, code))
    redefined = Program("def f(x): return 5\ndef helper(x): return 5", "f", script=Script(setup, code))
    raising = Program(
        "def f(x): raise KeyError('k')", "f", script=Script("", "try:\n  f(1)\nexcept KeyError: pass\nelse: 1/0")
    )
    died = Program("import os\ndef f(x): os._exit(0)", "f", script=Script("", code))
    verdicts = verifier.judge([right, redefined, raising, died])
    assert [v.category for v in verdicts] == ["passed", "wrong_answer", "passed", "crash"]
    assert not any(v.weak for v in verdicts)


def test_what_cannot_cross_the_wall_is_tested_inside_and_called_weak(verifier: Verifier) -> None:
    source = "def f(function, x): return function(x)"
    right = Program(source, "f", script=Script("", "assert candidate(lambda x: x + 1, 1) == 2"))
    wrong = Program(source, "f", script=Script("", "assert candidate(lambda x: x + 1, 1) == 3"))
    silent = Program("import os\ndef f(function, x): os._exit(0)", "f", script=right.script)
    verdicts = verifier.judge([right, wrong, silent])
    assert [v.category for v in verdicts] == ["passed", "wrong_answer", "crash"]
    assert all(v.weak for v in verdicts)


def test_keywords_and_comparisons(verifier: Verifier) -> None:
    source = "def f(a, b=0): return (a + b) / 3"
    tests = [Check((1,), 0.3333, {"b": 0}, "close", tolerance=1e-3), Check((3,), 1, comparison="equal")]
    assert judge(verifier, source, tests).passed
    assert not judge(verifier, source, [Check((3,), 1)]).passed


def test_main_guards_stay_shut_and_dataclasses_work(verifier: Verifier) -> None:
    source = (
        "import dataclasses, functools, collections\n@dataclasses.dataclass\nclass P:\n    x: int\n"
        "@functools.lru_cache\ndef f(x): return P(x).x + 1\nif __name__ == '__main__':\n    raise SystemExit\n"
    )
    assert judge(verifier, source).passed


def test_a_killed_server_is_replaced(verifier: Verifier) -> None:
    for server in verifier._servers:
        assert server._popen is not None
        os.kill(server._popen.pid, signal.SIGKILL)
    verdicts = verifier.judge([Program("def f(x): return x + 1", "f", ADD_ONE)] * 4)
    assert all(v.passed for v in verdicts)


def test_a_closed_verifier_judges_no_more() -> None:
    with Verifier(LIMITS) as verifier:
        pass
    with pytest.raises((RuntimeError, SandboxError)):
        verifier.judge([Program("", "f")])


def test_programs_see_no_network_no_files_of_ours_and_no_other_process() -> None:
    with Verifier(LIMITS) as verifier:
        if verifier.missing:
            pytest.skip(f"this machine refuses {verifier.missing[0]}")
        source = f"""
import os, socket
def f():
    found = [os.path.exists({str(__file__)!r}), os.getuid() == 0, len(os.listdir("/proc")), os.getppid() < 10]
    for path in ("/x", "/usr/x", "/dev/x"):
        try:
            open(path, "w")
            found.append(path)
        except OSError:
            pass
    try:
        socket.create_connection(("127.0.0.1", 9), 1)
    except OSError as error:
        found.append(error.strerror)
    return found
"""
        assert judge(verifier, source, [Test((), [False, False, 0, True, "Network is unreachable"])]).passed


@pytest.mark.parametrize("namespaces", [True, False])
def test_when_the_judge_is_killed_everything_ends(namespaces: bool, tmp_path: Path) -> None:
    """The programs hold the output open; its end says that the last one is dead."""
    pids = tmp_path / "pids"
    code = f"""
import pathlib, time
from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.verifier import Program, Verifier
verifier = Verifier(VerifierConfig(cpu_seconds=60, wall_seconds=60), 2, namespaces={namespaces}).__enter__()
for source in ("import time\\ntime.sleep(60)", "import os\\nos.fork()\\nwhile True: pass"):
    verifier.submit(Program(source, "f", [Test((), 1)]))
servers = verifier._servers
while not all(len(server.family()) > 0 for server in servers):
    time.sleep(0.05)
pathlib.Path({str(pids)!r}).write_text(" ".join(str(pid) for s in servers for pid in (s.pid, *s.family())))
time.sleep(60)
"""
    judge = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not pids.is_file() or not pids.read_text():
        assert judge.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    judge.kill()
    judge.wait()
    left = set(pids.read_text().split())
    while left and time.monotonic() < deadline + 10:
        left = {pid for pid in left if "server.py" in _command(pid)}
        time.sleep(0.05)
    assert not left


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_program_that_does_not_load_is_judged_alike_every_time(verifier: Verifier) -> None:
    """Its process answers and ends while the judge is still sending the tests: the answer must not get lost."""
    many = tuple(Test(([i] * 200,), None) for i in range(300))
    verdicts = verifier.judge([Program(f"def f(x): return )  # {i}", "f", many) for i in range(60)])
    assert {verdict.category for verdict in verdicts} == {"syntax"}
