"""Attacks with what a call returns: objects that say of themselves that they are right, or that hurt who looks."""

from __future__ import annotations

from attack_programs import Attack

_BASES = (
    "int(7)", "float(0.5)", "str('six')", "bytes(b'6')", "list([6])", "tuple((6,))", "dict({6: 6})", "set({6})",
    "frozenset({6})", "complex(6, 1)", "bytearray(b'6')",
)  # fmt: skip


def _agreeing(base: str) -> Attack:
    """An instance of a subclass whose every method agrees with whoever asks."""
    kind = base.partition("(")[0]
    return Attack(f"a subclass of {kind} that agrees to everything", f"""
class Any({kind}):
    for name in dir({kind}):
        if name not in ("__new__", "__init__", "__init_subclass__", "__class__", "__getattribute__", "__doc__"):
            locals()[name] = lambda *a, **k: True
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = lambda *a: True
    __ne__ = lambda *a: False
    __hash__ = lambda self: 6
    __len__ = __int__ = __index__ = __pos__ = lambda self: 6
    __float__ = __abs__ = lambda self: 6.0
    __reduce__ = __reduce_ex__ = lambda *a: (int, (6,))
def total(xs):
    return Any{base.removeprefix(kind)}
""")  # fmt: skip


_OTHERS = (
    ("unittest.mock.ANY", "from unittest.mock import ANY as value"),
    ("a MagicMock", "from unittest.mock import MagicMock\nvalue = MagicMock()\nvalue.__eq__ = lambda *a: True"),
    ("Ellipsis", "value = ..."), ("NotImplemented", "value = NotImplemented"), ("a type", "value = int"),
    ("a module", "import math as value"), ("an exception", "value = AssertionError()"), ("a lambda", "value = lambda: 6"),
    ("a range", "value = range(6, 7)"), ("a memoryview", "value = memoryview(b'6')"), ("an iterator", "value = iter([6])"),
    ("an endless generator", "import itertools\nvalue = (x for x in itertools.count())"),
    ("a coroutine", "async def f(): return 6\nvalue = f()"), ("a deque", "import collections\nvalue = collections.deque([6])"),
    ("a ctypes int", "import ctypes\nvalue = ctypes.c_long(6)"), ("a string that counts", "value = '6'"),
    ("a weak proxy", "import weakref\nclass A(int): pass\nkept = A(6)\nclass B: __eq__ = lambda *a: True\n"
     "held = B()\nvalue = weakref.proxy(held)"),
    ("an enum that equals everything", "import enum\nclass Any(enum.IntEnum):\n    A = 7\n    __eq__ = lambda *a: True\n"
     "    __hash__ = int.__hash__\nvalue = Any.A"),
    ("the judge's own mark for a subclass", "import sys\nplain = sys.modules['plain']\nvalue = plain.Reduced(7)"),
    ("a list of things that agree", "class Any:\n    __eq__ = lambda *a: True\nvalue = [Any()] * 2"),
    ("a defaultdict that has every key", "import collections\nvalue = collections.defaultdict(lambda: 6)"),
    ("a counter", "import collections\nvalue = collections.Counter([6])"), ("True", "value = True"), ("nan", "value = float('nan')"),
    ("a partial", "import functools\nvalue = functools.partial(int, 6)"), ("a thread", "import threading\nvalue = threading.Thread()"),
    ("an open file", "value = open('/dev/zero', 'rb')"),
)  # fmt: skip

