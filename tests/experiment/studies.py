"""Small experiments that tests run, and what their records have to have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlmkit.experiment.records import Record

STUDY = """
base:
  template: {enable_thinking: true}
  stopping: [{kind: max_tokens, max_tokens: 6}, {kind: eos}]
dataset: {kind: shapes, num_samples: 3}
metrics:
  right: {kind: exact}
arms:
  greedy: {}
  warm:
    sampling: [{kind: temperature, temperature: 1.5}]
seeds: [0, 1]
"""


def write_study(folder: Path, text: str = STUDY, name: str = "study") -> Path:
    """Write an experiment file."""
    path = folder / f"{name}.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def outcome(records: Iterable[Record]) -> dict[tuple[str, str, int], Any]:
    """What a record says by unit, without what time and neighbours decide."""
    found: dict[tuple[str, str, int], Any] = {}
    for record in records:
        assert record.unit not in found, f"{record.unit} has two records"
        found[record.unit] = (
            record.text,
            record.token_ids,
            record.forced,
            record.finish_reason,
            record.finish_kind,
            record.error,
            record.prompt_tokens,
            {name: (one.value, one.parsed) for name, one in record.scores.items()},
        )
    return found
