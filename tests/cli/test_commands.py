"""The command as a script sees it: output, messages on stderr, exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.reply import ROOT, Command
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.results import GenerationResult

PICTURE = ROOT / "vlmkit" / "assets" / "shapes" / "samples" / "count_all.png"


def test_generate_prints_the_answer_as_text_and_as_json(command: Command) -> None:
    ask = ["generate", "--prompt", "Count the objects.", "--image", str(PICTURE)]
    text = command(*ask, "--no-stream")
    assert (text.code, text.stderr) == (0, "")
    assert command(*ask).stdout == text.stdout  # streamed
    reply = command(*ask, "--json", "--max-tokens", "3", "seed=5")
    assert (reply.code, reply.stderr) == (0, "")
    result = json.loads(reply.stdout)
    assert text.stdout.startswith(result["text"])
    assert result["generation_tokens"] == len(result["token_ids"]) == 2
    assert (result["finish_reason"], result["finish_kind"]) == ("stop", "eos")
    assert result["effective"]["pipeline"]["seed"] == 5
    assert "logprobs" not in result
    with_logprobs = json.loads(command(*ask, "--json", "--logprobs").stdout)
    assert len(with_logprobs["logprobs"]) > with_logprobs["token"]


def test_generate_from_a_config_shows_its_thinking(command: Command) -> None:
    reply = command("generate", "configs/runs/shapes_budget.yaml", "stopping.2.budget=2")
    assert (reply.code, reply.stderr) == (0, "")
    assert "</think>" in reply.stdout
    assert "\x1b" not in reply.stdout  # dimmed on terminals only


def test_the_prompt_can_come_from_standard_input(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Count the objects."))
    piped = command("generate", "--prompt", "-", "--max-tokens", "4", "--image", str(PICTURE))
    given = command("generate", "configs/runs/shapes_answer.yaml", "--max-tokens", "4")
    assert (piped.code, piped.stdout) == (0, given.stdout)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    message = "vlmkit: error: --prompt: prompt: standard input is empty; write what to ask\n"
    assert command("generate", "--prompt", "-") == (2, "", message)


def test_describe_says_where_values_come_from(command: Command) -> None:
    path = "configs/runs/shapes_sampling.yaml"
    document = json.loads(command("describe", path, "seed=9", "--json").stdout)
    assert document["config"]["seed"] == 9
    assert document["origins"]["seed"] == "seed=9"
    assert document["origins"]["sampling.0.p"].startswith("configs/sampling/nucleus.yaml:")
    lines = command("describe", path).stdout.splitlines()
    assert any(line.split() == ["seed", "1", f"{path}:4"] for line in lines)


def test_schema_and_models(command: Command, tmp_path: Path) -> None:
    assert command("schema", "--out", str(tmp_path)).code == 0
    written = (tmp_path / "schema.json").read_text()
    assert written == (ROOT / "configs" / "schema.json").read_text()
    for words in ([], ["--out", "-"]):
        assert command("schema", *words).stdout == written
    assert "qwen2_vl" in json.loads(command("models", "--json").stdout)["families"]
    assert "qwen2_vl" in command("models").stdout


def test_no_command_prints_help(command: Command) -> None:
    assert command().stdout.startswith("usage: vlmkit")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["generate"], "no prompt: give --prompt TEXT"),
        (["generate", "--prompt", ""], "--prompt: prompt: the text is empty; write what to ask"),
        (["trace", "prompt="], "prompt=: prompt: must be text, got None"),
        (["trace", "prompt=''"], "prompt='': prompt: the text is empty"),
        (
            ["generate", "--prompt", "x", "--temperature", "-1"],
            "--temperature: temperature must be at",
        ),
        (["generate", "--prompt", "x", "--model", "no/such/folder"], "no/such/folder"),
        (["generate", "--prompt", "x", "--image", "none.png"], "--image: images.0: image none.png"),
        (["generate", "--prompt", "x", "--audio", "none.wav"], "audio"),
        (["generate", "--prompt", "x", "--logprobs"], "--logprobs prints with --json only"),
        (["generate", "--prompt", "x", "--logprobs", "--no-stream"], "--logprobs prints with"),
        (["describe", "--kv-group-size", "32"], "--kv-group-size: the cache is quantized with --"),
        (["describe", "--kv-group-size", "32", "--max-kv-size", "9"], "with --kv-bits only"),
        (["describe", "--repetition-context-size", "9"], "no penalty looks back: add --repetition"),
        (["generate", "include=a.yaml"], "include=a.yaml: include: is for files"),
        (["generate", "absent.yaml"], "absent.yaml: no such config file"),
        (["describe", "seed=x"], "seed=x: seed: must be a whole number"),
        (
            ["generate", "--prompt", "x", "sampling=[{kind: grammar, json_schema: false}]"],
            "sampling.0: grammar: json_schema false: no value fits it",
        ),
        (["describe", "--tempature", "1"], "did you mean '--temperature'?"),
        (["schema", "--out", "README.md"], "README.md: cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, argv: list[str], message: str
) -> None:
    reply = command(*argv)
    assert (reply.code, reply.stdout) == (2, "")
    assert reply.stderr.startswith("vlmkit: error: ")
    assert message in reply.stderr
    assert reply.stderr.count("\n") == 1


def test_interrupting_exits_with_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmkit.cli.generate.run_generate", interrupted)
    reply = command("generate", "--prompt", "x")
    assert (reply.code, reply.stdout) == (130, "")
    assert "Traceback" not in reply.stderr


def test_interrupting_at_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlmkit.cli.main.build_parser", interrupted)
    assert command("generate", "--prompt", "x").code == 130


def test_a_bug_keeps_its_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("vlmkit.cli.generate.run_generate", broken)
    with pytest.raises(ZeroDivisionError):
        command("generate", "--prompt", "x")


def test_as_a_process() -> None:
    words = [sys.executable, "-m", "vlmkit", "generate", "--prompt", "Hi", "--max-tokens", "2"]
    reply = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (reply.returncode, reply.stderr) == (0, "")
    reply = subprocess.run(
        [*words, "sede=1"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (reply.returncode, reply.stderr.count("\n")) == (2, 1)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "vlmkit", "schema", "--out", "-"]
    with open(writing, "w") as pipe:
        reply = subprocess.run(
            words, stdout=pipe, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    assert (reply.returncode, reply.stderr) == (141, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: ./none\n", "run.yaml:2: model: no checkpoint folder "),
        ("images: [none.png]\n", "run.yaml:2: images.0: image "),
        (
            "contrast:\n  kind: contrastive_decoding\n  amateur: ./none\n",
            "run.yaml:4: contrast.amateur: no checkpoint folder ",
        ),
        (
            "contrast:\n  kind: dola\n  layers: [0, 99]\n",
            "run.yaml:4: contrast.layers: dola: layers has 99",
        ),
        (
            "sampling:\n  - kind: greedy\n  - kind: logit_bias\n    bias: {99999: 1}\n",
            "run.yaml:5: sampling.1.bias: logit_bias: token id 99999",
        ),
    ],
)
@pytest.mark.parametrize("name", ["generate", "trace"])
def test_what_only_the_model_refuses_is_named_by_its_line(
    command: Command, tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("prompt: How many?\n" + text)
    reply = command(name, str(path))
    assert (reply.code, reply.stdout) == (2, "")
    assert message in reply.stderr
    assert reply.stderr.count("\n") == 1


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("error", [VlmkitError("no token can be drawn"), KeyboardInterrupt()])
def test_a_terminal_is_not_left_dimmed(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*run: object, trace: bool) -> Iterator[GenerationResult]:
        yield GenerationResult(text="first")
        raise error

    terminal = Terminal()
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("vlmkit.api.stream_pipeline", broken)
    monkeypatch.setattr("sys.stdout", terminal)
    main(["generate", "configs/runs/shapes_thinking.yaml"])
    shown = terminal.getvalue()
    assert shown.startswith("\x1b[2mfirst\x1b[22m")
    assert shown.endswith("\n") == isinstance(error, VlmkitError)


def test_what_an_encoding_lacks_is_written_out() -> None:
    words = [sys.executable, "-m", "vlmkit", "describe", "prompt=\u00e9\U0001f600", "--json"]
    reply = subprocess.run(
        words, capture_output=True, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert (reply.returncode, reply.stderr) == (0, b"")
    assert json.loads(reply.stdout)["config"]["prompt"] == "\u00e9\U0001f600"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["describe"], ["generate", "--prompt", "Hi"]])
def test_output_on_a_full_disk(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        reply = subprocess.run(
            [sys.executable, "-m", "vlmkit", *words],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    message = "vlmkit: error: output cannot be written: No space left on device\n"
    assert (reply.returncode, reply.stderr) == (2, message)
