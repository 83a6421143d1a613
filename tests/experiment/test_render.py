"""The formats of a comparison: the numbers are there, and hostile names stay text."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from tests.experiment.made import drawn, info, record
from vlmkit.experiment.compare import compare
from vlmkit.experiment.comparison import Comparison
from vlmkit.experiment.render import FORMATS, to_csv, to_json, to_latex, to_markdown, to_plain

HOSTILE = "a|b\n[x](y) <i>_$%#&{}~^\\\x1b[31m"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare([(info(), drawn(num_seeds=2))])


@pytest.fixture(scope="module")
def hostile() -> Comparison:
    arms = {HOSTILE: {"stop": HOSTILE}, "plain": {"stop": "x"}}
    records = [record(arm, "s", 1.0) for arm in arms]
    return compare([(info(arms=arms, baseline="plain"), records)])


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_lines_fit_the_terminal(comparison: Comparison, hostile: Comparison, width: int) -> None:
    for shown in (comparison, hostile):
        lines = to_plain(shown, width).splitlines()
        assert max(map(len, lines)) <= width
        assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_shows_every_arm_with_its_difference(
    comparison: Comparison, width: int
) -> None:
    text = to_plain(comparison, width)
    row = comparison.metrics[0].rows[1]
    assert row.interval is not None
    assert f"{row.score:.3f} [{row.interval.low:.3f},\u00a0{row.interval.high:.3f}]" in text
    for part in ("baseline", "temperature=1.5", "max_tokens: 48", "Holm-corrected over 2 arms"):
        assert part in " ".join(text.split())
    assert text.count("errors") == text.count("rows were decoded together") == 1


def test_long_names_are_numbered_where_they_would_be_cut() -> None:
    name = "nucleus, temperature=1.5, max_tokens=128"
    arms = {"greedy": {"k": 1}, name: {"k": 2}}
    records = [record(arm, f"s{number}", 1.0) for arm in arms for number in range(3)]
    text = to_plain(compare([(info(arms=arms), records)]), 80)
    assert f"(2) {name}" in text
    assert len(re.findall(r"^ \(2\) ", text, re.MULTILINE)) == 3


def test_the_notes_say_what_ran_beside_others_and_what_came_to_no_answer() -> None:
    records = [
        record("greedy", "a", 1.0, alone=True), record("hot", "a", 0.0, answered=False, alone=True)
    ]  # fmt: skip
    text = to_markdown(compare([(info(), records)]))
    assert "each response ran by itself" in text
    assert "decoded together" not in text
    assert "scored as an empty answer: 1 (hot) of 2 responses" in text
    records[0].alone = False
    text = to_markdown(compare([(info(), records)]))
    assert "evenly for each, but 1 response of 2 ran alone" in text
    for one in records:
        one.alone, one.answered = False, True
    text = to_markdown(compare([(info(), records)]))
    assert "rows were decoded together" in text
    assert "alone" not in text
    assert "empty answer" not in text


def test_csv_holds_the_numbers_as_they_are(comparison: Comparison, hostile: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert [line["arm"] for line in lines] == ["greedy", "hot", "long_|x"]
    row = comparison.metrics[0].rows[2]
    assert float(lines[2]["difference"]) == row.difference
    assert float(lines[2]["p_holm"]) == row.p_holm
    assert lines[0]["p"] == ""
    assert json.loads(lines[2]["differs"]) == {"max_tokens": "48"}
    assert next(csv.DictReader(io.StringIO(to_csv(hostile))))["arm"] == HOSTILE


def test_json_is_the_comparison(comparison: Comparison) -> None:
    loaded = json.loads(to_json(comparison))
    assert loaded["metrics"][0]["rows"][1]["p"] == comparison.metrics[0].rows[1].p
    assert loaded["metrics"][0]["rows"][2]["pass_at"].keys() == {"2"}
    assert loaded["settings"][0] == 0.95


def test_markdown_tables_have_equal_columns(comparison: Comparison, hostile: Comparison) -> None:
    for shown in (comparison, hostile):
        lines = [line for line in to_markdown(shown).splitlines() if line.startswith("|")]
        separators = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
        assert set(separators[:4]) == {12}
    assert "<i>" not in to_markdown(hostile).replace(r"\<i\>", "")


def test_latex_escapes_what_it_would_read(hostile: Comparison) -> None:
    line = next(line for line in to_latex(hostile).splitlines() if line.startswith("a$|$b"))
    assert r"\_\$\%\#\&\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in line
    assert line.endswith(r"\\")
    assert len(re.findall(r"(?<!\\)&", line)) == 10


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_runs_without_metrics_or_records(name: str) -> None:
    for metrics in ([], ["exact"]):
        text = FORMATS[name](compare([(info(metrics=metrics), [])]))
        assert text
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_the_notes_say_what_cannot_be_read(comparison: Comparison) -> None:
    text = to_markdown(comparison)
    limits = [(row.detectable, row.arm) for row in comparison.metrics[0].rows if row.detectable]
    assert len(limits) == 2
    for value, arm in limits:
        assert f"{value:.3f} ({arm})" in text.replace(r"\_\|", "_|")
    assert "is found in less than 80%" in text
    assert "the 2 seeds of a sample drawn together" in text
    certain = compare([(info(), [record("hot", "a", 1.0), record("greedy", "a", 1.0)])])
    assert "Clopper–Pearson" in to_markdown(certain)
    assert "what could be seen is not known" in to_markdown(certain)
    assert "With fewer than 30 samples such intervals are too narrow" in to_markdown(certain)
    assert "too narrow" not in text
