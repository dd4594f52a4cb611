from __future__ import annotations

from collections.abc import Iterator

import pytest
from assault import Assailed


@pytest.fixture(scope="module")
def assailed() -> Iterator[Assailed]:
    """A verifier to attack. Without namespaces only assault.py does so, by hand: little bounds a fork bomb there."""
    assailed = Assailed(namespaces=True)
    yield assailed
    assert not assailed.close()
