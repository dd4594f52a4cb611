"""The M-step: what is trained on, what is held out, and that a killed run ends like one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import Lfm2Config, Lfm2ForCausalLM

from ra3core.config import LoraConfig, MStepConfig
from ra3core.corpora.demonstrations import (
    Annotated,
    Demonstration,
    annotate,
    comment_boundaries,
    write_annotated,
    write_demonstrations,
)
from ra3core.errors import UserError
from ra3core.learning.m_step import encode, evaluate, m_step, plan_batches, split
from ra3core.learning.training import Example, batch_tokens, collate, token_losses
from ra3core.lm.models import load_model, load_tokenizer, save_model
from ra3core.lm.tokenizer import train_tokenizer
from ra3core.stage import ON_THE_WAY, Context, Metrics, StageLog, read_metrics

CONFIG = MStepConfig(epochs=2, batch_size=4, learning_rate=1e-2, held_out=0.2, checkpoint_steps=3)


def demonstration(number: int) -> Demonstration:
    prompt = f'def f(xs):\n    """Run {"ABC"[number % 3]}."""'
    lines = [f"    out = xs[{number % 4}:]", "    out.sort()", *["    out.pop()"] * (number % 3), "    return out"]
    return Demonstration(f"d/{number}", prompt, tuple(lines), comment_boundaries(prompt, lines))


DEMONSTRATIONS = [demonstration(number) for number in range(24)]


def thoughtful(one: Demonstration) -> Annotated:
    return annotate(one, {0: "cut the list", 1: "sort it"})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Lfm2 with a tokenizer, as a stage leaves it."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer([thoughtful(one).text for one in DEMONSTRATIONS], min_count=2)
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    save_model(Lfm2ForCausalLM(config), tokenizer, folder / "model")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_demonstrations(DEMONSTRATIONS, folder / "demonstrations.parquet")
    return folder


def annotated_folder(folder: Path, annotated: list[Annotated]) -> Path:
    folder.mkdir()
    write_annotated(annotated, folder / "annotated.parquet")
    return folder


def train(config: MStepConfig, base: Path, demonstrations: Path, folder: Path, **log) -> tuple[Metrics, Context]:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    inputs = {"model": base, "demonstrations": demonstrations}
    context = Context(inputs, out, scratch, seed=3, log=StageLog(out / "metrics.jsonl", **log))
    return m_step(config, context), context


def weights(context: Context, on_the_way: str = "") -> bytes:
    folder = context.out / ON_THE_WAY / on_the_way if on_the_way else context.out
    return (folder / "model" / "model.safetensors").read_bytes()


def test_it_learns_and_says_what_it_did(base: Path, plain: Path, tmp_path: Path) -> None:
    metrics, context = train(CONFIG, base, plain, tmp_path)
    rows = read_metrics(context.out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(metrics["steps"] + 1))
    assert metrics["held_out_code"] < rows[0]["held_out_code"] - 1
    assert metrics["held_out_code"] == rows[-1]["held_out_code"]
    assert "held_out_rationale" not in metrics
    assert rows[-1]["train_loss"] < rows[1]["train_loss"] - 1
    assert rows[-1]["tokens"] == metrics["train_tokens"]
    assert sum("held_out_nats" in row for row in rows) == min(11, metrics["steps"] + 1)
    assert metrics["demonstrations"] + metrics["held_out_demonstrations"] == len(DEMONSTRATIONS)
    tokenizer = load_tokenizer(context.out / "model")
    model = load_model(context.out / "model")
    _, held_out = split([annotate(one, {}) for one in DEMONSTRATIONS], CONFIG.held_out)
    examples, _ = encode(held_out, tokenizer, 512)
    again = evaluate(model, [collate(examples, tokenizer.pad_token_id)])  # type: ignore[arg-type]
    assert again["held_out_nats"] == pytest.approx(metrics["held_out_nats"], rel=1e-5)


def test_without_rationales_it_is_next_token_prediction(base: Path, plain: Path, tmp_path: Path) -> None:
    """Think penalty c -> infinity: same batches, losses and weights, to the bit."""
    empty = annotated_folder(tmp_path / "empty", [annotate(one, {}) for one in DEMONSTRATIONS])
    ntp, ntp_context = train(CONFIG, base, plain, tmp_path / "a")
    ra3, ra3_context = train(CONFIG, base, empty, tmp_path / "b")
    assert ntp == ra3
    assert (ntp_context.out / "metrics.jsonl").read_text() == (ra3_context.out / "metrics.jsonl").read_text()
    assert weights(ntp_context) == weights(ra3_context)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4, dropout=0.2)], ids=["full", "lora"])
@pytest.mark.parametrize("killed_at", [1, 5])
def test_interrupted_equals_uninterrupted(
    base: Path, plain: Path, tmp_path: Path, killed_at: int, lora: LoraConfig | None
) -> None:
    config = CONFIG.model_copy(update={"lora": lora, "snapshots": 3})
    whole, whole_context = train(config, base, plain, tmp_path / "whole")

    def kill(event: dict) -> None:
        if event["event"] == "metrics" and event["step"] == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, base, plain, tmp_path / "killed", sink=kill)
    half_written = tmp_path / "killed" / "scratch" / "checkpoint.tmp"
    half_written.mkdir()  # the kill came while a checkpoint was being written
    (half_written / "weights.safetensors").write_bytes(b"half")
    steps_again = []
    resumed, resumed_context = train(
        config,
        base,
        plain,
        tmp_path / "killed",
        sink=lambda event: steps_again.append(event["done"]) if event["event"] == "progress" else None,
    )
    assert steps_again[0] == (3 if killed_at > 3 else 0)  # went on from the checkpoint
    assert resumed == whole
    assert weights(resumed_context) == weights(whole_context)
    for name in config.on_the_way:
        assert weights(resumed_context, name) == weights(whole_context, name)
    metrics = [(context.out / "metrics.jsonl").read_text() for context in (whole_context, resumed_context)]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4, dropout=0.2)], ids=["full", "lora"])
def test_models_on_the_way_are_those_that_the_curve_is_of(
    base: Path, plain: Path, tmp_path: Path, lora: LoraConfig | None
) -> None:
    """And keeping them changes nothing else: with adapters neither what is dropped out."""
    config = CONFIG.model_copy(update={"lora": lora})
    without, plain_context = train(config, base, plain, tmp_path / "without")
    metrics, context = train(config.model_copy(update={"snapshots": 3}), base, plain, tmp_path / "with")
    assert {name: value for name, value in metrics.items() if name != ON_THE_WAY} == without
    assert weights(context) == weights(plain_context)
    assert not (plain_context.out / ON_THE_WAY).exists()
    assert list(metrics[ON_THE_WAY]) == ["1_of_4", "2_of_4", "3_of_4"]
    rows = {row["tokens"]: row for row in read_metrics(context.out / "metrics.jsonl")}
    tokenizer = load_tokenizer(base / "model")
    _, held_out = split([annotate(one, {}) for one in DEMONSTRATIONS], CONFIG.held_out)
    batch = collate(encode(held_out, tokenizer, 512)[0], tokenizer.pad_token_id)  # type: ignore[arg-type]
    seen = []
    for number, (name, tokens) in enumerate(metrics[ON_THE_WAY].items(), start=1):
        assert rows[tokens]["step"] == number * metrics["steps"] // 4
        model = load_model(context.out / ON_THE_WAY / name / "model")
        load_tokenizer(context.out / ON_THE_WAY / name / "model")
        seen.append(evaluate(model, [batch])["held_out_nats"])
        if "held_out_nats" in rows[tokens]:
            assert seen[-1] == pytest.approx(rows[tokens]["held_out_nats"], rel=1e-5)
    assert any("held_out_nats" in rows[tokens] for tokens in metrics[ON_THE_WAY].values())
    assert len(set(seen)) == 3


def test_the_loss_is_of_everything_after_the_prompt(base: Path) -> None:
    tokenizer, model = load_tokenizer(base / "model"), load_model(base / "model")
    one = thoughtful(DEMONSTRATIONS[0])
    (example,), _ = encode([one], tokenizer, 512)
    batch = collate([example], 0)
    assert tokenizer.decode(example.tokens[: example.prompt]) == one.demonstration.prompt
    assert tokenizer.decode(example.tokens) == one.text + tokenizer.eos_token
    thoughts = tokenizer.decode([t for t, r in zip(example.tokens, example.rationale, strict=True) if r])
    assert thoughts == "\n    # cut the list\n    # sort it"
    with torch.no_grad():
        reference = model(input_ids=batch.input_ids, labels=batch.labels).loss
        losses = token_losses(model, batch.input_ids, batch.labels)
    counted = len(example.tokens) - example.prompt
    assert float(losses.sum()) / counted == pytest.approx(float(reference), rel=1e-5)
    values = evaluate(model, [batch])
    rationale = sum(example.rationale)
    whole = values["held_out_code"] * (counted - rationale) + values["held_out_rationale"] * rationale
    assert whole == pytest.approx(values["held_out_nats"])
    assert values["held_out"] == pytest.approx(values["held_out_nats"] / counted)


def test_padding_changes_nothing(base: Path) -> None:
    tokenizer, model = load_tokenizer(base / "model"), load_model(base / "model")
    examples, _ = encode([thoughtful(one) for one in DEMONSTRATIONS[:6]], tokenizer, 512)
    assert len({len(example.tokens) for example in examples}) > 1
    together = evaluate(model, [collate(examples, tokenizer.pad_token_id)])  # type: ignore[arg-type]
    apart = evaluate(model, [collate([example], 0) for example in examples])
    assert together == pytest.approx(apart, rel=1e-5)


def test_lora_is_merged_and_trains_only_adapters(base: Path, plain: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"lora": LoraConfig(rank=2, alpha=4, target_modules=["q_proj"])})
    metrics, context = train(config, base, plain, tmp_path)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (base, context.out))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("q_proj" in name for name in changed)
    assert before.keys() == after.keys()
    assert metrics["trained_parameters"] == 2 * 2 * 32


def test_rationales_and_plain_hold_out_the_same(base: Path) -> None:
    annotated = [annotate(one, {}) for one in DEMONSTRATIONS]
    _, held_out = split(annotated, 0.2)
    _, others = split([thoughtful(one) for one in reversed(DEMONSTRATIONS)], 0.2)
    assert {one.demonstration.id for one in held_out} == {one.demonstration.id for one in others}
    assert 1 <= len(held_out) < len(annotated)
    assert split(annotated, 0.0) == (annotated, [])
    assert len(split(annotated, 1e-9)[1]) == 1


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    epochs=st.integers(1, 3),
    size=st.integers(1, 7),
    budget=st.none() | st.integers(1, 2000),
)
def test_plan(lengths: list[int], epochs: int, size: int, budget: int | None) -> None:
    plan = plan_batches(lengths, MStepConfig(epochs=epochs, batch_size=size, token_budget=budget), seed=0)
    assert all(1 <= len(batch) <= size for batch in plan)
    flat = [i for batch in plan for i in batch]
    if budget is None:
        assert sorted(flat) == sorted(list(range(len(lengths))) * epochs)
    else:
        trained = sum(lengths[i] for i in flat)
        assert budget <= trained < budget + max(lengths)
        counts = [flat.count(i) for i in range(len(lengths))]
        assert max(counts) - min(counts) <= 1


def test_token_budget_counts_what_is_trained(base: Path, plain: Path, tmp_path: Path) -> None:
    metrics, _ = train(CONFIG.model_copy(update={"token_budget": 700}), base, plain, tmp_path)
    assert 700 <= metrics["train_tokens"] < 760


def test_matched_tokens_are_those_of_an_m_step(base: Path, plain: Path, tmp_path: Path) -> None:
    spent, _ = train(CONFIG, base, plain, tmp_path / "m_step")
    matched = {"model": base, "demonstrations": plain, "matched_1": plain, "matched_2": plain}
    context = Context(matched, tmp_path / "out", tmp_path / "scratch")
    metrics = m_step(CONFIG.model_copy(update={"token_budget": 10}), context)
    expected = 10 + 2 * spent["train_tokens"]
    assert expected <= metrics["train_tokens"] < expected + 60


def test_the_schedule_is_planned(base: Path, plain: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"warmup_share": 0.2, "held_out": 0.0})
    metrics, context = train(config, base, plain, tmp_path)
    rates = [row["learning_rate"] for row in read_metrics(context.out / "metrics.jsonl")]
    assert metrics["steps"] == 12
    ramp = [0, 0.5, *(1 - n / 10 for n in range(10))]  # two warm-up steps, then linearly towards zero
    assert rates == pytest.approx([config.learning_rate * share for share in ramp])
    assert not any(name.startswith("held_out_c") for name in metrics)


def test_errors_are_one_sentence(base: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_tokens"):
        train(CONFIG.model_copy(update={"max_tokens": 5}), base, plain, tmp_path / "a")
    empty = annotated_folder(tmp_path / "none", [thoughtful(DEMONSTRATIONS[0])])
    with pytest.raises(UserError, match="held_out"):
        train(CONFIG, base, empty, tmp_path / "b")
    with pytest.raises(UserError, match=r"m_step\.snapshots: 40 models on the way, expected fewer than the"):
        train(CONFIG.model_copy(update={"snapshots": 40}), base, plain, tmp_path / "e")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="no such file"):
        train(CONFIG, base, tmp_path / "folder", tmp_path / "c")
    with pytest.raises(UserError, match="learning_rate"):
        train(CONFIG.model_copy(update={"learning_rate": 1e30}), base, plain, tmp_path / "d")


def test_longer_demonstrations_are_dropped_and_counted(base: Path, plain: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base / "model")
    examples, _ = encode([annotate(one, {}) for one in DEMONSTRATIONS], tokenizer, 512)
    limit = max(len(example.tokens) for example in examples) - 1
    longer = sum(len(example.tokens) > limit for example in examples)
    metrics, _ = train(CONFIG.model_copy(update={"max_tokens": limit}), base, plain, tmp_path)
    assert metrics["dropped"] == longer > 0


def test_tokens_leave_out_padding() -> None:
    examples = [Example("a", (1, 2, 3), 1, (False,) * 3), Example("b", (4, 5, 6, 7, 8), 2, (False,) * 5)]
    assert batch_tokens(collate(examples, 0)) == 8
