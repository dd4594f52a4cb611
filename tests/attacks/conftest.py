from __future__ import annotations

from collections.abc import Iterator

import pytest
from assault import Assailed


@pytest.fixture(scope="module", params=["namespaces", pytest.param("without", marks=pytest.mark.slow)])
def assailed(request: pytest.FixtureRequest) -> Iterator[Assailed]:
    """A verifier to attack. It runs programs without namespaces only when slow tests are asked for."""
    assailed = Assailed(namespaces=request.param == "namespaces")
    yield assailed
    assert not assailed.close()
