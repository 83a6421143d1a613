"""Every benchmark command runs, at a size that says nothing about speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import curves, reach, report
from benchmarks.case import work_of
from benchmarks.random_checkpoint import write_checkpoint
from benchmarks.reach_items import ITEMS, Line
from benchmarks.tasks_vlmkit import tasks
from benchmarks.worker import System, alternate

QUICK = ("bandwidth", "rows", "shared-prefix", "sweep-small")  # no peer: those take long to import


class InThisProcess:
    """As a worker, but without a process of its own."""

    def __init__(self, toolkit: str, folder: Path, dtype: str | None = None) -> None:
        assert toolkit == "vlmkit"
        self.tasks = tasks(folder, dtype)

    def ask(self, task: str, **values: Any) -> Any:
        return json.loads(json.dumps(self.tasks[task](**values)))

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.worker.PAUSE_S", 0)
    for module in ("reach_items", "curves"):
        monkeypatch.setattr(f"benchmarks.{module}.System", InThisProcess)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def called(monkeypatch: pytest.MonkeyPatch, module: Any, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    module.main()


def small(root: Path) -> list[str]:
    return ["--size", "tiny", "--rounds", "1", "--tokens", "2", "--root", str(root)]


@pytest.mark.usefixtures("at_once")
def test_the_table_of_targets(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.reach.save", lambda *given: report.save(*given, tmp_path))
    called(monkeypatch, reach, "--save", "--only", *QUICK, *small(root))
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines] == [
        *("| item", "| bandwidth", "| rows", "| rows", "| shared-prefix", "| sweep-small")
    ]
    assert {line.count(" | ") for line in lines} == {len(reach.HEADINGS) - 1}
    (page,) = tmp_path.glob("reach-*.md")
    text = page.read_text()
    assert all(line in text for line in lines)
    assert '"commit"' in text
    assert '"processor"' in text
    with Image.open(page.with_suffix(".png")) as picture:
        assert picture.width > 100


@pytest.mark.usefixtures("at_once")
def test_the_curves(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("benchmarks.curves.save", lambda *given: report.save(*given, tmp_path))
    names = ["rows", "images", "arms"]
    called(monkeypatch, curves, "prompt-length", "--most", "16", *small(root))
    assert "| 16 | " in capsys.readouterr().out
    called(monkeypatch, curves, *names, "--save", "--most", "4", *small(root))
    shown = capsys.readouterr().out
    assert "| 4 | " in shown
    assert len(list(tmp_path.glob("curve-*.md"))) == len(list(tmp_path.glob("*.png"))) == len(names)
    called(monkeypatch, curves, "vocabulary", "--most", "2048", *small(root))
    assert "| 2048 | " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.mlx_vlm
def test_the_peers(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called(monkeypatch, reach, *small(root))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert {line.split(" | ")[0][2:] for line in lines[1:]} == set(ITEMS)
    assert all(line.split(" | ")[6] in ("yes", "**no**") for line in lines[1:])


def test_a_peer_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr("benchmarks.reach.is_installed", lambda toolkit: False)
    options = reach.Options(rounds=1, tokens=2, size="tiny", root=root)
    lines, rows = reach.measure("4-bit", options)
    assert (lines, rows[0][:2]) == ([], ["4-bit", "needs mlx-vlm: pip install -e '.[parity]'"])


def test_a_worker_answers_and_says_why_it_fails(tmp_path: Path) -> None:
    with System("vlmkit", tmp_path) as system:  # nothing is loaded yet
        assert system.ask("shared_prefix", rows=2, length=8, way="copies")["bytes"] > 0
    with (
        pytest.raises(SystemExit, match=r"vlmkit failed:[^§]*nowhere"),
        System("vlmkit", tmp_path / "nowhere") as system,
    ):
        system.ask("backend")


def test_ways_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.worker.PAUSE_S", 0)
    taken: list[str] = []
    alternate({name: lambda name=name: taken.append(name) or {} for name in "AB"}, 3)
    assert taken == list("ABBAAB")


def test_whether_a_target_is_reached() -> None:
    line = Line("", 3.0, 1.0, "", ratio=3.0, target=2.0, at_least=True)
    assert line.is_reached
    assert not line._replace(at_least=False).is_reached
    assert reach.chart([line, line._replace(at_least=False)]).series["reach"] == [
        ("", 1.5),
        ("", pytest.approx(2 / 3)),
    ]


def test_the_operations_of_a_checkpoint_are_those_of_its_weights(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "tiny", vocab_size=1000)
    hidden, mlp, kv = 128, 384, 64
    decoder = 2 * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * mlp)
    work = work_of(tmp_path, num_tokens=1)
    assert work.step_gb * 1e9 == pytest.approx(4 * (decoder + 1000 * hidden + 2 * 2 * kv))
    assert work.gflop * 1e9 == pytest.approx(2 * (decoder + 1000 * hidden) + 4 * hidden)
    assert work_of(tmp_path, num_tokens=1, num_images=1).gflop > work.gflop
