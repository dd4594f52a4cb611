"""Attacks by programs that are judged by their standard output, and on the checkers that read it."""

from __future__ import annotations

from typing import Any

from attack_programs import FORGE, Attack

from ra3core.verifier import StdioTest

CHECKER = """
import sys
def read(name):
    with open(name) as file:
        return file.read().split()
given, correct, found = map(read, sys.argv[1:])
assert correct == [str(sum(map(int, given)))]
print(int(found == correct))
"""
PLAIN, CHECKED = StdioTest("1 2 3\n", "6\n"), StdioTest("1 2 3\n", "6\n", CHECKER)
_RIGHT = "print(sum(map(int, input().split())), flush=True)\n"
_FILES = "('input.txt', 'correct_output.txt', 'solution_output.txt', 'checker.py', 'sys.py', 'sitecustomize.py')"


def _prints(trick: str, source: str, *tests: StdioTest, **options: Any) -> Attack:
    """Judged by comparison and by a checker."""
    return Attack(trick, source, entry_point="", tests=tests or (PLAIN, CHECKED), script=None, **options)


CONTEST_ATTACKS = (
    _prints("prints nothing", ""),
    _prints("leaves at once", "import os\nos._exit(0)\n"),
    _prints("says that all is well", FORGE + "forge('[\"ok\", null]')\n"),
    _prints("says that all is well, with a value", FORGE + "forge('[\"ok\", \"6\"]')\nprint(7)\n"),
    _prints("says at length that all is well", FORGE + "forge('[\"ok\", [' + '[],' * 3_000_000 + '0]]')\n", PLAIN),
    _prints("prints to the channel", "import os\nos.write(3, b'6\\n')\n"),
    _prints("prints to every other descriptor", "import os\nfor fd in (0, 2, 3, 4, 5):\n    try:\n        os.write(fd, b'6\\n')\n"
            "    except OSError:\n        pass\n"),
    _prints("prints the input", "print(input())\n"),
    _prints("prints every number", "for i in range(100):\n    print(i)\n"),
    _prints("prints every number in a line", "print(*range(100))\n"),
    _prints("prints numbers without end", "i = 0\nwhile True:\n    i += 1\n    print(i)\n", cpu=0.5),
    _prints("prints a line without end", "while True:\n    print('6' * 10**6, end='')\n"),
    _prints("prints blanks around nothing", "print(' ' * 10**6 + '\\n' * 10**6)\n"),
    _prints("prints nan", "print('nan')\n"),
    _prints("prints what compares to nothing", "print('sNaN')\n"),
    _prints("prints a number out of range", "print('6e' + '9' * 30)\n"),
    _prints("prints a number of 9 MB", "print('0.' + '9' * 9_000_000)\n"),
    _prints("prints another script's digits", "print('\\u0666')\n", PLAIN),
    _prints("prints the answer in hexadecimal", "print('0x6')\n"),
    _prints("prints NUL bytes and worse", "import os\nos.write(1, b'6\\0\\n\\xff\\xed\\xa0\\x80')\n"),
    _prints("prints the answer and goes back", "print('7\\b6\\x1b[1D6')\n"),
    _prints("prints a score and a program", "print('1\\n1\\n__import__(\"os\")._exit(0)')\n"),
    _prints("prints a path", "print('/tmp/correct_output.txt ../correct_output.txt')\n"),
    _prints("prints right, and leaves with an error", f"import os\n{_RIGHT}os._exit(1)\n"),
    _prints("prints right, and exits with an error", f"{_RIGHT}raise SystemExit(3)\n"),
    _prints("prints right, and exits with words", f"import sys\n{_RIGHT}sys.exit('6')\n"),
    _prints("prints right, and raises", f"{_RIGHT}raise ValueError\n"),
    _prints("prints right, and is killed", f"import os\n{_RIGHT}os.kill(os.getpid(), 9)\n", signals=True),
    _prints("prints right, and crashes", f"import ctypes\n{_RIGHT}ctypes.string_at(0)\n"),
    _prints("prints right, and closes its channel", f"import os, time\n{_RIGHT}os.close(3)\ntime.sleep(60)\n"),
    _prints("prints right, and spins", f"{_RIGHT}while True:\n    pass\n", cpu=0.3),
    _prints("prints right, and sleeps", f"import time\n{_RIGHT}time.sleep(60)\n", wall=0.4),
    _prints("prints right, and waits for a thread", f"import threading, time\nthreading.Thread(target=time.sleep, args=(60,))"
            f".start()\n{_RIGHT}", wall=0.4),
    _prints("prints right late, with dots to standard error", "import os, time\nend = time.monotonic() + 2\n"
            "while time.monotonic() < end:\n    os.write(2, b'.')\n    time.sleep(0.003)\n" + _RIGHT, PLAIN, wall=0.3),
    _prints("prints right late, with blanks before it", "import os, time\nend = time.monotonic() + 2\n"
            "while time.monotonic() < end:\n    os.write(1, b' ')\n    time.sleep(0.003)\n" + _RIGHT, PLAIN, wall=0.3),
    _prints("prints right, then more at the end", f"import atexit, threading\n{_RIGHT}"
            "threading._register_atexit(print, 7)\natexit.register(print, 7)\n"),
    _prints("prints right, and a child prints on", f"import os\n{_RIGHT}if os.fork() == 0:\n    while True:\n        print('7' * 9999, flush=True)\n"
            "os.wait()\n"),
    _prints("prints right after many wrong lines were taken back", "import os, sys\nprint(7, flush=True)\ntry:\n    os.ftruncate(1, 0)\n"
            f"    os.lseek(1, 0, 0)\nexcept OSError:\n    pass\n{_RIGHT}"),
    _prints("closes standard output", "import os\nos.close(1)\nprint(6)\n"),
    _prints("prints into its input", "import os\nos.ftruncate(0, 0)\nos.write(0, b'6')\n"),
    _prints("reads its own output", "import os\nos.set_blocking(1, False)\nprint(os.read(1, 9))\n"),
    _prints("replaces standard output", "import io, sys\nsys.stdout = sys.__stdout__ = io.StringIO()\nprint(6)\n"),
    _prints("an output that raises when it is flushed", "import sys\nclass Out:\n    write = len\n    def flush(self):\n"
            "        raise SystemExit(0)\nsys.stdout = Out()\nprint(6)\n"),
    _prints("waits for more input", "import os\nwhile True:\n    os.read(0, 9)\n", cpu=0.3),
    _prints("stops itself before it prints", "import os\nos.kill(os.getpid(), 19)\n", PLAIN, wall=0.4, signals=True),
    _prints("leaves with that status before it prints", "import os\nos._exit(70)\n", PLAIN,
            fault="without namespaces it is believed: three servers are replaced", where="without"),
    _prints("reads what a checker would read", "print(open('correct_output.txt').read())\n"),
    _prints("writes what a checker would read", f"for name in {_FILES}:\n    open(name, 'w').write('6')\n"),
    _prints("links what a checker would read", "import os\nos.symlink('correct_output.txt', 'solution_output.txt')\n"
            "os.symlink('/dev/zero', 'input.txt')\nos.symlink('/usr/bin/true', 'correct_output.txt')\n"),
    _prints("links hard what a checker would read", "import os\nopen('correct_output.txt', 'w').close()\n"
            "os.link('correct_output.txt', 'solution_output.txt')\nos.link('correct_output.txt', 'input.txt')\n"),
    _prints("makes folders of what a checker would read", f"import os\nfor name in {_FILES}:\n    os.makedirs(name + '/in/it')\n"),
    _prints("makes pipes of what a checker would read", f"import os\nfor name in {_FILES}:\n    os.mkfifo(name)\n"),
    _prints("shuts what a checker would read", f"import os\nfor name in {_FILES}:\n    os.close(os.open(name, os.O_CREAT, 0))\n"),
    _prints("watches for the checker's files", "import os, time\nif os.fork():\n    os._exit(0)\nos.setsid()\nwhile True:\n    try:\n"
            "        open('solution_output.txt', 'w').write(open('correct_output.txt').read())\n    except OSError:\n"
            "        time.sleep(0.001)\n", wall=0.5),
    _prints("fills the folder before the checker comes", "import os\nwith open('fill', 'wb') as file:\n    for _ in range(31):\n"
            "        file.write(bytes(1 << 20))\nwhile True:\n    try:\n        open(f'{os.urandom(9).hex()}', 'x')\n"
            "    except OSError:\n        break\n", walls=True),
    _prints("leaves the checker 15 MB to read", "print('6\\n' * 7_500_000)\n"),
)  # fmt: skip

OUTPUTS_FOR_CHECKERS = (
    ("a checker that leaves well without a word", "raise SystemExit(0)\n"),
    ("a checker that says nan", "print('nan')\n"), ("a checker that says less than 1", "print(0.999999)\n"),
    ("a checker that says more than one word first", "print('score 1')\n"),
    ("a checker that fails after its word", "print(1, flush=True)\nint(open('solution_output.txt').read())\n"),
    ("a checker that is made to recurse", "def f(x):\n    return f(x)\nprint(1, flush=True)\nf(0)\n"),
    ("a checker that spins after its word", "print(1, flush=True)\nimport os\nos._exit(1)\n"),
    ("a checker that is killed after its word", "print(1, flush=True)\nimport ctypes\nctypes.string_at(0)\n"),
    ("a checker that does not compile", "print(1\n"),
    ("a checker that prints the output", "print(open('solution_output.txt').read()[1:])\n"),
)  # fmt: skip
CONTEST_ATTACKS += tuple(
    _prints(f"counts on {trick}", "print('x6')\n", StdioTest("1 2 3\n", "6\n", checker))
    for trick, checker in OUTPUTS_FOR_CHECKERS[:-1]
)
