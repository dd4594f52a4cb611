"""The judge: sends inputs to confined processes, takes answers, compares. Every verdict is decided here.

    with Verifier(VerifierConfig(), workers=2) as verifier:
        verdicts = verifier.judge(programs)

A worker is one warm fork server (ra3core/verifier/server.py) and a thread that talks to it.
"""

from __future__ import annotations

import os
import queue
import reprlib
import secrets
import select
import signal
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from types import TracebackType
from typing import Any

from ra3core.config import VerifierConfig
from ra3core.corpora.demonstrations import Test
from ra3core.verifier import compare, plain
from ra3core.verifier.forkserver import Broken, ForkServer, Process, SandboxError
from ra3core.verifier.program import Category, Check, Outcome, Program, Script, Verdict

_TRIES = 3


class _Timeout(Exception):
    pass


class _Died(Exception):
    """The process closed its channel, by dying or on purpose."""


WORKERS = 4  # a program costs 5 ms of CPU, then 25 ms until the kernel has taken its namespaces down


class Verifier:
    """Judges programs in parallel; a context manager. `missing` names protections that this machine refuses."""

    def __init__(self, config: VerifierConfig, workers: int = 1, *, namespaces: bool = True) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="verifier")
        self._servers = [ForkServer(config, namespaces) for _ in range(workers)]
        self._idle: queue.SimpleQueue[ForkServer] = queue.SimpleQueue()

    def __enter__(self) -> Verifier:
        try:
            list(self._pool.map(ForkServer.start, self._servers))
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

    def _judge(self, program: Program) -> Verdict:
        """The verdict of an idle worker; when its server dies under the program, once more with a new one."""
        server = self._idle.get()
        try:
            for _ in range(_TRIES):
                try:
                    return _Trial(server, program).run()
                except (SandboxError, OSError, EOFError) as error:
                    if server.stopped:
                        raise SandboxError("the verifier is closed") from error
                    server.restart()
            return Verdict(False, "crash", detail=f"the sandbox died {_TRIES} times under this program")
        finally:
            self._idle.put(server)


