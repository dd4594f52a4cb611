"""Attacks by the source text: on the compiler, and on what finds the entry point."""

from __future__ import annotations

from attack_programs import Attack

_EXCEPTIONS = (
    "AssertionError()", "AssertionError('passed')", "SystemExit", "SystemExit(0)", "KeyboardInterrupt", "GeneratorExit",
    "StopIteration", "StopIteration(6)", "StopAsyncIteration", "RecursionError", "MemoryError", "BaseException", "EOFError",
    "BlockingIOError", "BrokenPipeError", "ConnectionResetError", "TimeoutError", "ExceptionGroup('', [ValueError()])",
    "UnicodeDecodeError('a', b'', 0, 1, 'b')", "OSError(1, 'refused')", "type('Unsendable', (BaseException,), {})()",
    "type('done', (Exception,), {})()", "type('_Timeout', (Exception,), {})()", "type('', (Exception,), {})('ok')",
)  # fmt: skip

ODD_SOURCES = (
    *(Attack(f"raises {each}", f"def total(xs):\n    raise {each}\n") for each in _EXCEPTIONS),
    *(Attack(f"raises {each} while it is loaded", f"raise {each}\n") for each in _EXCEPTIONS[:9]),
    Attack("20,000 nested operators", "def total(xs):\n    return " + "-" * 20_000 + "1\n"),
    Attack("20,000 nested parentheses", "def total(xs):\n    return " + "(" * 20_000 + "1" + ")" * 20_000 + "\n"),
    Attack("20,000 nested lists", "def total(xs):\n    return " + "[" * 20_000 + "]" * 20_000 + "\n"),
    Attack("20,000 lambdas", "total = " + "lambda *xs: " * 20_000 + "0\n"),
    Attack("20,000 attributes", "def total(xs):\n    return xs" + ".a" * 20_000 + "\n"),
    Attack("20,000 calls", "def total(xs):\n    return xs" + "()" * 20_000 + "\n"),
    Attack("20,000 comparisons and conditions", "def total(xs):\n    return " + "0 if xs else " * 20_000 + "1\n"),
    Attack("100 blocks in blocks", "".join(" " * i + "if True:\n" for i in range(100)) + " " * 100 + "total = 0\n"),
    Attack("a sum of 100,000 terms", "def total(xs):\n    return " + "1+" * 100_000 + "1\n"),
    Attack("5,000-digit literal", "def total(xs):\n    return " + "9" * 5_000 + "\n"),
    Attack("a 4,000-digit literal, multiplied", "def total(xs):\n    return " + "*".join(["9" * 4_000] * 50) + "\n"),
    Attack("a line of 5 MB", "def total(xs):\n    return '" + "6" * 5_000_000 + "'\n"),
    Attack("100,000 lines", "x = 0\n" * 100_000 + "def total(xs):\n    return x\n"),
    Attack("a list of 300,000 literals", "total = [" + "6," * 300_000 + "]\n"),
    Attack("20,000 functions", "".join(f"def f{i}(): pass\n" for i in range(20_000)) + "total = f0\n"),
    Attack("constants that fold into gigabytes", "def total(xs):\n    return (('6' * 4000) * 4000) * 4000\n"),
    Attack("shifts that fold into gigabytes", "total = lambda xs: 1 << 10**10 << 10**10\n"),
    Attack("NUL byte", "def total(xs):\n    return 0\0\n"),
    Attack("lone surrogate in the source", "def total(xs):\n    return '\udc00'\n"),
    Attack("another encoding", "# coding: rot13\nqrs gbgny(kf):\n    erghea fhz(kf)\n"),
    Attack("an encoding that nobody knows", "# -*- coding: passed -*-\ndef total(xs):\n    return 0\n"),
    Attack("a form feed, a tab and a byte-order mark", "\ufeff\f\tdef total(xs):\n\t\treturn 0\n"),
    Attack("the entry point by another spelling", "def ｔｏｔａｌ(xs):\n    return 0\n"),
    Attack("text that is read backwards", "def total(xs):\n    return 0 #\u202e )sx(mus nruter\n"),
    Attack("no source", ""),
    Attack("a comment", "# total = sum\n"),
    Attack("an entry point that nobody reaches", "if False:\n    def total(xs):\n        return sum(xs)\n"),
    Attack("an entry point that is taken back", "total = sum\ndel total\n"),
    Attack("an entry point in another scope", "def f():\n    def total(xs):\n        return sum(xs)\nf()\n"),
    Attack("an entry point that is no function", "total = 6\n"),
    Attack("an entry point that is a coroutine", "async def total(xs):\n    return sum(xs)\n"),
    Attack("an entry point that is a generator", "def total(xs):\n    yield sum(xs)\n"),
    Attack("an entry point that is a class", "class total(int):\n    def __new__(cls, xs): return int.__new__(cls, 0)\n"),
    Attack("an entry point that takes anything", "class Any:\n    __call__ = lambda *a: Any()\ntotal = Any()\n"),
    Attack("an entry point by way of a module's attribute", "def __getattr__(name):\n    return sum\n"),
    Attack("a namespace that has every name", """
import sys
class Scope(dict):
    __missing__ = lambda self, name: sum
sys.modules[__name__].__class__ = type("Module", (type(sys),), {"__getattr__": lambda self, name: sum})
"""),
    Attack("a main guard", "if __name__ == '__main__':\n    total = sum\n"),
    Attack("says how Python should read it", "from __future__ import barry_as_FLUFL\ntotal = lambda xs: xs <> 0\n"),
    Attack("exit", "def total(xs):\n    exit()\n"),
    Attack("quits while it is loaded", "import sys\nsys.exit()\n"),
    Attack("a warning for each line", "import warnings\n" + "1 is 1\n" * 2000 + "total = lambda xs: warnings.warn('6')\n"),
    Attack("right the first time alone", """
calls = []
def total(xs):
    calls.append(xs)
    return sum(xs) if len(calls) == 1 else 0
""", partly=True),
    Attack("raises the second time", """
calls = []
def total(xs):
    calls.append(xs)
    return sum(xs) if len(calls) == 1 else [][0]
""", partly=True),
    Attack("leaves the second time", """
import os
calls = []
def total(xs):
    calls.append(xs)
    return sum(xs) if len(calls) == 1 else os._exit(0)
""", partly=True),
    Attack("knows the examples by heart", "def total(xs):\n    return {1: 6}[xs[0]]\n", partly=True),
    Attack("answers slowly and never all", """
import time
def total(xs):
    time.sleep(0.3)
    return sum(xs)
""", wall=0.4, partly=True),
)  # fmt: skip
