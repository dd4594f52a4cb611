"""M-step: next-token prediction on (annotated) demonstrations.

The paper fits the model to the demonstrations that the E-step's policy annotated, rationale and code tokens alike
(METHOD.md, M-step): the loss of a demonstration is -sum_i log pi(x_i | x_<i) over the tokens x_i after the prompt,
which maximises the temporal ELBO's reconstruction term and the prior's share of the rationales together. On
demonstrations without rationales (think penalty c -> infinity) the very same function is the NTP baseline.

What is ours: batches and the learning-rate schedule are planned ahead from the seed (linear warm-up over
`warmup_share` of the planned steps, then linear decay to zero), so that a killed run continues exactly; a share of
the demonstrations, picked by a hash of their ids and therefore the same with and without rationales, is held out and
scored apart for code and for rationale tokens; `token_budget` trains a compute-matched baseline.

Alone: docs/m_step.md has the snippet (`m_step(MStepConfig(), Context(inputs=..., out=..., scratch=...))`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy
import torch
import transformers
from torch import nn

from ra3core.config import MStepConfig
from ra3core.corpora.demonstrations import Annotated, annotate, read_annotated, read_demonstrations
from ra3core.errors import UserError
from ra3core.learning.checkpoints import copy_whole, unsharded
from ra3core.learning.packing import require_apart
from ra3core.learning.training import (
    IGNORED,
    Batch,
    Example,
    Schedule,
    batch_tokens,
    by_length,
    collate,
    token_losses,
    train,
)
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import autocast, load_to_train, load_tokenizer, merge_lora, save_model
from ra3core.processes import begin
from ra3core.section import Precision
from ra3core.stage import ON_THE_WAY, Context, Metrics

EVALUATED = 256  # held-out demonstrations that an evaluation reads at most


def m_step(config: MStepConfig, context: Context) -> Metrics:
    """Train `inputs["model"]` on `inputs["demonstrations"]` and save it to out/model (adapters merged).

    Models on the way (`snapshots`) are saved to out/on_the_way/NAME/model. Reads annotated.parquet or
    demonstrations.parquet, whichever the folder has. To a `token_budget` is added what an
    M-step of the same configuration would train on in each of inputs["matched_1"], .. Metrics: docs/m_step.md. Raises
    UserError when there is nothing to train on, when a model has no tokenizer, and when the loss is not finite.
    """
    processes = begin(context)
    torch.set_num_threads(context.threads)
    transformers.set_seed(context.seed)  # adapters are initialised at random
    source = context.inputs["model"] / "model"
    tokenizer = load_tokenizer(source)
    model = load_to_train(source, config, context.device)
    if config.packing:
        require_apart(model)

    annotated = read_demonstration_folder(context.inputs["demonstrations"])
    trained, held_out = split(annotated, config.held_out)
    examples, dropped = encode(trained, tokenizer, config.max_tokens)
    held_out_examples, held_out_dropped = encode(held_out, tokenizer, config.max_tokens)
    if not examples:
        raise UserError(
            f"m_step.max_tokens: no demonstration to train on fits into {config.max_tokens} tokens, "
            f"found {len(trained)} and all are longer"
        )
    if dropped + held_out_dropped:
        context.log.message(
            f"{dropped + held_out_dropped} demonstrations longer than {config.max_tokens} tokens dropped"
        )

    if config.token_budget is not None:
        config = config.model_copy(
            update={"token_budget": config.token_budget + _matched_tokens(config, context, tokenizer)}
        )

    pad = int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    plan = plan_batches([len(example.tokens) for example in examples], config, context.seed)
    batches = [collate([examples[i] for i in indices], pad) for indices in plan]
    evaluation = _evaluation_batches(held_out_examples[:EVALUATED], config.batch_size, pad)
    at_end = _evaluation_batches(_spread(examples, min(EVALUATED, len(held_out_examples))), config.batch_size, pad)

    kept = _steps_kept(config, len(batches))

    def keep(model: nn.Module, name: str) -> None:
        with torch.random.fork_rng(devices=[]):  # adapters are drawn and then overwritten
            whole = load_to_train(source, config, "cpu")
        copy_whole(model, whole)
        if processes.first:
            save_model(merge_lora(whole), tokenizer, context.out / ON_THE_WAY / name / "model")

    evaluations = train(
        "m_step",
        model,
        batches,
        Schedule(config.learning_rate, round(config.warmup_share * len(batches)), config.weight_decay),
        context,
        checkpoint_steps=config.checkpoint_steps,
        evaluate=(lambda model: evaluate(model, evaluation, config.precision)) if evaluation else None,
        after={step: partial(keep, name=name) for name, step in kept.items()},
        precision=config.precision,
        pack=config.max_tokens if config.packing else None,
    )

    parameters = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    final = evaluate(model, evaluation, config.precision)
    seen = evaluate(model, at_end, config.precision)
    fit = {name.replace("held_out", "trained"): value for name, value in seen.items()}
    trained_model = unsharded(model, lambda: load_to_train(source, config, "cpu"))
    if processes.first:
        save_model(merge_lora(trained_model), tokenizer, context.out / "model")
    train_tokens = sum(batch_tokens(batch) for batch in batches)
    scored = sum(batch_tokens(batch) for batch in evaluation) * (evaluations + 1) + sum(map(batch_tokens, at_end))
    return {
        "tokens": train_tokens + scored,
        "train_tokens": train_tokens,
        "evaluation_tokens": scored,
        "steps": len(batches),
        "demonstrations": len(examples),
        "held_out_demonstrations": len(held_out_examples),
        "dropped": dropped + held_out_dropped,
        "parameters": parameters,
        "trained_parameters": trainable,
        **({ON_THE_WAY: {name: sum(map(batch_tokens, batches[:step])) for name, step in kept.items()}} if kept else {}),
        **final,
        **fit,
    }


def _steps_kept(config: MStepConfig, steps: int) -> dict[str, int]:
    """After which step each model on the way is kept. Raises UserError when there are too few steps for them."""
    if config.snapshots >= steps:
        raise UserError(
            f"m_step.snapshots: {config.snapshots} models on the way, expected fewer than the {steps} steps"
        )
    return {name: steps * n // (config.snapshots + 1) for n, name in enumerate(config.on_the_way, start=1)}


def _matched_tokens(config: MStepConfig, context: Context, tokenizer: transformers.PreTrainedTokenizerBase) -> int:
    """Tokens that M-steps train on in the folders that this run is matched with."""
    total = 0
    for name, folder in context.inputs.items():
        if name.startswith("matched_"):
            trained, _ = split(read_demonstration_folder(folder), config.held_out)
            examples, _ = encode(trained, tokenizer, config.max_tokens)
            total += config.epochs * sum(len(example.tokens) for example in examples)
    return total


# -- demonstrations to batches -----------------------------------------------------------------------------------------


def read_demonstration_folder(folder: Path) -> list[Annotated]:
    """The folder's annotated.parquet, or its demonstrations.parquet as demonstrations without any rationale."""
    path = folder / "annotated.parquet"
    if path.is_file():
        annotated = read_annotated(path)
    else:
        path = folder / "demonstrations.parquet"
        annotated = [annotate(demonstration, {}) for demonstration in read_demonstrations(path)]
    if not annotated:
        raise UserError(f"{path}: expected at least one demonstration, found none")
    return annotated


