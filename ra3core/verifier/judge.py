"""The judge: sends inputs to confined processes, takes answers, compares. Every verdict is decided here.

    with Verifier(VerifierConfig(), workers=2) as verifier:
        verdicts = verifier.judge(programs)

A worker is one warm fork server (ra3core/verifier/server.py) and a thread that talks to it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import reprlib
import secrets
import select
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from types import TracebackType
from typing import Any, cast

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.errors import UserError
from ra3core.verifier import compare, plain
from ra3core.verifier.forkserver import (
    Broken,
    Flood,
    ForkServer,
    Process,
    SandboxError,
    memory_of,
    packed,
    total_cpu_of,
)
from ra3core.verifier.program import Category, Check, Outcome, Program, Recording, Script, StdioTest, Verdict

UNCONFINED = 70  # exit status, as in server.py
_TRIES = 3
_LOADING, _GATHER = 0.001, 0.0004  # seconds in which nothing is asked: answers come together
_AT_ONCE = 0.02  # seconds that pass before anybody looks at a clock
_KEPT = 1024  # encoded tests
_UNWATCHED = 0.05  # seconds that a program may keep the judge busy until somebody looks at a clock
_LEAST_ANSWERED, _MOST_ANSWERED = 2 << 20, 4 << 20  # bytes of answers that are taken, unless more are expected
_MOST_OUTPUT = 16 << 20  # bytes of judged standard output
_MOST_STARVED = 10  # wall limits by which a busy machine extends one
_CHECKER_CPU = 10.0  # seconds
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


class _Timeout(Exception):
    """A limit was reached."""


class _Memory(Exception):
    """A program and its children take too much."""


class _Left(Exception):
    """The process ended well, without an answer."""


class _Died(Exception):
    """The process closed its channel, by dying or on purpose."""


WORKERS = 2


class Verifier:
    """Judges programs in parallel; a context manager. `missing` names protections that this machine refuses.

    packages: what programs may import beside the standard library, such as numpy; loaded once, in the fork servers.
    Entering raises UserError when a protection is missing and config.require_isolation is set.
    """

    def __init__(
        self, config: VerifierConfig, workers: int = 1, *, namespaces: bool = True, packages: Sequence[str] = ()
    ) -> None:
        self._config = config
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="verifier")
        self._servers = [ForkServer(config, namespaces, packages) for _ in range(workers)]
        self._idle: queue.SimpleQueue[ForkServer] = queue.SimpleQueue()

    def __enter__(self) -> Verifier:
        try:
            list(self._pool.map(ForkServer.start, self._servers))
            if self._config.require_isolation and self.missing:
                raise UserError(f"verifier.require_isolation: this machine refuses {', '.join(self.missing)}")
        except BaseException:
            self.close()
            raise
        for server in self._servers:
            self._idle.put(server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def missing(self) -> tuple[str, ...]:
        """Protections that this machine refuses, in words; empty when all hold."""
        return self._servers[0].missing

    def close(self) -> None:
        """End every server, and with it whatever still runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for server in self._servers:
            server.stop()
        self._pool.shutdown(wait=True)

    def submit(self, program: Program) -> Future[Verdict]:
        """Judge in the background."""
        return self._pool.submit(self._judge, program)

    def judge(self, programs: Iterable[Program]) -> list[Verdict]:
        """One verdict a program, in order. Raises SandboxError when programs cannot be run at all."""
        futures = [self.submit(program) for program in programs]
        return [future.result() for future in futures]

    def record(self, program: Program) -> Future[Recording]:
        """Run a program that is trusted to be right, such as a reference solution, and return what its calls answer.

        The future raises ValueError, with the reason, when a call does not answer with plain data.
        """
        return self._pool.submit(self._record, program)

    def _record(self, program: Program) -> Recording:
        trial = _Trial(program)
        trial.recorded = []
        verdict = self._try(trial)
        if not verdict.passed:
            raise ValueError(f"{verdict.category}: {verdict.detail}")
        values, seconds = zip(*trial.recorded, strict=True) if trial.recorded else ((), ())
        return Recording(values, seconds)

    def _judge(self, program: Program) -> Verdict:
        return self._try(_Trial(program))

    def _try(self, trial: _Trial) -> Verdict:
        """The verdict of an idle worker; when its server dies under the program, once more with a new one."""
        server = self._idle.get()
        try:
            for _ in range(_TRIES):
                try:
                    return trial.run(server)
                except (SandboxError, OSError, EOFError) as error:
                    if server.stopped:
                        raise SandboxError("the verifier is closed") from error
                    server.restart()
            return Verdict(False, "crash", detail=f"the sandbox died {_TRIES} times under this program")
        except Exception:
            server.restart()  # whatever it was, the next program is not to meet it
            raise
        finally:
            self._idle.put(server)


