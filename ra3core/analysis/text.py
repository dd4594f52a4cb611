"""When two rationales are the same abstraction."""

from __future__ import annotations

import re

_LABEL = re.compile(r"^(?:[a-z][).:]?|\d{1,2}[).:])\s+(?=[a-z]{2})", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")


def normalised(text: str) -> str:
    """Lower case, single spaces, no label ("B", "b)", "2.") ahead of a word at the beginning, every number as N.

    What is left is what the rationale says to do, whichever step of whichever program it stands at.
    """
    return _NUMBER.sub("N", _LABEL.sub("", " ".join(text.split())).casefold())
