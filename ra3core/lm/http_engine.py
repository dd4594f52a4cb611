"""Completions by a model that an OpenAI-compatible server runs (ra3core/lm/served.py): the engine `http`.

Each sample is a request of its own with a seed of its own. Prompts go as token ids, so that the server sees what
`LineTokenizer` says. Token ids come back where the server tells them; otherwise its text is tokenised again, which
gives the same text and, now and then, other tokens (`exact` says which it was). Completions are cut as every engine's
are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
from transformers import PreTrainedTokenizerBase

from ra3core.errors import UserError
from ra3core.lm.generation import Draw, Endings, OnCompletion, Sampling, ordered
from ra3core.lm.lines import comment_token_ids, end_token_id, token_texts
from ra3core.lm.served import Answer, Ask, ServedModel

BAN = -100.0
"""Added to a logit: the least that the API has, and nothing but e^-100 of what there was."""


@dataclass
class Http:
    """Draws completions from a served model. exact: no completion's text has been tokenised again."""

    served: ServedModel
    tokenizer: PreTrainedTokenizerBase
    exact: bool = field(default=True, init=False)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        samples: int = 1,
        seed: int = 0,
        log_probs: bool = False,
        on_completion: OnCompletion | None = None,
    ) -> list[list[Draw]]:
        """As `Engine.generate`. Log-probabilities are the server's, which are those of the model as it is: they are
        given at temperature 1, without a nucleus or a ban, where that is what is drawn from, and None otherwise.

        Raises UserError when the server fails, and for answers that cannot be this model's.
        """
        rows = ordered(prompts, samples)
        fields: dict[str, Any] = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        banned = comment_token_ids(self.tokenizer) if sampling.ban_comments else ()
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        if banned:
            fields["logit_bias"] = biased(banned, BAN)
        told = log_probs and sampling.temperature == 1 and sampling.top_p == 1 and not banned

        async def work(ask: Ask, n: int) -> Draw:
            i, j = rows[n]
            answer = await ask({**fields, "prompt": list(prompts[i]), "seed": request_seed(seed, i, j)})
            draw = self._draw(answer, sampling, told)
            if self.exact and not set(banned).isdisjoint(draw.tokens):
                raise UserError(
                    f"{self.served.said}: drew a token that logit_bias bans, expected a server that heeds it"
                )
            return draw

        def seen(n: int, draw: Draw) -> None:
            if on_completion is not None:
                on_completion(*rows[n], draw)

        found = dict(zip(rows, self.served.each(len(rows), work, seen), strict=True))
        return [[found[i, j] for j in range(samples)] for i in range(len(prompts))]

    def _draw(self, answer: Answer, sampling: Sampling, log_probs: bool) -> Draw:
        texts = token_texts(self.tokenizer)
        tokens = answer.tokens
        if tokens is None:
            self.exact = False
            tokens = self.tokenizer.encode(answer.text, add_special_tokens=False)
        known(self.served, tokens, len(texts))
        ends = {end_token_id(self.tokenizer)}
        if answer.stopped and tokens and tokens[-1] in self.tokenizer.all_special_ids:
            ends.add(tokens[-1])  # a chat model's own end of turn
        values = answer.log_probs if log_probs and self.exact else None
        draw = Endings(ends, sampling.stop, texts).draw(tokens, values)
        return replace(draw, ended=draw.ended or answer.stopped)


def biased(tokens: Sequence[int], by: float) -> dict[str, float]:
    """What a request's logit_bias says of these tokens."""
    return {str(token): by for token in tokens}


def request_seed(*numbers: int) -> int:
    """A request's own seed, 31 bits."""
    return int(numpy.random.SeedSequence(list(numbers)).generate_state(1)[0]) >> 1


def known(served: ServedModel, tokens: Sequence[int], vocabulary: int) -> None:
    """Raises UserError for tokens that the tokenizer does not have."""
    if any(not 0 <= token < vocabulary for token in tokens):
        raise UserError(f"{served.said}: drew a token that the tokenizer lacks, expected the same model")
