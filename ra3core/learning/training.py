"""Next-token prediction on planned batches, by transformers' Trainer: what pre-training and the M-step share.

A run's batches and its learning-rate schedule are known before its first step, so a killed run continues from its last
checkpoint exactly: the result is that of a run that was never interrupted. Several processes plan the same batches and
each takes every n-th example of every batch, so that a step is the same step on any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ra3core.errors import UserError
from ra3core.learning import checkpoints
from ra3core.learning.packing import packed
from ra3core.lm.head import NO_TOKEN, predict
from ra3core.lm.models import autocast
from ra3core.section import Precision
from ra3core.stage import Context

IGNORED = NO_TOKEN  # label of the prompt and of padding: no loss
EVALUATIONS = 10  # of held-out data, spread over the run, beside the one before the first step
PASS_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Tokens, padding included, of one pass of a batch: on a CPU what a pass makes then stays in its cache."""


@dataclass(frozen=True)
class Example:
    """One tokenised document.

    tokens: all of it, the end included. prompt: number of first tokens without loss. rationale: for each token,
    whether it belongs to a rationale line (its newline and indentation included).
    """

    id: str
    tokens: tuple[int, ...]
    prompt: int
    rationale: tuple[bool, ...]


@dataclass(frozen=True)
class Batch:
    """Right-padded examples: a causal model's outputs at real tokens do not depend on what follows.

    input_ids, labels (-100: no loss), rationale (bool): (batch, tokens).
    """

    input_ids: Tensor
    labels: Tensor
    rationale: Tensor


