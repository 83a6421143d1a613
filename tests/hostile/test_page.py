"""SECURITY.md names limits that are there, with the values that they have."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import vlmkit

TEXT = (Path(vlmkit.__file__).parent.parent / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| `(vlmkit[\w.]+)\.([A-Z_]+)` \| ([\d,.]+)( MiB)?\D*\|$", TEXT, re.M)


def test_limits() -> None:
    assert len(ROWS) > 10
    assert len(ROWS) == TEXT.count("| `vlmkit.")
    for module, name, number, mebibytes in ROWS:
        value = getattr(importlib.import_module(module), name)
        assert value == float(number.replace(",", "")) * (2**20 if mebibytes else 1), name
