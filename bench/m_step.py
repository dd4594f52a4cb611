"""The M-step's speed: tokens a CPU second of one thread, beside transformers' Trainer in its best stock setting.

    python bench/m_step.py [--demonstrations 400] [--epochs 1] [--repeats 3] [--json FILE]

Every contender trains the demo's base model on the same commented demonstrations, 16 a step, fp32, AdamW (fused, as
Trainer's default is), the demo's learning rate, loss on what follows the prompt. Tokens are real ones, prompts
included, padding not. Two rates:

loop    from the call of the training loop to its end; documents are tokens already
stage   the whole work: read the file, load the model, tokenise (both by our line tokeniser), train, save the model

Ours is `ra3core.learning.m_step`, nothing held out (evaluations would be extra work). The stock settings, of which the
fastest is the peer (grouping by length sorts 50 batches at a time, so it needs many documents to be fair to it):

padded      DataCollatorForSeq2Seq, documents in random order
by length   the same with train_sampling_strategy="group_by_length"
flattened   DataCollatorWithFlattening: the documents of a step in one row, where positions begin anew and attention is
            masked. Another computation: without CUDA's causal_conv1d the convolution cannot be told of seq_idx, so
            that a document's first two tokens see the end of the one before
blocks      documents concatenated and cut into rows as run_clm's group_texts does, as many as have a step's tokens.
            Another computation: documents see each other, and are cut where a row ends
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figure, cpu_seconds, finish, in_turns, options  # first: it sets the number of threads
from setting import BASE, demo, demonstrations_and_tasks

import datasets  # isort: skip
import torch  # isort: skip
import transformers  # isort: skip

from ra3core.corpora.demonstrations import Annotated, annotate, read_annotated, write_annotated
from ra3core.learning.m_step import encode, m_step, plan_batches
from ra3core.learning.training import Example
from ra3core.lm.models import load_model, load_tokenizer, save_model
from ra3core.stage import Context, StageLog

BLOCK = 256
"""Tokens of a row of blocks: about two documents; longer rows cost more attention."""


@dataclass
class Run:
    """One training: CPU seconds of the loop and of the whole, and how many places of its batches held no token."""

    loop: float
    stage: float
    padding: float


def ours(folder: Path, epochs: int) -> Run:
    """The stage; its loop is from its first report of progress to its last."""
    reports: list[float] = []

    def sink(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            reports.append(cpu_seconds())

    config = demo().m_step.model_copy(update={"epochs": epochs, "held_out": 0.0})
    with tempfile.TemporaryDirectory() as out:
        context = Context(
            {"model": BASE, "demonstrations": folder}, Path(out), Path(out, "scratch"), log=StageLog(sink=sink)
        )
        began = cpu_seconds()
        m_step(config, context)
        stage = cpu_seconds() - began
    lengths = [len(example.tokens) for example in documents(folder)]
    plan = plan_batches(lengths, config, context.seed)
    places = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)
    return Run(reports[-1] - reports[0], stage, 1 - epochs * sum(lengths) / places)


def documents(folder: Path) -> list[Example]:
    """The demonstrations as tokens, every one of them."""
    annotated = read_annotated(folder / "annotated.parquet")
    return encode(annotated, load_tokenizer(BASE / "model"), demo().m_step.max_tokens)[0]


def stock(setting: str) -> Callable[[Path, int], Run]:
    """transformers' Trainer, nothing of it changed."""

    def run(folder: Path, epochs: int) -> Run:
        config = demo().m_step
        began = cpu_seconds()
        transformers.set_seed(0)
        tokenizer, model = load_tokenizer(BASE / "model"), load_model(BASE / "model")
        rows: list[dict[str, list[int]]] = [
            {
                "input_ids": list(one.tokens),
                "labels": [-100] * one.prompt + list(one.tokens[one.prompt :]),
            }
            for one in documents(folder)
        ]
        tokens = sum(len(row["input_ids"]) for row in rows)
        size, length_column = config.batch_size, {}
        if setting == "blocks":
            size = max(1, round(size * tokens / len(rows) / BLOCK))
            rows = group_texts(rows, BLOCK)
        elif setting == "by length":
            rows = [{**row, "length": len(row["input_ids"])} for row in rows]  # pyright: ignore[reportAssignmentType]
            length_column = {"train_sampling_strategy": "group_by_length"}
        collate = _Counted(
            transformers.DataCollatorWithFlattening()
            if setting == "flattened"
            else transformers.DataCollatorForSeq2Seq(tokenizer)
        )
        with tempfile.TemporaryDirectory() as out:
            arguments = transformers.TrainingArguments(
                output_dir=out,
                num_train_epochs=epochs,
                per_device_train_batch_size=size,
                learning_rate=config.learning_rate,
                warmup_steps=config.warmup_share,
                weight_decay=config.weight_decay,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
                **length_column,  # pyright: ignore[reportArgumentType]
            )
            trainer = transformers.Trainer(model, arguments, collate, rows, processing_class=tokenizer)  # pyright: ignore[reportArgumentType]
            trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
            started = cpu_seconds()
            trainer.train()
            loop = cpu_seconds() - started
            save_model(model, tokenizer, Path(out, "model"))
        return Run(loop, cpu_seconds() - began, 1 - collate.tokens / collate.places)

    return run


