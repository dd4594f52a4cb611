"""An RLVR step against TRL's GRPOTrainer: CPU seconds of one thread, the sandboxes' apart.

    python bench/rlvr.py [--repeats 2] [--steps 3] [--micro-batch 24]
    python bench/rlvr.py --curve 40 --seeds 4 [--out FOLDER]

Here: the stage as `make run` calls it (ra3core.learning.rlvr, the demo's settings: 12 prompts x 8 completions of at
most 256 tokens), without checkpoints and without the pass over the frozen model that every tenth step logs. There:
GRPOTrainer from the same weights on the same prompts in the same order, same group, length cap, temperature, clip,
AdamW. Both judge with ra3core.verifier, equal programs of a step once (here also those of earlier steps, and while
others are sampled); what the sandboxes' processes use is counted apart ("with sandboxes"): a program that never ends
costs a second on either side, and few steps hold few of them. Loading, imports and the first step of each are left out.
Completions are drawn by each side itself; the table tells their mean lengths.

A group whose rewards are all equal has no gradient; the update here leaves it out, the peer's does not. So that such
groups are as frequent as in the demo's runs (a share of 0.32 from the RA3 model, 0.44 from the NTP model), four fifths
of the tasks are those that the base model solved in one to seven of eight trials, the rest in none or in all. The table
tells their share.

The objectives are the same up to a constant: TRL's dr_grpo divides a step's sum by (rollouts x length cap), ours by
rollouts, and TRL's deviation of a group is the unbiased one. The constant moves TRL's clipping norm and Adam's epsilon,
so that updates are equal. Asserted: on the peer's first completions and rewards, both sides' gradients are parallel and
the ratio of their lengths is that constant.

`--curve`: mean reward of every step of both, over seeds, and of the last third of the steps with its standard error;
curve.json and curve.png in the folder.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trl_peer
from figures import Figure, finish, in_turns, options
from setting import BASE, data, demo

# isort: split
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ra3core.config import RLVRConfig
from ra3core.corpora.demonstrations import Task, read_tasks, write_tasks
from ra3core.learning import rlvr
from ra3core.learning.policy_gradient import Group, Objective, PolicyTrainer, Rollout, tempered
from ra3core.learning.task_draw import draw
from ra3core.lm.engines import BuiltIn
from ra3core.lm.generation import Sampling
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.stage import Context, StageLog
from ra3core.verifier import WORKERS, Program, Verifier

TASKS = 200
PARALLEL = 1e-4  # 1 - cosine of the two sides' gradients


def main() -> None:
    """Measure and print."""
    parser = options(__doc__, repeats=2)
    parser.add_argument("--steps", type=int, default=3, help="measured ones of a repeat, after one of warm-up")
    parser.add_argument("--micro-batch", type=int, default=24, help="of the peer, in rollouts")
    parser.add_argument("--curve", type=int, default=0, metavar="STEPS", help="learning curves instead")
    parser.add_argument("--seeds", type=int, default=4, help="of the curves")
    parser.add_argument("--out", type=Path, help="folder for curve.json and curve.png")
    given = parser.parse_args()
    trl_peer.quiet()
    config = demo().rlvr.model_copy(
        update={
            "steps": given.curve or given.steps + 1,
            "verifier": demo().verifier,
            "held_out": 0,
            "eval_every": 10**6,
            "checkpoint_steps": 10**6,
        }
    )
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        data(Path(folder), tasks=TASKS)
        choose_tasks(Path(folder) / "rlvr_tasks.parquet", config)
        if given.curve:
            curve(config, Path(folder), given.seeds, given.micro_batch, given.out)
        else:
            measure(config, Path(folder), given.repeats, given.micro_batch, given.json)


def choose_tasks(file: Path, config: RLVRConfig) -> None:
    """Rewrite the file: tasks that the base model sometimes solves, sometimes not, and a quarter as many others."""
    model, tokenizer = load_model(BASE / "model"), load_tokenizer(BASE / "model")
    sampling = Sampling(config.max_new_tokens, config.temperature)
    groups = rlvr.complete(BuiltIn(model, tokenizer), tokenizer, read_tasks(file), sampling, 8, seed=1)
    with Verifier(config.verifier, WORKERS) as verifier:
        passed = [set(judged(verifier, [(one.task, one.text) for one in group])) for group in groups]
    tasks = [group[0].task for group in groups]
    unsure = [task for task, outcomes in zip(tasks, passed, strict=True) if len(outcomes) == 2]
    others = [task for task in tasks if task not in unsure]
    write_tasks([*unsure, *others[: len(unsure) // 4]], file)


def judged(verifier: Verifier, completions: Sequence[tuple[Task, str]]) -> list[bool]:
    """Whether each completion of a task passes its tests; equal ones are run once."""
    keys = [(task.id, text) for task, text in completions]
    programs = {
        key: Program(task.prompt + text, task.entry_point, task.tests)
        for key, (task, text) in zip(keys, completions, strict=True)
    }
    verdicts = dict(zip(programs, verifier.judge(programs.values()), strict=True))
    return [verdicts[key].passed for key in keys]


def measure(config: RLVRConfig, folder: Path, repeats: int, micro_batch: int, file: Path | None) -> None:
    """CPU seconds of a step, and tokens per CPU second."""
    runs: list[Ours] = []
    peers: list[Peer] = []

    def ours() -> float:
        runs.append(Ours(config, folder))
        return runs[-1].run()

    def peer() -> float:
        peers.append(Peer(config, folder, micro_batch))
        return peers[-1].run()

    found = in_turns({"here": ours, "peer": peer}, repeats)

    def with_sandboxes(sides: list[Ours] | list[Peer]) -> tuple[float, ...]:
        return tuple(one.meter.mean("own") + one.meter.mean("children") for one in sides)

    def speed(sides: list[Ours] | list[Peer]) -> tuple[float, ...]:
        return tuple(one.tokens * config.prompts * config.group_size / one.meter.mean("own") for one in sides)

    seconds: dict[str, Any] = {"unit": "CPU s", "better": "lower", "peer": trl_peer.PEER}
    finish(
        [
            Figure(
                "rlvr/step", values=found["here"], peer_values=found["peer"], note=runs[-1].meter.shares(), **seconds
            ),
            Figure(
                "rlvr/step with sandboxes", values=with_sandboxes(runs), peer_values=with_sandboxes(peers), **seconds
            ),
            Figure(
                *("rlvr/completion tokens", "tokens/CPU s", speed(runs), "higher", trl_peer.PEER, speed(peers)),
                note=f"{runs[-1].tokens:.1f} tokens a completion, peer's {peers[-1].tokens:.1f}; "
                f"without gradient {statistics.fmean(runs[-1].flat[1:]):.2f}",
            ),
        ],
        file,
    )
    print(f"\nhere, CPU of a step: {runs[-1].meter.shares()}")
    print(f"peer, CPU of a step: {peers[-1].meter.shares()}; rest: update")
    print(f"gradients on the same completions: {peers[0].check()}")


@dataclass
class Ours:
    """One run of the stage. Of each step: rewards (mean), flat (share of groups without gradient), lengths (mean
    tokens of a completion, the end token included); tokens: those of the measured steps."""

    config: RLVRConfig
    folder: Path
    seed: int = 0
    meter: trl_peer.Meter = field(default_factory=trl_peer.Meter)
    rewards: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    flat: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> float:
        return statistics.fmean(self.lengths[1:])

    def run(self) -> float:
        """CPU seconds of a step."""

        def event(row: dict[str, Any]) -> None:
            if row["event"] == "metrics":
                self.meter.lap()
                self.rewards.append(row["values"]["reward"])
                self.flat.append(row["values"]["zero_variance"])
                self.lengths.append(row["values"]["completion_tokens"] + 1 - row["values"]["unfinished"])

        parts = {
            "generation": (rlvr, "complete"),
            "judging": (rlvr.Judge, "verdicts"),
            "update": (PolicyTrainer, "step"),
        }
        with tempfile.TemporaryDirectory(prefix="ra3-bench-") as place, self.meter.watching(parts):
            inputs = {"model": BASE, "tasks": self.folder}
            out, scratch = Path(place) / "out", Path(place) / "scratch"
            rlvr.rlvr(self.config, Context(inputs, out, scratch, seed=self.seed, log=StageLog(sink=event)))
        return self.meter.mean("own")


class Peer:
    """The same work as a user of GRPOTrainer writes it. Attributes as of Ours."""

    def __init__(self, config: RLVRConfig, folder: Path, micro_batch: int, seed: int = 0) -> None:
        self.config, size = config, config.group_size
        self.tokenizer = load_tokenizer(BASE / "model")
        tasks, _ = rlvr.read_task_folder(folder / "rlvr_tasks.parquet", config.held_out)
        self.tasks = [task for step in range(config.steps) for task in draw(tasks, config.prompts, seed, step + 1)]
        self.scale = ((size - 1) / size) ** 0.5 / config.max_new_tokens  # of the peer's gradient, ours being 1
        self.setting = trl_peer.Setting(
            prompts=config.prompts,
            group=size,
            completion_tokens=config.max_new_tokens,
            temperature=config.temperature,
            learning_rate=config.learning_rate,
            clip=config.clip,
            max_grad_norm=config.max_grad_norm * self.scale,
            adam_epsilon=1e-8 * self.scale,
            micro_batch=micro_batch,
            seed=seed,
        )
        self.rewards: list[float] = []
        self.lengths: list[float] = []
        self.first: tuple[list[Task], list[list[int]], list[float]] | None = None
        self.gradient: list[torch.Tensor] = []

    @property
    def tokens(self) -> float:
        return statistics.fmean(self.lengths[1:])

    def run(self) -> float:
        """CPU seconds of a step."""
        rows = [{"prompt": task.prompt, "task": n} for n, task in enumerate(self.tasks)]
        model = load_model(BASE / "model")
        with Verifier(self.config.verifier, WORKERS) as self.verifier, first_gradient(model) as self.gradient:
            self.meter = trl_peer.train(model, self.tokenizer, self.reward, rows, self.setting)
        return self.meter.mean("own")

    def reward(
        self, task: list[int], completions: list[str], completion_ids: list[list[int]], **_: Any
    ) -> list[float | None]:
        """1 for a program that passes its tests, 0 otherwise."""
        asked = [self.tasks[n] for n in task]
        rewards = [float(passed) for passed in judged(self.verifier, list(zip(asked, completions, strict=True)))]
        self.rewards.append(statistics.fmean(rewards))
        self.lengths.append(statistics.fmean(map(len, completion_ids)))
        if self.first is None:
            self.first = asked, completion_ids, rewards
        return [*rewards]

    def check(self) -> str:
        """Our gradient on the first step's completions and rewards beside the peer's; raises when they differ."""
        assert self.first is not None
        config, size, (tasks, completions, rewards) = self.config, self.config.group_size, self.first
        groups = [
            Group(
                tuple(self.tokenizer(tasks[start].prompt)["input_ids"]),
                tuple(Rollout(tuple(completions[n]), rewards[n], 1 / size) for n in range(start, start + size)),
            )
            for start in range(0, len(tasks), size)
        ]
        objective = Objective(config.learning_rate, config.clip, 1, config.std_floor, 0.0, config.max_grad_norm)
        trainer = PolicyTrainer(load_model(BASE / "model"), objective)
        with first_gradient(trainer.model) as found:
            trainer.step(groups, tempered(config.temperature))
        ours, theirs = found[0], self.gradient[0]
        apart = 1 - float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0))
        constant = float(theirs.norm() / ours.norm()) / self.scale
        assert apart < PARALLEL and abs(constant - 1) < 0.01, f"1 - cosine {apart}, constant {constant}"
        return f"1 - cosine {apart:.1e}, lengths {constant:.4f} of what is expected"


@contextmanager
def first_gradient(model: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """A list that will hold the model's whole gradient, clipped, as the first update of any optimiser finds it."""
    found: list[torch.Tensor] = []

    def keep(*_: Any) -> None:
        if not found:
            found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double())

    handle = register_optimizer_step_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def curve(config: RLVRConfig, folder: Path, seeds: int, micro_batch: int, out: Path | None) -> None:
    """Both sides' rewards from the same start, seed by seed."""
    rewards: dict[str, list[list[float]]] = {"here": [], trl_peer.PEER: []}
    for seed in range(seeds):
        for name, side in (
            ("here", Ours(config, folder, seed)),
            (trl_peer.PEER, Peer(config, folder, micro_batch, seed)),
        ):
            side.run()
            rewards[name].append(side.rewards)
    last = {name: [statistics.fmean(run[-(config.steps // 3) :]) for run in runs] for name, runs in rewards.items()}
    last["difference"] = [a - b for a, b in zip(*last.values(), strict=True)]
    print(f"reward, mean of the last {config.steps // 3} of {config.steps} steps, {seeds} seeds:")
    for name, values in last.items():
        error = f" +- {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        print(f"{name}: {statistics.fmean(values):.3f}{error}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "curve.json").write_text(json.dumps({"rewards": rewards, "last_third": last}, indent=1) + "\n")
        plot(rewards, out / "curve.png")


def plot(rewards: dict[str, list[list[float]]], file: Path) -> None:
    """Mean over seeds, the band one standard deviation of them wide on each side."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, runs in rewards.items():
        steps, values = range(1, len(runs[0]) + 1), torch.tensor(runs)
        mean, spread = values.mean(0), values.std(0, correction=0)
        axes.plot(steps, mean, label=name)
        axes.fill_between(steps, mean - spread, mean + spread, alpha=0.2)
    axes.set(xlabel="step", ylabel="mean reward", title=f"RLVR from the same weights, {len(runs)} seeds")
    axes.legend()
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
