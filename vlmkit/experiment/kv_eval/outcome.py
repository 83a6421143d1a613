"""A kv-eval's run directory as it is found later: its summary in every format."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.experiment import render
from vlmkit.experiment.compare import compare
from vlmkit.experiment.comparison import Comparison
from vlmkit.experiment.kv_eval.records import read_lockstep
from vlmkit.experiment.kv_eval.summary import PolicySummary, summarise
from vlmkit.experiment.kv_eval.tables import kv_tables
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.experiment.reopen import run_info, run_scorers
from vlmkit.experiment.runinfo import RunInfo
from vlmkit.experiment.store import RECORDS
from vlmkit.experiment.tables import TextTable, narrow


class Outcome(msgspec.Struct, kw_only=True):
    """What a kv-eval found."""

    info: RunInfo
    policies: list[PolicySummary]
    comparison: Comparison | None  # of the free-running responses' scores

    @property
    def tables(self) -> list[TextTable]:
        """All tables."""
        return kv_tables(self.policies, self.comparison)

    @property
    def narrow_tables(self) -> list[TextTable]:
        """All tables, those of scores for little width."""
        return kv_tables(self.policies, self.comparison, narrow)


def read_outcome(folder: str | os.PathLike[str], *, trust_code: bool = False) -> Outcome:
    """Summarise a kv-eval's run directory, also one that is not complete.

    Raises:
        VlmkitError: no run directory, or one of another kind of run.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    if manifest.lockstep is None:
        raise VlmkitError(f"{path}: no run of kv-eval; 'vlmkit compare {path}' shows what it is")
    names = [manifest.baseline, *(name for name in manifest.arms if name != manifest.baseline)]
    info = run_info(path)
    comparison = None
    if manifest.metrics:
        scorers = run_scorers(path, manifest, trust_code=trust_code)
        summaries = {name: scorer.summarise for name, scorer in scorers.items()}
        comparison = compare([(info, read_scores(path / RECORDS))], summaries=summaries)
    rows = summarise(names, read_lockstep(path), read_records(path / RECORDS), manifest.caches)
    return Outcome(info=info, policies=rows, comparison=comparison)


def to_json(outcome: Outcome) -> str:
    """Everything that was computed, indented."""
    return msgspec.json.format(msgspec.json.encode(outcome), indent=2).decode()


def to_csv(outcome: Outcome) -> str:
    """One line per policy, numbers as they are; an empty field is not known."""
    return render.lines_to_csv([_flat("", msgspec.to_builtins(row)) for row in outcome.policies])


def _flat(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        return {path: value}
    return {
        name: leaf
        for key, item in items
        for name, leaf in _flat(f"{path}.{key}" if path else str(key), item).items()
    }


FORMATS: Mapping[str, Callable[[Outcome], str]] = {
    "terminal": lambda outcome: render.group_to_plain(
        render.tables_to_terminal(outcome.narrow_tables)
    ),
    "markdown": lambda outcome: render.tables_to_markdown(outcome.tables),
    "latex": lambda outcome: render.tables_to_latex(outcome.tables),
    "csv": to_csv,
    "json": to_json,
}