class _Trial:
    """One program before the judge."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.recorded: list[tuple[Any, float]] | None = None  # what the calls answer, instead of judging it

    def run(self, server: ForkServer) -> Verdict:
        """Run tests and script, then end all processes and say what was found."""
        self.server = server
        self.started = time.monotonic()
        self.processes: list[Process] = []
        self.outcomes: list[Outcome] = []
        self.category: Category = "passed"
        self.detail = self.output = ""
        self.cpu_seconds = 0.0
        self.weak = False
        if self.recorded is not None:
            self.recorded.clear()
        program = self.program
        if program.tests and isinstance(program.tests[0], StdioTest):
            for number, test in enumerate(program.tests, start=1):
                assert isinstance(test, StdioTest)
                self._run_as_script(number, test)
                if self.category != "passed" and not program.exhaustive:
                    break
        else:
            self._round(self._tests_and_script, self.program.cpu_seconds)
        missing = len(program.tests) + (program.script is not None) - len(self.outcomes)
        not_run: tuple[Outcome, ...] = ("not_run",)
        return Verdict(
            passed=self.category == "passed",
            category=self.category,
            outcomes=(*self.outcomes, *(not_run * missing)),
            cpu_seconds=self.cpu_seconds,
            wall_seconds=time.monotonic() - self.started,
            detail=_printable(_ADDRESS.sub("0x...", self.detail)),
            output=self.output,
            weak=self.weak,
        )

    def _round(self, work: Callable[[], None], cpu_seconds: float | None) -> None:
        """Do the work with processes of this round, then end them all; a limit or a death becomes a failure."""
        program, config = self.program, self.server.config
        self.cpu_limit = cpu_seconds or config.cpu_seconds
        self.wall_limit = program.wall_seconds or max(config.wall_seconds, 4 * self.cpu_limit)
        self.memory_mb = program.memory_mb or config.memory_mb
        self.deadline = time.monotonic() + self.wall_limit
        self.call: tuple[float, float] | None = None  # CPU seconds of the process when the call began, its limit
        self.processes = []
        self.exits: list[tuple[int, float]] | None = None
        self.looked = time.monotonic()  # at the clocks
        died = False
        try:
            try:
                work()
            except _Timeout as error:
                self._fail("timeout", str(error), outcome=True)
            except _Memory as error:
                self._fail("memory", str(error), outcome=True)
            except Broken as error:
                self._fail("crash", str(error), outcome=True)
            except Flood as error:
                self._fail("wrong_answer", str(error), outcome=True)
            except _Died:
                died = True
            exits = self._end()
            with contextlib.suppress(Flood):
                for process in self.processes:
                    process.drain()
            if not self.output:
                self.output = bytes(self.processes[0].printed).decode(errors="replace")
        finally:
            for process in self.processes:
                process.close()
        status, cpu = exits[0] if exits else (signal.SIGKILL, 0.0)
        self.cpu_seconds += cpu
        if died and status == UNCONFINED << 8 and not self.processes[0].total and not self.server.settled:
            raise SandboxError("a program could not be confined")
        if died:
            self._fail(*self._cause(status, cpu), outcome=True)

    def _tests_and_script(self) -> None:
        program, script = self.program, self.program.script
        if program.tests:
            self._calls(cast("Sequence[Test]", program.tests))
        if script is not None and self.category == "passed" and not script.inside:
            script = self._script(script)
        if script is not None and self.category == "passed" and script.inside:
            self._inside(script)

    # -- the ways to judge ---------------------------------------------------------------------------------------------

    def _calls(self, tests: Sequence[Test]) -> None:
        """Inputs in, outputs back."""
        one_by_one = self.recorded is not None
        frames, expected = (b"", 0) if one_by_one else _encoded(tests)
        process = self._load("calls", more=frames)
        if not one_by_one:
            process.most_answered = max(_LEAST_ANSWERED, 4 * expected)
        time.sleep(_LOADING)
        if not self._loaded(process):
            return
        for number, test in enumerate(tests, start=1):
            limit = test.cpu_seconds if isinstance(test, Check) else None
            before = process.cpu() if limit or one_by_one else 0.0
            self.call = (before, limit) if limit else None
            if one_by_one:
                process.send(_call(test))
            kind, value, text = self._answer(process, hurry=one_by_one)
            if kind != "ok":
                self._fail(kind, f"test {number}: {text}", outcome=True)
            elif self.recorded is not None:
                self.recorded.append((compare.plain(value), process.cpu() - before))
                self.outcomes.append("passed")
            elif compare.matches(test, value):
                self.outcomes.append("passed")
            else:
                detail = f"test {number}: expected {_short(test.expected)}, found {_short(value)}"
                self._fail("wrong_answer", detail, outcome=True)
            if self.category != "passed" and not self.program.exhaustive:
                return

    def _run_as_script(self, number: int, test: StdioTest) -> None:
        """Standard input in, standard output back; each test has a process of its own."""
        written = ""

        def work() -> None:
            nonlocal written
            most = max(_MOST_OUTPUT, 2 * len(test.expected))
            process = self._load("stdio", stdin=_bytes(test.input), most=most, files={}, arguments=["solution.py"])
            with contextlib.suppress(_Left):
                kind, _, text = self._answer(process, may_leave=True)
                if kind != "ok":
                    self._fail(kind, f"test {number}: {text}", outcome=True)
            process.drain()
            written = process.written.decode("utf-8", "surrogateescape")

        failures = len(self.outcomes)
        self._round(work, test.cpu_seconds or self.program.cpu_seconds)
        if len(self.outcomes) > failures:
            return
        if test.checker:
            accepted, why = self._check(test, written)
        else:
            accepted, why = compare.same_output(written, test.expected, test.lines)
        if accepted:
            self.outcomes.append("passed")
        else:
            self._fail("wrong_answer", f"test {number}: {why}", outcome=True)

    def _check(self, test: StdioTest, written: str) -> tuple[bool, str]:
        """Whether the problem's checker, confined too and after the program's end, accepts an output."""
        files = {"input.txt": test.input, "correct_output.txt": test.expected, "solution_output.txt": written}
        trial = _Trial(Program(test.checker, wall_seconds=4 * _CHECKER_CPU))
        return trial.checker(self.server, files)

    def checker(self, server: ForkServer, files: dict[str, str]) -> tuple[bool, str]:
        """Run this program as a checker of `files`."""
        self.server = server
        self.outcomes, self.category, self.detail, self.output = [], "passed", "", ""
        self.cpu_seconds = 0.0
        said = b""

        def work() -> None:
            nonlocal said
            process = self._load("stdio", stdin=b"", most=1 << 20, files=files, arguments=["checker.py", *files])
            with contextlib.suppress(_Left):
                kind, _, text = self._answer(process, may_leave=True)
                if kind != "ok":
                    self._fail(kind, text)
            process.drain()
            said = bytes(process.written)

        self._round(work, _CHECKER_CPU)
        words = said.split()
        try:
            score = float(words[0]) if words else 0.0
        except ValueError:
            score = 0.0
        if self.category != "passed":
            return False, f"the checker ended with {self.category}: {self.detail}"
        return score >= 1, f"the checker says {_short(said[:80].decode(errors='replace').strip())}"

    def _script(self, script: Script) -> Script | None:
        """The test code on the judge's side; returns the script to run inside when it cannot be run so."""
        process = self.processes[0] if self.processes else self._load("calls")
        if len(self.processes) == 1 and not self.outcomes and not self._loaded(process):
            return None
        tester = self._load("script", setup=script.setup, code=script.code)
        while True:
            message = self._next(tester)
            if message[0] == "done":
                break
            if len(message) != 3:
                raise Broken("the test code broke the protocol")
            process.send((plain.unpack(message[1]), plain.unpack(message[2])))
            kind, value, text = self._answer(process)
            if kind == "ok":
                tester.send(["ok", compare.plain(value)])
            else:
                tester.send(["raised", kind, text])
        error, raised = message[1], message[2]
        if error is None:
            self.outcomes.append("passed")
        elif error[2].startswith("Unsendable"):
            return Script(script.setup, f"{script.code}", inside=True)
        elif error[1] == "assertion":
            self._fail("wrong_answer", error[2], outcome=True)
        else:
            self._fail("exception", raised or error[2], outcome=True)
        return None

    def _inside(self, script: Script) -> None:
        """The test code in the program's own process, which ends by handing back a token: forgeable, hence weak."""
        self.weak = True
        token = secrets.token_hex(16)
        code = f"candidate = {self.program.entry_point}\n{script.code}" if self.program.entry_point else script.code
        process = self._load("inside", code=code, token=token)
        message = self._next(process)
        if message == ["ok", token]:
            self.outcomes.append("passed")
            return
        kind, _, text = self._reading(message)
        if kind == "ok":
            raise Broken("a wrong token")
        self._fail("wrong_answer" if message[1] == "assertion" else kind, text, outcome=True)

    # -- answers -------------------------------------------------------------------------------------------------------

    def _load(self, kind: str, *, stdin: bytes | None = None, most: int = 0, more: bytes = b"", **job: Any) -> Process:
        """A new process with its job: the program, and what else the kind takes; `more` are frames that follow."""
        # The kernel counts whole ticks, up to a fifth more than the clock that decides.
        process = self.server.fork(ceil(1.5 * self.cpu_limit) + 2, self.memory_mb, stdin, most)
        if kind != "script" and self.recorded is None:  # the test code's own process may say more
            process.most_answered = _MOST_ANSWERED
        self.processes.append(process)
        program = self.program
        sources = [program.source, *program.readings]
        process.send({"kind": kind, "sources": sources, "entry_point": program.entry_point, **job}, more)
        return process

    def _loaded(self, process: Process) -> bool:
        """Whether the program's source ran and has the entry point."""
        kind, _, text = self._answer(process)
        if kind != "ok":
            self._fail(kind, text)
        return kind == "ok"

    def _answer(self, process: Process, may_leave: bool = False, hurry: bool = True) -> tuple[Any, Any, str]:
        """("ok", value, "") or (category, None, detail).

        may_leave: raise _Left when the process ended well without an answer. hurry: see `_next`.
        """
        try:
            return self._reading(self._next(process, hurry))
        except _Died:
            if not may_leave:
                raise
        exits = self._end()
        if not exits or exits[0][0] != 0:
            raise _Died
        raise _Left

    def _end(self) -> list[tuple[int, float]]:
        """Kill everything of this round, once; (wait status, CPU seconds) of its processes."""
        if self.exits is None:
            self.exits = self.server.end()
        return self.exits

    def _reading(self, message: list[Any]) -> tuple[Any, Any, str]:
        if message[0] == "ok" and len(message) == 2:
            try:
                return "ok", plain.unpack(message[1]), ""
            except (plain.NotPlain, RecursionError) as error:
                raise Broken(f"an answer that is not plain data ({error})") from None
        if message[0] == "opaque" and len(message) == 2:
            return "wrong_answer", None, f"returned a value that is not plain data ({str(message[1])[:80]})"
        if message[0] == "raised" and len(message) == 3:
            kind = message[1] if message[1] in ("syntax", "memory", "forbidden") else "exception"
            return kind, None, str(message[2])[:400]
        raise Broken("an answer of no known form")

    def _next(self, process: Process, hurry: bool = True) -> list[Any]:
        """The next answer of `process`, while everything that the others print is read too.

        hurry: ask for it at once; else answers may gather for a moment, which saves most of the asking.
        """
        patience = _AT_ONCE
        while True:
            message = process.next()
            if message is not None:
                return message
            if not process.open:
                raise _Died
            if not hurry:
                time.sleep(_GATHER)
            poll = select.poll()
            for each in self.processes:
                each.wants(poll)
            found = poll.poll(ceil(1000 * patience))
            for fd, event in found:
                for each in self.processes:
                    each.handle(fd, event)
            now = time.monotonic()
            if found and now - self.looked < _UNWATCHED:
                patience = _AT_ONCE
            else:
                patience, self.looked = self._patience(process), now

    def _patience(self, process: Process) -> float:
        """Seconds until a limit can be reached; raises _Timeout when one is."""
        left = []
        for each in self.processes:
            used = each.cpu()
            left.append(self.cpu_limit - used)
            if each is process and self.call is not None:
                before, limit = self.call
                left.append(before + limit - used)
                if left[-1] <= 0:
                    raise _Timeout(f"the CPU limit of {limit:g} s for one call was reached")
        family = self.server.family()
        left.append(self.cpu_limit * len(self.processes) - sum(map(total_cpu_of, family)))
        if (
            len(family) > len(self.processes)
            and sum(map(memory_of, family)) > self.memory_mb * len(self.processes) << 20
        ):
            raise _Memory(f"all processes together took more than {self.memory_mb} MB")
        if min(left) <= 0:
            raise _Timeout(f"the CPU limit of {self.cpu_limit:g} s was reached")
        wall = self.deadline - time.monotonic()
        if wall <= 0:  # time in which the machine was busy with others does not count, within reason
            if len(family) == len(self.processes):  # with more it may be busy with this program
                wall += min(process.starved(), _MOST_STARVED * self.wall_limit)
            if wall <= 0:
                raise _Timeout(f"the wall limit of {self.wall_limit:g} s was reached")
        return max(0.001, min(*left, wall, 0.5))

    def _fail(self, category: Category, detail: str, outcome: bool = False) -> None:
        """Record a failure; the first decides the verdict."""
        if self.category == "passed":
            self.category, self.detail = category, detail
        if outcome and len(self.outcomes) < len(self.program.tests) + (self.program.script is not None):
            self.outcomes.append("exception" if category == "syntax" else category)

    def _cause(self, status: int, cpu: float) -> tuple[Category, str]:
        """Why a process ended before its last answer."""
        code = os.waitstatus_to_exitcode(status)
        if cpu >= self.cpu_limit and code in (-signal.SIGKILL, -signal.SIGXCPU):
            return "timeout", f"the CPU limit of {self.cpu_limit:g} s was reached"
        if code == -signal.SIGKILL:
            return "crash", "stopped answering, or was killed"
        if code == -signal.SIGSYS:
            return "forbidden", "made a system call of another architecture"
        if code < 0:
            return "crash", f"killed by {signal.Signals(-code).name}"
        return "crash", f"exited with status {code} before the tests ended"


