"""What stands in the terminal."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console
from rich.text import Text

from tests.trace.chains import small_trace
from vlmkit.sampling import SamplerConfig, Temperature, TopK, TopP
from vlmkit.tracing import Trace, TraceEnd
from vlmkit.tracing.labels import columns, shorten, shorten_left, token_label, visible
from vlmkit.tracing.table import run_columns, run_foot, run_head, step_row, step_view

CHAIN: tuple[SamplerConfig, ...] = (Temperature(temperature=1.5), TopK(k=6), TopP(p=0.7))


def printed(text: Text, *, color: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, color_system="standard" if color else None, width=200)
    console.print(text, soft_wrap=True)
    return file.getvalue()


def whole_run(trace: Trace, width: int) -> str:
    rows = [step_row(step, width) for step in trace.steps]
    foot = run_foot(trace.end, width, num_steps=len(trace.steps), any_forced=True)
    head = [run_head(trace.header, width), run_columns(width)]
    return "".join(map(printed, [*head, *rows, foot]))


@pytest.mark.parametrize("width", [60, 70, 80, 120])
def test_lines_fit(width: int) -> None:
    for num_stages in (0, 1, 3, 12):
        configs = tuple(itertools.islice(itertools.cycle(CHAIN), num_stages))
        trace = small_trace(configs, size=30, num_steps=12, top_n=12)
        pages = [whole_run(trace, width)]
        pages += [printed(step_view(trace, step.position, width)) for step in trace.steps]
        for line in "\n".join(pages).splitlines():
            assert columns(line) <= width, line
            assert line == line.rstrip()
            assert line.isprintable()


def test_the_rows_of_a_run() -> None:
    trace = small_trace(CHAIN)
    lines = whole_run(trace, 80).splitlines()
    assert lines[0] == "model: shapes, seed 3"
    assert lines[1] == r"prompt: How many?\n<think>"
    assert " ".join(lines[2].split()) == "step token logprob H own H end kept cut mostly by"
    for line, step in zip(lines[3:6], trace.steps, strict=True):
        first, last = step.stages[0], step.stages[-1]
        cells = line.split()
        assert cells[0] == str(step.position)
        assert f"{first.token_logprob:.2f}" in cells
        assert f"{first.entropy_nats:.2f}" in cells
        assert f"{last.entropy_nats:.2f}" in cells
        assert str(last.num_kept) in cells
        assert cells[-1] == max(step.stages[1:], key=lambda stage: stage.removed_mass).name
    assert [" ! " in line for line in lines[3:6]] == [False, False, True]
    assert lines[6] == "3 tokens; finish reason: stop (eos, 4)"
    assert "interrupted" in printed(run_foot(None, 80, num_steps=0, any_forced=False))
    assert "reason: length (max_tokens)" in printed(
        run_foot(
            TraceEnd(text="", finish_reason="length", finish_kind="max_tokens"),
            80,
            num_steps=1,
            any_forced=False,
        )
    )


def test_the_stages_of_a_step() -> None:
    trace = small_trace(CHAIN)
    step = trace.steps[-1]
    lines = printed(step_view(trace, 2, 80)).splitlines()
    taken, drawn = (
        token_label(index, next(t.text for t in step.tokens if t.id == index), 18)
        for index in (step.token_id, step.sampled_id)
    )
    assert lines[0].startswith(f"step 2: {taken}, token {step.token_id}, the model's own logprob -")
    assert lines[1] == f"! forced by a stopping criterion; the sampler drew {drawn}"
    assert "token" in lines[4]
    assert lines[4].split()[1:] == ["model", "temperature", "top_k", "top_p", "removed", "by"]
    row = next(line for line in lines if line.startswith("! ") and "forced" not in line)
    assert row.split()[-3:] == ["×", "·", "top_k"]
    assert any(line.startswith(f"▸ {drawn}") for line in lines)
    assert lines[-2].startswith("top_k removed 18 tokens: ")
    kept = next(line for line in lines if line.startswith("kept"))
    assert kept.split()[1:] == [str(stage.num_kept) for stage in step.stages]


def test_many_stages_go_below_one_another() -> None:
    configs = tuple(itertools.islice(itertools.cycle(CHAIN), 12))
    text = printed(step_view(small_trace(configs), 0, 80))
    heads = [line.split()[1:] for line in text.splitlines() if line.startswith("token ")]
    assert len(heads) > 1
    names = [name for head in heads for name in head if name not in ("removed", "by")]
    assert names == ["model", *(config.kind for config in configs)]


def test_colours_only_on_a_terminal() -> None:
    view = step_view(small_trace(CHAIN), 0, 80)
    assert "\x1b[" in printed(view, color=True)
    assert "\x1b" not in printed(view)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a b", "␣a␣b"),
        ("\r\n\t", r"\r\n\t"),
        ("\\n", r"\\n"),
        ("\x1b[31m\x00", r"\x1b[31m\x00"),
        ("\u202e\u200d\ue000\u2028", r"\u202e\u200d\ue000\u2028"),
        ("\u0301", "◌\u0301"),
        ("\n" * 7, r"\n×7"),
        ("円", "円"),
    ],
)
def test_invisible_text_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_labels_fit() -> None:
    for width in range(3, 12):
        for text in ("triangle", "円の中心点", "e\u0301" * 9, " " * 30):
            assert columns(token_label(5, text, width)) <= width
            assert columns(shorten_left(text, width)) <= width
    assert shorten("abc", 3) == shorten_left("abc", 3) == "abc"
