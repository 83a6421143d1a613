"""Settings of the whole test run."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run and machine; time limits would fail on a busy one.
settings.register_profile("vlmkit", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("vlmkit")
