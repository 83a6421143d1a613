"""The page itself: what is shown, given to one template."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vlmkit.experiment.comparison import Comparison
from vlmkit.experiment.records import Record
from vlmkit.experiment.report.cards import indented, plural, sample_card, value_text
from vlmkit.experiment.report.chosen import Limits
from vlmkit.experiment.report.passages import readable
from vlmkit.experiment.report.plots import cost_scatter, difference_forest, score_forest
from vlmkit.experiment.report.thumbnails import Thumbnails
from vlmkit.experiment.runinfo import RunInfo
from vlmkit.experiment.tables import text_tables
from vlmkit.files import whole_file

_ASSETS = Path(__file__).parents[2] / "assets" / "report"


def report_html(
    info: RunInfo,
    comparison: Comparison,
    records: Iterable[Record],
    chosen: Mapping[str, bool],
    *,
    base: Path,
    limits: Limits = Limits(),  # noqa: B008
) -> str:
    """Render the report of one run.

    Args:
        info: the run; ``info.samples`` holds what is known of the chosen samples.
        comparison: its arms, from `vlmkit.experiment.compare.compare`.
        records: all of them, once; only those of chosen samples are kept.
        chosen: sample id -> whether arms disagree, from `report_samples`.
        base: folder that the images' relative paths start from.
        limits: of the size.

    Returns:
        One HTML document without any reference to a network. All text is escaped, and no script
        but the report's own may run (its hash stands in the content security policy).
    """
    responses: dict[str, dict[str, list[Record]]] = {sample: {} for sample in chosen}
    for record in records:
        if record.sample in responses:
            responses[record.sample].setdefault(record.arm, []).append(record)
    thumbnails = Thumbnails(base, max_px=limits.image_px, max_bytes=limits.image_bytes)
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    samples = [
        sample_card(sample, disagree, info, responses[sample], thumbnails, limits)
        for sample, disagree in chosen.items()
    ]
    html = _template().render(
        name=info.name,
        baseline=comparison.baseline,
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        summary=_summary(info, comparison),
        tables=text_tables(comparison),
        plots=_plots(comparison),
        samples=samples,
        samples_note=_samples_note(comparison, chosen),
        shaded='class="doubt"' if any(_has_logprobs(arms) for arms in responses.values()) else "",
        provenance=[(key, value_text(value)) for key, value in info.provenance.items()],
        configs=[(arm, indented(config)) for arm, config in info.arms.items()],
    )
    return html.encode("utf-8", "replace").decode()


def write_report(path: str | os.PathLike[str], html: str) -> None:
    """Write a report, whole or not at all.

    Raises:
        VlmkitError: the file cannot be written.
    """
    with whole_file(path) as file:
        file.write_text(html, encoding="utf-8", newline="\n")


@functools.cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(_asset("page.html.j2"))


def _shown(value: Any) -> Any:
    return readable(value) if type(value) is str else value  # Markup is a type of its own


def _summary(info: RunInfo, comparison: Comparison) -> str:
    num_records = sum(cost.records for cost in comparison.arms)
    num_errors = sum(cost.errors for cost in comparison.arms)
    of = "" if info.num_units is None else f" of {info.num_units}"
    parts = [
        f"{len(comparison.arms)} arm{plural(len(comparison.arms))}",
        f"{comparison.num_samples} sample{plural(comparison.num_samples)}",
        f"{len(comparison.seeds)} seed{plural(len(comparison.seeds))}",
        f"{num_records}{of} responses",
        f"{num_errors} error{plural(num_errors)}",
    ]
    if comparison.baseline is not None:
        parts.append(f"baseline: {comparison.baseline}")
    return ", ".join(parts) + "."


def _samples_note(comparison: Comparison, chosen: Mapping[str, bool]) -> str:
    shown, apart = len(chosen), sum(chosen.values())
    if shown == comparison.num_samples:
        return f"All {shown} samples; arms disagree on {apart} of them."
    return (
        f"{shown} of {comparison.num_samples} samples, those where arms disagree first; "
        f"they disagree on {apart} of these."
    )


def _plots(comparison: Comparison) -> list[tuple[str, list[Any], Any]]:
    plots = []
    for metric in comparison.metrics:
        forests = [score_forest(metric, comparison), difference_forest(metric, comparison)]
        drawn = [forest for forest in forests if forest is not None]
        if drawn:
            plots.append((metric.metric, drawn, cost_scatter(metric, comparison)))
    return plots


def _has_logprobs(by_arm: Mapping[str, Sequence[Record]]) -> bool:
    return any(record.logprobs for records in by_arm.values() for record in records)
