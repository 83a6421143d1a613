"""The report in a real browser, where one is installed: laptop and phone width, both themes.

The page is loaded in a frame of the given width with no network; a script that plays the user
reports what it found.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.pages import hostile_run, rendered, whole_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

USER = """
const found = {violations: []};
const shown = () => [...document.querySelectorAll("article")].filter((a) => !a.hidden)
  .map((a) => a.querySelector("h3").textContent);
const column = (place) => [...document.querySelector("table").tBodies[0].rows]
  .map((row) => row.cells[place].firstChild.textContent.trim());
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const here = () => (document.activeElement.querySelector("h3") || {}).textContent;
const type = (id, text) => {
  const box = document.getElementById(id);
  box.value = text;
  box.dispatchEvent(new Event("input"));
};
window.addEventListener("error", (event) => found.violations.push(event.message));
document.addEventListener("securitypolicyviolation", (e) => found.violations.push(e.blockedURI));
window.addEventListener("load", () => {
  found.pwned = window.pwned === 1;
  found.overflow = document.documentElement.scrollWidth - window.innerWidth;
  found.dark = getComputedStyle(document.body).backgroundColor;
  found.images = [...document.images].map((image) => image.naturalWidth);
  found.all = shown();
  const heads = [...document.querySelector("table").tHead.rows[0].cells];
  const place = heads.findIndex((head) => head.textContent === "score");
  if (place >= 0) {
    found.scores = [column(place)];
    for (let turn = 0; turn < 2; turn++) {
      heads[place].querySelector("button").click();
      found.scores.push(column(place), heads[place].getAttribute("aria-sort"));
    }
    heads[0].querySelector("button").click();
    found.sorted = heads.map((head) => head.getAttribute("aria-sort"));
  }
  document.getElementById("disagree").click();
  found.disagree = shown();
  found.count = document.getElementById("count").textContent;
  document.getElementById("disagree").click();
  type("search", "UNICORN hm");
  found.search = shown();
  type("search", "no such text");
  found.nothing = shown();
  type("search", "");
  document.getElementById("errors").click();
  found.errors = shown();
  document.getElementById("errors").click();
  document.getElementById("samples").focus();
  found.keys = [];
  for (const key of ["j", "j", "k", "k", "k"]) { press(key); found.keys.push(here()); }
  press("/");
  found.focus = document.activeElement.id;
  press("j");
  found.typing = document.activeElement.id;
  document.querySelector("article").focus();
  press("d");
  found.key_d = shown().length;
  press("d");
  found.folded = [...document.querySelectorAll("details.thinking")].every((d) => !d.open);
  const doubt = document.querySelector(".doubt");
  if (doubt) {
    const ground = () => getComputedStyle(doubt).backgroundColor;
    found.shade = [ground()];
    document.getElementById("shade").click();
    found.shade.push(ground());
  }
  document.getElementById("theme").click();
  found.toggled = getComputedStyle(document.body).backgroundColor;
  const reach = "a[href], button, input, summary, [tabindex='0']";
  found.unreachable = [...document.querySelectorAll(reach)].filter((e) => e.tabIndex < 0).length;
  parent.postMessage(JSON.stringify(found), "*");
});
"""
FRAME = """<!doctype html><body style="margin:0"><iframe src="report.html"
style="width:{width}px;height:800px;border:0"></iframe><script>
window.addEventListener("message", (event) => {{
  const outcome = document.createElement("pre");
  outcome.id = "outcome";
  outcome.textContent = event.data;
  document.body.append(outcome);
}});</script>"""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 27)"


def visit(page: str, folder: Path, *, width: int, dark: bool) -> dict[str, Any]:
    """What the user found on a page of this width."""
    digest = base64.b64encode(hashlib.sha256(USER.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    page = page.replace("<style>", f"<script>{USER}</script><style>", 1)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=width))
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={1 - dark}",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={max(width, 600)},900",
        "--virtual-time-budget=5000", "--dump-dom", (folder / "frame.html").as_uri(),
    ]  # fmt: skip
    reply = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    outcome = re.search(r'<pre id="outcome">(.*?)</pre>', reply.stdout, re.DOTALL)
    assert outcome is not None, reply.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(outcome[1]))
    return found


@pytest.fixture(scope="module", params=[(1280, False), (390, True)], ids=["laptop", "phone"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("report")
    width, dark = request.param
    page = rendered(*whole_run(folder), folder)
    return {**visit(page, folder, width=width, dark=dark), "wants_dark": dark}


def test_the_page_fits_and_nothing_fails(found: dict[str, Any]) -> None:
    assert found["violations"] == []
    assert found["overflow"] <= 0
    assert sorted(set(found["images"])) == [20, 384]
    assert found["unreachable"] == 0
    assert found["folded"]


def test_the_theme_is_the_systems_until_it_is_chosen(found: dict[str, Any]) -> None:
    grounds = [LIGHT, DARK]
    assert found["dark"] == grounds[found["wants_dark"]]
    assert found["toggled"] == grounds[not found["wants_dark"]]


def test_tables_sort(found: dict[str, Any]) -> None:
    before, down, first, up, second = found["scores"]
    assert (first, second) == ("descending", "ascending")
    assert sorted(before, reverse=True) == down == up[::-1]
    assert found["sorted"][0] == "ascending"
    assert found["sorted"][1:] == [None] * 10


def test_samples_are_filtered_and_searched(found: dict[str, Any]) -> None:
    assert found["all"] == [f"s{number}" for number in range(6)]
    assert 0 < len(found["disagree"]) < 6
    assert found["count"] == f"{len(found['disagree'])} of 6 shown"
    assert (found["search"], found["nothing"], found["errors"]) == (["s5"], [], ["s2"])


def test_samples_are_walked_by_keyboard(found: dict[str, Any]) -> None:
    assert found["keys"] == ["s0", "s1", "s0", "s0", "s0"]
    assert found["focus"] == found["typing"] == "search"
    assert found["key_d"] == len(found["disagree"])


def test_uncertain_tokens_are_shaded_when_asked(found: dict[str, Any]) -> None:
    assert found["shade"][0] == "rgba(0, 0, 0, 0)"
    assert found["shade"][1] != found["shade"][0]


def test_hostile_text_does_not_run(tmp_path: Path) -> None:
    found = visit(rendered(*hostile_run(), tmp_path), tmp_path, width=390, dark=False)
    assert not found["pwned"]
    assert found["violations"] == []
    assert found["overflow"] <= 0
