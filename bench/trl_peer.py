"""TRL's GRPOTrainer as the peer of the E-step and of the RLVR step, and the CPU clock that both sides are read by."""

from __future__ import annotations

import os
import resource
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread, on both sides

import figures  # noqa: F401  one OpenMP thread: set before torch is loaded
import psutil
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

PEER = "TRL GRPOTrainer"


def quiet() -> None:
    """One thread, no progress bars, no warnings of the libraries: what a script calls first."""
    import datasets

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


@dataclass
class Meter:
    """CPU seconds of a loop's steps: "own" of this process, "children" of all below it, and parts of "own" by name.

    A step ends with `lap`; the first is a warm-up (it holds loading, too) and is left out of what `mean` returns.
    """

    steps: list[dict[str, float]] = field(default_factory=list)
    _now: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _own: float = 0.0
    _children: float = 0.0

    def lap(self) -> None:
        """A step is over."""
        own, children = _own_cpu(), _children_cpu()
        self.steps.append({**self._now, "own": own - self._own, "children": children - self._children})
        self._now.clear()
        self._own, self._children = own, children

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its CPU time counted to a part. Parts do not hold each other."""

        def run(*args: Any, **kwargs: Any) -> Any:
            began = _own_cpu()
            try:
                return function(*args, **kwargs)
            finally:
                self._now[part] += _own_cpu() - began

        return run

    @contextmanager
    def watching(self, parts: Mapping[str, tuple[Any, str]]) -> Iterator[None]:
        """Time functions in place: part -> (module, class or object; name). A name that is gone is left out."""
        patches = [
            patch.object(owner, name, self.timed(part, getattr(owner, name)))
            for part, (owner, name) in parts.items()
            if hasattr(owner, name)
        ]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()

    def mean(self, part: str) -> float:
        """CPU seconds a step, the first left out."""
        return sum(step.get(part, 0.0) for step in self.steps[1:]) / (len(self.steps) - 1)

    def shares(self) -> str:
        """The parts of `own` in percent, what is left over as "rest"."""
        parts = sorted({part for step in self.steps[1:] for part in step} - {"own", "children"})
        values = {part: self.mean(part) / self.mean("own") for part in parts}
        values["rest"] = 1 - sum(values.values())
        return ", ".join(f"{part} {value:.0%}" for part, value in values.items())


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _children_cpu() -> float:
    """User and system time of all processes below this one, ended ones included (as far as they were waited for)."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = ended.ru_utime + ended.ru_stime
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            spent += sum(process.cpu_times()[:4])  # its own, and that of those it has waited for
    return spent


@dataclass(frozen=True)
class Setting:
    """What GRPOTrainer is asked to do; a step is `prompts` x `group` rollouts and one update of the weights.

    micro_batch: rollouts of one forward and backward pass; it changes the speed only. ends: tokens that end a
    completion beside the tokenizer's end token.
    """

    prompts: int
    group: int
    completion_tokens: int
    temperature: float
    learning_rate: float
    clip: float
    max_grad_norm: float
    micro_batch: int
    adam_epsilon: float = 1e-8
    seed: int = 0
    ends: tuple[int, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


Reward = Callable[..., list[float | None]]


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reward: Reward,
    rows: Sequence[Mapping[str, Any]],
    setting: Setting,
) -> Meter:
    """Train `model` in place on rows (each with a "prompt"), `setting.prompts` a step, in their order.

    Everything that costs time and is no part of the work is off: logging, checkpoints, gradient checkpointing, bf16
    autocast (the default; the other side computes in float32 as well), KL, data loader processes. The meter has one
    lap a step: generation, reward, and the rest, which is the update.
    """
    import datasets
    from trl.trainer.grpo_config import GRPOConfig  # pyright: ignore[reportMissingImports]
    from trl.trainer.grpo_trainer import GRPOTrainer  # pyright: ignore[reportMissingImports]

    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *setting.ends]  # type: ignore[union-attr]
    rollouts = setting.prompts * setting.group
    meter = Meter()

    class Lap(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.lap()

    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        arguments = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=setting.micro_batch,
            gradient_accumulation_steps=rollouts // setting.micro_batch,
            num_generations=setting.group,
            max_completion_length=setting.completion_tokens,
            temperature=setting.temperature,
            generation_kwargs={"use_cache": True},
            max_steps=len(rows) // setting.prompts,
            learning_rate=setting.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            adam_epsilon=setting.adam_epsilon,
            max_grad_norm=setting.max_grad_norm,
            beta=0.0,
            epsilon=setting.clip,
            loss_type="dr_grpo",
            scale_rewards="group",
            shuffle_dataset=False,
            seed=setting.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **setting.more,
        )
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=datasets.Dataset.from_list([dict(row) for row in rows]),
            processing_class=tokenizer,
            callbacks=[Lap()],
        )
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        parts = {"generation": (trainer, "_generate"), "reward": (trainer, "_calculate_rewards")}
        with meter.watching(parts):
            trainer.train()
    return meter