class _Counted:
    """A collator that counts the tokens and the places of its batches."""

    def __init__(self, collate: Callable[..., Any]) -> None:
        self.collate, self.tokens, self.places = collate, 0, 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        batch = self.collate([{k: v for k, v in row.items() if k != "length"} for row in rows])
        self.places += batch["input_ids"].numel()
        return batch


def group_texts(rows: Sequence[dict[str, list[int]]], size: int) -> list[dict[str, list[int]]]:
    """run_clm's: everything concatenated and cut into rows of `size`; here the last one, shorter, is kept."""
    whole = {key: list(itertools.chain(*(row[key] for row in rows))) for key in rows[0]}
    return [
        {key: values[start : start + size] for key, values in whole.items()}
        for start in range(0, len(whole["input_ids"]), size)
    ]


CONTENDERS: dict[str, Callable[[Path, int], Run]] = {
    "ours": ours,
    **{setting: stock(setting) for setting in ("padded", "by length", "flattened", "blocks")},
}
SAME = ("padded", "by length")
"""The stock settings that keep documents apart, as ours does."""
OTHER = ("flattened", "blocks")


def fastest(names: Sequence[str], rates: Mapping[str, Sequence[float]]) -> str:
    return max(names, key=lambda name: statistics.median(rates[name]))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--demonstrations", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    demonstrations, _ = demonstrations_and_tasks(given.demonstrations)
    annotated: list[Annotated] = [annotate(one, one.reference) for one in demonstrations]
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as root:
        folder = Path(root)
        write_annotated(annotated, folder / "annotated.parquet")
        tokens = given.epochs * sum(len(one.tokens) for one in documents(folder))
        runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}

        def contender(name: str) -> Callable[[], float]:
            def run() -> float:
                runs[name].append(CONTENDERS[name](folder, given.epochs))
                return tokens / runs[name][-1].loop

            return run

        ours(folder, 1)  # what only the first run pays
        loop = in_turns({name: contender(name) for name in CONTENDERS}, 1)
        again = ("ours", fastest(SAME, loop), fastest(OTHER, loop))  # the slower ones have no second chance
        for name, values in in_turns({name: contender(name) for name in again}, given.repeats - 1).items():
            loop[name] += values
    stage = {name: tuple(tokens / run.stage for run in found) for name, found in runs.items()}
    padding = {name: (100 * found[0].padding,) for name, found in runs.items()}
    best = fastest(SAME, loop)
    note = f"{tokens} tokens"
    figures = [
        Figure("m_step/loop", "tokens/CPU s", loop["ours"], "higher", f"Trainer, {best}", loop[best], note),
        Figure("m_step/stage", "tokens/CPU s", stage["ours"], "higher", f"Trainer, {best}", stage[best], note),
        Figure("m_step/padding", "%", padding["ours"], "lower", f"Trainer, {best}", padding[best]),
    ]
    for name in CONTENDERS:
        if name not in ("ours", best):
            same = "" if name in SAME else "; documents see each other"
            text = f"{padding[name][0]:.0f} % padding{same}"
            figures.append(
                Figure(f"m_step/loop, {name}", "tokens/CPU s", loop["ours"], "higher", "Trainer", loop[name], text)
            )
    finish(figures, given.json)


if __name__ == "__main__":
    main()
