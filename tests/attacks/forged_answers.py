"""Attacks on the channel: what a program can write where its answers are read."""

from __future__ import annotations

from attack_programs import FORGE, TESTS, Attack


def _forged(trick: str, answer: str, **options: object) -> Attack:
    """Answers each call with this text, then leaves."""
    source = f"{FORGE}def total(xs):\n    forge({answer})\n    os._exit(0)\n"
    return Attack(trick, source, **options)  # type: ignore[arg-type]


_MALFORMED = (
    "", "5", "null", '"ok"', '{"passed": true}', "[]", "[[]]", '["ok"]', '["ok", 6, 6]', '["OK", 6]', '["passed"]',
    '["done", null, ""]', '["call", {"t": []}, {"d": []}]', '["ready", true]', '["exits", [[0, 0]], 1, true]',
    '["raised"]', '["raised", "passed"]', '["raised", [{}], {"a": []}]', '["raised", "passed", "passed"]',
    '["opaque"]', '["opaque", {"a": 1e999}]', '["ok", {}]', '["ok", {"x": 6}]', '["ok", {"u": 6, "t": [6]}]',
    '["ok", {"t": 6}]', '["ok", {"t": "6"}]', '["ok", {"d": 6}]', '["ok", {"d": [6]}]', '["ok", {"d": [[[], 6]]}]',
    '["ok", {"s": [[]]}]', '["ok", {"f": {"s": []}}]', '["ok", {"i": 6}]', '["ok", {"i": "six"}]',
    '["ok", {"b": "6"}]', '["ok", {"b": null}]', '["ok", {"w": "00"}]', '["ok", {"w": "ffffffff"}]',
    '["ok", {"c": [6]}]', '["ok", {"c": ["6", 0]}]', '["ok", {"c": [{"i": "0x1' + "0" * 300 + '"}, 0]}]',
    '["ok", {"u": {"u": {"u": 7}}}]', '["ok", NaN]', '["ok", -Infinity]', '["ok", 1e999]', '["ok", 6]]', "['ok', 6]",
    '["ok", "\\ud800"]', '["ok", 6] ["ok", 9]',
)  # fmt: skip

