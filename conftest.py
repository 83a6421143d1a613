"""Doctests: what imports a harness at module level is collected only where that is installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob: list[str] = [
    f"vlmkit/adapters/{prefix}_*.py"
    for prefix, package in (("inspect", "inspect_ai"), ("lmms", "lmms_eval"))
    if find_spec(package) is None
]
