"""The base model: a small stock architecture, pre-trained on the embedded web-like corpus.

The paper starts from released models (Qwen 2.5, Llama); `base.model` names one of those and this stage is left out. The
embedded default has to make its own: outlines first (docstring and rationales, no code), on which the look-up from a
label to its definition forms within a few hundred steps, then the web-like mix of programs and outlines (docs/base.md).
Warm-up, constant rate, then a cosine decay over the second half. The docstring of a document is random by construction,
so it carries no loss: with it, the look-up did not form.

`base.checkpoint` names a kept result of this very stage (`{seed}` in it stands for the run's seed; docs/base.md has the
command that reproduces it). It is used only while configuration, seed and corpus are the ones that made it. The code
that made it may be another: a change of this module does not renew what is kept.

Alone: `pretrain(BaseConfig(), Context(inputs={"corpus": folder}, out=..., scratch=...))`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, Lfm2Config, PreTrainedModel, PreTrainedTokenizerBase

from ra3core.artifacts import MANIFEST
from ra3core.config import BaseConfig
from ra3core.corpora.demonstrations import read_rows
from ra3core.errors import UserError
from ra3core.learning.checkpoints import unsharded
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
from ra3core.lm.lines import end_token_id
from ra3core.lm.models import autocast, recompute, save_model
from ra3core.lm.tokenizer import train_tokenizer
from ra3core.processes import begin
from ra3core.section import Precision
from ra3core.stage import Context, Metrics

HELD_OUT = 256  # web documents that are scored instead of trained on
RECIPE = "recipe.json"


def pretrain(config: BaseConfig, context: Context) -> Metrics:
    """Pre-train on `inputs["corpus"]` (web.parquet, outlines.parquet) and save to out/model.

    Metrics: tokens, train_tokens, steps, parameters, held_out (nats per token after the docstring, on web documents
    not trained on). Raises UserError when the corpus has too few documents or the loss stops being finite.
    """
    processes = begin(context)
    recipe = recipe_of(config, context)
    if config.checkpoint is not None:
        kept = Path(__file__).resolve().parents[2] / config.checkpoint.replace("{seed}", str(context.seed))
        if _recipe_digest(kept) == recipe:
            return _copy(kept, context, processes.first)
    torch.set_num_threads(context.threads)
    transformers.set_seed(context.seed)
    web = [row["text"] for row in read_rows(context.inputs["corpus"] / "web.parquet", ("text",))]
    outlines = [row["text"] for row in read_rows(context.inputs["corpus"] / "outlines.parquet", ("text",))]
    if len(web) <= HELD_OUT or not outlines:
        raise UserError(
            f"base: the corpus has {len(web)} web documents and {len(outlines)} outlines, "
            f"expected more than {HELD_OUT} and at least one"
        )
    tokenizer = train_tokenizer(web + outlines)
    model = new_model(config, tokenizer)
    recompute(model, config)

    held_out, documents = encode(web[:HELD_OUT], tokenizer), encode(web[HELD_OUT:], tokenizer)
    plan = plan_batches(documents, encode(outlines, tokenizer), config, context.seed)
    pad = int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    batches = [collate(examples, pad) for examples in plan]
    order = by_length([len(example.tokens) for example in held_out], range(len(held_out)), config.batch_size)
    scored = [collate([held_out[i] for i in indices], pad) for indices in order]
    decay = len(batches) // 2
    evaluations = train(
        "base",
        model,
        batches,
        Schedule(
            config.learning_rate,
            config.warmup_steps,
            config.weight_decay,
            kind="warmup_stable_decay",
            options={"num_decay_steps": decay, "decay_type": "cosine", "min_lr_ratio": 0.02},
        ),
        context,
        checkpoint_steps=config.checkpoint_steps,
        evaluate=lambda model: {"held_out": _held_out_loss(model, scored, config.precision)},
        precision=config.precision,
    )
    trained = sum(batch_tokens(batch) for batch in batches)
    metrics = {
        "tokens": trained + evaluations * sum(batch_tokens(batch) for batch in scored),
        "train_tokens": trained,
        "steps": len(batches),
        "parameters": model.num_parameters(),
        "held_out": _held_out_loss(model, scored, config.precision),
    }
    trained_model = unsharded(model, lambda: new_model(config, tokenizer))
    if processes.first:
        save_model(trained_model, tokenizer, context.out / "model")
        (context.out / RECIPE).write_text(json.dumps({"recipe": recipe, "metrics": metrics}, indent=2) + "\n")
    return {**metrics, "kept": False}


def new_model(config: BaseConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """An untrained Lfm2: short convolutions, which hand each token its neighbours, beside attention layers."""
    architecture = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=len(config.layers),
        layer_types=list(config.layers),
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        block_auto_adjust_ff_dim=False,
        conv_L_cache=3,
        max_position_embeddings=2048,
        initializer_range=config.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_token_id(tokenizer),
        pad_token_id=int(tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
    )
    return AutoModelForCausalLM.from_config(architecture)


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Documents as tokens with an end token; everything up to the end of the docstring is the prompt."""
    end = end_token_id(tokenizer)
    prompts = tokenizer([_docstring(text) for text in texts])["input_ids"]
    return [
        Example(str(i), (*tokens, end), len(prompt), (False,) * (len(tokens) + 1))
        for i, (tokens, prompt) in enumerate(zip(tokenizer(texts)["input_ids"], prompts, strict=True))
    ]


