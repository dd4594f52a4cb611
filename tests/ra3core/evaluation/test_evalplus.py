from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from real_files import failing_references, labelled, real

from ra3core.config import VerifierConfig
from ra3core.errors import UserError
from ra3core.evaluation import benchmarks
from ra3core.evaluation.benchmarks import Benchmark
from ra3core.evaluation.benchmarks.evalplus import rows as official_rows
from ra3core.evaluation.benchmarks.mbpp_plus import inputs
from ra3core.evaluation.benchmarks.shapes import Shape
from ra3core.verifier import Check, Verifier

HALF = {
    "task_id": "HumanEval/900",
    "prompt": '\n\ndef half(x):\n    """ Half of x """\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "base_input": [[4], [3]],
    "plus_input": [[7], [0.1]],
    "atol": 0,
    "test": "",
    "contract": "",
}
WORDS = {
    "task_id": "HumanEval/901",
    "prompt": 'def words(s):\n    """ The words of s """\n',
    "entry_point": "words",
    "canonical_solution": "    return s.split()\n",
    "base_input": [["a b"]],
    "plus_input": [[""]],
    "atol": 0,
}
ROOT = {
    "task_id": "HumanEval/32",
    "prompt": 'def find_zero(xs):\n    """ A root """\n',
    "entry_point": "find_zero",
    "canonical_solution": "    return 2.0\n",
    "base_input": [[[-4, 0, 1]]],
    "plus_input": [],
    "atol": 0.0001,
}
SEQUENCE = {
    "task_id": "HumanEval/130",
    "prompt": 'def tri(n):\n    """ Numbers """\n',
    "entry_point": "tri",
    "canonical_solution": "    return [i / 1 for i in range(n)]\n",
    "base_input": [[3]],
    "plus_input": [[1000]],
    "atol": 0,
}


def mbpp(task: int, code: str, base: str, plus: list[Any], contract: str = "") -> dict[str, Any]:
    """A row of MBPP+; base: literal arguments, a line a call."""
    name = code.split("(")[0].removeprefix("def ")
    given = [list(eval(f"({line},)")) for line in base.splitlines()]
    return {
        "task_id": f"Mbpp/{task}",
        "prompt": '"""\nDo it.\n"""\n',
        "entry_point": name,
        "canonical_solution": "\n" + code,
        "base_input": json.loads(
            json.dumps(given, default=lambda value: str(value) if isinstance(value, complex) else list(value))
        ),
        "plus_input": plus,
        "atol": 0,
        "contract": contract,
        "assertion": "".join(f"assert {name}({line}) == 0\n" for line in base.splitlines()),
    }


SHARED = mbpp(2, "def shared(a, b):\n    return tuple(set(a) & set(b))", "(1, 2), (2, 3)", [[[5, 6], [6, 5]]])
EITHER = mbpp(164, "def either(a):\n    return a > 1", "1", [[2]])
DIVISORS = mbpp(295, "def divisors(a):\n    return a + 1", "1", [[2]])
DIGITS = mbpp(
    558, "def digits(a, b):\n    return sum(abs(int(x) - int(y)) for x, y in zip(str(a), str(b)))", "1, 2", [[21, 5]]
)
PYRAMID = mbpp(581, "def pyramid(b, s):\n    return 2 * b * s + b * b", "3, 4", [[6, 4]])
MATCHED = mbpp(737, "import re\ndef matched(s):\n    return re.search('a', s)", "'a'", [["b"]]) | {
    "entry_point": "matched"
}
MATCHED["assertion"] = "assert matched('a')\n"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(benchmark: Benchmark, verifier: Verifier, texts: list[tuple[int, str]]) -> list[bool]:
    verdicts = verifier.judge(benchmark.solution(benchmark.problems[i], text) for i, text in texts)
    return [verdict.passed for verdict in verdicts]


