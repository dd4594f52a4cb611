"""Rationales that a server draws (ra3core/lm/served.py) where the policy in this process thinks.

The decision stays here: log p(think) is a sum over all tokens that begin a comment, of which a completions API tells a
few at most, and a pass over the expert's lines costs little. What takes time, token by token, is the server's.

A rationale's distribution (`RationaleSampler.constrain`) allows other tokens first, second and later; a request biases
all of its tokens alike. So a rationale is three requests, one after the other:

    first    one token; those that begin a comment are raised by 100 nats
    second   one token; those that may not be drawn are lowered by 100 nats
    later    up to the length cap; the same but for the line break that ends it, at which the server stops

A bias of 100 leaves e^-100 of what is not allowed; a token that is drawn all the same is told. The policy here and the
server's must be the same model, which is checked by name (`served.find`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ra3core.errors import UserError
from ra3core.learning.annotation import Drawn, RationaleSampler, State
from ra3core.lm.http_engine import BAN, biased, known, request_seed
from ra3core.lm.served import Ask, ServedModel


class ServedRationales:
    """Draws rationales as `sampler` would, from a served model."""

    def __init__(self, served: ServedModel, sampler: RationaleSampler) -> None:
        self.served, self.sampler = served, sampler
        self._think = frozenset(sampler.lines.think_ids)
        self._raised = biased(sampler.lines.think_ids, -BAN)
        self._lowered = biased(sampler.banned, BAN)

    def draw(self, states: Sequence[State], samples: int, seed: Sequence[int]) -> list[list[Drawn]]:
        """`samples` rationales at each state; `Drawn.log_prob` is nan: the server tells that of the model unbiased.

        Raises UserError when the server fails, tells no token ids, or does not heed biases.
        """
        rows = [(state, number) for state in states for number in range(samples)]

        async def work(ask: Ask, n: int) -> Drawn:
            return await self._one(ask, rows[n][0], [*seed, n])

        found = self.served.each(len(rows), work)
        return [found[n : n + samples] for n in range(0, len(rows), samples)]

    async def _one(self, ask: Ask, state: State, seed: Sequence[int]) -> Drawn:
        tokens: list[int] = []
        lowered = {token: by for token, by in self._lowered.items() if token != str(state.stop)}
        plan = ((1, self._raised, None), (1, self._lowered, None), (self.sampler.max_tokens, lowered, "\n"))
        for number, (limit, bias, stop) in enumerate(plan):
            limit = min(limit, self.sampler.max_tokens - len(tokens))
            if limit == 0:
                break
            answer = await ask(
                {
                    "prompt": [*state.context, *tokens],
                    "max_tokens": limit,
                    "temperature": self.sampler.temperature,
                    "top_p": 1.0,
                    "seed": request_seed(*seed, number),
                    "logit_bias": bias,
                    **({"stop": [stop]} if stop else {}),
                }
            )
            if answer.tokens is None:
                raise UserError(f"{self.served.said}: tells no token ids, which annotation needs (docs/engines.md)")
            drawn = answer.tokens
            if stop and answer.stopped and drawn[-1:] != [state.stop]:
                drawn = [*drawn, state.stop]  # a server that does not count it
            self._check(drawn, state, len(tokens), limit, answer.stopped)
            tokens += drawn
        terminated = len(tokens) > 2 and tokens[-1] == state.stop
        return Drawn(tuple(tokens), terminated, math.nan)

    def _check(self, drawn: Sequence[int], state: State, begun: int, limit: int, stopped: bool) -> None:
        known(self.served, drawn, len(self.sampler.lines.tokenizer))
        allowed = all(
            token in self._think
            if k == 0
            else str(token) not in self._lowered or (k > 1 and token == state.stop and k == begun + len(drawn) - 1)
            for k, token in enumerate(drawn, begun)
        )
        if not allowed or (begun < 2 and (stopped or len(drawn) != limit)):
            raise UserError(f"{self.served.said}: drew a token that logit_bias bans, expected a server that heeds it")
