"""The page of a kv-eval: what it draws, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from vlmkit.experiment.kv_eval.outcome import Outcome
from vlmkit.experiment.kv_eval.page import page_html
from vlmkit.experiment.kv_eval.plots import heat, pareto, position_strips
from vlmkit.experiment.kv_eval.records import LOCKSTEP, LockstepRecord
from vlmkit.experiment.kv_eval.summary import PolicySummary, summarise
from vlmkit.experiment.recordfile import RecordFile
from vlmkit.experiment.runinfo import RunInfo

HOSTILE = '</style><script>window.pwned = 1</script>"><img src=x onerror=alert(1)>'
# policy -> bytes held, KL at all positions
POLICIES = {
    "dense": (100, 0.0),
    "good": (50, 1e-6),
    "beaten": (60, 1e-3),
    HOSTILE: (10, 0.1),
}
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


def records() -> list[LockstepRecord]:
    return [
        LockstepRecord(
            arm=name,
            sample=str(sample),
            seed=0,
            prompt_tokens=5,
            images=[(1, 3)],
            prompt_kl=[kl] * 4,
            kl=[kl] * (2 + sample),
            agrees=[True] * (2 + sample),
            delta_logprobs=[-kl] * (2 + sample),
            attention_error=[kl, 10 * kl],
            held_bytes=held,
        )
        for name, (held, kl) in POLICIES.items()
        for sample in range(3)
    ]


@pytest.fixture
def rows() -> list[PolicySummary]:
    return summarise(list(POLICIES), records(), [], {})


def test_the_front_is_what_nothing_beats(rows: list[PolicySummary]) -> None:
    found = pareto(rows)
    assert found is not None
    assert found.names == (HOSTILE, "good")
    assert [dot.label for dot in found.dots] == ["1", "2", "3"]
    assert len(found.front) == 1
    by_name = {dot.arm: dot for dot in found.dots}
    assert by_name[HOSTILE].x < by_name["good"].x < by_name["beaten"].x
    assert by_name[HOSTILE].y < by_name["beaten"].y < by_name["good"].y  # from above
    assert pareto(rows[:1]) is None


def test_strips_stand_on_the_first_answer_token(rows: list[PolicySummary]) -> None:
    found = position_strips(rows, records())
    assert found is not None
    assert [strip.policy for strip in found.strips] == ["good", "beaten", HOSTILE]
    assert found.answer == 50.0  # four positions before it, four from it on
    assert [(shade.x, shade.width, shade.share) for shade in found.shades] == [
        (12.5, 12.5, 1.0),
        (25.0, 12.5, 1.0),
    ]
    assert [round(strip.bars[0].height) for strip in found.strips[1:]] == [67, 100]
    assert position_strips(rows[:1], [one for one in records() if one.arm == "dense"]) is None


def test_the_map_goes_from_small_to_large(rows: list[PolicySummary]) -> None:
    found = heat("error", rows, "attention_error")
    assert found is not None
    assert found.layers == ("0", "1")
    shares = [share for _, cells in found.rows for _, share in cells]
    assert (min(shares), max(shares)) == (0.0, 1.0)
    assert found.rows[-1][1][1] == ("1", 1.0)
    assert heat("KL", rows, "layer_kl") is None


@pytest.fixture
def page(tmp_path: Path, rows: list[PolicySummary]) -> str:
    file = RecordFile(tmp_path / LOCKSTEP)
    for record in records():
        file.append(record)
    file.close()
    info = RunInfo(
        name=HOSTILE, arms={name: {"cache": name} for name in POLICIES}, metrics=[], provenance={}
    )
    return page_html(tmp_path, Outcome(info=info, policies=rows, comparison=None))


def test_nothing_comes_from_elsewhere(page: str) -> None:
    assert "script" not in re.sub(r"&lt;/?script", "", page)
    assert "<img" not in page
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page)
    assert "default-src 'none'" in page
    assert page.count('class="bar"') == 3 * 8


PROBE = """<script>
addEventListener("load", () => {
  const out = document.createElement("pre");
  out.id = "outcome";
  out.textContent = JSON.stringify({
    pwned: window.pwned === 1,
    overflow: document.documentElement.scrollWidth - innerWidth,
    dark: getComputedStyle(document.body).backgroundColor,
    strips: [...document.querySelectorAll("svg.strip")].map((e) => e.getBoundingClientRect().width),
    cells: new Set([...document.querySelectorAll(".heat td")].map(
      (e) => getComputedStyle(e).backgroundColor)).size,
  });
  document.body.append(out);
});
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (500, True)], ids=["laptop", "phone"])
def test_in_a_browser(page: str, tmp_path: Path, width: int, dark: bool) -> None:
    shown = page.replace("default-src 'none'", "script-src 'unsafe-inline'", 1)
    (tmp_path / "page.html").write_text(shown.replace("</head>", PROBE, 1), encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
        f"--blink-settings=preferredColorScheme={1 - dark}", "--virtual-time-budget=3000",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    reply = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = re.search(r'<pre id="outcome">(.*?)</pre>', reply.stdout, re.DOTALL)
    assert match is not None, reply.stderr[-2000:]
    found: dict[str, Any] = json.loads(unescape(match[1]))
    assert not found["pwned"]
    assert found["overflow"] <= 0
    assert found["dark"] == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert len(found["strips"]) == 3
    assert min(found["strips"]) > 250
    assert found["cells"] > 3