def test_humaneval_plus(tmp_path: Path) -> None:
    benchmark = benchmarks.load("humaneval+", write(tmp_path / "he.jsonl", [HALF, WORDS, ROOT, SEQUENCE]))
    half = benchmark.problems[0]
    assert benchmark.prompt(half) == 'def half(x):\n    """ Half of x """\n'
    assert (benchmark.decoding.max_new_tokens, benchmark.decoding.temperature) == (768, 0.0)
    with pytest.raises(RuntimeError, match="prepare"):
        benchmark.program(half, "    return x / 2")
    with Verifier(VerifierConfig()) as verifier:
        benchmark = benchmark.prepared(verifier, tmp_path / "cache")
        half = benchmark.problems[0]
        assert half.row["base"] == 2
        assert [test.expected for test in half.tests] == [2.0, 1.5, 3.5, 0.05]  # type: ignore[union-attr]
        right = verifier.judge([benchmark.program(half, "    return x * 0.5000000001\n")])[0]
        assert right.passed
        assert half.row["cpu_seconds"] == 18
        wrong = verifier.judge([benchmark.program(half, "    return 3.5 if x == 7 else x // 2 + x % 2 / 2 + (x < 1)")])[
            0
        ]
        assert wrong.outcomes == ("passed", "passed", "passed", "wrong_answer")  # base right, plus not
        slow = "    if x == 3:\n        while True: pass\n    return x / 2"
        verdict = verifier.judge([benchmark.program(half, slow)])[0]
        assert verdict.category == "timeout"
        assert "for one call" in verdict.detail
        texts = [
            (0, "def half(x):\n    return x / 2 + 1e-5", False),
            (0, "def half(x):\n    return int(x // 2) if x == 4 else x / 2", True),  # 2 == 2.0
            (1, "def words(s):\n    return s.split()", True),
            (1, "def words(s):\n    return tuple(s.split())", False),
            (2, "def find_zero(xs):\n    return -2", True),
            (2, "def find_zero(xs):\n    return 2.001", False),
            (2, "def find_zero(xs):\n    return 1e9\n\ndef poly(xs, x):\n    return 0.0", False),
            (3, "def tri(n):\n    return list(range(n))", True),
            (3, "def tri(n):\n    return tuple(range(n))", False),
            (3, "def tri(n):\n    return [min(i, 900) for i in range(n)]", False),
            (3, "def tri(n):\n    return n", False),
        ]
        assert judged(benchmark, verifier, [each[:2] for each in texts]) == [each[2] for each in texts]


def test_mbpp_plus_and_its_oracles(tmp_path: Path) -> None:
    rows = [SHARED, EITHER, DIVISORS, DIGITS, PYRAMID, MATCHED]
    benchmark = benchmarks.load("mbpp-plus", write(tmp_path / "mbpp.jsonl", rows))
    assert benchmark.problems[0].row["inputs"] == (((1, 2), (2, 3)), ((5, 6), (6, 5)))
    texts = [
        (
            0,
            "def shared(a, b):\n    assert type(a) is type(b) is tuple\n    return sorted(set(a) & set(b))[::-1]",
            True,
        ),
        (0, "def shared(a, b):\n    return 2", False),
        (1, "def either(a):\n    return None", True),
        (1, "def either(a):\n    return 1 / 0", False),
        (2, "def divisors(a):\n    return 0", True),
        (2, "def divisors(a):\n    return 1", False),
        (3, "def digits(a, b):\n    return {2: 1, 5: 3}[b]", True),
        (3, "def digits(a, b):\n    return {2: 1, 5: 6}[b]", True),
        (3, "def digits(a, b):\n    return {2: 1, 5: 7}[b]", False),
        (4, "def pyramid(b, s):\n    return {3: 33, 6: 96}[b]", True),
        (4, "def pyramid(b, s):\n    return {3: 33, 6: 97}[b]", False),
        (5, "def matched(s):\n    return 'a' in s", True),
        (5, "def matched(s):\n    return object() if s == 'a' else None", True),
        (5, "def matched(s):\n    return False", False),
        (5, "def matched(s):\n    return object()", False),
    ]
    with Verifier(VerifierConfig()) as verifier:
        benchmark = benchmark.prepared(verifier, tmp_path)
        assert not failing_references(verifier, benchmark, benchmark.problems)
        assert judged(benchmark, verifier, [each[:2] for each in texts]) == [each[2] for each in texts]


