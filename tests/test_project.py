"""The project's files hold together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import vlmkit

ROOT = Path(vlmkit.__file__).parent.parent


def test_extras_are_the_documented_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) >= {"cpu", "cuda", "parity", "dev"}
    assert not any("torch" in item for item in project["dependencies"])
