"""Attacks on the interpreter around the program: builtins, the server's modules and frames, hooks, its own memory."""

from __future__ import annotations

from attack_programs import FORGE, Attack

_SIX = "def total(xs):\n    return 0.5\n"

PATCHED_INTERPRETERS = (
    Attack("patches the builtins that a comparison would use", """
import builtins, math
builtins.abs = math.fabs = lambda x: 0
builtins.all = builtins.any = builtins.isinstance = lambda *a: True
builtins.AssertionError = type("Never", (Exception,), {})
def total(xs):
    return None
"""),
    Attack("patches every builtin function", """
import builtins
for name in dir(builtins):
    if name[0].islower() and name not in ("setattr", "type"):
        setattr(builtins, name, lambda *a, **k: True)
def total(xs):
    return None
"""),
    Attack("removes the builtins", "import builtins\nvars(builtins).clear()\n" + _SIX),
    Attack("patches type and sum", """
import builtins
builtins.type = lambda *a: int
builtins.sum = lambda xs: 0
def total(xs):
    return sum(xs)
"""),
    Attack("patches the encoder in the server's own module", """
import sys
for module in list(sys.modules.values()):
    for name in ("pack", "dumps", "_pack"):
        if hasattr(module, name):
            setattr(module, name, lambda *a, **k: {"passed": True})
def total(xs):
    return object()
"""),
    Attack("patches what the server calls", """
import sys
server = sys.modules["__main__"]
server._answer = server._attempt = lambda *a: (["passed"], None)
server._serve = server._describe = lambda *a: ["passed", "passed"]
server.UNCONFINED = 0
def total(xs):
    return 0
"""),
    Attack("swaps the code of the server's functions", """
import sys
server = sys.modules["__main__"]
def passed(*a):
    return ["ok", True]
server._answer.__code__ = passed.__code__
def total(xs):
    return 0
"""),
    Attack("takes the server's channel from the heap", """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == "Channel":
        thing._dumps = lambda message: '["passed"]'
        thing.send(["done", None, ""])
def total(xs):
    return 0
"""),
    Attack("feeds itself other calls", """
import gc, itertools
for thing in gc.get_objects():
    if type(thing).__name__ == "Channel":
        thing.receive = lambda: (([6],), {})
def total(xs):
    return sum(xs) * 7
""", cpu=0.5),
    Attack("turns the channel to standard output", """
import gc
for thing in gc.get_objects():
    if type(thing).__name__ == "Channel":
        thing.fd = 1
def total(xs):
    return 6
"""),
    Attack("patches os and struct", """
import os, struct
write = os.write
os.write = lambda fd, data: write(fd, data.replace(b"0", b"6"))
struct.pack = lambda *a: b"\\0\\0\\0\\x08"
def total(xs):
    return 0
"""),
    Attack("patches json and marshal", """
import json, marshal
json.JSONEncoder.encode = json.dumps = lambda *a, **k: '["ok", true]'
marshal.loads = json.loads = lambda data: [[[]], {}]
def total(xs):
    return sum(xs) + 1
"""),
    Attack("replaces modules", """
import sys, types
for name in ("json", "plain", "os", "math", "struct", "isolation"):
    sys.modules[name] = types.ModuleType(name)
def total(xs):
    return 0
"""),
    Attack("survives its own exit, in the server's loop", """
import os
os._exit = lambda code: None
raise SystemExit(0)
"""),
    Attack("makes exit and exceptions mean success", """
import os, sys
leave = os._exit
os._exit = lambda code: leave(0)
sys.excepthook = sys.unraisablehook = lambda *a: leave(0)
def total(xs):
    raise ValueError
"""),
    Attack("walks its frames and changes them", """
import ctypes, sys
frame = sys._getframe()
while frame:
    for name in ("error", "function", "kind", "code"):
        if name in frame.f_locals:
            frame.f_locals[name] = None
            ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
    frame = frame.f_back
def total(xs):
    return 0
"""),
    Attack("takes over tracing and audit hooks", """
import sys, threading
def answer(*event):
    return answer
sys.settrace(answer); sys.setprofile(answer); threading.settrace(answer)
sys.addaudithook(lambda *a: None)
def total(xs):
    return 0.5
"""),
    Attack("traces the server's frames", """
import sys
def tracer(frame, event, argument):
    frame.f_trace = tracer
    frame.f_locals["value"] = 7
    return tracer
frame = sys._getframe()
while frame:
    frame.f_trace = tracer
    frame = frame.f_back
sys.settrace(tracer)
def total(xs):
    return 0
"""),
    Attack("an audit hook that refuses everything", """
import sys
def hook(*event):
    raise SystemExit(0)
sys.addaudithook(hook)
def total(xs):
    return 0
"""),
    Attack("answers when the interpreter ends", FORGE + """
import atexit, threading, weakref
class Thing: pass
thing = Thing()
atexit.register(forge, '["ok", true]')
threading._register_atexit(forge, '["ok", true]')
weakref.finalize(thing, forge, '["ok", true]')
threading.excepthook = lambda *a: forge('["ok", true]')
def total(xs):
    raise SystemExit(0)
"""),
    Attack("hooks every import", """
import builtins, sys
class Finder:
    find_spec = find_module = lambda self, name, *a: 1 / 0
sys.meta_path.insert(0, Finder())
sys.path_hooks.insert(0, lambda path: 1 / 0)
sys.path_importer_cache.clear()
builtins.__import__ = builtins.__build_class__ = lambda *a, **k: sys
def total(xs):
    return 0
"""),
    Attack("takes over the codecs", """
import codecs, encodings
codecs.register(lambda name: None)
codecs.register_error("strict", lambda error: ("6", error.end))
encodings._cache.clear()
encodings.search_function = lambda name: None
def total(xs):
    return "\\udc80"
"""),
    Attack("an alarm that raises in the server's code", """
import signal
def raiser(*a):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, raiser)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
def total(xs):
    while True:
        pass
""", cpu=0.5),
    Attack("an alarm that answers", FORGE + """
import signal
signal.signal(signal.SIGALRM, lambda *a: forge('["ok", 0]'))
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
def total(xs):
    while True:
        pass
""", cpu=0.5),
    Attack("standard output that answers when it is flushed", FORGE + """
import sys
class Out:
    def write(self, text):
        return len(text)
    def flush(self):
        forge('["ok", true]')
        raise SystemExit(0)
sys.stdout = sys.__stdout__ = sys.stderr = Out()
def total(xs):
    print(6)
    return 0
"""),
    Attack("leaves no stack for the encoder", """
import sys
def total(xs):
    sys.setrecursionlimit(sys._getframe().f_code.co_stacksize + 12)
    return [[[[[[[[[[6]]]]]]]]]]
"""),
    Attack("lifts the limit on digits", """
import sys
sys.set_int_max_str_digits(0)
def total(xs):
    return 10 ** 100_000
"""),
    Attack("makes 0 equal 6 in its memory", """
import ctypes
ctypes.memmove(id(0) + 16, id(6) + 16, 12)
def total(xs):
    return 0
""", partly=True, wall=0.5),
    Attack("makes True of None in its memory", """
import ctypes
ctypes.memmove(id(None) + 8, id(True) + 8, 8)
def total(xs):
    return None
"""),
    Attack("reads address 0", "import ctypes\ndef total(xs):\n    return ctypes.string_at(0)\n"),
    Attack("writes over its own stack", """
import ctypes
def total(xs):
    here = ctypes.c_long()
    ctypes.memset(ctypes.addressof(here) - (1 << 16), 0x41, 1 << 17)
    ctypes.CDLL(None).memset(id(total), 0, 1 << 20)
"""),
    Attack("crashes by bytecode", """
def total(xs):
    code = total.__code__
    exec(code.replace(co_code=b"d\\xff" * 40, co_consts=(), co_stacksize=1))
"""),
    Attack("crashes by faulthandler", "import faulthandler\ndef total(xs):\n    faulthandler._sigsegv()\n"),
    Attack("aborts", "import os\ndef total(xs):\n    os.abort()\n"),
    Attack("interrupts itself from C", """
import ctypes
def total(xs):
    ctypes.pythonapi.PyErr_SetInterrupt()
    ctypes.pythonapi.Py_Exit(0)
"""),
    Attack("ends the interpreter", "import ctypes\ndef total(xs):\n    ctypes.pythonapi.Py_FinalizeEx()\n"),
    Attack("frees what others use", """
import ctypes
def total(xs):
    for thing in (int, list, None, total):
        for _ in range(100_000):
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(thing))
"""),
    Attack("collects with callbacks that raise", """
import gc
gc.callbacks.append(lambda *a: 1 / 0)
gc.set_threshold(1)
gc.unfreeze()
def total(xs):
    return [[] for _ in range(1000)]
"""),
    Attack("traces allocations and dumps them", """
import faulthandler, tracemalloc
tracemalloc.start(50)
faulthandler.enable(3)
faulthandler.dump_traceback_later(0.01, repeat=True, file=3)
def total(xs):
    return tracemalloc.take_snapshot()
"""),
    Attack("forks the server's loop", """
import os, sys
def total(xs):
    sys.argv = ["server.py", "3", "/tmp", "{}"]
    sys.modules["__main__"].main()
"""),
    Attack("starts over as a server of its own", """
import os, sys
def total(xs):
    server = sys.modules["__main__"]
    server._serve(server.Channel(3))
    return 6
""", wall=0.5),
    Attack("runs in a subinterpreter", """
import _xxsubinterpreters as interpreters
def total(xs):
    interpreters.run_string(interpreters.create(), "import os; os._exit(0)")
"""),
)  # fmt: skip