def _docstring(text: str) -> str:
    """The text up to the end of its docstring; a document without one is all loss."""
    return text[: text.find('"""\n') + 3] if '"""\n' in text else ""


def plan_batches(web: list[Example], outlines: list[Example], config: BaseConfig, seed: int) -> list[list[Example]]:
    """The run's batches: `outline_steps` of outlines, then the mix until its documents have `web_tokens` tokens."""
    random = numpy.random.default_rng([seed, 0])
    streams = [_Stream(documents, random) for documents in (web, outlines)]

    def draw(count: int, outline_share: float) -> list[list[Example]]:
        """Documents for `count` batches, cut by length, in random order."""
        take = round(count * config.batch_size * outline_share)
        documents = streams[1].take(take) + streams[0].take(count * config.batch_size - take)
        order = random.permutation(len(documents)).tolist()
        cut = by_length([len(document.tokens) for document in documents], order, config.batch_size)
        return [[documents[i] for i in cut[index]] for index in random.permutation(len(cut)).tolist()]

    batches = draw(config.outline_steps, 1.0) if config.outline_steps else []
    tokens = 0
    while tokens < config.web_tokens:
        for batch in draw(16, config.outline_share):
            if tokens < config.web_tokens:
                batches.append(batch)
                tokens += sum(len(document.tokens) for document in batch)
    return batches


class _Stream:
    """Documents without end: one permutation after another."""

    def __init__(self, documents: list[Example], random: numpy.random.Generator) -> None:
        self.documents, self.random = documents, random
        self.queue: list[int] = []

    def take(self, count: int) -> list[Example]:
        while len(self.queue) < count:
            self.queue += self.random.permutation(len(self.documents)).tolist()
        taken, self.queue = self.queue[:count], self.queue[count:]
        return [self.documents[i] for i in taken]


@torch.no_grad()
def _held_out_loss(model: nn.Module, batches: list[Batch], precision: Precision) -> float:
    """Nats per token after the docstring."""
    model.eval()
    device, nats = next(model.parameters()).device, 0.0
    with autocast(device, precision):
        for b in batches:
            nats += float(token_losses(model, b.input_ids.to(device), b.labels.to(device)).double().sum())
    return nats / sum(int((batch.labels[:, 1:] != IGNORED).sum()) for batch in batches)


# -- a kept result -----------------------------------------------------------------------------------------------------


def recipe_of(config: BaseConfig, context: Context) -> str:
    """Digest of what determines the result: the section, the seed, the corpus's bytes."""
    left_out = {"model", "chat", "checkpoint", "checkpoint_steps", "gradient_checkpointing"}
    if config.precision == "float32":  # as before there was another
        left_out.add("precision")
    recipe: dict[str, Any] = config.model_dump(exclude=left_out)
    recipe["seed"] = context.seed
    for name in ("web.parquet", "outlines.parquet"):
        recipe[name] = hashlib.sha256((context.inputs["corpus"] / name).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _recipe_digest(folder: Path) -> str | None:
    """The recipe that a kept result was made by; none where nothing is kept."""
    path = folder / RECIPE
    return json.loads(path.read_text())["recipe"] if path.is_file() else None


def _copy(folder: Path, context: Context, write: bool) -> Metrics:
    """The kept result as this stage's own; its metrics say what the training cost when it was run, that it was not run
    now, and, where the artifact's manifest was kept too, by which code it was made."""
    manifest = folder / MANIFEST
    code = {"kept_code": json.loads(manifest.read_text())["code"]} if manifest.is_file() else {}
    by = f"code {code['kept_code'][:12]}" if code else "code that is not on record"
    context.log.message(
        f"base: not trained, the kept weights of {folder} are used: of this very recipe, made by {by}, "
        "which may not be the present one"
    )
    if write:
        shutil.copytree(folder / "model", context.out / "model", dirs_exist_ok=True)
        shutil.copy(folder / RECIPE, context.out / RECIPE)
    return {**json.loads((folder / RECIPE).read_text())["metrics"], "kept": True, **code}