FORGED_ANSWERS = (
    *(_forged(f"answers {body[:40]}", repr(body)) for body in _MALFORMED),
    _forged("answers bytes that are no ASCII", 'b"\\xff\\xfe[1]"'),
    _forged("answers 5,000 digits of JSON", '"[\\"ok\\", " + "6" * 5000 + "]"'),
    _forged("answers a packed int of ten million digits", '\'["ok", {"i": "0x\' + "f" * 10**7 + \'"}]\''),
    _forged("answers 100,000 brackets", '"[" * 100_000'),
    _forged("answers 100,000 nested tags", "'{\"u\":' * 100_000"),
    _forged("answers 201 lists, as deep as is decoded", '\'["ok",\' + "[" * 201 + "]" * 201 + "]"'),
    _forged("answers 190 tags that say subclass", "'[\"ok\",' + '{\"u\":' * 190 + '7' + '}' * 190 + ']'"),
    _forged("says that it raised a nest of lists", '\'["raised", "exception", \' + "[" * 900 + "]" * 900 + "]"'),
    _forged("a text of 30 MB", "'[\"ok\", \"' + 'x' * (30 << 20) + '\"]'"),
    _forged("a float of ten million digits", "'[\"ok\", 0.' + '1' * 10**7 + ']'"),
    _forged("many empty lists", "'[\"ok\", [' + '[],' * 300_000 + '0]]'", script=None),
    _forged("millions of empty lists, raised", "'[\"raised\", 1, [' + '[],' * 4_500_000 + '0]]'", script=None),
    _forged(
        "a set of ints with one hash",
        "'[\"ok\", {\"s\": [' + ','.join(str(k * (2**61 - 1)) for k in range(20_000)) + ']}]'",
        script=None,
    ),
    _forged(
        "a dict of ints with one hash",
        "'[\"ok\", {\"d\": [' + ','.join(f'[{k * (2**61 - 1)},0]' for k in range(20_000)) + ']}]'",
        script=None,
    ),
    _forged(
        "a set of ints with one hash, one of them twice",
        "'[\"ok\", {\"s\": [0,' + ','.join(str(k * (2**61 - 1)) for k in range(20_000)) + ']}]'",
        script=None,
    ),
    _forged(
        "a dict of ints with one hash, one of them twice",
        "'[\"ok\", {\"d\": [[0,0],' + ','.join(f'[{k * (2**61 - 1)},0]' for k in range(20_000)) + ']}]'",
        script=None,
    ),
    _forged(
        "a set of ints with one hash among others",
        "'[\"ok\", {\"s\": [' + ','.join(f'{k * (2**61 - 1)},{k}' for k in range(20_000)) + ']}]'",
        script=None,
    ),
    _forged(
        "a set of subclasses of one int among others",
        "'[\"ok\", {\"s\": [' + ','.join(f'{{\"u\":1}},{k}' for k in range(15_000)) + ']}]'",
        script=None,
    ),
    _forged(
        "small sets of ints with one hash",
        "'[\"ok\", [' + ','.join(['{\"s\":[' + ','.join(str(k * (2**61 - 1)) for k in range(1000)) + ']}'] * 50) + ']]'",
        script=None,
    ),
    _forged("a set that holds a list, as a subclass of it", '\'["ok", {"s": [{"u": []}]}]\''),
    _forged("a key that is a dict, as a subclass of it", '\'["ok", {"d": [[{"u": {"d": []}}, 6]]}]\''),
    Attack(
        "an answer that breaks the judge, and a process that stays",
        f"{FORGE}def total(xs):\n    forge('[\"ok\", {{\"s\": [{{\"u\": []}}]}}]')\n    while True:\n        pass\n",
    ),
    _forged("an exception's text of two lines", '\'["raised", "exception", "a\\\\nb"]\''),
    _forged("an exception's text for a terminal", '\'["raised", "exception", "\\\\u001b[2J"]\''),
    Attack("an exception's text that no file can hold", "def total(xs):\n    raise ValueError('\\ud800')\n"),
    Attack("forges answers on every descriptor, then leaves", """
import json, os, struct
def total(xs):
    for answer in (["ok", True], {"passed": True}, ["done", None, ""], ["passed"]):
        data = json.dumps(answer).encode()
        for fd in range(256):
            try:
                os.write(fd, struct.pack("!I", len(data)) + data)
            except OSError:
                pass
    os._exit(0)
"""),
    Attack("answers before anybody asks", FORGE + """
for _ in range(9):
    forge('["ok", true]')
def total(xs):
    os._exit(0)
"""),
    Attack("answers each call twice", FORGE + """
def total(xs):
    forge('["ok", 0]')
    return 0
"""),
    Attack("answers part of a frame, then as if nothing were", FORGE + """
def total(xs):
    os.write(3, b"\\0\\0\\1\\0[\\"ok\\"")
    return 6
""", wall=0.4),
    Attack("announces 4 GB", 'import os\ndef total(xs):\n    os.write(3, b"\\xff" * 4)\n    return 6\n'),
    Attack("announces 60 MB and waits", """
import os, time
def total(xs):
    os.write(3, b"\\3\\0\\0\\0")
    time.sleep(60)
""", wall=0.4),
    Attack("drips an answer, a byte at a time", """
import os, time
def total(xs):
    os.write(3, b"\\0\\0\\x10\\0")
    for _ in range(500):
        os.write(3, b" ")
        time.sleep(0.003)
    os.write(3, b'["ok",%d]' % sum(xs) + b" " * (4096 - 508))
    time.sleep(0.1)
    os._exit(0)
""", wall=0.4, tests=TESTS[:1], script=None),
    Attack("a million answers to one question", FORGE + """
import socket
def total(xs):
    while True:
        os.write(3, b'\\0\\0\\0\\x08["ok",0]' * 10_000)
""", cpu=0.5),
    Attack("sends descriptors along", """
import array, os, socket
def total(xs):
    data = b'\\0\\0\\0\\x08["ok",0]'
    socket.socket(fileno=3).sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2] * 80))])
    os._exit(0)
"""),
    Attack("sends a byte out of band", """
import os, socket
def total(xs):
    socket.socket(fileno=os.dup(3)).send(b"x", socket.MSG_OOB)
    return 0
"""),
    Attack("claims to be another process", """
import os, socket, struct
def total(xs):
    who = struct.pack("3i", os.getppid(), 0, 0)
    socket.socket(fileno=3).sendmsg([b'\\0\\0\\0\\x08["ok",0]'], [(socket.SOL_SOCKET, 2, who)])
"""),
    Attack("lets a child answer first, to hide its own CPU time", FORGE + """
import gc, time
if os.fork() == 0:
    forge('["ok", null]')
    os._exit(0)
os.wait()
def total(xs):
    while True:
        pass
""", cpu=0.5),
    Attack("stops talking", "import socket\ndef total(xs):\n    socket.socket(fileno=3).shutdown(socket.SHUT_WR)\n"),
    Attack("stops listening", "import socket\ndef total(xs):\n    socket.socket(fileno=3).shutdown(socket.SHUT_RD)\n"),
    Attack("plays the judge to itself", """
import os, socket
mine, other = socket.socketpair()
os.dup2(mine.fileno(), 3)
def total(xs):
    return 6
""", wall=0.5),
    Attack("puts the channel on every descriptor", """
import os
for fd in range(256):
    if fd != 3:
        os.dup2(3, fd)
def total(xs):
    print('["ok", 6]' * 99)
"""),
    Attack("reads all calls ahead and answers with what was asked", FORGE + """
import marshal
def total(xs):
    forge('["ok", %s]' % xs)
    while size := os.read(3, 4):
        (xs,), _ = marshal.loads(os.read(3, struct.unpack("!I", size)[0]))
        forge('["ok", %s]' % xs)
"""),
    Attack("never reads what it is asked", "import time\ntime.sleep(60)\ndef total(xs):\n    return 6\n", wall=0.4),
    Attack("floods standard output, error and the channel", """
import os
def total(xs):
    block = b"\\xff" * (1 << 20)
    while True:
        for fd in (1, 2, 3):
            os.write(fd, block)
""", cpu=0.5),
    Attack("answers a list that holds itself", "def total(xs):\n    xs.append(xs)\n    return xs\n"),
    Attack("answers a nest 100,000 deep", """
def total(xs):
    nest = []
    for _ in range(100_000):
        nest = [nest]
    return nest
"""),
    Attack("answers an int of a million digits", "def total(xs):\n    return 10 ** 1_000_000\n"),
)  # fmt: skip
