"""Names and texts of others reach the terminal as text."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trace.chains import header, small_trace
from vlmkit import api
from vlmkit.cli import terminal
from vlmkit.cli.generate import _write
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.printable import MAX_MESSAGE, one_line, printable, printable_json
from vlmkit.results import GenerationResult
from vlmkit.tracing import Trace
from vlmkit.tracing.jsonl import open_trace

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\u202egnp\u2066\u2028\ud800"
WRITTEN_OUT = r"\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\u202egnp\u2066\u2028\ud800"
CLI = Path(terminal.__file__).parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def commands(text: str) -> list[str]:
    """The characters that a terminal would act on, but for colours that are ours."""
    for own in ("\x1b[2m", "\x1b[22m"):
        text = text.replace(own, "")
    return [one for one in text if one not in "\n\t" and printable(one) != one]


def test_what_is_written_out_and_what_stays() -> None:
    assert printable(HOSTILE) == WRITTEN_OUT
    for text in ("a\n\tb", "naïve 円 👩‍👩‍👧 שלום עברית \u00a0\u200c", "\U0001f3f4\U000e0067"):
        assert printable(text) == text
    assert json.loads(printable_json(json.dumps(HOSTILE, ensure_ascii=False))) == HOSTILE


@given(st.text())
def test_any_text(text: str) -> None:
    assert not commands(printable(text))
    assert printable(printable(text)) == printable(text)
    line = str(VlmkitError(text))
    assert "\n" not in line
    assert not commands(line)
    assert one_line(line) == line
    assert len(line) <= MAX_MESSAGE
    assert json.loads(printable_json(json.dumps(text, ensure_ascii=False))) == text


def test_a_long_message_keeps_its_ends() -> None:
    line = str(VlmkitError(f"run.yaml:3: seed: {'9' * 10**6} is too long; write a number"))
    assert len(line) == MAX_MESSAGE
    assert line.startswith("run.yaml:3: seed: 999")
    assert line.endswith("999 is too long; write a number")
    assert line.count("…") == 1


def test_streamed_text(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, file = Terminal(), io.StringIO()
    segments = ["a<th", "ink>\x1b", "[2J</think>", *HOSTILE]
    for stream in (screen, file):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.delenv("NO_COLOR", raising=False)
        _write(segments, "")
        for result in api._shown(iter([GenerationResult(text=HOSTILE)])):
            assert result.text == HOSTILE
    assert not commands(screen.getvalue())
    assert screen.getvalue().count(WRITTEN_OUT) == 2
    assert file.getvalue() == "".join(segments) + "\n" + HOSTILE  # a file gets what was said


def test_a_saved_trace_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoken = HOSTILE[:-1]  # JSON files are UTF-8
    trace = small_trace([])
    head = msgspec.structs.replace(header(), model=spoken, prompt=spoken, images=[spoken])
    steps = [
        msgspec.structs.replace(
            step,
            text=spoken,
            stages=[msgspec.structs.replace(stage, name=spoken) for stage in step.stages],
        )
        for step in trace.steps
    ]
    assert trace.end is not None
    end = msgspec.structs.replace(trace.end, text=spoken, finish_reason=spoken)
    hostile = Trace(header=head, steps=steps, end=end)
    path = tmp_path / "run.jsonl"
    with open_trace(path) as write:
        for record in (hostile.header, *hostile.steps, hostile.end):
            assert record is not None
            write(record)
    for words in ([], ["--step", "0"]):
        assert main(["trace", "--from", str(path), *words]) == 0
        reply = capsys.readouterr()
        assert not commands(reply.out)
        assert not commands(reply.err)
        assert "\\x1b[2J" in reply.out


@pytest.mark.parametrize("words", [["describe"], ["describe", "--json"]])
def test_values_of_others(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    value = json.dumps(HOSTILE[:-1])
    assert main([*words, f"prompt={value}"]) == 0
    reply = capsys.readouterr()
    assert not commands(reply.out)
    if "--json" in words:
        assert json.loads(reply.out)["config"]["prompt"] == HOSTILE[:-1]
    assert main([*words, f"{HOSTILE}=1"]) == 2
    reply = capsys.readouterr()
    assert not commands(reply.err)
    assert reply.err.count("\n") == 1


def test_commands_print_by_the_door_alone() -> None:
    doors = {"terminal.py", "main.py"}
    own = {"generate.py": {"print", "write"}, "tracing.py": {"write"}}  # checked above
    own["speaking.py"] = {"print"}  # errors, which are one printable line
    for path in CLI.glob("*.py"):
        if path.name in doors:
            continue
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                found |= {"print"} if called == "print" else set()
                found |= {"write"} if called in ("sys.stdout.write", "sys.stderr.write") else set()
        assert found <= own.get(path.name, set()) | ({"print"} if path.name == "run.py" else set())
