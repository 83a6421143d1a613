"""Numbers, dates and words, as YAML 1.1 reads them and as people mean them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmkit.cli.main import main
from vlmkit.config.document import parse_yaml
from vlmkit.config.run import load_run
from vlmkit.config.tree import to_plain
from vlmkit.config.yaml_tree import parse_overrides
from vlmkit.errors import VlmkitError
from vlmkit.printable import shorten

OCTAL = "YAML 1.1 counts 010 in base 8, as 8; write 10 or 8, or '010' in quotes for text"
REFUSED = {
    "octal": ("seed", "010", "seed", OCTAL),
    "negative octal": ("seed", "-010", "seed", "YAML 1.1 counts -010 in base 8, as -8; write -10"),
    "octal with _": ("seed", "0_10", "seed", "YAML 1.1 counts 0_10 in base 8, as 8; write 10 or 8"),
    "octal as text": (
        "revision",
        "0123",
        "revision",
        "YAML 1.1 counts 0123 in base 8, as 83; write",
    ),
    "octal in a list": ("images", "[a, 010]", "images.1", OCTAL),
    "octal key": (
        "sampling",
        "[{kind: logit_bias, bias: {010: 1}}]",
        "sampling.0.bias",
        OCTAL,
    ),
    "a time": (
        "prompt",
        "12:30",
        "prompt",
        "YAML 1.1 counts 12:30 in base 60, as 750; write 750 if that is meant, or '12:30' in",
    ),
    "a ratio": ("seed", "1:30", "seed", "YAML 1.1 counts 1:30 in base 60, as 90; write 90 if"),
    "a fraction": (
        "sampling",
        "[{kind: temperature, temperature: 1:30.5}]",
        "sampling.0.temperature",
        "YAML 1.1 counts 1:30.5 in base 60, as 90.5",
    ),
    "no digits": ("seed", "0b_", "seed", "'0b_' is no whole number"),
    "a tag that lies": ("seed", "!!int many", "seed", "'many' is no whole number"),
    "an empty tag": ("seed", "!!int", "seed", "'' is no whole number"),
    "no boolean": ("reproducible", "!!bool perhaps", "reproducible", "'perhaps' is no boolean"),
    "too many digits": ("seed", "9" * 5000, "seed", f"'{'9' * 39}…' is too long for a number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_read_otherwise_is_refused(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, value, place, message = REFUSED[case]
    path = tmp_path / "run.yaml"
    path.write_text(f"# a comment\n{key}: {value}\n")
    with pytest.raises(VlmkitError) as caught:
        load_run(path)
    assert str(caught.value).startswith(f"{path}:2: {place}: {message}")
    with pytest.raises(VlmkitError) as caught:
        load_run(overrides=[f"{key}={value}"])
    assert str(caught.value).startswith(f"{shorten(f'{key}={value}', 200)}: {place}: {message}")
    assert main(["describe", f"{key}={value}"]) == 2
    assert capsys.readouterr().err == f"vlmkit: error: {caught.value}\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("007", 7),  # the same in base 8 and 10
        ("08", "08"),  # no base 8: a number where one is wanted
        ("0", 0),
        ("1_000", 1000),
        ("0x10", 16),
        ("-7", -7),
        ("1_0.5", 10.5),
        ("01.5", 1.5),
        ("'010'", "010"),
        ("!!str 1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("2024-13-45", "2024-13-45"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("1e3", "1e3"),
        ("off", False),
        ("~", None),
    ],
)
def test_what_is_read_as_it_is_meant(text: str, value: Any) -> None:
    read = to_plain(parse_yaml(text, "f"))
    assert (read, type(read)) == (value, type(value))


def test_eight_with_a_zero_is_eight_where_a_number_is_wanted() -> None:
    assert load_run(overrides=["seed=08"]).config.seed == 8


PIECES = [
    *("!!int ", "!!float ", "!!bool ", "!!str ", "!!binary ", "!!timestamp ", "!!null ", "!!set "),
    *("<<: ", "&a ", "*a", "? ", "- ", "a: ", "kind: ", "{", "}", "[", "]", "'", '"', "| ", "\\"),
    *("0b", "0x", "0o", ".inf", ".nan", "1:30", "010", "_", "e", "\n", "  ", "---", "%YAML 1.2\n"),
]


def said_of(read: Callable[[], Any]) -> str:
    try:
        read()
    except VlmkitError as error:
        return str(error)
    return ""


@settings(max_examples=300)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=9))
def test_any_text_is_a_tree_or_one_line(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert "\n" not in said_of(lambda: parse_yaml(text, "f"))
    assert "\n" not in said_of(lambda: parse_overrides([f"seed={text}"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 3000, "f:1: is nested too deeply; at most 100"),
        (
            "a: {kind:greedy}",
            "f:1: 'kind:greedy' is one word to YAML: write a space after the c",
        ),
    ],
)
def test_other_surprises(text: str, message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        parse_yaml(text, "f")
    assert str(caught.value).startswith(message)
