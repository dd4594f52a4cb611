"""The E-step against TRL's GRPOTrainer with a likelihood reward: scored rollouts per CPU second of one thread.

    python bench/e_step.py [--repeats 3] [--iterations 3] [--micro-batch 4]

Here: the stage as `make run` calls it (ra3core.learning.e_step, the demo's settings), an iteration of which annotates
8 demonstrations to find states, draws G rationales at each, scores them, takes one optimiser step (rationales and
decisions), and computes the demonstrations' likelihood for the log. There: GRPOTrainer on the very states those
iterations found, the text up to and including the think token as the prompt, same G, same length cap, a line break as
the end, as reward the log-likelihood of the next expert lines under the frozen model minus c (and minus the penalty of
an unterminated rationale), one optimiser step on as many rollouts. Its reward function is as quick as a user would make
it: no gradient, neighbours in length share a batch, equal rationales are scored once, the head runs where it counts.

Loading, imports and the first iteration of each are left out. The peer does less: states are given to it, it does not
train when to think, its sampling is not constrained to be a comment (it hardly ever is anything else), its reward
leaves out the correction for "given that the line begins no comment". `whole` counts everything an iteration does here;
`given states` leaves out annotation and the likelihood for the log, as the peer has neither.

Asserted: the peer's rewards are those of ra3core.learning.scoring.score_rationales on the same states and
rationales, to rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trl_peer
from figures import Figure, finish, in_turns, options
from setting import BASE, data, demo

# isort: split
import torch

from ra3core.config import EStepConfig
from ra3core.learning import e_step
from ra3core.learning.annotation import Drawn, RationaleSampler, State
from ra3core.learning.policy_gradient import PolicyTrainer
from ra3core.learning.scoring import score_rationales
from ra3core.lm.lines import LineTokenizer, Tokens
from ra3core.lm.models import load_model, load_tokenizer
from ra3core.stage import Context, StageLog

TOLERANCE = 1e-3  # nats, of a sum over some sixty tokens in float32


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--iterations", type=int, default=3, help="measured ones of a repeat, after one of warm-up")
    parser.add_argument("--micro-batch", type=int, default=4, help="of the peer, in groups; 2 to 8 are equal here")
    given = parser.parse_args()
    trl_peer.quiet()
    config = demo().e_step.model_copy(
        update={"iterations": given.iterations + 1, "warmup_iterations": 0, "checkpoint_iterations": 10**6}
    )
    with tempfile.TemporaryDirectory(prefix="ra3-bench-") as folder:
        data(Path(folder))
        runs = [Ours(config, Path(folder)) for _ in range(given.repeats)]
        peers: list[Peer] = []
        here, there = iter(runs), iter(runs)

        def ours() -> float:
            return next(here).run()

        def peer() -> float:
            peers.append(Peer(config, next(there).states, given.micro_batch))
            return peers[-1].run()

        found = in_turns({"here": ours, "peer": peer}, given.repeats)
    lengths = f"{runs[0].rationale_tokens:.1f} tokens a rationale, peer's {peers[0].rationale_tokens:.1f}"
    share = {"unit": "rollouts/CPU s", "better": "higher", "peer": trl_peer.PEER, "peer_values": found["peer"]}
    result = [
        Figure("e_step/rollouts, whole", values=found["here"], note=runs[-1].meter.shares(), **share),
        Figure("e_step/rollouts, given states", values=tuple(run.given_states for run in runs), note=lengths, **share),
    ]
    finish(result, given.json)
    print(f"\nhere, CPU of an iteration: {runs[-1].meter.mean('own'):.2f} s; {runs[-1].meter.shares()}")
    print(f"peer, CPU of an iteration: {peers[-1].meter.mean('own'):.2f} s; {peers[-1].meter.shares()}; rest: update")
    print(f"rollouts an iteration: {runs[-1].rollouts:.0f} here, {peers[-1].rollouts} peer")
    print(f"different among the peer's rationales: {peers[-1].different[-1]:.0%}; both sides score equal ones once")
    print(f"rewards of the peer's first iteration and ours: {peers[0].check():.1e} nats apart at most")


@dataclass
class Ours:
    """One run of the stage; `states` are those that its iterations visited, in order."""

    config: EStepConfig
    folder: Path
    meter: trl_peer.Meter = field(default_factory=trl_peer.Meter)
    states: list[State] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Scored rollouts per CPU second."""
        choose = e_step.choose_states

        def chosen(*args: Any, **kwargs: Any) -> list[e_step.Visit]:
            visits = choose(*args, **kwargs)
            self.states += [visit.state for visit in visits]
            return visits

        def event(row: dict[str, Any]) -> None:
            if row["event"] == "metrics":
                self.meter.lap()
                self.counts.append(row["values"]["states"])
                self.lengths.append(row["values"]["rationale_tokens"])

        parts = {
            "annotate": (e_step, "annotate_batch"),
            "draw": (e_step._Run, "draw"),
            "score": (e_step, "score_rationales"),
            "train": (PolicyTrainer, "step"),
            "reconstruct": (e_step._Run, "reconstruct"),
        }
        with (
            tempfile.TemporaryDirectory(prefix="ra3-bench-") as place,
            self.meter.watching(parts),
            patch.object(e_step, "choose_states", chosen),
        ):
            inputs = {"model": BASE, "demonstrations": self.folder}
            context = Context(inputs, Path(place) / "out", Path(place) / "scratch", log=StageLog(sink=event))
            e_step.e_step(self.config, context)
        return self.rollouts / self.meter.mean("own")

    @property
    def rollouts(self) -> float:
        """Of a measured iteration, on average."""
        return self.config.group_size * sum(self.counts[1:]) / len(self.counts[1:])

    @property
    def rationale_tokens(self) -> float:
        """Mean length of a rationale, its comment sign included, its line break not."""
        return sum(self.lengths[1:]) / len(self.lengths[1:])

    @property
    def given_states(self) -> float:
        """Rollouts per CPU second without annotation and without the likelihood for the log."""
        spent = self.meter.mean("own") - self.meter.mean("annotate") - self.meter.mean("reconstruct")
        return self.rollouts / spent


