"""What two processes tell each other, in two forked ones that speak by gloo; accelerate launch is tested elsewhere
(learning/test_several_processes.py)."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ra3core.errors import UserError
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout, _enough
from ra3core.learning.training import IGNORED, shares, token_losses
from ra3core.lm import head
from ra3core.processes import Processes, begin, split
from ra3core.stage import Context, StageLog


def in_two(work: Callable[[], Any]) -> list[Any]:
    """What `work` returns in each of two processes, or the error it raised there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    forked = multiprocessing.get_context("fork")
    results = forked.SimpleQueue()

    def run(rank: int) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(1)
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
        try:
            found = work()
        except Exception as error:
            found = error
        results.put((rank, found))
        if torch.distributed.is_initialized():
            PartialState().destroy_process_group()
        os._exit(0)  # what pytest would do at exit is the parent's to do

    children = [forked.Process(target=run, args=(rank,)) for rank in range(2)]
    for child in children:
        child.start()
    found = dict(results.get() for _ in children)
    for child in children:
        child.join()
    return [found[rank] for rank in range(2)]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 8))
def test_parts_are_runs_of_neighbours(items: list[int], parts: int) -> None:
    found = split(items, parts)
    assert [item for part in found for item in part] == items
    assert len(found) == min(parts, len(items))
    assert all(found) and (not found or max(map(len, found)) - min(map(len, found)) <= 1)


def test_work_is_shared_and_everybody_has_all_of_it() -> None:
    def work() -> Any:
        processes = Processes("cpu")
        done = []

        def one(number: int) -> str:
            done.append(number)
            return f"{number} by {processes.rank}"

        found = processes.share(5, one)
        sums = processes.sum({"tokens": 10.0 + processes.rank})
        mean = processes.mean([1.0] * processes.rank, [3.0] * processes.rank)
        nothing = processes.mean([], [])
        return done, found, sums, mean, nothing, processes.device, processes.local

    first, second = in_two(work)
    assert (first[0], second[0]) == ([0, 2, 4], [1, 3])
    assert first[1:] == second[1:]
    assert first[1] == ["0 by 0", "1 by 1", "2 by 0", "3 by 1", "4 by 0"]
    assert first[2:] == ({"tokens": 21.0}, 1.0, 0.0, "cpu", 2)


def test_only_the_first_process_logs(tmp_path: Path) -> None:
    def work() -> bool:
        context = Context({}, tmp_path, tmp_path, log=StageLog(tmp_path / "metrics.jsonl"))
        begin(context)
        context.log.metrics(1, loss=2.0)
        return context.log.path is not None

    assert in_two(work) == [True, False]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_fsdp_on_cpus_and_its_first_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for error in in_two(lambda: Processes("cpu")):
        assert isinstance(error, UserError)
        assert "FSDP is for GPUs" in str(error)
    monkeypatch.setattr(PartialState, "_prepare_backend", lambda *_: (None, DistributedType.NO))
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match="expected fsdp_version: 2, found 1"):
        Processes("cpu")


def groups_of(vocabulary: int) -> list[Group]:
    """Five groups of different lengths, their rewards all different."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=generator).tolist())

    return [
        Group(tokens(3 + n), tuple(Rollout(tokens(2 + n + i), float(i * n - i), 1 / 3) for i in range(3)), 1.0 + n)
        for n in range(5)
    ]


def test_a_policy_gradient_step_is_the_same_in_two(make_model: Callable[..., Any]) -> None:
    """Same figures, same weights; and the second process had part of the work."""

    def work() -> tuple[dict[str, float], list[Any], int]:
        trainer = PolicyTrainer(make_model(), Objective(1e-2, std_floor=0.5, epochs=2))
        passes = []
        backward = trainer.accelerator.backward
        trainer.accelerator.backward = lambda loss: (passes.append(1), backward(loss))  # type: ignore[method-assign]
        metrics = trainer.step(groups_of(trainer.model.config.vocab_size))
        return metrics, [p.detach().numpy() for p in trainer.model.parameters()], len(passes)

    alone, (first, second) = work(), in_two(work)
    assert first[0] == second[0]
    assert first[0] == pytest.approx(alone[0], rel=1e-4)
    assert first[0]["grad_norm"] > 0
    assert first[2] > 0 < second[2]
    for one, other, expected in zip(first[1], second[1], alone[1], strict=True):
        assert (one == other).all()
        assert one == pytest.approx(expected, abs=1e-4)


def test_logits_in_tiles_are_the_same_in_two(make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under DistributedDataParallel the output layer runs outside the wrapped call; a sharded model is run whole."""
    vocabulary = make_model().config.vocab_size
    monkeypatch.setattr(head, "TILE", {"cpu": 5 * vocabulary})
    ids = torch.randint(vocabulary, (4, 9), generator=torch.Generator().manual_seed(0))

    def gradients(model: torch.nn.Module, rows: torch.Tensor) -> list[Any]:
        token_losses(model, rows, rows).sum().backward()
        return [p.grad.numpy() for p in model.parameters() if p.grad is not None]

    def work() -> tuple[list[Any], tuple[int, ...]]:
        processes = Processes("cpu")
        wrapped = DistributedDataParallel(make_model())
        found = gradients(wrapped, ids[processes.rank :: 2])
        sharded = make_model()
        fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
        return found, tuple(head.predict(sharded, ids, use_cache=False)[0].states.shape)

    expected = gradients(make_model(), ids)
    for found, shape in in_two(work):
        assert shape == (4, 9, vocabulary)
        for one, other in zip(found, expected, strict=True):
            assert 2 * one == pytest.approx(other, rel=1e-3, abs=1e-5)  # of the mean over both


@given(st.integers(1, 9), st.integers(1, 5))
def test_passes_are_halved_until_there_are_enough(groups: int, count: int) -> None:
    found = _enough([list(range(groups))], count)
    assert sorted(n for batch in found for n in batch) == list(range(groups))
    assert len(found) == min(groups, count)


@given(st.lists(st.integers(2, 700), min_size=1, max_size=9), st.integers(1, 4))
def test_every_example_has_one_process_and_all_make_as_many_passes(lengths: list[int], count: int) -> None:
    input_ids = torch.zeros((len(lengths), max(lengths)), dtype=torch.long)
    labels = torch.full_like(input_ids, IGNORED)
    for row, length in enumerate(lengths):
        input_ids[row], labels[row, 1:length] = row, row
    found = shares(input_ids, labels, count)
    assert len({len(passes) for passes in found}) == 1
    counted = [int(part[part != IGNORED].numel()) for passes in found for _, part, _ in passes]
    assert sum(counted) == sum(lengths) - len(lengths)
    rows = [
        int(ids[0])
        for passes in found
        for part_ids, part, _ in passes
        for ids, row_labels in zip(part_ids, part, strict=True)
        if (row_labels != IGNORED).any()
    ]
    assert sorted(rows) == list(range(len(lengths)))
