"""The report's HTML: nothing from outside, nothing hostile gets through, everybody can use it."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from pathlib import Path

import pytest
from PIL import Image

import vlmkit
from tests.experiment.made import drawn, info, record
from tests.experiment.pages import HOSTILE, Page, hostile_run, png, rendered, whole_run
from vlmkit.errors import VlmkitError
from vlmkit.experiment.compare import compare
from vlmkit.experiment.report import Limits, report_samples, write_report
from vlmkit.experiment.report.passages import passages
from vlmkit.experiment.report.plots import Axis, cost_scatter, ticks
from vlmkit.experiment.report.thumbnails import Thumbnails

ASSETS = Path(vlmkit.__file__).parent / "assets" / "report"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    return rendered(*whole_run(folder), folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rendered(*hostile_run(), tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_nothing_comes_from_outside(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name))
    assert {"link", "iframe", "object", "embed", "base"}.isdisjoint(e.tag for e in page.elements)
    for element in page.elements:
        for attribute in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            assert re.match(r"#|data:image/|$", element.attributes.get(attribute, "")), element
        assert not any(attribute.startswith("on") for attribute in element.attributes)
    assert "url(" not in (ASSETS / "style.css").read_text()
    assert "@import" not in (ASSETS / "style.css").read_text()


@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_only_the_reports_own_script_may_run(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(name))
    (script,) = page.all("script")
    source = "".join(script.text)
    assert source == (ASSETS / "script.js").read_text()
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    policies = [e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes]
    assert len(policies) == 1
    assert f"script-src 'sha256-{digest}';" in policies[0]
    assert "default-src 'none'" in policies[0]


def test_hostile_text_is_shown_as_text(hostile: str) -> None:
    page = Page(hostile)
    shown = HOSTILE.replace("\x00", "␀").replace("\x1b", "␛")
    for tag in ("h1", "h4", "title", "dd", "dt", "th", "summary"):
        assert any(shown in "".join(element.text) for element in page.all(tag)), tag
    answers = [e for e in page.all("div") if e.attributes.get("class") == "text"]
    assert [("".join(e.text)) for e in answers] == [*[shown] * 4, *answers[4].text]
    errors = [e for e in page.all("p") if e.attributes.get("class") == "error"]
    assert "".join(errors[0].text) == f"Error: {shown}"
    assert "{{ 7*7 }}" in hostile
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", hostile)
    assert len(list(page.all("img"))) == 0


def test_text_that_is_no_unicode_is_replaced(tmp_path: Path) -> None:
    html = rendered(info(), [record("greedy", "\ud800", 1.0, text="\udfff")], tmp_path)
    assert html.encode()


def test_the_page_has_labels_headings_and_names(whole: str) -> None:
    page = Page(whole)
    levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in page.elements:
        for name in element.attributes.get("aria-labelledby", "").split():
            assert name in ids
        if element.attributes.get("href", "").startswith("#"):
            assert element.attributes["href"][1:] in ids
    assert all(image.attributes["alt"] for image in page.all("img"))
    assert next(page.all("html")).attributes["lang"] == "en"
    labels = whole.count("<label>")
    assert labels == len(list(page.all("input")))


@pytest.mark.parametrize("block", [0, 1, 2])
def test_colours_have_contrast(block: int) -> None:
    """At least 4.5 to 1 for text on each ground it stands on (WCAG 2.2, 1.4.3)."""
    blocks = re.findall(r"\{([^{}]*--bg:[^{}]*)\}", (ASSETS / "style.css").read_text())
    assert len(blocks) == 3
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[block]))
    pairs = [(ink, "bg") for ink in ("fg", "muted", "accent", "good", "bad")]
    pairs += [(ink, "panel") for ink in ("fg", "muted", "accent", "good", "bad")]
    for ink, ground in [*pairs, ("on-forced", "forced")]:
        high, low = sorted(map(_luminance, (colours[ink], colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_what_was_run_is_said(whole: str, tmp_path: Path) -> None:
    text = re.sub(r"\s+", " ", whole)
    assert "3 arms, 6 samples, 2 seeds, 36 of 36 responses, 1 error, baseline: greedy." in text
    assert "Error: the logits are NaN" in text
    said: dict[tuple[str, int], set[object]] = {}
    for item in whole_run(tmp_path)[1]:
        answer = item.error or item.scores["exact"].value
        said.setdefault((item.sample, item.seed), set()).add(answer)
    apart = {sample for (sample, _), answers in said.items() if len(answers) > 1}
    assert f"All 6 samples; arms disagree on {len(apart)} of them." in text
    assert 0 < len(apart) < 6
    assert text.count("<article") == 6
    assert text.count(" data-disagree") == len(apart)
    assert '<mark class="forced"' in text
    assert 'style="--doubt:0.7" title="logprob -1.20">A unicorn.</span>' in text
    assert text.count('<details class="thinking">') == 6


def test_passages_mark_tokens() -> None:
    cut = record(
        "a", "s", 1.0, text="<think>ab</think>cd", token_ids=[1, 2, 3, 4], text_ends=[7, 9, 17, 19],
        forced=[True, False, True, False], logprobs=[0.0, -2.0, 0.0, -0.01],
    )  # fmt: skip
    thinking, answer = passages(cut, 100)
    assert [(s.text, s.forced, s.doubt) for s in thinking.spans] == [("ab", False, 0.86)]
    assert [(s.text, s.forced, s.doubt) for s in answer.spans] == [("cd", False, 0.0)]
    assert passages(cut, 1)[0].num_cut == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Yes", [(False, "Yes")]),
        ("Hm.</think>Yes", [(True, "Hm."), (False, "Yes")]),
        ("\n<think>a</think>b</think>c", [(True, "a</think>b"), (False, "c")]),
        ("So <think>a", [(False, "So "), (True, "a")]),
        ("<think></think>Yes", [(False, "Yes")]),
        ("", []),
    ],
)
def test_thinking_ends_at_its_last_end(text: str, shown: list[tuple[bool, str]]) -> None:
    found = passages(record("a", "s", 1.0, text=text, token_ids=[1], text_ends=[]), 100)
    assert [(p.thinking, "".join(s.text for s in p.spans)) for p in found] == shown


def test_samples_where_arms_disagree_go_first() -> None:
    records = [
        record(arm, f"s{number}", float(number % 10 == 0 and arm == "hot"))
        for number in range(100) for arm in ("greedy", "hot")
    ]  # fmt: skip
    chosen = report_samples(records, ["exact"], limits=Limits(samples=20))
    assert [name for name in chosen if chosen[name]] == [
        f"s{number}" for number in range(0, 100, 10)
    ]
    assert len(chosen) == 20
    assert list(chosen) == sorted(chosen, key=lambda name: int(name[1:]))
    assert len(report_samples(records, ["exact"], limits=Limits(samples=4))) == 4
    assert all(report_samples(drawn(3), []).values())  # texts differ where nothing is scored


def test_seeds_that_differ_are_no_arms_that_disagree() -> None:
    records = [record(arm, "s", float(seed), seed=seed) for arm in "ab" for seed in (0, 1)]
    assert report_samples(records, ["exact"]) == {"s": False}
    assert report_samples([*records, record("c", "s", 0.0, seed=1)], ["exact"]) == {"s": True}


def test_thumbnails_keep_to_their_size_and_budget(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(600, 300))
    made = Thumbnails(tmp_path, max_px=100, max_bytes=1)
    first = made.of("a.png")
    assert (first.width, first.height) == (100, 50)
    assert first.uri is not None
    with Image.open(io.BytesIO(base64.b64decode(first.uri.partition(",")[2]))) as image:
        assert image.size == (100, 50)
    assert made.of("a.png").note == "left out: the report's images are at their size limit"


@pytest.mark.parametrize(
    ("image", "note"),
    [
        ("gone.png", "image missing: No such file or directory"),
        ("text.png", "image missing: not a readable image"),
        ("data:image/png;base64,AAAA", "image missing: not a readable image"),
        ("data:image/png;base64,A", "image missing: not a readable image"),
        ("a\x00b", "image missing: is no name that a file can have"),
        ("http://example.org/x.png", "an image on the network, not fetched"),
    ],
)
def test_an_image_that_cannot_be_shown_says_why(tmp_path: Path, image: str, note: str) -> None:
    (tmp_path / "text.png").write_text("not an image")
    assert Thumbnails(tmp_path, max_px=100, max_bytes=1000).of(image).note == note


def test_axis_ticks_are_round() -> None:
    assert [tick.label for tick in ticks(Axis(-0.3, 0.55))] == ["−0.2", "0", "0.2", "0.4"]
    assert [tick.label for tick in ticks(Axis(8.0, 260.0))] == ["100", "200"]


def test_a_plot_over_tokens_needs_arms_that_differ_in_them() -> None:
    comparison = compare([(info(), drawn())])
    scatter = cost_scatter(comparison.metrics[0], comparison)
    assert scatter is not None
    assert [dot.arm for dot in scatter.dots] == ["greedy", "hot", "long_|x"]
    assert scatter.dots[0].x < scatter.dots[1].x < scatter.dots[2].x
    best = max(comparison.metrics[0].rows, key=lambda row: row.score or 0)
    assert min(scatter.dots, key=lambda dot: dot.y).arm == best.arm
    alike = compare([(info(), [record(arm, "s", 1.0) for arm in ("greedy", "hot")])])
    assert cost_scatter(alike.metrics[0], alike) is None


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", "<p>é")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "<p>é"
    with pytest.raises(
        VlmkitError, match=r"gone/report\.html: cannot be written: No such file or directory"
    ):
        write_report(tmp_path / "gone" / "report.html", "x")
    with pytest.raises(VlmkitError, match="directory"):
        write_report(tmp_path, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_without_records_is_a_page(tmp_path: Path) -> None:
    page = Page(rendered(info(), [], tmp_path))
    assert not list(page.all("article"))
    assert not list(page.all("figure"))
