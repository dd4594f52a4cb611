"""Attacks on test code: on what it calls, catches and compares, in a process that is not the program's."""

from __future__ import annotations

from attack_programs import FORGE, Attack

from ra3core.verifier import Script


def _script(trick: str, source: str, code: str, setup: str = "", **options: object) -> Attack:
    return Attack(trick, source, tests=(), script=Script(setup, code), **options)  # type: ignore[arg-type]


_MAPPED = "for found, wanted in zip(map(candidate, ([1], [2, 3])), (1, 5)):\n    assert found == wanted\n"

FOOLED_SCRIPTS = (
    _script("ends the tests' map", "def total(xs):\n    raise StopIteration\n", _MAPPED),
    _script("ends the tests' map later", "def total(xs):\n    return 1 if xs == [1] else next(iter(()))\n", _MAPPED),
    _script("ends the tests' map by a forged exception", f"{FORGE}def total(xs):\n    forge('[\"raised\", \"\", \"StopIteration\"]')\n",
            _MAPPED),
    _script("ends all that is asked", "def total(xs):\n    raise StopIteration(6)\n",
            "assert all(map(lambda xs: candidate(xs) == sum(xs), ([1], [2, 3])))\n"),
    _script("ends a generator", "def total(xs):\n    raise StopIteration\n",
            "assert list(candidate(xs) for xs in ([1], [2])) == [1, 2]\n"),
    _script("ends a loop that waits for a value", "def total(xs):\n    raise StopIteration\n",
            "assert list(iter(lambda: candidate([1]), 1)) == [] and candidate([1]) == 1\n"),
    _script("ends a loop over an old sequence", "def total(xs):\n    raise IndexError\n",
            "class All:\n    def __getitem__(self, i):\n        assert candidate([i]) == i\n        return i\n"
            "assert [i for i, _ in zip(All(), range(3))] == [0, 1, 2]\n"),
    _script("looks like a missing attribute", "def total(xs):\n    raise AttributeError\n",
            "class A:\n    right = property(lambda self: candidate([1]) == 1)\nassert getattr(A(), 'right', False)\n"),
    _script("asks to leave", "def total(xs):\n    raise SystemExit(0)\n", "assert candidate([1]) == 1\n"),
    _script("makes the tests run inside, by a nest", "def total(xs):\n    nest = []\n    for _ in range(199):\n"
            "        nest = [nest]\n    return nest\n", "assert candidate(candidate([1])) == 1\n"),
    _script("redefines the tests' helper", "def helper(xs):\n    return 0\ndef total(xs):\n    return 0\n",
            "assert candidate([1]) == helper([1])\n", "def helper(xs):\n    return sum(xs)\n"),
    _script("redefines the tests' helper in builtins", "import builtins\nbuiltins.helper = builtins.sum = lambda xs: 0\n"
            "total = helper\n", "assert candidate([1]) == helper([1])\n", "def helper(xs):\n    return sum(xs)\n"),
    _script("redefines the tests' tolerance", "import math\nmath.isclose = lambda *a, **k: True\nmath.fabs = lambda x: 0\n"
            "total = lambda xs: 0.0\n", "import math\nassert math.isclose(candidate([1]), 1) and math.fabs(candidate([1]) - 1) < 1\n"),
    _script("empties what the tests compare with", "def total(xs):\n    xs.clear()\n    return 0\n",
            "xs = [1, 2]\nassert candidate(xs) == sum(xs)\n"),
    _script("writes what the tests import", "for name in ('helper', 'random', 'sitecustomize', 'math'):\n"
            "    open(name + '.py', 'w').write('def helper(xs):\\n    return 0\\n')\ntotal = lambda xs: 0\n",
            "try:\n    from helper import helper\nexcept ImportError:\n    helper = sum\nassert candidate([1]) == helper([1])\n"),
    _script("answers in the tester's name", f"{FORGE}def total(xs):\n    for _ in range(9):\n        forge('[\"done\", null, \"\"]')\n",
            "assert candidate([1]) == 1\n"),
    _script("says what test code says that cannot be sent", "class Unsendable(BaseException):\n    pass\n"
            "def total(xs):\n    raise Unsendable('a value')\n", "assert candidate([1]) == 1\n"),
    _script("names its exception as the tester's", "CandidateError = type('CandidateError', (Exception,), {})\n"
            "def total(xs):\n    raise CandidateError('Unsendable: ')\n", "assert candidate([1]) == 1\n"),
    _script("an exception that takes other arguments", "def total(xs):\n    raise UnicodeDecodeError('utf-8', b'', 0, 1, '')\n",
            "try:\n    assert candidate([1]) == 1\nexcept UnicodeDecodeError:\n    pass\n"),
    _script("a builtin that is no exception", f"{FORGE}def total(xs):\n    forge('[\"raised\", \"\", \"print: 6\"]')\n",
            "assert candidate([1]) == 1\n"),
    _script("a frame that the judge may decode but not repeat", f"{FORGE}def total(xs):\n"
            "    forge('[\"ok\",' + '[' * 201 + ']' * 201 + ']')\n", "assert candidate([1]) == 1\n"),
    _script("answers more than the tester can hold", "def total(xs):\n    return 'x' * 40_000_000\n",
            "kept = [candidate([i]) + 'x' for i in range(9)]\nassert kept[0] == 1\n"),
    _script("answers with ints of one hash", f"{FORGE}def total(xs):\n    forge('[\"ok\", {{\"s\": [' + "
            "','.join(str(k * (2**61 - 1)) for k in range(14_000)) + ']}]')\n", "assert candidate([1]) == {1}\n", cpu=0.5),
    _script("answers with small sets of ints of one hash", f"{FORGE}each = '{{\"s\": [' + "
            "','.join(str(k * (2**61 - 1)) for k in range(1000)) + ']}'\ndef total(xs):\n    forge('[\"ok\", [' + "
            "','.join([each] * 300) + ']]')\n", "assert candidate([1]) == {1}\n", cpu=0.5),
    _script("answers with millions of lists", f"{FORGE}def total(xs):\n    forge('[\"ok\", [' + '[],' * 3_000_000 + '0]]')\n",
            "assert candidate([1]) == 1\n"),
    _script("kills the tester while it is asked", "import os\nme = os.getpid()\ndef total(xs):\n"
            "    for pid in range(me + 1, me + 9):\n        try:\n            os.kill(pid, 9)\n        except OSError:\n"
            "            pass\n    return 1\n", "assert candidate([1]) == 1\nassert candidate([2]) == 3\n", signals=True),
    _script("fills the tester's folder", "def total(xs):\n    with open('fill', 'wb') as file:\n        while True:\n"
            "            file.write(bytes(1 << 20))\n",
            "try:\n    assert candidate([1]) == 1\nfinally:\n    open('own', 'w').write('x' * 99_999)\n", walls=True),
)  # fmt: skip

