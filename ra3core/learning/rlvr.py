"""RLVR: group policy gradient (GRPO) with unit-test rewards.

The paper runs GRPO on coding tasks from each mid-trained model (METHOD.md, What the paper reports): of a task's G
completions y_1 .. y_G, each is worth r_g = 1 if its program passes every unit test and 0 otherwise, and

    advantage A_g = (r_g - mean r) / (std r + std_floor)

weighs the clipped policy gradient of its tokens, the end token included. The same gradient serves the E-step
(ra3core/learning/policy_gradient.py).

What is ours: a program is the prompt and everything generated up to the end token: it is never cut at a comment line,
which would remove exactly what RA3 adds; a completion that reaches the length cap is judged as it stands. (Tasks of a
set can be put to a chat model: then the program is read out of its answer, ra3core/evaluation/task_sets.py.) Some
tasks, picked by a hash of their ids, are held out and solved now and then, with the same draws each time. Judging is by
ra3core.verifier, from outside the program, while the others are still being sampled; a program that was judged before
is not run again.
A step's prompts are completed and judged in `parts`, each with random numbers of its own, whichever process does it
(docs/devices.md).

Alone: docs/rlvr.md has the snippet (`rlvr(RLVRConfig(), Context(inputs=..., out=..., scratch=...))`).
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy
import torch
import transformers
from transformers import PreTrainedTokenizerBase

from ra3core.config import RLVRConfig
from ra3core.corpora.demonstrations import COMMENT, Task
from ra3core.errors import UserError
from ra3core.evaluation import task_sets
from ra3core.learning import mismatch
from ra3core.learning.policy_gradient import (
    Group,
    Objective,
    PolicyTrainer,
    Rollout,
    merged,
    tempered,
    with_reference,
)
from ra3core.learning.task_draw import TaskDraw
from ra3core.lm.chat import conversation
from ra3core.lm.engines import Engine, local_engine
from ra3core.lm.generation import Draw, Sampling
from ra3core.lm.lines import LineTokenizer, Tokens
from ra3core.lm.models import load_model, load_to_train, load_tokenizer, merge_lora, save_model
from ra3core.processes import Processes, begin, split
from ra3core.stage import Context, Metrics
from ra3core.verifier import WORKERS, Verdict, Verifier
from ra3core.verifier.program import Category

CATEGORIES: tuple[str, ...] = get_args(Category)
REMEMBERED = 50_000  # verdicts
HELD_OUT_STEP = 1 << 31  # the held-out completions' seed is that of a step no run reaches


@dataclass(frozen=True)
class Completion:
    """One sampled answer. prompt, tokens: ids, the end token left out. ended: the model ended the program itself.
    log_probs: of the tokens, and of the end token, as the engine tells them. end: that token, of several possible."""

    task: Task
    prompt: Tokens
    tokens: Tokens
    ended: bool
    text: str
    log_probs: tuple[float, ...] | None = None
    end: int | None = None

    @property
    def drawn(self) -> Tokens:
        """All that was drawn, the end token included."""
        return self.tokens if self.end is None else (*self.tokens, self.end)

    @property
    def source(self) -> str:
        """Prompt and answer: what tells programs from one another."""
        return self.task.prompt + self.text

    @property
    def comments(self) -> int:
        """Number of comment lines written."""
        return sum(line.lstrip().startswith(COMMENT) for line in self.text.split("\n"))

    @property
    def processed(self) -> int:
        """Tokens that sampling it took."""
        return len(self.prompt) + len(self.tokens) + self.ended


@dataclass
class Progress:
    """What a checkpoint keeps beside the policy. Counts are tokens; rewards: mean reward of each step so far; place,
    visits: `TaskDraw`'s."""

    tokens: int = 0
    train_tokens: int = 0
    evaluation_tokens: int = 0
    rewards: list[float] = field(default_factory=list)
    held_out_pass: list[float] = field(default_factory=list)
    place: int = 0
    visits: dict[str, str] = field(default_factory=dict)


