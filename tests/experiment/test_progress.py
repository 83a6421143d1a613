"""How far a run is, as bars and as lines."""

from __future__ import annotations

import io

import pytest

from vlmkit.experiment.progress import Bars, Lines, Progress
from vlmkit.experiment.records import Record
from vlmkit.experiment.units import Units


def advance(progress: Progress, units: Units, count: int, error: str | None = None) -> None:
    with progress:
        progress.begin(units)
        for number in range(count):
            record = Record(arm="a", sample=str(number), seed=0, generation_tokens=5, error=error)
            units.mark(*record.unit)
            units.count(record)
            progress.advance(record)


def units() -> Units:
    found = Units(["a", "b"], ["0", "1", "2", "3"], [0])
    found.mark("b", "0", 0)
    return found


def test_bars_count_all_and_each_arm(capsys: pytest.CaptureFixture[str]) -> None:
    advance(Bars(("a", "b")), units(), 3)
    shown = capsys.readouterr().err.splitlines()
    lines = {line.split()[0]: line for line in shown if line.strip()}
    assert "3/4" in lines["a"]
    assert "1/4" in lines["b"]
    assert "4/8" in lines["all"]
    assert "tokens/s" in lines["all"]


def test_many_arms_share_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    many = Units([str(number) for number in range(30)], ["0"], [0])
    advance(Bars(tuple(map(str, range(30)))), many, 0)
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines() if line] == ["all"]


def test_lines_say_how_much_is_left_and_what_failed() -> None:
    file = io.StringIO()
    advance(Lines(file, every_s=0), units(), 2, error="no")
    lines = file.getvalue().splitlines()
    assert lines[0] == "1 of 8 units are done"
    assert lines[1].startswith("2/8 units, ")
    assert " left, 1 errors" in lines[1]
    assert lines[-1].startswith("3/8 units, ")


def test_nothing_new_is_no_line() -> None:
    file = io.StringIO()
    advance(Lines(file), Units(["a"], ["0"], [0]), 0)
    assert file.getvalue() == ""
