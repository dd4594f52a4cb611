"""Stages in bfloat16, with layers computed again, with logits in tiles and documents in shared rows: what must not
change does not, and what may changes little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from ra3core.config import EStepConfig, LoraConfig, MStepConfig
from ra3core.corpora.demonstrations import Demonstration, write_demonstrations
from ra3core.errors import UserError
from ra3core.learning import training
from ra3core.learning.e_step import e_step
from ra3core.learning.m_step import m_step
from ra3core.learning.packing import require_apart
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout, tempered
from ra3core.learning.training import IGNORED, passes, token_losses
from ra3core.lm import head
from ra3core.lm.models import add_lora, load_model, recomputes, save_model
from ra3core.stage import Context, Metrics, StageLog, read_metrics

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.2,
}
LORA = LoraConfig(rank=2, alpha=4)
M_STEP = MStepConfig(epochs=2, batch_size=8, learning_rate=1e-2, held_out=0.1, checkpoint_steps=3)
E_STEP = EStepConfig(
    iterations=4,
    warmup_iterations=1,
    demonstrations=2,
    states=2,
    group_size=3,
    rationale_tokens=6,
    learning_rate=1e-3,
    checkpoint_iterations=2,
)


def qwen(vocabulary: int, **other: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Qwen2Config(vocab_size=vocabulary, **{**SMALL, **other})).eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("base")
    made = qwen(len(tokenizer), bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    save_model(made, tokenizer, folder / "model")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, demonstrations: list[Demonstration]) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_demonstrations(demonstrations[:24], folder / "demonstrations.parquet")
    return folder


def run(stage: Callable[..., Metrics], config: Any, base: Path, data: Path, folder: Path, **log: Any) -> Context:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    inputs = {"model": base, "demonstrations": data}
    context = Context(inputs, out, scratch, seed=3, log=StageLog(out / "metrics.jsonl", **log))
    stage(config, context)
    return context


def rows(context: Context) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(context.out / "metrics.jsonl")]


# -- bfloat16 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_an_m_step_in_bfloat16_learns_as_in_float32(lora: LoraConfig | None, base: Path, data: Path, tmp_path) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        config = M_STEP.model_copy(update={"precision": precision, "lora": lora})
        context = run(m_step, config, base, data, tmp_path / precision)
        found[precision] = [row["train_loss"] for row in rows(context)[1:]]
        weights = load_file(context.out / "model" / "model.safetensors")
        assert {w.dtype for w in weights.values()} == {torch.float32}  # as they were trained
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.03)
    assert found["bfloat16"][-1] < found["bfloat16"][0] - (0.3 if lora else 1)


@pytest.mark.parametrize(
    ("stage", "config", "lora"), [(m_step, M_STEP, LORA), (e_step, E_STEP, None)], ids=["m_step, lora", "e_step"]
)
def test_a_killed_run_in_bfloat16_goes_on_exactly(stage, config, lora, base: Path, data: Path, tmp_path: Path) -> None:
    config = config.model_copy(update={"precision": "bfloat16", "gradient_checkpointing": True, "lora": lora})
    whole = run(stage, config, base, data, tmp_path / "whole")

    def kill(event: dict) -> None:
        if event["event"] == "metrics" and event["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stage, config, base, data, tmp_path / "killed", sink=kill)
    again = run(stage, config, base, data, tmp_path / "killed")
    assert rows(again) == rows(whole)
    one, other = (load_file(c.out / "model" / "model.safetensors") for c in (again, whole))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_what_is_sampled_from_is_the_trained_model_in_bfloat16() -> None:
    model = qwen(50)
    trainer = PolicyTrainer(model, Objective(1e-2, std_floor=0.5), precision="bfloat16")
    frequencies = trainer.policy.model.rotary_emb.inv_freq  # pyright: ignore
    assert {p.dtype for p in trainer.policy.parameters()} == {torch.bfloat16} and frequencies.dtype == torch.float32
    trainer.step(groups(50))
    for trained, sampled in zip(trainer.model.parameters(), trainer.policy.parameters(), strict=True):
        assert trained.dtype == torch.float32 and torch.equal(trained.bfloat16(), sampled)
    assert trainer.whole() is trainer.model


def test_adapters_alone_are_in_float32_and_small_changes_are_not_rounded_away(base: Path, tmp_path, tokenizer) -> None:
    """Merged in bfloat16, a change of a thousandth of a weight would be none."""
    from ra3core.lm.models import merge_lora

    adapted = add_lora(load_model(base / "model", precision="bfloat16"), LORA)
    trainer = PolicyTrainer(adapted, Objective(1e-5, std_floor=0.5), precision="bfloat16")
    assert trainer.policy is adapted
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    for _ in range(3):
        trainer.step(groups(len(tokenizer)))
    merged, start = merge_lora(trainer.whole()).state_dict(), load_model(base / "model").state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    moved = merged[name] - start[name].bfloat16().float()
    assert 0 < float(moved.abs().max()) < 1e-4


# -- layers computed again ---------------------------------------------------------------------------------------------


def groups(vocabulary: int, count: int = 3) -> list[Group]:
    draw = torch.Generator().manual_seed(0)

    def text(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=draw).tolist())

    return [
        Group(text(5 + n), tuple(Rollout(text(3 + i), float(i), 1 / 3, suffix=text(n)) for i in range(3)))
        for n in range(count)
    ]


def gradients(model: torch.nn.Module, precision: Any = "float32") -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Of one policy gradient step, with a loss of single places beside it."""
    trainer, found = PolicyTrainer(model, Objective(1e-2, std_floor=0.5), precision=precision), {}
    inner = trainer.accelerator.clip_grad_norm_

    def keep(parameters, norm):
        found.update({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})
        return inner(parameters, norm)

    trainer.accelerator.clip_grad_norm_ = keep  # type: ignore[method-assign]

    def extra(passed, epoch):
        return passed.predictions.at(range(len(passed.rows)), passed.lengths, lambda x: x.logsumexp(-1)).sum()

    metrics = trainer.step(groups(model.config.vocab_size), tempered(0.7), extra)  # pyright: ignore
    return found, metrics


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("tiled", [False, True], ids=["whole", "tiles"])
def test_the_policy_gradient_is_the_same(lora: LoraConfig | None, tiled: bool, monkeypatch) -> None:
    """With layers that are computed again, where transformers would leave out a context's cache without an error."""

    def made() -> torch.nn.Module:
        torch.manual_seed(1)
        return add_lora(qwen(50), lora) if lora else qwen(50)

    expected, figures = gradients(made())
    if tiled:
        monkeypatch.setattr(head, "TILE", {"cpu": 4 * 50})
    again = made()
    again.activation_checkpointing_enable({"use_reentrant": False})  # pyright: ignore
    assert recomputes(again)
    found, others = gradients(again)
    assert others == pytest.approx(figures, rel=1e-4)
    assert found.keys() == expected.keys() and any(bool(g.abs().max() > 1e-3) for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_the_policy_gradient_in_bfloat16_points_the_same_way() -> None:
    (expected, _), (found, _) = gradients(qwen(50)), gradients(qwen(50), "bfloat16")
    one, other = (torch.cat([g.flatten() for g in each.values()]) for each in (expected, found))
    assert float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 0.99


def test_memory_falls_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that an M-step's pass allocates at most: whole, in tiles, and with layers computed again too."""
    model = qwen(2000, num_hidden_layers=6).train()
    ids = torch.randint(2000, (4, 64))

    def peak() -> int:
        model.zero_grad(set_to_none=False)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            token_losses(model, ids, ids).sum().backward()
        now = most = 0
        for event in profiled.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                most = max(most, now)
        return most

    token_losses(model, ids, ids).sum().backward()  # makes the gradients
    whole = peak()
    monkeypatch.setattr(head, "TILE", {"cpu": 16 * 2000})
    tiled = peak()
    model.activation_checkpointing_enable({"use_reentrant": False})
    both = peak()
    assert whole - tiled > 2 * 4 * 2000 * 4 * 64 * 0.8  # two copies of the logits, in bytes
    assert both < 0.6 * tiled


# -- documents that share a row ----------------------------------------------------------------------------------------


def padded_batch(lengths: list[int], vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(vocabulary, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    for row, length in enumerate(lengths):
        labels[row, length:] = IGNORED
        labels[row, :2] = IGNORED  # a prompt
    return ids, labels


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_losses_are_those_of_each_document_alone(attention: str) -> None:
    lengths = [9, 4, 7, 12, 3, 5, 20]
    model = qwen(50, attn_implementation=attention)
    ids, labels = padded_batch(lengths, 50)
    alone = [
        token_losses(model, ids[n : n + 1, :length], labels[n : n + 1, :length]) for n, length in enumerate(lengths)
    ]
    expected = torch.cat([losses[losses > 0] for losses in alone])
    parts = list(passes(ids, labels, 36, pack=18))
    assert len(parts) > 1 and all(part[0].numel() <= 36 for part in parts)
    found = torch.cat([losses[losses > 0] for losses in (token_losses(model, *part) for part in parts)])
    torch.testing.assert_close(found.sort().values, expected.sort().values)
    assert sum(part[0].numel() for part in parts) < sum(part[0].numel() for part in passes(ids, labels, 36))


def test_no_document_sees_another(demonstrations: list[Demonstration]) -> None:
    """One document of a row is changed: the others' predictions are the same to the bit."""
    model = qwen(50)
    ids, labels = padded_batch([6, 7, 5], 50)
    changed = ids.clone()
    changed[1] = (ids[1] + 1) % 50
    one, other = (next(iter(passes(batch, labels, 64, pack=64))) for batch in (ids, changed))
    assert one[0].shape == (1, 18) and bool((one[0] != other[0]).any())
    before, after = (model(part[0], position_ids=part[2], use_cache=False).logits[0] for part in (one, other))
    assert torch.equal(before[:6], after[:6]) and torch.equal(before[13:], after[13:])
    assert not torch.allclose(before[6:13], after[6:13])


def test_a_model_that_reads_across_documents_is_refused(make_model: Callable[..., Any]) -> None:
    require_apart(qwen(50))
    torch.manual_seed(0)
    require_apart(AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=50, **SMALL)))
    with pytest.raises(UserError, match=r"m_step.packing: documents that share a row would see each other in a Lfm2"):
        require_apart(make_model())


def test_an_m_step_with_packing_is_the_same_m_step(base: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(training, "PASS_TOKENS", {"cpu": 600})
    apart = rows(run(m_step, M_STEP, base, data, tmp_path / "apart"))
    config = M_STEP.model_copy(update={"packing": True, "max_tokens": 300})
    packed_ = rows(run(m_step, config, base, data, tmp_path / "packed"))
    for one, other in zip(apart, packed_, strict=True):
        assert other == pytest.approx(one, rel=1e-3)
