"""Computed memory against the measured peak of the training steps of tiny models, on the CPU."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, Lfm2Config, Qwen2Config

from ra3core.config import EStepConfig, LoraConfig, MStepConfig, RLVRConfig
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout, tempered
from ra3core.learning.training import PASS_TOKENS, token_losses
from ra3core.lm import head
from ra3core.lm.prefix import BUDGET, MOST
from ra3core.plan import memory as memory_module
from ra3core.plan import work
from ra3core.plan.memory import Memory, Numbers, memory
from ra3core.plan.shapes import KNOWN, Shape, read_config
from ra3core.plan.work import Counts

WITHIN = 1.25
"""A computed peak and a measured one differ by this factor at most."""

SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS = {
    "qwen2, wide vocabulary": Qwen2Config(**{**SMALL, "vocab_size": 4096, "hidden_size": 32}),
    "lfm2": Lfm2Config(**SMALL, layer_types=["conv", "full_attention", "full_attention"]),
}


@pytest.fixture(params=MODELS)
def model(request, tmp_path) -> tuple[torch.nn.Module, Shape]:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(MODELS[request.param])
    made.config.save_pretrained(tmp_path)
    return made, read_config(tmp_path / "config.json")


def peak(step: Callable[[], object]) -> int:
    """Bytes that a step allocates at most, beside what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    now = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def allocated(computed: Memory | None) -> float:
    """What a step adds to weights and moments."""
    assert computed is not None
    return computed.gradients + computed.activations + computed.logits


@pytest.mark.parametrize(
    ("width", "recomputed", "tile"),
    [(4, False, None), (4, True, None), (2, False, None), (2, True, None), (4, False, 2**18), (2, True, 2**18)],
)
def test_an_m_step(
    model: tuple[torch.nn.Module, Shape], width: int, recomputed: bool, tile: int | None, monkeypatch
) -> None:
    """In float32 and bfloat16, with all activations and with each layer's inputs alone, all logits at once or not."""
    if tile:
        monkeypatch.setattr(head, "TILE", {"cpu": tile})
    made, shape = model
    ids = torch.randint(0, shape.vocabulary, (8, 96))
    optimizer = torch.optim.AdamW(made.parameters())
    made.train()
    if recomputed:
        made.activation_checkpointing_enable({"use_reentrant": False})  # pyright: ignore[reportCallIssue]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=width == 2):
            loss = token_losses(made, ids, ids).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # makes the moments
    monkeypatch.setattr(memory_module, "numbers_of", lambda *_: Numbers(width, recomputed, tile))
    computed = memory(MStepConfig(batch_size=8, max_tokens=96), shape, Counts(100, 96.0), "cpu")
    assert computed is not None
    expected = allocated(computed) + computed.weights - 4 * shape.parameters  # the copy in bfloat16 is the step's own
    assert expected / WITHIN < peak(step) < expected * WITHIN


def test_an_update_of_rlvr(model: tuple[torch.nn.Module, Shape]) -> None:
    made, shape = model
    prompts, size, prompt, new = 4, 6, 24, 38
    draw = random.Random(0)

    def text(length: int) -> tuple[int, ...]:
        return tuple(draw.randrange(shape.vocabulary) for _ in range(length))

    trainer = PolicyTrainer(made, Objective(1e-4, std_floor=1e-4))
    groups = [
        Group(text(prompt), tuple(Rollout(text(new), float(i % 2), 1 / size) for i in range(size)))
        for _ in range(prompts)
    ]
    trainer.step(groups, tempered(1.0))
    config = RLVRConfig(prompts=prompts, group_size=size, max_new_tokens=new, batch_size=1)
    expected = allocated(memory(config, shape, Counts(100, float(prompt)), "cpu"))
    measured = peak(lambda: trainer.step(groups, tempered(1.0)))
    assert expected / WITHIN < measured < expected * WITHIN


def test_adapters_and_the_frozen_models() -> None:
    shape = KNOWN["Qwen/Qwen2.5-1.5B"]
    counts, weights = Counts(100, 300.0, 20.0), 4 * shape.parameters
    whole = memory(MStepConfig(), shape, counts, "cuda")
    adapted = memory(MStepConfig(lora=LoraConfig(rank=16)), shape, counts, "cuda")
    policy = memory(EStepConfig(), shape, counts, "cuda")
    assert whole and adapted and policy
    assert (whole.weights, whole.gradients, whole.optimizer) == (weights, weights, 2 * weights)
    assert adapted.gradients == 4 * shape.adapters(16) and adapted.optimizer == 2 * adapted.gradients
    assert policy.weights == 2 * weights  # the likelihood model stays as it was
    assert whole.total == sum(getattr(whole, name) for name in vars(whole))


def test_passes_are_those_of_the_stages() -> None:
    assert work.PASS == PASS_TOKENS
    assert (work.PREFIX_PASS, work.PREFIX_LOGITS, work.TILE) == (MOST, BUDGET, head.TILE)


def test_precision_and_recomputed_layers_are_read_from_the_section() -> None:
    shape, counts = KNOWN["Qwen/Qwen2.5-1.5B"], Counts(100, 300.0, 20.0)
    n = shape.parameters

    def of(**settings: object) -> Memory:
        found = memory(EStepConfig.model_validate(settings), shape, counts, "cuda")
        assert found is not None
        return found

    whole, narrow = of(), of(precision="bfloat16")
    assert narrow.weights == (4 + 2 + 2 + 2) * n  # trained, as a pass computes, sampled from, the likelihood model
    assert (narrow.gradients, narrow.optimizer) == (whole.gradients, whole.optimizer)
    assert narrow.activations < 0.7 * whole.activations
    many = {"demonstrations": 64, "gradient_checkpointing": True}  # so many that sampling takes more than the update
    assert 0 < of(**many, precision="bfloat16").cache == of(**many).cache / 2 and of(**many).gradients == 0
    assert of(gradient_checkpointing=True).activations < 0.2 * whole.activations
    adapted = of(precision="bfloat16", lora={"rank": 16})
    assert adapted.weights == 2 * 2 * n + 4 * shape.adapters(16)
