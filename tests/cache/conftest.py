"""Settings of the tests of caches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cache.kinds import few_rounds


@pytest.fixture(autouse=True, scope="module")
def quick_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Laws hold for any number of rounds; the tests of the codec itself have the real one."""
    with few_rounds(1 if request.path.parent.name == "cache" else None):
        yield