class Peer:
    """The same work as a user of GRPOTrainer writes it."""

    def __init__(self, config: EStepConfig, states: Sequence[State], micro_groups: int) -> None:
        self.config = config
        self.tokenizer = load_tokenizer(BASE / "model")
        self.policy, self.likelihood = load_model(BASE / "model"), load_model(BASE / "model")
        self.lines = LineTokenizer(self.tokenizer)
        (self.think,) = self.lines.think_ids  # the only one: a rationale's first token is certain
        prompts = len(states) // config.iterations // micro_groups * micro_groups
        self.states = list(states[: prompts * config.iterations])
        self.setting = trl_peer.Setting(
            prompts=prompts,
            group=config.group_size,
            completion_tokens=config.rationale_tokens - 1,
            temperature=config.temperature,
            learning_rate=config.learning_rate,
            clip=config.clip,
            max_grad_norm=config.max_grad_norm,
            micro_batch=micro_groups * config.group_size,
            ends=self.lines.newline_ids,
        )
        self.lengths: list[float] = []
        self.different: list[float] = []
        self.first: tuple[list[int], list[Tokens], list[float | None]] | None = None

    @property
    def rollouts(self) -> int:
        """Of an iteration."""
        return self.setting.prompts * self.setting.group

    @property
    def rationale_tokens(self) -> float:
        """Mean length of a rationale, its comment sign included, its line break not."""
        return sum(self.lengths[1:]) / len(self.lengths[1:])

    def run(self) -> float:
        """Scored rollouts per CPU second."""
        rows = []
        for n, state in enumerate(self.states):
            prompt = self.tokenizer.decode([*state.context, self.think])
            assert tuple(self.tokenizer(prompt)["input_ids"]) == (*state.context, self.think)
            rows.append({"prompt": prompt, "state": n})
        self.meter = trl_peer.train(self.policy, self.tokenizer, self.reward, rows, self.setting)
        return self.rollouts / self.meter.mean("own")

    def reward(self, state: list[int], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        """log pi(window | context, rationale) - c [- the penalty of an unterminated rationale], of each completion."""
        ends = set(self.lines.newline_ids)
        ended = [ids[-1] in ends for ids in completion_ids]
        rationales = [(self.think, *(ids[:-1] if end else ids)) for ids, end in zip(completion_ids, ended, strict=True)]
        visited = [self.states[n] for n in state]
        windows = [one.window(self.config.window) for one in visited]
        texts = [
            (*one.context, *rationale, *one.header, *window)
            for one, rationale, window in zip(visited, rationales, windows, strict=True)
        ]
        keys = list(zip(texts, map(len, windows), strict=True))
        different = list(dict.fromkeys(keys))  # equal rationales of a state are scored once
        found = self.log_likelihoods([text for text, _ in different], [counted for _, counted in different])
        value = dict(zip(different, found, strict=True))
        cost, penalty = self.config.think_penalty, self.config.unterminated_penalty
        rewards: list[float | None] = [
            value[key] - cost - (0.0 if end else penalty) for key, end in zip(keys, ended, strict=True)
        ]
        self.lengths.append(sum(map(len, rationales)) / len(rationales))
        self.different.append(len(different) / len(texts))
        if self.first is None:
            self.first = state, [tuple(ids) for ids in completion_ids], rewards
        return rewards

    @torch.no_grad()
    def log_likelihoods(self, texts: Sequence[Tokens], counted: Sequence[int], batch_size: int = 16) -> list[float]:
        """Nats of the last tokens of each text; neighbours in length share a batch, the head runs where it counts."""
        found = [0.0] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(texts[i]) for i in batch], batch_first=True)
            hidden = self.likelihood.model(input_ids=ids, use_cache=False).last_hidden_state  # causal: no mask needed
            rows = torch.repeat_interleave(torch.tensor([counted[i] for i in batch]))
            places = torch.cat([torch.arange(len(texts[i]) - counted[i], len(texts[i])) for i in batch])
            logits = self.likelihood.lm_head(hidden[rows, places - 1])
            log_probs = logits.log_softmax(-1).gather(1, ids[rows, places][:, None])[:, 0]
            sums = torch.zeros(len(batch)).index_add(0, rows, log_probs)
            for i, value in zip(batch, sums.tolist(), strict=True):
                found[i] = value
        return found

    def check(self) -> float:
        """The largest difference between this reward and ours on the first iteration's rationales; small, or raises."""
        assert self.first is not None
        numbers, completions, rewards = self.first
        size, ends = self.config.group_size, set(self.lines.newline_ids)
        states = [self.states[n] for n in numbers[::size]]
        assert numbers == [n for n in numbers[::size] for _ in range(size)], "a group's rollouts lie together"
        drawn = [Drawn((self.think, *ids), ids[-1] in ends, 0.0) for ids in completions]
        groups = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        sampler = RationaleSampler(
            self.lines, self.likelihood.config.vocab_size, self.config.temperature, self.config.rationale_tokens
        )
        scores = score_rationales(self.likelihood, states, groups, sampler, self.config.window, given_act=False)
        ours = [
            e_step.reward(value, score.tokens, self.config, one)
            for score, group in zip(scores, groups, strict=True)
            for value, one in zip(score.thinks, group, strict=True)
        ]
        apart = max(abs(a - (b or 0.0)) for a, b in zip(ours, rewards, strict=True))
        assert apart < TOLERANCE, f"the two rewards are {apart} nats apart"
        return apart


if __name__ == "__main__":
    main()
