"""Completion scripts, run by the shells that they are for."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.reply import ROOT, Command

COMMANDS = [
    *("generate", "trace", "describe", "schema", "models", "configs", "stages", "doctor"),
    *("completion", "plan", "run", "kv-eval", "worker", "rescore", "compare", "report", "export"),
    *("reproduce", "check", "bench", "inspect", "convert"),
]
# What is typed, and the words that are offered.
CASES = [
    ("vlmkit ", COMMANDS),
    ("vlmkit gen", ["generate"]),
    ("vlmkit generate --dt", ["--dtype"]),
    ("vlmkit trace --dtype ", ["float32", "float16", "bfloat16"]),
    ("vlmkit generate --prompt ", []),
    ("vlmkit generate --temperature 1 --see", ["--seed"]),
    ("vlmkit generate ru", ["run one.yaml", "run two.yaml"]),
    ("vlmkit describe seed=3 --image pic", ["picture.png"]),
    ("vlmkit trace --pict", ["--picture"]),
    ("vlmkit generate --pict", []),
    ("vlmkit configs ", ["copy"]),
    ("vlmkit configs copy fol", ["folder"]),
    ("vlmkit configs copy pic", []),
    ("vlmkit schema --out fol", ["folder"]),
    ("vlmkit stages mirostat", ["mirostat_v1", "mirostat_v2"]),
    ("vlmkit completion ", ["bash", "zsh", "fish"]),
    ("vlmkit models ", []),
    ("vlmkit check batch", ["batch-invariance"]),
    ("vlmkit compare --format ", ["terminal", "markdown", "csv", "json", "latex"]),
]
TABLE = pytest.mark.parametrize(("typed", "offered"), CASES, ids=[case[0] for case in CASES])
Ask = Callable[[str], list[str]]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, the scripts, and a program `vlmkit`."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("run one.yaml", "run two.yaml", "picture.png"):
        (folder / name).touch()
    (folder / "folder").mkdir()
    (folder / "bin").mkdir()
    program = folder / "bin" / "vlmkit"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vlmkit "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        reply = subprocess.run(
            [program, "completion", shell],
            capture_output=True, text=True, check=False, env=environment(folder),
        )  # fmt: skip
        assert (reply.returncode, reply.stderr) == (0, "")
        (folder / f"script.{shell}").write_text(reply.stdout)
    return folder


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    own = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    return {**os.environ, **own, "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}


def run(place: Path, *words: str) -> list[str]:
    reply = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=place, env=environment(place)
    )
    assert (reply.returncode, reply.stderr) == (0, "")
    return reply.stdout.splitlines()


def ask_bash(place: Path, typed: str) -> list[str]:
    # As readline splits it, where = is a word of its own.
    words = [*re.findall(r"=|[^ =]+", typed), *([""] if typed.endswith(" ") else [])]
    listed = " ".join(map(shlex.quote, words))
    code = f"source ./script.bash; COMP_WORDS=({listed}) COMP_CWORD={len(words) - 1}; _vlmkit"
    shown = run(place, "bash", "--norc", "-c", code + """; printf '%s\n' "${COMPREPLY[@]}" """)
    return [line for line in shown if line]


@needs("bash")
@TABLE
def test_bash(place: Path, typed: str, offered: list[str]) -> None:
    assert sorted(ask_bash(place, typed)) == sorted(offered)


@needs("bash")
@pytest.mark.parametrize("typed", ["vlmkit trace --dtype=", "vlmkit trace --dtype=flo"])
def test_bash_after_an_equals_sign(place: Path, typed: str) -> None:
    assert {"float32", "float16"} <= set(ask_bash(place, typed))


@needs("bash")
@pytest.mark.parametrize("name", ["", *COMMANDS, "configs copy"])
def test_every_option_in_the_help_is_offered(place: Path, name: str) -> None:
    shown = run(place, "vlmkit", *name.split(), "--help")
    flags = re.findall(r"--[a-z][a-z-]*", "\n".join(line for line in shown if line[:3] == "  -"))
    assert set(flags) <= set(ask_bash(place, f"vlmkit {name} --".replace("  ", " ")))
    assert "--help" in flags


@needs("fish")
@TABLE
def test_fish(place: Path, typed: str, offered: list[str]) -> None:
    code = f"source ./script.fish; complete -C {shlex.quote(typed)}"
    found = [line.split("\t")[0].rstrip("/") for line in run(place, "fish", "-c", code)]
    assert sorted(found) == sorted(offered)


@pytest.fixture(scope="module")
def zsh(place: Path) -> Iterator[int]:
    """A terminal in which zsh waits, with the script loaded."""
    (place / ".zshrc").write_text(
        "PS1=; LISTMAX=0; unsetopt list_ambiguous; stty cols 100 rows 50\n"
        "autoload -Uz compinit; compinit -u -D; source ./script.zsh; print READY\n"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(place)
        os.execvpe("zsh", ["zsh", "-d", "-i"], {**environment(place), "ZDOTDIR": str(place)})
    read_until(terminal, "READY", seconds=60)
    yield terminal
    os.write(terminal, b"exit\n")
    os.close(terminal)
    os.waitpid(process, 0)


def read_until(terminal: int, *marks: str, seconds: float) -> str:
    """Read until every mark has come, or for so long."""
    shown, end = "", time.monotonic() + seconds
    while not all(mark in shown for mark in marks) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


@needs("zsh")
@TABLE
def test_zsh(zsh: int, typed: str, offered: list[str]) -> None:
    os.write(zsh, typed.encode() + b"\t")
    words = [word.replace(" ", "\\ ") for word in offered]
    shown = read_until(zsh, *words, seconds=20 if offered else 1)
    os.write(zsh, b"\x15print DO''NE\n")  # ^U takes the line back
    read_until(zsh, "DONE", seconds=30)
    assert all(word in shown for word in words), shown
    others = {word for _, words in CASES for word in words if len(word) > 4} - set(offered)
    assert not [word for word in others if word in shown.replace(typed.strip(), "")], shown


def test_a_shell_that_is_not_known(command: Command) -> None:
    for words, message in (
        (["tcsh"], "invalid choice: 'tcsh'"),
        ([], "arguments are required: shell"),
    ):
        reply = command("completion", *words)
        assert (reply.code, reply.stdout, reply.stderr.count("\n")) == (2, "", 1)
        assert message in reply.stderr