_known: OrderedDict[int, tuple[Sequence[Test], tuple[bytes, int]]] = OrderedDict()
_known_lock = threading.Lock()


def _encoded(tests: Sequence[Test]) -> tuple[bytes, int]:
    """The calls of `tests` as frames, and the bytes that the expected answers take; kept for the tests that were used
    last, for many programs share theirs."""
    key = id(tests)
    with _known_lock:
        entry = _known.get(key)
        if entry is not None and entry[0] is tests:
            _known.move_to_end(key)
            return entry[1]
    frames = bytearray()
    for test in tests:
        frames += packed(_call(test))
    data = bytes(frames), sum(map(_size, tests))
    if isinstance(tests, tuple):  # what cannot change
        with _known_lock:
            _known[key] = tests, data
            while len(_known) > _KEPT:
                _known.popitem(last=False)
    return data


def _size(test: Test) -> int:
    """Bytes that the expected answer takes."""
    try:
        return len(plain.dumps(test.expected, reduce=True))
    except plain.NotPlain:
        return 0


def _call(test: Test) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments and keywords."""
    return tuple(test.arguments), dict(test.keywords) if isinstance(test, Check) else {}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class _Repr(reprlib.Repr):
    """Short texts that do not depend on the order of a set."""

    def repr_set(self, x: set[Any], level: int) -> str:
        return super().repr_list(sorted(x, key=lambda item: (type(item).__name__, repr(item))), level)  # pyright: ignore[reportArgumentType]

    repr_frozenset = repr_set  # pyright: ignore[reportAssignmentType]


_repr = _Repr()


def _short(value: Any) -> str:
    try:
        return _repr.repr(compare.plain(value))
    except (ValueError, RecursionError):  # an int of more digits than the interpreter writes out
        return f"a {type(value).__name__} that is too long to show"


def _printable(text: str) -> str:
    """Text that changes nothing on a terminal and that every file can hold."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