@dataclass(frozen=True)
class Schedule:
    """AdamW's settings and the learning rate's course (names as in transformers' TrainingArguments)."""

    learning_rate: float
    warmup_steps: int
    weight_decay: float
    kind: str = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Right-pad examples to one length."""
    shape = (len(examples), max(len(example.tokens) for example in examples))
    input_ids = torch.full(shape, pad, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    rationale = torch.zeros(shape, dtype=torch.bool)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        input_ids[row, :length] = torch.tensor(example.tokens)
        labels[row, example.prompt : length] = input_ids[row, example.prompt : length]
        rationale[row, :length] = torch.tensor(example.rationale)
    return Batch(input_ids, labels, rationale)


def batch_tokens(batch: Batch) -> int:
    """Tokens of a batch, padding excluded."""
    counted = batch.labels != IGNORED
    ends = counted.long().cumsum(1).argmax(1) + 1  # one past the last token with a loss, which is the example's last
    return int(ends.sum())


def by_length(lengths: Sequence[int], order: Sequence[int], size: int, sorted_batches: int = 16) -> list[list[int]]:
    """Cut `order` into batches of `size`, each of neighbours in length, so that little is padded.

    Every `sorted_batches` batches' worth of `order` is sorted on its own; the batches come out in that order.
    """
    batches: list[list[int]] = []
    for start in range(0, len(order), size * sorted_batches):
        chunk = sorted(order[start : start + size * sorted_batches], key=lambda i: (lengths[i], i))
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    return batches


def token_losses(model: nn.Module, input_ids: Tensor, labels: Tensor, positions: Tensor | None = None) -> Tensor:
    """-log pi(x_i | x_<i) in nats of each token after the first, zero where the label is -100: (batch, tokens - 1).

    positions: (batch, tokens), of rows with several documents, where each begins at 0.
    """
    first = int((labels != IGNORED).any(0)[1:].int().argmax())  # nothing ahead of it is predicted: no logits there
    targets = labels[:, first + 1 :]
    inputs = {} if positions is None else {"position_ids": positions}
    predictions, _ = predict(model, input_ids, use_cache=False, logits_to_keep=targets.shape[1] + 1, **inputs)
    return nn.functional.pad(-predictions.log_probs(targets)[0], (first, 0))


def train(
    stage: str,
    model: nn.Module,
    batches: Sequence[Batch],
    schedule: Schedule,
    context: Context,
    *,
    checkpoint_steps: int,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
    after: Mapping[int, Callable[[nn.Module], None]] | None = None,
    precision: Precision = "float32",
    pack: int | None = None,
) -> int:
    """Train `model` in place, one step a batch, from the last checkpoint in context.scratch if there is one.

    Under FSDP it is sharded afterwards (checkpoints.unsharded). after: step -> what every process does with the model
    then, once more if training goes on from an earlier checkpoint. pack: documents of a pass stand in rows of so many
    tokens (packing.py); none: each in a row of its own. Logs every step's train_loss (nats per token),
    learning_rate and cumulative tokens, and `evaluate(model)` ahead of the first step and about ten times after;
    returns the number of evaluations. Raises UserError when the loss stops being finite.
    """
    callback = _Curve(stage, batches, evaluate, after or {}, context)
    trainer = _trainer(model, batches, schedule, context, callback, checkpoint_steps)
    trainer.precision, trainer.pack = precision, pack
    checkpoint = checkpoints.latest(context.scratch)
    done = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
    context.log.resume(-1 if checkpoint is None else done)
    with context.log.progress(stage, len(batches), done) as advance:
        callback.advance = advance
        if checkpoint is None and evaluate is not None:
            context.log.metrics(0, tokens=0, **evaluate(model))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return len(callback.evaluated_at) + 1 if evaluate is not None else 0


Part = tuple[Tensor, Tensor, Tensor | None]
"""What `token_losses` is given of a pass: input_ids, labels and, where documents share a row, positions."""


def passes(input_ids: Tensor, labels: Tensor, most: int, pack: int | None = None) -> Iterator[Part]:
    """A right-padded batch as parts of at most `most` tokens (one example at least), each as wide as its longest.

    pack: put examples behind one another, in rows of so many tokens (of an example's own, if it is longer).
    """
    lengths = torch.where(labels != IGNORED, torch.arange(1, labels.shape[1] + 1, device=labels.device), 0).amax(1)
    if pack is not None:
        yield from packed(input_ids, labels, lengths.tolist(), pack, most)
        return
    rows: list[int] = []
    width = 0
    for row, length in enumerate(lengths.tolist()):
        if rows and (len(rows) + 1) * max(width, length) > most:
            yield input_ids[rows, :width], labels[rows, :width], None
            rows, width = [], 0
        rows.append(row)
        width = max(width, length)
    yield input_ids[rows, :width], labels[rows, :width], None


def shares(input_ids: Tensor, labels: Tensor, count: int, pack: int | None = None) -> list[list[Part]]:
    """The passes of each of `count` processes over a batch: every count-th example, and as many passes each.

    What is missing for that is filled up with passes without any loss: processes meet in them.
    """
    most = PASS_TOKENS.get(labels.device.type, PASS_TOKENS["cpu"])
    found = [
        list(passes(input_ids[rank::count], labels[rank::count], most, pack)) if rank < len(labels) else []
        for rank in range(count)
    ]
    longest = max(map(len, found))
    nothing = input_ids[:1], torch.full_like(labels[:1], IGNORED), None
    return [[*own, *[nothing] * (longest - len(own))] for own in found]


class _Trainer(transformers.Trainer):
    """transformers' Trainer with the loss above, summed over passes, which it keeps for the curve."""

    model: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    lr_scheduler: Any  # pyright: ignore[reportIncompatibleVariableOverride]
    last_loss: Tensor
    precision: Precision
    pack: int | None

    def get_train_dataloader(self) -> DataLoader:
        """The planned batches as they are: accelerate would give each process batches of its own."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)  # pyright: ignore[reportArgumentType]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *_: object, **__: object) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """This process's share of a step; its gradient is averaged over processes in the last backward pass."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        counted = (inputs["labels"][:, 1:] != IGNORED).sum()  # of all processes
        own = shares(inputs["input_ids"], inputs["labels"], count, self.pack)[rank]
        losses = []
        for number, part in enumerate(own, 1):
            with autocast(self.args.device, self.precision):
                loss = token_losses(model, *part).sum() / counted
            wait = number < len(own) and not self.is_fsdp_enabled  # whole gradients are what FSDP has no room for
            with self.accelerator.no_sync(model) if wait else nullcontext():
                self.accelerator.backward(loss * count)
            losses.append(loss.detach())
        self.last_loss = self.accelerator.reduce(torch.stack(losses).sum(), "sum")  # pyright: ignore[reportAttributeAccessIssue]
        return self.last_loss

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """One that any layout goes on from (checkpoints.py), in place of transformers' own formats."""

        def also(folder: Path) -> None:
            torch.save(self.lr_scheduler.state_dict(), folder / "scheduler.pt")
            self.state.save_to_json(str(folder / transformers.trainer.TRAINER_STATE_NAME))

        folder, first = Path(str(self.args.output_dir)), self.is_world_process_zero()
        checkpoints.save(folder, self.state.global_step, self.model, self.optimizer, first, also)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoints.restore_weights(Path(resume_from_checkpoint), self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.restore_optimizer(Path(checkpoint), self.model, self.optimizer)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))
            optimizer: Any = self.optimizer
            for group, rate in zip(optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
                group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.restore_generators(Path(checkpoint))


class _Curve(transformers.TrainerCallback):
    """Writes the metrics rows, and evaluates now and then."""

    def __init__(
        self,
        stage: str,
        batches: Sequence[Batch],
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
        after: Mapping[int, Callable[[nn.Module], None]],
        context: Context,
    ) -> None:
        self.stage, self.evaluate, self.after, self.context = stage, evaluate, after, context
        self.tokens = numpy.cumsum([batch_tokens(batch) for batch in batches]).tolist()
        steps = len(batches)
        self.evaluated_at = {round(steps * n / EVALUATIONS) for n in range(1, EVALUATIONS + 1)} - {0}
        self.rate = 0.0
        self.trainer: _Trainer
        self.advance: Callable[[int], None]

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.rate = self.trainer._get_learning_rate()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        step = state.global_step
        loss = float(self.trainer.last_loss)
        if not numpy.isfinite(loss):
            raise UserError(
                f"{self.stage}.learning_rate: the loss is {loss} at step {step}, expected a rate that converges"
            )
        values = {"train_loss": loss, "learning_rate": self.rate}
        if self.evaluate is not None and step in self.evaluated_at:
            values |= self.evaluate(self.trainer.model)  # pyright: ignore[reportArgumentType]
        if step in self.after:
            self.after[step](self.trainer.model)  # pyright: ignore[reportArgumentType]
        self.context.log.metrics(step, tokens=self.tokens[step - 1], **values)
        self.advance(1)


def _trainer(
    model: nn.Module,
    batches: Sequence[Batch],
    schedule: Schedule,
    context: Context,
    callback: _Curve,
    checkpoint_steps: int,
) -> _Trainer:
    """A Trainer whose dataset is the planned run: one item a batch, one batch a step, read in order."""
    cpu = context.device == "cpu"
    arguments = transformers.TrainingArguments(
        output_dir=str(context.scratch),
        max_steps=len(batches),
        per_device_train_batch_size=1,  # one planned batch
        train_sampling_strategy="sequential",
        learning_rate=schedule.learning_rate,
        lr_scheduler_type=schedule.kind,
        lr_scheduler_kwargs=dict(schedule.options),
        warmup_steps=schedule.warmup_steps,
        weight_decay=schedule.weight_decay,
        save_strategy="steps",
        save_steps=checkpoint_steps,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        use_cpu=cpu,
        seed=context.seed,
    )
    arguments._n_gpu = 0 if cpu else 1  # one device, whatever else the machine has
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=batches,  # pyright: ignore[reportArgumentType]
        data_collator=lambda items: {"input_ids": items[0].input_ids, "labels": items[0].labels},
        callbacks=[callback],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    callback.trainer = trainer
    return trainer
