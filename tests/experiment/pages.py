"""A report with everything in it, and the page read back as elements."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tests.experiment.made import drawn, info, record
from vlmkit.experiment.compare import compare
from vlmkit.experiment.records import Record
from vlmkit.experiment.report import Limits, report_html, report_samples
from vlmkit.experiment.runinfo import RunInfo, SampleInfo

HOSTILE = (
    "</script></style></title>-->]]><script>window.pwned=1</script>"
    "<img src=https://example.org/x onerror=window.pwned=1>\"'{{ 7*7 }}{% raw %}\u202e\x00\x1b[1m"
)
VOID = {"meta", "img", "input", "br", "line", "circle"}


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str]
    text: list[str]


class Page(HTMLParser):
    """All elements of a page in order, each with the text directly in it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, [])
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text.append(data)

    def all(self, tag: str) -> Iterator[Element]:
        return (element for element in self.elements if element.tag == tag)


def png(width: int = 600, height: int = 300) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def hostile_run() -> tuple[RunInfo, list[Record]]:
    """Markup and control characters in every place that text comes from."""
    arms = {HOSTILE: {"stop": HOSTILE}, "plain": {"stop": "x"}}
    sample = SampleInfo(
        question=HOSTILE, answers=[HOSTILE], fields={HOSTILE: HOSTILE},
        images=[HOSTILE, "https://example.org/x.png", "data:text/html;base64,PHNjcmlwdD4="],
    )  # fmt: skip
    run = info(
        HOSTILE, arms=arms, metrics=[HOSTILE], baseline="plain", samples={HOSTILE: sample},
        provenance={HOSTILE: [HOSTILE]},
    )  # fmt: skip
    scores = record("plain", "s", 1.0).scores
    scores["exact"].parsed = HOSTILE
    records = [
        record(arm, HOSTILE, 1.0, text=f"<think>{HOSTILE}</think>{HOSTILE}", finish_kind=HOSTILE,
               scores={HOSTILE: scores["exact"]}, finish_reason="stop")
        for arm in arms
    ]  # fmt: skip
    return run, [*records, record("plain", HOSTILE, None, seed=1, error=HOSTILE)]


def whole_run(folder: Path) -> tuple[RunInfo, list[Record]]:
    """Images, thinking, forced and doubtful tokens, an error, a sample on which all agree."""
    (folder / "red.png").write_bytes(png())
    uri = "data:image/png;base64," + base64.b64encode(png(20, 10)).decode()
    samples = {
        f"s{number}": SampleInfo(question=f"Question {number}?", images=["red.png", uri])
        for number in range(6)
    }
    records = [item for item in drawn(6, 2) if item.sample != "s5"]
    for arm in ("greedy", "hot", "long_|x"):
        for seed in (0, 1):
            records.append(
                record(
                    arm, "s5", 1.0, seed=seed, text="<think>Hm, hm.</think>A unicorn.",
                    token_ids=[1, 2, 3, 4, 5], text_ends=[7, 10, 14, 22, 32],
                    forced=[False, False, True, True, False],
                    logprobs=[-0.01, -0.01, -3.0, -0.01, -1.2],
                )
            )  # fmt: skip
    records.append(record("hot", "s2", None, seed=1, error="the logits are NaN"))
    return info(samples=samples, num_units=36), records


def rendered(
    run: RunInfo, records: list[Record], folder: Path, limits: Limits | None = None
) -> str:
    limits = limits or Limits()
    chosen = report_samples(records, run.metrics, limits=limits)
    comparison = compare([(run, records)])
    return report_html(run, comparison, records, chosen, base=folder, limits=limits)
