"""Annotated demonstrations that no policy wrote: two controls of RA3.

The paper compares with next-token prediction on comments distilled from another model (its last figure). Ours come from
whoever wrote the demonstrations: the embedded suite's generator, which knows every block's step (an oracle), or the
authors of Python files, whose comments were taken out when their functions were cut (`Demonstration.reference`).

The second control keeps what RA3 wrote and where, and breaks which stands where: the same rationales, permuted over all
places of all demonstrations. What is left of RA3's gain then is not what a rationale says about the lines below it.

Both leave every expert line as it is, byte for byte. Alone: `distil(AsIs(), Context({"demonstrations": ...}, ...))` and
`shuffle(AsIs(), Context({"annotated": ...}, ...))`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ra3core.arms import AsIs
from ra3core.corpora.demonstrations import Annotated, annotate, read_annotated, read_demonstrations, write_annotated
from ra3core.errors import UserError
from ra3core.stage import Context, Metrics


def distil(config: AsIs, context: Context) -> Metrics:
    """Every demonstration with its reference rationales; writes annotated.parquet.

    Metrics: `_figures`. Raises UserError when no demonstration has any.
    """
    path = context.inputs["demonstrations"] / "demonstrations.parquet"
    annotated = [annotate(one, one.reference) for one in read_demonstrations(path)]
    if not any(one.rationales for one in annotated):
        raise UserError(
            f"{path}: no demonstration has comments of its author, which arm distilled is made of; "
            "expected a source with comments, or arms.mid_trained without distilled"
        )
    write_annotated(annotated, context.out / "annotated.parquet")
    return _figures(annotated)


def shuffle(config: AsIs, context: Context) -> Metrics:
    """The same places and the same rationales, permuted over all of them; writes annotated.parquet.

    The permutation is uniform, drawn from the stage's seed. Metrics: `_figures`, and kept: the share of places that
    were dealt the text which they had, by chance or because equal texts are common.
    """
    before = read_annotated(context.inputs["annotated"] / "annotated.parquet")
    after = permuted(before, context.seed)
    write_annotated(after, context.out / "annotated.parquet")
    pairs = [(a.rationales[t], b.rationales[t]) for a, b in zip(before, after, strict=True) for t in a.rationales]
    return _figures(after) | {"kept": sum(a == b for a, b in pairs) / max(len(pairs), 1)}


def permuted(annotated: Sequence[Annotated], seed: int) -> list[Annotated]:
    """Rationales dealt anew, each demonstration keeping as many as it had, ahead of the same lines."""
    texts = [one.rationales[t] for one in annotated for t in sorted(one.rationales)]
    random.Random(f"{seed}/shuffled rationales").shuffle(texts)
    dealt = iter(texts)
    return [annotate(one.demonstration, {t: next(dealt) for t in sorted(one.rationales)}) for one in annotated]


def _figures(annotated: Sequence[Annotated]) -> Metrics:
    """No model ran, so no tokens; thinks_per_demonstration and annotated_lines as bootstrap's."""
    thinks = sum(len(one.rationales) for one in annotated)
    return {
        "tokens": 0,
        "train_tokens": 0,
        "demonstrations": len(annotated),
        "thinks_per_demonstration": thinks / len(annotated),
        "annotated_lines": thinks / sum(len(one.demonstration.lines) for one in annotated),
    }
