"""YAML files and overrides that mean harm: one line, soon, in little memory."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hostile.limited import Call, Outcome, is_one_line, message_of, run_limited
from vlmkit.config.run import load_run
from vlmkit.config.yaml_tree import load_yaml, parse_overrides
from vlmkit.errors import VlmkitError

IMPORTS = ("vlmkit.config.run", "vlmkit.cli.main", "vlmkit.cli.describe")


def laughs(levels: int, key: str = "grid") -> str:
    """Aliases of aliases: ten to the power of ``levels`` values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"{key}: *a{levels - 1}", ""])


def merges(levels: int) -> str:
    """The same by ``<<``, which copies keys."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


# name: text of run.yaml, and what the error says
TEXTS = {
    "aliases that multiply": (laughs(9), "more than 20,000 values"),
    "merge keys that multiply": (merges(9), "more than 20,000 values"),
    "a merge key of itself": ("a: &a {<<: *a, b: 1}", "unknown key"),
    "a chain of merge keys": (
        "a:\n  <<: [&a0 {b: 1}, "
        + ", ".join(f"&a{n} {{<<: *a{n - 1}}}" for n in range(1, 5000))
        + "]",
        "nested too deeply",
    ),
    "stages": ("sampling:\n" + "- {kind: greedy}\n" * 20_000, "more than 20,000 values"),
    "lists": ("a: " + "[" * 250 + "]" * 250, "at most 100 levels"),
    "mappings": ("".join(" " * n + "a:\n" for n in range(300)), "at most 100 levels"),
    "dashes": ("- " * 5000 + "x", "at most 100 levels"),
    "questions": ("? " * 5000 + "x", "at most 100 levels"),
    "digits": ("seed: " + "9" * 5000, "too long for a number: 5,000 characters"),
    "hexadecimal digits": ("seed: 0x" + "f" * 5000, "too long for a number"),
    "base 60": ("seed: " + "1:" * 3000 + "1", "too long for a number"),
    "base 60, a fraction": ("seed: " + "1:" * 3000 + "1.5", "too long for a number"),
    "a number as a key": ("? " + "9" * 5000 + "\n: 1", "too long for a number"),
    "no digit in base 2": ("seed: 0b_", "is no whole number"),
    "no digit in base 16": ("seed: 0x_", "is no whole number"),
    "no day": ("seed: 2024-99-99", "seed: "),
    "a day that lies": ("seed: !!timestamp 2024-99-99", "seed: "),
    "no character": ('prompt: "\\UFFFFFFFF"', "an escape that is no character"),
    "half a pair": ('prompt: "\\ud800"', "half of a surrogate pair"),
    "half a pair as a key": ('"\\ud800": 1', "half of a surrogate pair"),
    "NUL in an include": ('include: "a\\0b.yaml"', "is no name that a file can have"),
    "a long include": (f"include: {'a' * 300}.yaml", "File name too long"),
    "escapes in a key": ('"\\e[2J\\a": 1', "\\x1b[2J\\x07"),
    "a set of sets": ("!!set {? !!set {? a}}", "the tag tag:yaml.org,2002:set"),
    "a python object": ("a: !!python/object/apply:os.abort []", "not valid YAML"),
    "an endless device": ("include: /dev/zero", "is a device, not a file"),
    "a logit bias": (
        "sampling: [{kind: logit_bias, bias: {1" + "0" * 30 + ": 1}}]",
        "must be at most 2147483647",
    ),
    "a long logit bias": (
        "sampling: [{kind: logit_bias, bias: {1" + "0" * 100 + ": 1}}]",
        "too long for a number",
    ),
}
OVERRIDES = {
    "keys": ([".".join(["a"] * 5000) + "=1"], "at most 100 levels"),
    "indices": (["sampling." + "9" * 5000 + ".p=1"], "sampling"),
    "digits": (["seed=" + "9" * 5000], "too long for a number"),
    "aliases": (["a=[&a [x,x,x,x,x,x,x,x,x,x], " + ", ".join(
        f"&a{n} [{', '.join([f'*a{n - 1}' if n else '*a'] * 10)}]" for n in range(9)) + "]"],
        "more than 20,000 values"),
    "many": ([f"sampling.{n}=[{'1,' * 999}]" for n in range(50)], "more than 20,000 values"),
    "escapes": (["\x1b[2J\x07=1"], "\\x1b[2J\\x07"),
    "a seed of digits": (["--seed", "9" * 5000], "--seed"),
    "a long config": (["a" * 300 + ".yaml"], "File name too long"),
    "a device": (["/dev/zero"], "is a device, not a file"),
}  # fmt: skip


class Case(NamedTuple):
    call: Call
    message: str


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, Outcome]]:
    folder = tmp_path_factory.mktemp("configs")
    cases: dict[str, Case] = {}
    for number, (name, (text, message)) in enumerate(TEXTS.items()):
        path = folder / f"{number}.yaml"
        path.write_text(text)
        cases[f"text: {name}"] = Case(describe(str(path)), message)
    for name, (words, message) in OVERRIDES.items():
        cases[f"override: {name}"] = Case(describe(*words), message)
    cases |= files(folder)
    found = run_limited([case.call for case in cases.values()], imports=IMPORTS)
    return {name: (case, one) for (name, case), one in zip(cases.items(), found, strict=True)}


def describe(*words: str) -> Call:
    return Call("vlmkit.cli.main:main", (["describe", *words],))


def files(folder: Path) -> dict[str, Case]:
    """Cases of several files, and of what is no file."""
    for number in range(24):
        (folder / f"diamond{number}.yaml").write_text(
            f"include: [diamond{number + 1}.yaml, diamond{number + 1}.yaml]\n"
        )
    (folder / "diamond24.yaml").write_text("seed: 1\n")
    for number in range(1500):
        (folder / f"chain{number}.yaml").write_text(f"include: chain{number + 1}.yaml\n")
    for number in range(80):
        (folder / f"large{number}.yaml").write_text("# " + "x" * 20_000 + "\n")
    (folder / "large.yaml").write_text(
        "include: [" + ", ".join(f"large{n}.yaml" for n in range(80)) + "]\n"
    )
    os.truncate(os.open(folder / "huge.yaml", os.O_CREAT | os.O_WRONLY), 10**11)
    os.mkfifo(folder / "pipe.yaml")
    (folder / "link.yaml").symlink_to("/dev/zero")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "piped.yaml").write_text("include: pipe.yaml\n")
    messages = {
        "diamond0": "more than 100 files are included",
        "chain0": "more than 100 files are included",
        "large": "larger than 1 MiB",
        "huge": "is larger than 1 MiB",
        "pipe": "is a pipe, not a file",
        "piped": "is a pipe, not a file",
        "link": "is a device, not a file",
        "loop": "symbolic links",
    }
    return {
        f"file: {name}": Case(describe(str(folder / f"{name}.yaml")), message)
        for name, message in messages.items()
    }


NAMES = [
    *(f"text: {name}" for name in TEXTS),
    *(f"override: {name}" for name in OVERRIDES),
    *(
        f"file: {name}"
        for name in ("diamond0", "chain0", "large", "huge", "pipe", "piped", "link", "loop")
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_one_line_of_error(name: str, outcomes: dict[str, tuple[Case, Outcome]]) -> None:
    case, outcome = outcomes[name]
    assert outcome.is_lawful(), outcome
    assert outcome.kind == "exit", outcome
    assert case.message in outcome.text
    assert outcome.text.startswith("vlmkit: error: ")
    assert outcome.stdout == ""


YAML = st.text("ab01 :-[]{},&*!?|>\n\t'\"#%<._e\\ux@`", max_size=60) | st.lists(
    st.sampled_from(
        ["a: ", "- ", "&a ", "*a", "<<: ", "[", "]", "{", "}", ", ", "\n", "  ", "!!int ", "0b_",
         "0o8", "1:9", "2024-99-99", "include: ", "sampling:", "kind: greedy", "? ", '"\\ud800"',
         "!!binary x", "!!float ", ".inf", "~", "---\n", "...\n", "%YAML 9.9\n"]
    ),
    max_size=20,
).map("".join)  # fmt: skip


@given(st.binary(max_size=60) | YAML.map(str.encode))
def test_any_bytes_as_yaml(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    for read in (load_yaml, load_run):
        message = message_of(functools.partial(read, path))
        assert message is None or is_one_line(message)


@given(st.text(max_size=40) | YAML)
def test_any_text_as_an_override(text: str) -> None:
    for argument in (text, f"sampling={text}", f"seed={text}"):
        message = message_of(functools.partial(parse_overrides, [argument]))
        assert message is None or is_one_line(message)


def test_an_include_outside_the_folder_is_not_shown(tmp_path: Path) -> None:
    inside = tmp_path / "configs"
    (inside / "parts").mkdir(parents=True)
    texts = {
        "a mapping": "seed: hunter2\n",
        "no key": "hunter2: 1\n",
        "text": "- hunter2\n",
        "no YAML": "a: @hunter2\n",
        "no number": "seed: !!int hunter2\n",
        "an include": "include: {hunter2: hunter2}\n",
        "no include": "include: [hunter2.yaml]\n",
        "code": "sampling: [{kind: external, factory: 'hunter2:hunter2'}]\n",
        "a grammar": "sampling: [{kind: grammar, regex: 'hunter2('}]\n",
    }
    for name, text in texts.items():
        for place in (tmp_path / "secret.yaml", inside / "parts" / "own.yaml"):
            place.write_text(text)
        is_hidden = name not in ("no include", "no key")
        for include in ("../secret.yaml", "parts/own.yaml"):
            (inside / "run.yaml").write_text(f"include: {include}\n")
            with pytest.raises(VlmkitError) as caught:
                load_run(inside / "run.yaml")
            message = str(caught.value)
            if include.startswith("parts"):
                assert "not shown" not in message
            elif is_hidden:
                assert "hunter2" not in message
                assert "not shown" in message
        (inside / "parts" / "link.yaml").unlink(missing_ok=True)
        (inside / "parts" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
        (inside / "run.yaml").write_text("include: parts/link.yaml\n")
        with pytest.raises(VlmkitError) as caught:
            load_run(inside / "run.yaml")
        assert not is_hidden or "hunter2" not in str(caught.value)