def split(annotated: Sequence[Annotated], share: float) -> tuple[list[Annotated], list[Annotated]]:
    """Demonstrations to train on, and those held out: the ids whose hash falls below `share`.

    The hash makes the choice independent of order, rationales and the other demonstrations. A share above zero
    holds out at least one. Raises UserError when nothing is left to train on.
    """
    if share == 0:
        return list(annotated), []
    places = [_place(one.demonstration.id) for one in annotated]
    lowest = min(places)
    apart = [place < share or place == lowest for place in places]
    trained = [one for one, held in zip(annotated, apart, strict=True) if not held]
    held_out = [one for one, held in zip(annotated, apart, strict=True) if held]
    if not trained:
        raise UserError(
            f"m_step.held_out: expected a share that leaves demonstrations to train on, "
            f"found {share:g} of {len(annotated)}"
        )
    return trained, held_out


def _place(identifier: str) -> float:
    """A hash of a demonstration's id as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:6]) / 2**48


def encode(
    annotated: Sequence[Annotated], tokenizer: transformers.PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[Example], int]:
    """Tokenise by pieces (ra3core.lm.lines); also returns how many longer than `max_tokens` were dropped."""
    lines = LineTokenizer(tokenizer)
    examples = []
    for one in annotated:
        prompt, *pieces = lines.program(one.demonstration.prompt, one.body)
        tokens, rationale = list(prompt), [False] * len(prompt)
        thoughts = set(one.rationale_lines)
        for number, piece in enumerate(pieces):
            tokens += piece
            rationale += [number in thoughts] * len(piece)
        if len(tokens) <= max_tokens:
            examples.append(Example(one.demonstration.id, tuple(tokens), len(prompt), tuple(rationale)))
    return examples, len(annotated) - len(examples)


def plan_batches(lengths: Sequence[int], config: MStepConfig, seed: int) -> list[list[int]]:
    """Which examples make up each step of the run, known before it starts.

    Each epoch is a permutation; neighbours in it are sorted by length, cut into batches and shuffled again, so that
    little is padded. Ends after `epochs`, or as soon as `token_budget` tokens are reached (less than one
    demonstration over it).
    """
    batches: list[list[int]] = []
    epoch, tokens = 0, 0
    while epoch < config.epochs if config.token_budget is None else tokens < config.token_budget:
        random = numpy.random.default_rng([seed, epoch])
        order = random.permutation(len(lengths)).tolist()
        cut = by_length(lengths, order, config.batch_size)
        for index in random.permutation(len(cut)).tolist():
            batch = []
            for example in cut[index]:
                if config.token_budget is not None and tokens >= config.token_budget:
                    break
                batch.append(example)
                tokens += lengths[example]
            if batch:
                batches.append(batch)
        epoch += 1
    return batches


def _evaluation_batches(examples: Sequence[Example], batch_size: int, pad: int) -> list[Batch]:
    ordered = sorted(examples, key=lambda example: (len(example.tokens), example.id))
    return [collate(ordered[i : i + batch_size], pad) for i in range(0, len(ordered), batch_size)]


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """`count` of the examples, those with the lowest hash: the same demonstrations with and without rationales."""
    return sorted(examples, key=lambda example: _place(example.id))[:count]


# -- loss --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model: nn.Module, batches: Sequence[Batch], precision: Precision = "float32") -> dict[str, float]:
    """Cross-entropy on demonstrations that are not trained on.

    held_out_code: nats per code token, given the rationales ahead of it. held_out_rationale: nats per token of
    rationale lines (absent when there is none). held_out: nats per token of both. held_out_nats: nats per whole
    demonstration, prompt excluded: the only one of the four that compares models of annotated and of plain
    demonstrations as descriptions of the same programs, for a rationale must pay for itself in it.
    """
    if not batches:
        return {}
    model.eval()
    device = next(model.parameters()).device
    nats, counts, demonstrations = {"code": 0.0, "rationale": 0.0}, {"code": 0, "rationale": 0}, 0
    for batch in batches:
        with autocast(device, precision):
            losses = token_losses(model, batch.input_ids.to(device), batch.labels.to(device)).double().cpu()
        counted, rationale = batch.labels[:, 1:] != IGNORED, batch.rationale[:, 1:]
        for kind, mask in (("code", counted & ~rationale), ("rationale", counted & rationale)):
            nats[kind] += float(losses[mask].sum())
            counts[kind] += int(mask.sum())
        demonstrations += len(batch.input_ids)
    total = nats["code"] + nats["rationale"]
    values = {
        "held_out_code": nats["code"] / counts["code"],
        "held_out": total / (counts["code"] + counts["rationale"]),
        "held_out_nats": total / demonstrations,
    }
    if counts["rationale"]:
        values["held_out_rationale"] = nats["rationale"] / counts["rationale"]
    return values