class _Trial:
    """One program before the judge."""

    def __init__(self, server: ForkServer, program: Program) -> None:
        self.server, self.program = server, program
        self.cpu_limit = ceil(program.cpu_seconds or server.config.cpu_seconds)
        self.started = time.monotonic()
        self.deadline = self.started + (program.wall_seconds or server.config.wall_seconds)
        self.processes: list[Process] = []
        self.outcomes: list[Outcome] = []
        self.category: Category = "passed"
        self.detail = ""
        self.died = False
        self.weak = False

    def run(self) -> Verdict:
        """Run tests and script, then end all processes and say what was found."""
        program, script = self.program, self.program.script
        try:
            try:
                if program.tests:
                    self._calls(program.tests)
                if script is not None and self.category == "passed" and not script.inside:
                    script = self._script(script)
                if script is not None and self.category == "passed" and script.inside:
                    self._inside(script)
            except _Timeout:
                self._fail("timeout", "the wall limit was reached")
            except Broken as error:
                self._fail("crash", str(error))
            except _Died:
                self.died = True
            exits = self.server.end()
            for process in self.processes:
                process.drain()
            output = bytes(self.processes[0].printed)
        finally:
            for process in self.processes:
                process.close()
        status, cpu = exits[0]
        if self.died:
            self._fail(*self._cause(status, cpu))
        missing = len(program.tests) + (program.script is not None) - len(self.outcomes)
        not_run: tuple[Outcome, ...] = ("not_run",)
        return Verdict(
            passed=self.category == "passed",
            category=self.category,
            outcomes=(*self.outcomes, *(not_run * missing)),
            cpu_seconds=cpu,
            wall_seconds=time.monotonic() - self.started,
            detail=self.detail,
            output=output.decode(errors="replace"),
            weak=self.weak,
        )

    # -- the three ways to judge ---------------------------------------------------------------------------------------

    def _calls(self, tests: Sequence[Test]) -> None:
        """Inputs in, outputs back."""
        process = self._load("calls")
        for test in tests:
            keywords = test.keywords if isinstance(test, Check) else {}
            process.send([plain.pack(tuple(test.arguments)), plain.pack(dict(keywords))])
        if not self._loaded(process):
            return
        for number, test in enumerate(tests, start=1):
            kind, value, text = self._answer(process)
            if kind != "ok":
                self._fail(kind, f"test {number}: {text}", outcome=True)
            elif compare.matches(test, value):
                self.outcomes.append("passed")
            else:
                detail = f"test {number}: expected {_short(test.expected)}, found {_short(value)}"
                self._fail("wrong_answer", detail, outcome=True)
            if self.category != "passed" and not self.program.exhaustive:
                return

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
            process.send(message[1:])
            kind, value, text = self._answer(process)
            if kind == "ok":
                tester.send(["ok", plain.pack(compare.plain(value))])
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

    def _load(self, kind: str, **job: str) -> Process:
        process = self.server.fork(self.cpu_limit)
        self.processes.append(process)
        process.send({"kind": kind, "source": self.program.source, "entry_point": self.program.entry_point, **job})
        try:
            confined = self._next(process) == ["confined"]
        except _Died:
            confined = False
        if not confined:
            raise SandboxError("a program could not be confined")
        return process

    def _loaded(self, process: Process) -> bool:
        """Whether the program's source ran and has the entry point."""
        kind, _, text = self._answer(process)
        if kind != "ok":
            self._fail(kind, text)
        return kind == "ok"

    def _answer(self, process: Process) -> tuple[Any, Any, str]:
        """("ok", value, "") or (category, None, detail)."""
        return self._reading(self._next(process))

    def _reading(self, message: list[Any]) -> tuple[Any, Any, str]:
        if message[0] == "ok" and len(message) == 2:
            try:
                return "ok", plain.unpack(message[1]), ""
            except (plain.NotPlain, RecursionError) as error:
                raise Broken(f"an answer that is not plain data ({error})") from None
        if message[0] == "opaque" and len(message) == 2:
            return "wrong_answer", None, f"returned a value that is not plain data ({str(message[1])[:80]})"
        if message[0] == "raised" and len(message) == 3:
            kind = message[1] if message[1] in ("syntax", "memory") else "exception"
            return kind, None, str(message[2])[:400]
        raise Broken("an answer of no known form")

    def _next(self, process: Process) -> list[Any]:
        """The next answer of `process`, while everything that the others print is read too."""
        while True:
            message = process.frame()
            if message is not None:
                return message
            if not process.open:
                raise _Died
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise _Timeout
            poll = select.poll()
            for fd, wanted in (pair for each in self.processes for pair in each.events()):
                poll.register(fd, wanted)
            for fd, event in poll.poll(ceil(left * 1000)):
                for each in self.processes:
                    each.handle(fd, event)

    def _fail(self, category: Category, detail: str, outcome: bool = False) -> None:
        """Record a failure; the first decides the verdict."""
        if self.category == "passed":
            self.category, self.detail = category, detail
        if outcome or category in ("timeout", "memory", "crash"):
            known = ("wrong_answer", "exception", "timeout", "memory")
            self.outcomes.append(category if category in known else "crash")

    def _cause(self, status: int, cpu: float) -> tuple[Category, str]:
        """Why a process ended before its last answer."""
        code = os.waitstatus_to_exitcode(status)
        if cpu >= 0.8 * self.cpu_limit and code in (-signal.SIGKILL, -signal.SIGXCPU):
            return "timeout", f"the CPU limit of {self.cpu_limit} s was reached"
        if code == -signal.SIGKILL:
            return "crash", "stopped answering, or was killed"
        if code < 0:
            return "crash", f"killed by {signal.Signals(-code).name}"
        return "crash", f"exited with status {code} before the tests ended"


def _short(value: Any) -> str:
    try:
        return reprlib.repr(compare.plain(value))
    except ValueError:  # an int of more digits than the interpreter writes out
        return f"a {type(value).__name__} that is too long to show"
