"""Teacher-forced log-likelihoods: of tokens, of lines, and of the decision to think.

    log pi(a_t | s_t, z_t) = sum of the log-probabilities of line t's tokens            (the ELBO's reconstruction term)
    log p(think | s_t)     = log sum of the probabilities of tokens that begin a comment
    log p(act | s_t)       = log (1 - p(think | s_t))

All in nats. Sequences of similar length share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ra3core.lm.lines import Tokens
from ra3core.lm.prefix import batches, encode, gather_log_probs, predictions_after


def decision_log_probs(logits: Tensor, think_ids: Sequence[int]) -> Tensor:
    """log p(think) and log p(act): logits (..., vocabulary) -> (..., 2), nats."""
    logits = logits.float()
    ids = torch.tensor(think_ids, device=logits.device)
    think = logits[..., ids].logsumexp(-1)
    act = logits.index_fill(-1, ids, -torch.inf).logsumexp(-1)
    return torch.stack([think, act], -1).log_softmax(-1)


@torch.no_grad()
def token_log_probs(model: torch.nn.Module, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
    """log p of each token given those before it, from the second on: (length - 1,) per sequence, on the CPU."""
    groups = grouped_log_probs(model, [sequence[:1] for sequence in sequences], [[s[1:]] for s in sequences])
    return [group[0] for group in groups]


@torch.no_grad()
def grouped_log_probs(
    model: torch.nn.Module, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[list[Tensor]]:
    """log p of each token of every continuation of every context; a context is encoded once. On the CPU."""
    found: list[list[Tensor]] = [[] for _ in contexts]
    lengths = [
        len(context) + sum(len(tokens) for tokens in group)
        for context, group in zip(contexts, continuations, strict=True)
    ]
    for batch in batches(lengths, model):
        prefix = encode(model, [contexts[i] for i in batch])
        rows = [(n, tokens) for n, i in enumerate(batch) for tokens in continuations[i]]
        targets = [tokens for _, tokens in rows]
        log_probs, _ = gather_log_probs(predictions_after(model, prefix.select([n for n, _ in rows]), targets), targets)
        for (n, tokens), row in zip(rows, log_probs.cpu(), strict=True):
            found[batch[n]].append(row[: len(tokens)].clone())
    return found


def line_log_likelihoods(model: torch.nn.Module, programs: Sequence[Sequence[Tokens]]) -> list[list[float]]:
    """Nats of each piece after the first (the prompt), per program of pieces: sums over pieces equal the whole."""
    sequences = [[token for piece in pieces for token in piece] for pieces in programs]
    found = []
    for pieces, log_probs in zip(programs, token_log_probs(model, sequences), strict=True):
        sizes = [len(pieces[0]) - 1, *(len(piece) for piece in pieces[1:])]
        found.append([float(part.double().sum()) for part in log_probs.split(sizes)[1:]])
    return found
