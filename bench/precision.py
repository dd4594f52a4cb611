"""What bfloat16 does to the E-step's rewards, and what tiles and recomputed layers do to memory.

    python bench/precision.py [--demonstrations 40]

Rewards: with the demo's base model as likelihood model, in float32 and with its weights in bfloat16, the next five
lines at the boundaries of the suite's demonstrations that have a reference, without a rationale and with it. Shown is
how far bfloat16 is from float32: of a token's log-probability, of the window's log-likelihood, and of the gain of the
rationale, from which the think penalty c is taken.

Memory: bytes that one pass with its gradient allocates at most (PyTorch's profiler), weights and gradients aside, of
small Qwen2 models of growing vocabulary (hidden 128, 8 layers, 512 tokens), on the CPU: an M-step's loss and a
policy gradient of 4 groups of 8. Tiles of 2**24 logits are the stages' own on a CPU; whole is without tiles.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from setting import BASE, demo, demonstrations_and_tasks

# isort: split
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from ra3core.learning.annotation import Annotation, Drawn, RationaleSampler
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout
from ra3core.learning.scoring import score_rationales
from ra3core.learning.training import token_losses
from ra3core.lm import head
from ra3core.lm.lines import LineTokenizer
from ra3core.lm.models import load_model, load_tokenizer

VOCABULARIES = (2_000, 8_000, 32_000, 128_000)
MIB = 2**20


def rewards(count: int) -> None:
    """Prints the table of differences."""
    lines = LineTokenizer(load_tokenizer(BASE / "model"))
    exact, rounded = load_model(BASE / "model"), load_model(BASE / "model", precision="bfloat16")
    sampler = RationaleSampler(lines, exact.config.vocab_size, 1.0, 16)
    states, rationales = [], []
    for one in demonstrations_and_tasks(count)[0]:
        annotation = Annotation(lines.demonstration(one))
        for t in annotation.tokens.boundaries:
            if (text := one.reference.get(t)) is not None:
                piece = lines.rationale(one.lines[t], text)
                state = annotation.state(t)
                states.append(state)
                rationales.append([Drawn((*piece[len(state.header) :], state.stop), True, 0.0)])
    config = demo().e_step
    found = [
        score_rationales(model, states, rationales, sampler, config.window, config.given_act)
        for model in (exact, rounded)
    ]
    pairs = list(zip(*found, strict=True))
    columns = {
        "a token": [(b.act - a.act) / a.tokens for a, b in pairs],
        "a window": [b.act - a.act for a, b in pairs],
        "a gain": [(b.thinks[0] - b.act) - (a.thinks[0] - a.act) for a, b in pairs],
    }
    gains = [a.thinks[0] - a.act for a, _ in pairs]
    print(f"{len(states)} states, {statistics.mean(a.tokens for a, _ in pairs):.1f} tokens a window; gains in float32:")
    print(f"mean {statistics.mean(gains):.2f}, standard deviation {statistics.stdev(gains):.2f} nats")
    print("bfloat16 - float32, nats     mean   standard deviation   largest")
    for name, values in columns.items():
        print(f"{name:24} {statistics.mean(values):8.4f} {statistics.stdev(values):20.4f} {max(map(abs, values)):9.4f}")


def peak(step: Callable[[], object]) -> float:
    """MiB that a step allocates at most, beside what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    now = most = 0
    profiler: Any = profiled.profiler
    for event in profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / MIB


def memory() -> None:
    """Prints the table of peaks."""
    print("\nvocabulary  logits MiB | M-step: whole   tiles   tiles, recomputed | policy gradient: whole   tiles")
    for vocabulary in VOCABULARIES:
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        ids = torch.randint(vocabulary, (8, 64))
        whole = patch.object(head, "TILE", {"cpu": 2**62})

        def m_step(model: PreTrainedModel = model, ids: torch.Tensor = ids) -> None:
            model.train()
            token_losses(model, ids, ids).sum().backward()

        m_step()  # makes the gradients
        model.zero_grad(set_to_none=False)
        with whole:
            found = [peak(m_step)]
        found.append(peak(m_step))
        model.activation_checkpointing_enable({"use_reentrant": False})
        found.append(peak(m_step))
        model.activation_checkpointing_disable()

        text = torch.randint(vocabulary, (4, 8, 15)).tolist()
        groups = [
            Group(tuple(range(1, 9)), tuple(Rollout(tuple(t), float(i), 1 / 8) for i, t in enumerate(texts)))
            for texts in text
        ]

        def update(model: PreTrainedModel = model, groups: list[Group] = groups) -> float:
            trainer = PolicyTrainer(copy.deepcopy(model), Objective(1e-4))
            trainer.step(groups)  # makes gradients and moments
            for parameter in trainer.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            with patch.object(trainer.optimizer, "zero_grad"), patch.object(trainer.optimizer, "step"):
                return peak(lambda: trainer.step(groups))

        with whole:
            found.append(update())
        found.append(update())
        print(f"{vocabulary:10} {512 * vocabulary * 4 / MIB:11.0f} |" + "".join(f"{value:11.0f}" for value in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demonstrations", type=int, default=40)
    rewards(parser.parse_args().demonstrations)
    memory()


if __name__ == "__main__":
    main()