_TOKEN = """
import gc, sys, os, json, struct
def send(token):
    data = json.dumps(["ok", token]).encode()
    os.write(3, struct.pack("!I", len(data)) + data)
    os._exit(0)
"""
_INSIDE = Script("", "assert candidate(lambda x: x, [1]) == [1]\n")


def _inside(trick: str, source: str) -> Attack:
    return Attack(trick, source, tests=(), script=_INSIDE)


WEAK = (
    _inside("finds the token in a frame", _TOKEN + """
def total(*a):
    frame = sys._getframe()
    while frame:
        if "token" in frame.f_locals.get("job", ()):
            send(frame.f_locals["job"]["token"])
        frame = frame.f_back
"""),
    _inside("finds the token on the heap", _TOKEN + """
def total(*a):
    for thing in gc.get_objects():
        if type(thing) is dict and "token" in thing and "kind" in thing:
            send(thing["token"])
"""),
    _inside("returns what equals everything", """
class Any:
    __eq__ = lambda self, other: True
def total(*a):
    return Any()
"""),
    _inside("ends the tests early", """
import sys
def total(*a):
    server = sys.modules["__main__"]
    server._describe = lambda error: None
    raise SystemExit(0)
"""),
    _inside("makes the tests' exec do nothing", """
import sys
execute = sys.modules["__main__"]._execute
sys.modules["__main__"]._execute = lambda sources, scope, name: execute(sources, scope, name) if name != "tests" else None
def total(*a):
    return 0
"""),
    _inside("knows that wrong is wrong", "def total(*a):\n    return 0\n"),
    _inside("forges a token", "import os\ndef total(*a):\n    os.write(3, b'\\0\\0\\0\\x0b[\"ok\", \"6\"]')\n"),
    _inside("forges another answer", "import os\ndef total(*a):\n    os.write(3, b'\\0\\0\\0\\x0a[\"passed\"]')\n"),
)  # fmt: skip
"""Test code that passes functions runs inside the program's process, where it can be fooled: the verdict must say so."""
