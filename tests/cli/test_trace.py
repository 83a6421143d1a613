"""``vlmkit trace`` as a script sees it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.reply import ROOT, Command
from vlmkit.cli.main import main
from vlmkit.tracing import most_cut_step, read_trace

CONFIG = "configs/runs/shapes_sampling.yaml"
THINKING = "configs/runs/shapes_budget.yaml"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "run.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["trace", THINKING, "stopping.2.budget=4", "--out", str(path)]) == 0
    return path


def test_a_run_is_traced_shown_and_saved(command: Command, tmp_path: Path) -> None:
    out, picture = tmp_path / "run.jsonl", tmp_path / "chain.png"
    flags = ["--max-tokens", "5", "--out", str(out), "--picture", str(picture), "--top", "4"]
    reply = command("trace", CONFIG, *flags)
    assert (reply.code, reply.stderr) == (0, "")
    trace = read_trace(out)
    assert trace.damage is None
    assert trace.end is not None
    assert trace.end.finish_kind == "max_tokens"
    assert [step.position for step in trace.steps] == list(range(5))
    assert [stage.name for stage in trace.steps[0].stages] == ["model", "top_p", "temperature"]
    assert all(len(step.stages[0].top) == 4 for step in trace.steps)
    assert (trace.header.model, trace.header.seed, trace.header.top_n) == ("shapes", 1, 4)
    assert trace.header.config["sampling"] == trace.header.effective["pipeline"]["sampling"]
    step = most_cut_step(trace.steps)
    assert f"picture of step {step}, where most was removed (" in reply.stdout
    with Image.open(picture) as image:
        assert min(image.size) > 300
    again = command("trace", "--from", str(out))
    assert again.stdout == reply.stdout[: reply.stdout.index("picture of")]
    assert "\x1b" not in reply.stdout
    assert max(map(len, reply.stdout.replace(str(picture), "").splitlines())) <= 80


def test_the_answer_is_that_of_generate(command: Command, saved: Path) -> None:
    trace = read_trace(saved)
    plain = command("generate", THINKING, "stopping.2.budget=4", "--no-stream")
    assert trace.end is not None
    assert plain.stdout == trace.end.text + "\n"
    forced = [step for step in trace.steps if step.forced]
    assert [step.text for step in forced] == ["</think>"]
    assert " ! </think> " in command("trace", "--from", str(saved)).stdout


def test_one_step(command: Command, saved: Path, tmp_path: Path) -> None:
    picture = tmp_path / "chain.svg"
    reply = command("trace", "--from", str(saved), "--step", "4", "--picture", str(picture))
    assert (reply.code, reply.stderr) == (0, "")
    assert reply.stdout.startswith("step 4: </think>, token ")
    assert "! forced by a stopping criterion; the sampler drew " in reply.stdout
    assert "greedy removed 639 tokens: " in reply.stdout
    assert reply.stdout.endswith(f"picture of step 4: {picture}\n")
    assert "&lt;/think&gt;" in picture.read_text()
    fewer = command("trace", "--from", str(saved), "--step", "4", "--top", "2").stdout
    assert len(fewer.splitlines()) < len(reply.stdout.splitlines())
    live = command("trace", THINKING, "stopping.2.budget=4", "--step", "4")
    assert live.stdout == reply.stdout[: reply.stdout.index("picture of")]


def test_a_run_without_a_token(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run.jsonl"
    reply = command("trace", CONFIG, "--max-tokens", "0", "--out", str(out))
    assert (reply.code, reply.stderr) == (0, "")
    assert "0 tokens; finish reason: length" in reply.stdout
    assert read_trace(out).steps == []
    reply = command("trace", "--from", str(out), "--picture", str(tmp_path / "a.png"))
    assert "the run has no step to draw" in reply.stderr
    reply = command("trace", "--from", str(out), "--step", "0")
    assert reply.stderr == "vlmkit: error: --step 0: the run has no step\n"


def test_a_cut_off_trace_is_shown_with_a_warning(
    command: Command, saved: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(saved.read_bytes()[:-200])
    reply = command("trace", "--from", str(cut))
    assert reply.code == 0
    assert reply.stderr.startswith(f"vlmkit: warning: {cut}:")
    assert "the last line was cut off after" in reply.stderr
    assert "the run was interrupted" in reply.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--from", "none.jsonl"], "none.jsonl: cannot be read: No such file or directory"),
        (["--from", "SAVED", "--step", "99"], "--step 99: the run has steps 0 to "),
        (["--from", "SAVED", "--top", "11"], "--top 11: SAVED was written with --top 10"),
        (["--from", "SAVED", "--seed", "1"], "--from shows a saved run as it was: leave out '--se"),
        (["--from", "SAVED", "a.yaml"], "leave out 'a.yaml'"),
        (["--from", "SAVED", "--out", "a.jsonl"], "leave out '--out'"),
        (["--from", "SAVED", "--picture", "a.gif"], "a.gif: a picture's name ends with .png, .svg"),
        (["--from", "README.md"], "README.md: not a trace: its first line is no header"),
        ([CONFIG, "--picture", "none/a.png"], "--picture none/a.png: there is no folder 'none'"),
        ([CONFIG, "--out", "none/a.jsonl"], "--out none/a.jsonl: there is no folder 'none'"),
        ([CONFIG, "--out", CONFIG], f"--out {CONFIG}: would write over {CONFIG}, which is read"),
        ([CONFIG, "--out", "a.png", "--picture", "./a.png"], "would write over --out a.png"),
        ([CONFIG, "--out", "tests"], "--out tests: is a folder, not a file"),
        ([CONFIG, "--step", "-1"], "--step must be at least 0, got -1"),
        ([CONFIG, "--top", "0"], "--top must be at least 1, got 0"),
        ([CONFIG, "--pictur", "a.png"], "did you mean '--picture'?"),
        ([], "no prompt: give --prompt TEXT"),
    ],
)
def test_mistakes_are_one_line(
    command: Command, saved: Path, argv: list[str], message: str
) -> None:
    reply = command("trace", *(str(saved) if word == "SAVED" else word for word in argv))
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr.startswith("vlmkit: error: ")
    assert message.replace("SAVED", str(saved)) in reply.stderr
    assert reply.stderr.count("\n") == 1


@pytest.mark.parametrize("source", [[CONFIG, "--out", "OUT/run.jsonl"], ["--from", "SAVED"]])
def test_a_picture_asks_for_matplotlib_before_anything_runs(
    command: Command,
    saved: Path,
    source: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what a missing package looks like
    words = [word.replace("OUT", str(tmp_path)).replace("SAVED", str(saved)) for word in source]
    reply = command("trace", *words, "--picture", str(tmp_path / "a.png"))
    message = "a.png: a picture needs matplotlib: pip install 'vlmkit[plot]'\n"
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr == f"vlmkit: error: {tmp_path / message}"
    assert not list(tmp_path.iterdir())


def test_a_full_disk(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    path = tmp_path / "run.jsonl"
    reply = command("trace", CONFIG, "--out", str(path))
    reason = os.strerror(errno.ENOSPC)
    assert (reply.code, reply.stderr) == (
        2,
        f"vlmkit: error: {path}: cannot be written: {reason}\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_saved_trace_needs_no_mlx(saved: Path) -> None:
    script = (
        "import sys, vlmkit.cli.main\n"
        "assert vlmkit.cli.main.main(sys.argv[1:]) == 0\n"
        "heavy = {'mlx', 'numpy', 'matplotlib', 'pydantic', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    words = [sys.executable, "-W", "error", "-c", script, "trace", "--from", str(saved)]
    reply = subprocess.run(
        [*words, "--step", "1"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (reply.returncode, reply.stderr) == (0, "")


@pytest.mark.parametrize(
    ("settings", "colours"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": ""}, True),
    ],
)
def test_colours_and_encodings(saved: Path, settings: dict[str, str], colours: bool) -> None:
    words = [sys.executable, "-m", "vlmkit", "trace", "--from", str(saved), "--step", "1"]
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    for encoding in ("utf-8", "ascii"):
        env = {**clean, "TERM": "xterm", "PYTHONIOENCODING": encoding, **settings}
        reply = subprocess.run(words, capture_output=True, cwd=ROOT, env=env, check=False)
        assert (reply.returncode, reply.stderr) == (0, b"")
        assert (b"\x1b[" in reply.stdout) == colours
        assert reply.stdout.decode(encoding).startswith("step 1: ")