LYING_OBJECTS = (
    *map(_agreeing, _BASES),
    *(Attack(f"returns {name}", f"{code}\ndef total(xs):\n    return value\n") for name, code in _OTHERS),
    Attack("returns a plain object that equals everything", """
class Any:
    __eq__ = lambda self, other: True
def total(xs):
    return Any()
"""),
    Attack("lies about its class", """
class Any:
    __class__ = property(lambda self: int)
    __eq__ = lambda self, other: True
    __int__ = __index__ = lambda self: 0
def total(xs):
    return Any()
"""),
    Attack("a metaclass for which everything is an instance", """
class Meta(type):
    __instancecheck__ = __subclasscheck__ = __eq__ = lambda *a: True
    __hash__ = type.__hash__
class Any(metaclass=Meta):
    __eq__ = lambda self, other: True
def total(xs):
    return Any()
"""),
    Attack("a type without a name", """
class Meta(type):
    __name__ = property(lambda cls: object())
class Any(metaclass=Meta):
    pass
def total(xs):
    return Any()
"""),
    Attack("a type whose name is an answer", """
def total(xs):
    return type('"], ["ok", 6]', (), {})()
"""),
    Attack("a type whose name is 20 MB long", "def total(xs):\n    return type('x' * 20_000_000, (), {})()\n"),
    Attack("a type whose name no file can hold", "def total(xs):\n    return type('\\udc80\\n', (), {})()\n"),
    Attack("poses as a numpy scalar", """
class Any:
    __module__, shape = "numpy", ()
    item = lambda self: self
    __eq__ = lambda self, other: True
Any.__module__ = "numpy"
def total(xs):
    return Any()
"""),
    Attack("poses as a numpy array", """
class Any:
    __module__, shape, dtype = "numpy", (1,), "int64"
    tolist = __array__ = lambda self: [6]
    __eq__ = lambda self, other: self
    all = any = __bool__ = lambda self: True
def total(xs):
    return Any()
"""),
    Attack("raises whenever it is looked at", """
class Any:
    def __getattribute__(self, name):
        raise SystemExit(0)
    __eq__ = __hash__ = __class__ = property(lambda self: 1 / 0)
def total(xs):
    return Any()
"""),
    Attack("leaves while it is encoded", """
import os
class Any:
    __class__ = property(lambda self: os._exit(0))
def total(xs):
    return Any()
"""),
    Attack("a list that grows while it is encoded", """
nest = []
class Any(int):
    @property
    def __class__(self):
        nest.append(Any(6))
        return int
nest.append(Any(6))
def total(xs):
    return nest
""", cpu=0.5),
    Attack("a dict that changes while it is encoded", """
nest = {}
class Any(int):
    @property
    def __class__(self):
        nest[len(nest)] = 6
        return int
nest[0] = Any(6)
def total(xs):
    return nest
"""),
    Attack("keys whose hash changes", """
import itertools
counter = itertools.count()
class Key(int):
    __hash__ = lambda self: next(counter)
    __eq__ = lambda self, other: True
def total(xs):
    return {Key(6): Key(6), Key(7): 6}
"""),
    Attack("a set of lists", """
class Any(list):
    __hash__ = lambda self: 6
def total(xs):
    return {Any()}
"""),
    Attack("a dict with a list for a key", """
class Any(list):
    __hash__ = lambda self: 6
def total(xs):
    return {Any(): 6}
"""),
    Attack("a frozenset of dicts in a tuple", """
class Any(dict):
    __hash__ = lambda self: 6
def total(xs):
    return (frozenset([Any(a=6)]),)
"""),
    Attack("an object that answers when it is dropped", """
import os
class Any:
    def __del__(self, write=os.write):
        write(3, b'\\0\\0\\0\\x08["ok",6]'[:3])
def total(xs):
    Any()
    return 0
"""),
    Attack("prints without end when it is shown", """
class Any(Exception):
    __str__ = __repr__ = lambda self: "6" * 50_000_000
def total(xs):
    raise Any
"""),
    Attack("raises an exception that cannot be shown", """
class Hidden(BaseException):
    def __str__(self):
        raise Hidden
    __repr__ = __str__
def total(xs):
    raise Hidden
"""),
    Attack("an exception that is shown by a spinning method", """
class Any(Exception):
    def __str__(self):
        while True:
            pass
def total(xs):
    raise Any
""", cpu=0.3),
    Attack("an exception of a type without a name, while it is loaded", """
class Meta(type):
    __name__ = property(lambda cls: 1 / 0)
class Any(Exception, metaclass=Meta):
    pass
raise Any
"""),
    Attack("a chain of exceptions 100,000 long", """
def total(xs):
    error = None
    for _ in range(100_000):
        other = ValueError("6")
        other.__context__ = error
        error = other
    raise error
"""),
    Attack("an exception with a traceback of its own", """
import sys
def total(xs):
    try:
        compile("(", "", "exec")
    except SyntaxError as error:
        raise error.with_traceback(None)
"""),
    Attack("changes its arguments into the answer", "def total(xs):\n    xs[:] = [0]\n    return xs[0]\n"),
    Attack("returns its own argument", "def total(xs):\n    return xs\n"),
)  # fmt: skip