def rlvr(config: RLVRConfig, context: Context) -> Metrics:
    """Train `inputs["model"]` on `inputs["tasks"]`/rlvr_tasks.parquet and save it to out/model (adapters merged).

    visits.json: task id -> a letter for each visit, p when all of its completions passed, f when none did, else m.
    With steps = 0 the model is saved as it came. Metrics: docs/rlvr.md. Raises UserError when the tasks are too few.
    """
    processes = begin(context)
    torch.set_num_threads(context.threads)
    transformers.set_seed(context.seed)  # adapters are initialised at random
    tasks, held_out = read_task_folder(context.inputs["tasks"] / "rlvr_tasks.parquet", config.held_out)
    tokenizer = load_tokenizer(context.inputs["model"] / "model")
    folder = context.inputs["model"] / "model"
    model = load_to_train(folder, config, context.device)
    reference = load_model(folder, context.device, config.precision).requires_grad_(False)
    objective = Objective(
        config.learning_rate,
        config.clip,
        config.epochs,
        config.std_floor,
        config.kl,
        config.max_grad_norm,
        config.importance_cap,
    )
    trainer = PolicyTrainer(model, objective, context.device, config.precision)
    local_engine(config.engine, trainer.policy, tokenizer)  # one that cannot run the model says so at once

    start, state = trainer.load(context.scratch) or (0, {})
    progress = Progress(**state)
    context.log.resume(start if state else -1)
    with (
        Verifier(config.verifier, max(1, WORKERS // processes.local), packages=task_sets.packages(tasks)) as verifier,
        context.log.progress("RLVR", config.steps, start) as advance,
    ):
        if verifier.missing:
            context.log.message(f"programs run without {', '.join(verifier.missing)}: this machine refuses it")
        if config.parts < processes.count:
            context.log.message(f"rlvr.parts: {config.parts}, so only as many of {processes.count} processes sample")
        stage = _Stage(config, context, trainer, tokenizer, reference, Judge(verifier), progress)
        if not state and held_out:
            context.log.metrics(0, held_out_pass=stage.evaluate(held_out), tokens=progress.tokens)
        draw = TaskDraw(tasks, config, context.seed, progress.place, progress.visits)
        for step in range(start + 1, config.steps + 1):
            values = stage.step(draw, step)
            progress.place = draw.place
            if held_out and (step % config.eval_every == 0 or step == config.steps):
                values["held_out_pass"] = stage.evaluate(held_out)
            context.log.metrics(step, tokens=progress.tokens, **values)
            if step % config.checkpoint_steps == 0:
                trainer.save(context.scratch, step, asdict(progress))
            advance(1)

    trained = trainer.whole()
    if processes.first:
        save_model(merge_lora(trained), tokenizer, context.out / "model")
        (context.out / "visits.json").write_text(json.dumps(progress.visits, indent=0) + "\n")
    tenth = max(1, config.steps // 10)
    metrics: Metrics = {
        "tokens": progress.tokens,
        "train_tokens": progress.train_tokens,
        "evaluation_tokens": progress.evaluation_tokens,
        "steps": config.steps,
        "tasks": len(tasks),
        "held_out_tasks": len(held_out),
    }
    if progress.rewards:
        metrics |= {
            "reward_start": statistics.fmean(progress.rewards[:tenth]),
            "reward": statistics.fmean(progress.rewards[-tenth:]),
        }
    if progress.held_out_pass:
        metrics |= {"held_out_pass_start": progress.held_out_pass[0], "held_out_pass": progress.held_out_pass[-1]}
    return metrics


@dataclass(frozen=True)
class Graded:
    """What is kept of a completion once it is judged; tokens: without the end token, processed: that it took."""

    reward: float
    category: Category
    tokens: int
    ended: bool
    comments: int
    processed: int


@dataclass(frozen=True)
class _Sampled:
    """One part of a step: its groups, all its completions, and how long they took."""

    groups: list[Group]
    graded: list[Graded]
    sampling_seconds: float
    judging_seconds: float


@dataclass
class _Stage:
    """What a step and an evaluation need."""

    config: RLVRConfig
    context: Context
    trainer: PolicyTrainer
    tokenizer: PreTrainedTokenizerBase
    reference: torch.nn.Module
    judge: Judge
    progress: Progress

    @property
    def processes(self) -> Processes:
        return self.trainer.processes

    def step(self, draw: TaskDraw, step: int) -> dict[str, float]:
        """Draw tasks, sample, judge, update once; the step's metrics row."""
        started, config, tasks = time.perf_counter(), self.config, draw.next()
        compared = config.kl > 0 or step % config.eval_every == 0
        parts = split(tasks, config.parts)
        found = self.processes.share(len(parts), lambda part: self._sampled(parts[part], step, part, compared))
        batch = [group for part in found for group in part.groups]
        graded = [one for part in found for one in part.graded]
        if compared:
            self.progress.tokens += sum(group.tokens for group in batch)
        update = self.trainer.step(batch, tempered(config.temperature))

        trained = int(update.pop("train_tokens"))
        measured = {"entropy", "clipped", *(["kl"] if compared else []), *mismatch.NAMES.intersection(update)}
        self.progress.tokens += sum(one.processed for one in graded) + trained
        self.progress.train_tokens += trained
        self.progress.rewards.append(statistics.fmean(one.reward for one in graded))
        size, rewards = config.group_size, [one.reward for one in graded]
        drawn = [task for part in parts for task in part]
        visits = draw.record(drawn, [rewards[n * size : (n + 1) * size] for n in range(len(drawn))])
        categories = Counter(one.category for one in graded)
        return {
            "reward": self.progress.rewards[-1],
            **{
                name: update[name]
                for name in ("zero_variance", "grad_norm", "loss", *sorted(measured if trained else ()))
            },
            **visits,
            "completion_tokens": statistics.fmean(one.tokens for one in graded),
            "unfinished": statistics.fmean(not one.ended for one in graded),
            "think_rate": statistics.fmean(one.comments for one in graded),
            **{f"verdict_{name}": categories[name] / len(graded) for name in CATEGORIES},
            "sampling_seconds": sum(part.sampling_seconds for part in found) / min(self.processes.count, len(found)),
            "judging_seconds": sum(part.judging_seconds for part in found) / min(self.processes.count, len(found)),
            "seconds": time.perf_counter() - started,
        }

    def _sampled(self, tasks: Sequence[Task], step: int, part: int, compared: bool) -> _Sampled:
        """Completions of the tasks with their rewards, as groups; compared: with reference log-probabilities."""
        started, config = time.perf_counter(), self.config
        sampling = Sampling(config.max_new_tokens, config.temperature)
        groups = self._complete(tasks, sampling, config.group_size, step, part)
        sampled = time.perf_counter()
        graded = self._graded([completion for group in groups for completion in group])
        judged = time.perf_counter()
        size = config.group_size
        batch = [
            Group(
                group[0].prompt,
                merged(
                    [
                        Rollout(one.drawn, grade.reward, 1 / size, behaviour=one.log_probs)
                        for one, grade in zip(group, graded[n * size : (n + 1) * size], strict=True)
                    ]
                ),
            )
            for n, group in enumerate(groups)
        ]
        if compared:
            batch = with_reference(self.reference, batch, tempered(config.temperature))
        return _Sampled(batch, graded, sampled - started, judged - sampled)

    def evaluate(self, tasks: Sequence[Task]) -> float:
        """Share of held-out completions that pass: pass@1. Every evaluation draws with the same seed."""
        config = self.config
        sampling = Sampling(config.max_new_tokens, config.eval_temperature)
        parts = split(tasks, config.parts)

        def graded(part: int) -> list[Graded]:
            groups = self._complete(parts[part], sampling, config.eval_samples, HELD_OUT_STEP, part)
            return self._graded([completion for group in groups for completion in group])

        found = [one for part in self.processes.share(len(parts), graded) for one in part]
        passed = statistics.fmean(one.reward for one in found)
        tokens = sum(one.processed for one in found)
        self.progress.tokens += tokens
        self.progress.evaluation_tokens += tokens
        self.progress.held_out_pass.append(passed)
        return passed

    def _graded(self, completions: Sequence[Completion]) -> list[Graded]:
        return [
            Graded(float(verdict.passed), verdict.category, len(one.tokens), one.ended, one.comments, one.processed)
            for one, verdict in zip(completions, self.judge.verdicts(completions), strict=True)
        ]

    def _complete(
        self, tasks: Sequence[Task], sampling: Sampling, samples: int, step: int, part: int
    ) -> list[list[Completion]]:
        """Completions of a part's tasks, drawn from the run's seed, the step and the part, and already handed to the
        judge."""
        seed = int(numpy.random.SeedSequence([self.context.seed, step, part]).generate_state(1)[0])
        config, measured = self.config, self.measured and step != HELD_OUT_STEP
        engine = local_engine(config.engine, self.trainer.policy, self.tokenizer, config.batch_size)
        return complete(engine, self.tokenizer, tasks, sampling, samples, seed, self.judge.submit, measured)

    @property
    def measured(self) -> bool:
        """Whether the engine's log-probabilities are compared with the trainer's. Those of `built-in` are of the same
        weights and code; they are not asked for unless they are to be corrected."""
        return self.config.engine != "built-in" or self.config.importance_cap is not None


def read_task_folder(path: Path, held_out: int) -> tuple[list[Task], list[Task]]:
    """The tasks of a file to train on, and `held_out` that are not: those whose ids have the lowest hashes.

    A file's order says something about its tasks more often than not (the embedded suite's are sorted by steps); the
    hash does not.
    """
    tasks = task_sets.read(path)
    if len(tasks) <= held_out:
        raise UserError(f"{path}: expected more tasks than rlvr.held_out = {held_out}, found {len(tasks)}")
    ordered = sorted(tasks, key=lambda task: hashlib.sha256(task.id.encode()).digest())
    apart = {task.id for task in ordered[:held_out]}
    return [task for task in tasks if task.id not in apart], [task for task in tasks if task.id in apart]


def complete(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    sampling: Sampling,
    samples: int,
    seed: int,
    on_completion: Callable[[Completion], Any] = lambda completion: None,
    log_probs: bool = False,
) -> list[list[Completion]]:
    """Sample `samples` completions of each task; `on_completion` is given each as soon as it has ended."""
    lines = LineTokenizer(tokenizer)
    prompts = [_prompt(task, lines) for task in tasks]
    found: dict[tuple[int, int], Completion] = {}

    def keep(i: int, j: int, draw: Draw) -> None:
        text = ("" if _is_message(tasks[i]) else lines.opening) + lines.completion(prompts[i], draw.tokens)
        found[i, j] = Completion(tasks[i], prompts[i], tuple(draw.tokens), draw.ended, text, draw.log_probs, draw.end)
        on_completion(found[i, j])

    engine.generate(prompts, sampling, samples=samples, seed=seed, log_probs=log_probs, on_completion=keep)
    return [[found[i, j] for j in range(samples)] for i in range(len(tasks))]


def _prompt(task: Task, lines: LineTokenizer) -> Tokens:
    """The tokens that a task's completion follows: its prompt, or a conversation in which it is the user's message."""
    if not _is_message(task):
        return lines.prompt(task.prompt)
    return conversation(lines.tokenizer, task.prompt, "rlvr_tasks.prompt: chat")


def _is_message(task: Task) -> bool:
    """Whether a task's prompt is a user's message to a chat model."""
    return isinstance(task, task_sets.SetTask) and task.chat


class Judge:
    """Verdicts in the background; equal programs of a task are run once, as far as the last `remembered` go back.

    A verdict that the machine may have had a part in (timeout, crash, memory) is not used again in a later step.
    """

    def __init__(self, verifier: Verifier, remembered: int = REMEMBERED) -> None:
        self._verifier, self._remembered = verifier, remembered
        self._found: dict[tuple[str, str], Future[Verdict]] = {}

    def submit(self, completion: Completion) -> None:
        """Begin to judge it, unless its program is known."""
        key = completion.task.id, completion.source
        if key not in self._found:
            self._found[key] = self._verifier.submit(task_sets.program(completion.task, completion.text))

    def verdicts(self, completions: Sequence[Completion]) -> list[Verdict]:
        """One verdict a completion, in order. Raises SandboxError when programs cannot be run at all."""
        for completion in completions:
            self.submit(completion)
        keys = [(completion.task.id, completion.source) for completion in completions]
        verdicts = [self._found[key].result() for key in keys]
        for key, verdict in zip(keys, verdicts, strict=True):
            future = self._found.pop(key, None)  # to the end of the line
            if future is not None and verdict.category not in ("timeout", "crash", "memory"):
                self._found[key] = future
        for key in list(self._found)[: max(0, len(self._found) - self._remembered)]:
            del self._found[key]
        return verdicts
