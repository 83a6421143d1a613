"""Settings of the whole test run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run and machine; time limits would fail on a busy one.
settings.register_profile("vlmkit", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("vlmkit")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    # Doctests are for vlmkit: collecting them here would import helpers that need torch.
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files instead of comparing"
    )


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
