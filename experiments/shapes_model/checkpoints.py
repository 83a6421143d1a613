"""Checkpoints that a training goes on from, and its log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch

Progress = TypeVar("Progress", bound="tuple[Any, ...]")
"""A NamedTuple of plain values: what a run resumes from beside weights and optimizers."""


def save(
    path: Path,
    model: torch.nn.Module,
    tools: list[torch.optim.Optimizer],
    progress: tuple[Any, ...],
) -> None:
    """Write a checkpoint and move it into place."""
    state = {
        "model": model.state_dict(),
        "optimizers": [tool.state_dict() for tool in tools],
        "progress": tuple(progress),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def resume(
    path: Path, model: torch.nn.Module, tools: list[torch.optim.Optimizer], fresh: Progress
) -> Progress:
    """Load a checkpoint if there is one; else the progress is ``fresh``."""
    if not path.exists():
        return fresh
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for tool, kept in zip(tools, state["optimizers"], strict=True):
        tool.load_state_dict(kept)
    return type(fresh)(*state["progress"])


def log(out: Path, **entry: Any) -> None:
    """Print a line of JSON and append it to log.jsonl."""
    line = json.dumps(entry)
    print(line, flush=True)
    with (out / "log.jsonl").open("a") as file:
        file.write(line + "\n")