class Refusing(Verifier):
    """Records nothing."""

    def record(self, program: Any) -> Any:
        raise AssertionError("recorded again")


def test_expected_outputs_are_kept_and_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    cache, data = tmp_path / "a" / "cache", write(tmp_path / "he.jsonl", [HALF, WORDS])
    benchmark = benchmarks.load("humaneval-plus", data)
    refusing = Refusing(VerifierConfig())
    with Verifier(VerifierConfig()) as verifier:
        first = benchmark.prepared(verifier, cache)
        (file,) = cache.iterdir()
        assert benchmark.prepared(refusing, cache) == first
        kept = file.read_bytes()
        for damage in (b"", b"x", kept[: len(kept) // 2], gzip.compress(b"[1]\n"), gzip.compress(b"{")):
            file.write_bytes(damage)
            again = benchmark.prepared(verifier, cache)
            assert [t.expected for p in again.problems for t in p.tests] == [  # type: ignore[union-attr]
                t.expected
                for p in first.problems
                for t in p.tests  # type: ignore[union-attr]
            ]
            assert benchmark.prepared(refusing, cache) == again
        changed = benchmarks.load(
            "humaneval-plus", write(data, [{**HALF, "canonical_solution": "    return 0"}, WORDS])
        )
        with pytest.raises(AssertionError, match="recorded again"):
            changed.prepared(refusing, cache)
        assert changed.prepared(verifier, cache).problems[0].tests[0].expected == 0  # type: ignore[union-attr]
        assert benchmark.prepared(refusing, cache).problems[0].tests[0].expected == 2.0  # type: ignore[union-attr]
        broken = benchmarks.load("humaneval-plus", write(data, [{**HALF, "canonical_solution": "    return y"}]))
        with pytest.raises(UserError, match="reference solution of HumanEval/900 fails"):
            broken.prepared(verifier, cache)
    assert [path for path in cache.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**HALF, "base_input": None}, "line 1 has no list in field 'base_input'"),
        ({**HALF, "atol": "x"}, "line 1 has no number in field 'atol'"),
        ({**HALF, "plus_input": None}, "task 'HumanEval/900' has no list of argument lists in field 'plus_input'"),
        ({**HALF, "plus_input": [1]}, "task 'HumanEval/900' has no list of argument lists in field 'plus_input'"),
        ({**HALF, "base_input": []}, "has no inputs in field 'base_input'"),
    ],
)
def test_malformed_files(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        benchmarks.load("humaneval+", write(tmp_path / "he.jsonl", [row]))


def test_assertions_that_do_not_fit_are_named(tmp_path: Path) -> None:
    for change in (
        {"assertion": "assert shared((1, 2), (2, 3)) == x\n" * 2},
        {"assertion": "assert shared(y, z) == 1\n"},
    ):
        with pytest.raises(UserError, match="task 'Mbpp/2' has other calls in field 'assertion'"):
            benchmarks.load("mbpp+", write(tmp_path / "mbpp.jsonl", [SHARED | change]))


def test_the_hubs_rows_without_inputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ra3core.evaluation.benchmarks.evalplus.read_hub", lambda *_: [{"task_id": "HumanEval/0"}])
    with pytest.raises(UserError, match=r"hold no inputs, pass the official HumanEvalPlus-v0\.1\.10\.jsonl\.gz"):
        benchmarks.load("humaneval+")
    monkeypatch.setattr("ra3core.evaluation.benchmarks.evalplus.read_hub", lambda *_: [HALF])
    assert official_rows(None, "name", "file", {}) == [HALF]


@pytest.mark.parametrize(
    ("base", "plus", "expected", "contract"),
    [
        ("(1, 2), [3]", [[4, 5], [6]], ((4, 5), [6]), ""),
        ("[(1, 'a'), (2, 'b')]", [[]], ([],), ""),
        ("[(1, 'a'), (2, 'b')]", [[[3, "c"], [4, []]]], ([(3, "c"), (4, [])],), ""),
        ("{'a': (1, 2)}, 1", [{"b": [3]}, 2], ({"b": (3,)}, 2), ""),
        ("[{1, 2}, {3}]", [[[4, 5]]], ([{4, 5}],), ""),
        ("0, 1j", ["2", "(1+2j)"], ("2", 1 + 2j), ""),
        ("1", ["(1+2j)"], (1 + 2j,), "assert isinstance(f, (int, float, complex))"),
        ("(1, 2)", [[3, 4]], ([3, 4],), "assert isinstance(f, (tuple, list)), 'invalid'"),
        ("(1, 2)", [[3, 4]], ((3, 4),), "assert isinstance(f, tuple), 'invalid'"),
        ("(1, (2, 3))", [[1, [2, [3]]]], ((1, (2, [3])),), ""),
    ],
)
def test_types_that_json_lost_are_learnt_from_the_asserts(
    base: str, plus: list[Any], expected: Any, contract: str
) -> None:
    row = mbpp(1, "def g(f, *more):\n    return 0", base, [plus], contract)
    *_, restored = inputs(row, "here")
    assert restored == expected
    assert repr(restored) == repr(expected)


def test_an_empty_list_may_have_been_an_empty_dict() -> None:
    shape = Shape()
    shape.learn([[1, 2], []], [{1, 2}, {}])
    assert shape.restore([[3], []]) == [{3}, {}]


def test_where_pairs_disagree_values_stay() -> None:
    shape = Shape()
    shape.learn([1], (1,))
    shape.learn([1], [1])
    shape.learn({"a": "1"}, {"a": 1})
    shape.learn({"a": "b"}, {"a": "b"})
    assert shape.restore([2]) == [2]
    assert shape.restore({"c": "3"}) == {"c": "3"}
    deep = Shape(deep=True)
    deep.learn([1, [2]], (1, (2,)))
    assert deep.restore([1, [2, [3, [4]]]]) == (1, (2, (3, (4,))))


def test_an_input_unlike_the_asserts_is_named() -> None:
    row = mbpp(1, "def g(a):\n    return 0", "1", [["b"]], "assert isinstance(a, (int, complex))")
    with pytest.raises(UserError, match="here has an input unlike those in field 'assertion'"):
        inputs(row, "here")


def test_checks_of_floats_have_a_tolerance(tmp_path: Path) -> None:
    benchmark: Any = benchmarks.load("humaneval+", write(tmp_path / "he.jsonl", [HALF]))
    (half,) = benchmark.problems
    for expected, comparison in (
        (1.0, "allclose"),
        ([1.0, 2.0], "allclose"),
        ([1.0, 2], "equal"),
        ([], "equal"),
        (1, "equal"),
    ):
        check: Check = benchmark.check(half, (), expected)
        assert (check.comparison, check.tolerance) == (comparison, 1e-6 if comparison == "allclose" else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "count", "base", "plus"),
    [
        ("humaneval+", "HumanEvalPlus-v0.1.10.jsonl.gz", 164, 1570, 122_683),
        ("mbpp+", "MbppPlus-v0.2.0.jsonl.gz", 378, 1174, 39_836),  # less the five huge inputs of task 255
    ],
)
def test_every_real_reference_passes(name: str, file: str, count: int, base: int, plus: int, tmp_path: Path) -> None:
    benchmark = benchmarks.load(name, real(file))
    with Verifier(VerifierConfig(), 2) as verifier:
        benchmark = benchmark.prepared(verifier, tmp_path)
        assert len(benchmark.problems) == count
        assert sum(problem.row["base"] for problem in benchmark.problems) == base
        assert sum(len(problem.tests) for problem in benchmark.problems) == base + plus
        assert not failing_references(verifier, benchmark, benchmark.problems)
        if name == "humaneval+":
            problems = {problem.id: problem for problem in benchmark.problems}
            wrong = labelled("negatives.jsonl")
            verdicts = verifier.judge(benchmark.program(problems[r["task_id"]], r["completion"]) for r in wrong)
            assert [row for row, verdict in zip(wrong, verdicts, strict=True) if verdict.passed] == []
