"""A kv-eval as one HTML file that needs no network and no script."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import jinja2
from markupsafe import Markup

from vlmkit.experiment.kv_eval.outcome import Outcome, read_outcome
from vlmkit.experiment.kv_eval.plots import heat, pareto, position_strips
from vlmkit.experiment.kv_eval.records import LOCKSTEP, read_lockstep
from vlmkit.experiment.report.cards import indented, value_text
from vlmkit.experiment.report.page import write_report
from vlmkit.experiment.report.passages import readable
from vlmkit.experiment.shown import counted
from vlmkit.experiment.store import run_files
from vlmkit.files import check_target

_ASSETS = Path(__file__).parents[2] / "assets" / "report"
PAGE = "kv_eval.html"


def write_page(folder: str | os.PathLike[str], outcome: Outcome | None = None) -> Path:
    """Write the page of a run directory, ``kv_eval.html`` in it.

    Args:
        folder: the run directory.
        outcome: what it holds; None: read it.

    Raises:
        VlmkitError: no run of kv-eval, or the file cannot be written.
    """
    path = Path(folder)
    target = path / PAGE
    check_target(target, [*run_files(path), path / LOCKSTEP])
    write_report(target, page_html(path, read_outcome(path) if outcome is None else outcome))
    return target


def page_html(folder: Path, outcome: Outcome) -> str:
    """Render the page."""
    rows, info = outcome.policies, outcome.info
    base = rows[0]
    html = _template().render(
        name=info.name,
        style=Markup(_asset("style.css") + _asset("kv_eval.css")),
        summary=", ".join(
            [
                f"{len(rows) - 1:,} {'policy' if len(rows) == 2 else 'policies'}",
                counted(base.samples, "sample"),
                f"{0 if base.kl is None else base.kl.positions:,} answer positions",
                f"baseline: {base.policy}",
            ]
        )
        + ".",
        tables=outcome.tables,
        pareto=pareto(rows),
        strips=position_strips(rows, read_lockstep(folder)),
        heats=[
            found
            for found in (
                heat("attention-output error", rows, "attention_error"),
                heat("KL with the policy in that layer alone", rows, "layer_kl"),
            )
            if found is not None
        ],
        baseline=base.policy,
        provenance=[(key, value_text(value)) for key, value in info.provenance.items()],
        configs=[(arm, indented(config)) for arm, config in info.arms.items()],
    )
    return html.encode("utf-8", "replace").decode()


@functools.cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: readable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(_asset("kv_eval.html.j2"))
