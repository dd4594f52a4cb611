"""Several documents in one row that do not see each other, so that no place of a pass is padding.

    row:        a a a a a b b b c c c c .
    position:   0 1 2 3 4 0 1 2 0 1 2 3 0

Attention is kept apart by transformers, for every implementation of it: where a row is given positions that begin anew,
and no mask, a token attends to those of its own document alone (a mask of blocks in `sdpa`, lengths of documents in
flash attention). A layer that mixes neighbours otherwise (a convolution, a recurrent state) would read across: whether
a model does is found out by a test of the model itself (`require_apart`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ra3core.errors import UserError
from ra3core.lm.head import NO_TOKEN

PROBE = 24  # tokens of each of the two documents of the test

Pack = tuple[Tensor, Tensor, Tensor]
"""input_ids, labels, positions: (rows, tokens)."""


def packed(input_ids: Tensor, labels: Tensor, lengths: Sequence[int], width: int, most: int) -> Iterator[Pack]:
    """Documents (documents, tokens) of these lengths behind one another, in rows of `width` tokens.

    A document that fits no row has one as long as it is. Parts have at most `most` tokens, a row at least. The first
    token of a document is predicted by none, and what is left of a row is a document without loss.
    """
    rows: list[list[int]] = []
    used = 0
    for document, length in enumerate(lengths):
        if not rows or used + length > width:
            rows.append([])
            used = 0
        rows[-1].append(document)
        used += length
    sizes = [sum(lengths[document] for document in row) for row in rows]
    part: list[int] = []
    for number, size in enumerate(sizes):
        if part and (len(part) + 1) * max(size, *(sizes[n] for n in part)) > most:
            yield _laid_out(input_ids, labels, lengths, [rows[n] for n in part])
            part = []
        part.append(number)
    yield _laid_out(input_ids, labels, lengths, [rows[n] for n in part])


def _laid_out(input_ids: Tensor, labels: Tensor, lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> Pack:
    width = max(sum(lengths[document] for document in row) for row in rows)
    ids = input_ids.new_zeros((len(rows), width))
    targets = torch.full_like(ids, NO_TOKEN)
    positions = torch.zeros_like(ids)
    for row, documents in enumerate(rows):
        begin = 0
        for document in documents:
            end = begin + lengths[document]
            ids[row, begin:end] = input_ids[document, : lengths[document]]
            targets[row, begin + 1 : end] = labels[document, 1 : lengths[document]]
            positions[row, begin:end] = torch.arange(end - begin, device=ids.device)
            begin = end
        positions[row, begin:] = torch.arange(width - begin, device=ids.device)
    return ids, targets, positions


@torch.no_grad()
def require_apart(model: nn.Module) -> None:
    """Raises UserError for a model in which a document's predictions depend on its neighbour in a row.

    Two documents are run in one row, then the second one behind another neighbour. What is exact in exact arithmetic
    is compared with a tolerance of a thousandth of what predictions vary by.
    """
    vocabulary, device = int(model.config.vocab_size), next(model.parameters()).device  # pyright: ignore
    generator = torch.Generator().manual_seed(0)
    documents = torch.randint(vocabulary, (3, PROBE), generator=generator)
    ids = torch.stack([documents[[0, 2]].flatten(), documents[[1, 2]].flatten()]).to(device)
    positions = torch.arange(PROBE, device=device).repeat(2).expand(2, -1)
    training = model.training
    model.eval()
    logits = model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=PROBE).logits.double()
    model.train(training)
    if float((logits[0] - logits[1]).abs().max()) > 1e-3 * float(logits.std()):
        raise UserError(
            f"m_step.packing: documents that share a row would see each other in a {type(model).__name__} (a layer of "
            "it mixes neighbours without regard to positions), expected false"
        )
