"""Pictures: what is on them can be checked in the figure; they were also looked at."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from tests.trace.chains import header, measure, run_chain, small_trace
from vlmkit.errors import VlmkitError
from vlmkit.sampling import Greedy, NoRepeatNgram, SamplerConfig, Temperature, TopK, TopP, Xtc
from vlmkit.tracing import Trace
from vlmkit.tracing.picture import DPI, draw_step, save_picture

CHAIN: tuple[SamplerConfig, ...] = (Temperature(temperature=1.5), TopK(k=6), TopP(p=0.7))
SVG = "{http://www.w3.org/2000/svg}"


def repeated(num_stages: int) -> Trace:
    kinds = (*CHAIN, NoRepeatNgram(n=2), Xtc(probability=0.5, threshold=0.1))
    configs = tuple(itertools.islice(itertools.cycle(kinds), num_stages))
    return small_trace(configs, size=40, num_steps=2, top_n=16)


@pytest.mark.parametrize("num_stages", [0, 1, 3, 4, 8, 11])
def test_every_number_of_stages_fits(num_stages: int) -> None:
    trace = repeated(num_stages)
    figure = draw_step(trace, 1)
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    assert 0.15 < height / width < 1.5
    assert len(figure.axes) == num_stages + 1
    texts = [text for axes in figure.axes for text in axes.texts] + figure.texts
    legend = figure.legends[0]
    assert legend.get_window_extent().x1 <= width
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for box in boxes:
        assert 0 <= box.x0 <= box.x1 <= width
        assert 0 <= box.y0 <= box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, along) < 2, "texts overlap"  # pixels


def test_bars_are_the_probabilities() -> None:
    trace = small_trace(CHAIN)
    step = trace.steps[-1]
    for axes, stage in zip(draw_step(trace, 2).axes, step.stages, strict=True):
        bars = [patch for patch in axes.patches if patch.get_fill()]
        assert abs(sum(bar.get_width() for bar in bars) - 1) < 1e-12  # with all others
        assert len(bars) <= stage.num_kept
        texts = [text.get_text() for text in axes.texts]
        assert any(stage.name in text for text in texts)
        assert any(f"entropy {stage.entropy_nats:.2f} · {stage.num_kept} kept" in t for t in texts)
    crosses = [
        sum(text.get_text() == "×" for text in axes.texts) for axes in draw_step(trace, 2).axes
    ]
    assert crosses[:2] == [0, 0]
    assert min(crosses[2:]) > 0


@pytest.mark.parametrize("ending", ["PNG", "svg", "pdf"])
def test_files(ending: str, tmp_path: Path) -> None:
    trace = small_trace(CHAIN, size=12, top_n=12)
    settings = dict(mpl.rcParams)
    path = tmp_path / f"chain.{ending}"
    save_picture(trace, 2, path)
    first = path.read_bytes()
    save_picture(trace, 2, path)
    assert path.read_bytes() == first  # the same trace, the same file
    assert dict(mpl.rcParams) == settings
    width, height = draw_step(trace, 2).get_size_inches()
    if ending.lower() == "png":
        with Image.open(path) as image:
            assert image.size == (int(width * DPI), int(height * DPI))
            assert len(np.unique(np.array(image.convert("L")))) > 50
    elif ending == "svg":
        found = ["".join(node.itertext()) for node in ET.parse(path).iter(f"{SVG}text")]
        assert {"␣the", "$x$", r"\n", r"\x1b[31m", "<b>&", "#7"} <= set(found)
        assert any(text.startswith("2  top_k") for text in found)
    else:
        assert first.startswith(b"%PDF-")


def test_a_matplotlibrc_changes_nothing(tmp_path: Path) -> None:
    trace = small_trace(CHAIN)
    save_picture(trace, 0, tmp_path / "a.png")
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.bbox": "tight"}):
        save_picture(trace, 0, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("values", "longest"),
    [(np.zeros(64), 48 / 64), (np.where(np.arange(64) == 3, 0.0, -np.inf), 1.0)],
    ids=["flat", "certain"],
)
def test_certain_and_flat_distributions(values: np.ndarray[Any, Any], longest: float) -> None:
    step = measure(run_chain([Greedy()], values.astype(np.float32)), top_n=40)
    figure = draw_step(Trace(header=header(top_n=40), steps=[step]), 0)
    figure.canvas.draw()
    own, greedy = (
        [bar.get_width() for bar in axes.patches if bar.get_fill()] for axes in figure.axes
    )
    assert (max(own), sum(own)) == (longest, 1.0)  # 16 tokens have a row, 48 are "others"
    assert (max(greedy), sum(greedy)) == (1.0, 1.0)


def test_names_and_places_that_do_not_work(tmp_path: Path) -> None:
    trace = small_trace(CHAIN)
    for name in ("chain.gif", "chain", "png"):
        with pytest.raises(VlmkitError, match=rf"{name}: .* ends with \.png, \.svg, \.pdf"):
            save_picture(trace, 0, tmp_path / name)
    with pytest.raises(VlmkitError, match=r"chain\.png: cannot be written: No such file"):
        save_picture(trace, 0, tmp_path / "none" / "chain.png")


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what a missing package looks like
    with pytest.raises(VlmkitError, match=r"a\.png: a picture needs matplotlib: pip install 'vlm"):
        save_picture(small_trace(CHAIN), 0, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chain.png"
    path.write_bytes(b"old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(VlmkitError, match=r"chain\.png: cannot be written: No space left"):
        save_picture(small_trace(CHAIN), 0, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
