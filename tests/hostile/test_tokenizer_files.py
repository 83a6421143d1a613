"""Tokenizers that a library reads by itself, and regular expressions that take long."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.limited import is_one_line, message_of, run_code
from tests.processors.tiny import SHAPES, copy_shapes
from vlmkit.checkpoints.checkpoint_json import MAX_FILE_BYTES
from vlmkit.processors import load_processor
from vlmkit.processors.sentencepiece_limits import check_sentencepiece
from vlmkit.processors.tokenizer_time import is_known

LATE = """
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from vlmkit.processors import tokenizer_time
from vlmkit.processors.tokenizer import from_backend
tokenizer_time.MAX_SECONDS = 0.2
REGEX = Regex("(x+x+)+y")
LONG = ("x" * 20 + " ") * 10_000
def run(part):
    backend = Tokenizer(models.WordLevel({LONG: 0, "?": 1}, unk_token="?"))
    if part == "pre_tokenizer": backend.pre_tokenizer = pre_tokenizers.Split(REGEX, "isolated")
    if part == "normalizer": backend.normalizer = normalizers.Replace(REGEX, "")
    if part == "decoder": backend.decoder = decoders.Replace(REGEX, "")
    tokenizer = from_backend(backend)
    if part == "decoder": return tokenizer.decode([0])
    return [tokenizer.encode("a"), tokenizer.encode(LONG)]
"""


def test_a_regular_expression_runs_against_the_clock() -> None:
    for line in run_code(LATE, ["pre_tokenizer", "normalizer", "decoder"]):
        assert "its regular expressions take more than 0.2 s for one text" in str(line)
    assert run_code(LATE, [""]) == [[[1], [0]]]


def test_the_regular_expressions_of_the_embedded_checkpoint_are_known() -> None:
    content = (SHAPES / "tokenizer.json").read_text()
    assert is_known(json.loads(content))
    assert not is_known(json.loads(re.sub(r'("Regex": "[^"]*)"', r'\1|(a+)+"', content)))


def field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # takes no space


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "id": ("vocab.json", write(b'{"a": 4294967295}'), "the token 'a' has the id 4,294,967,295"),
    "added": ("added_tokens.json", write(b'{"a": 2147483648}'), "has the id 2,147,483,648"),
    "twice": ("vocab.json", write(b'{"a": 0, "a": 1}'), "the key 'a' stands twice"),
    "line": ("vocab.txt", write(b"a" * 10**6), "a token of 1,000,000 characters"),
    "merge": ("merges.txt", write(b"a" * 10**6), "a token of 1,000,000 characters"),
    "size": ("tokenizer.model", make_large, "is larger than 64 MiB"),
    "none": ("tokenizer.model", write(b"\x0a\xff\xff\xff\xff\x7f"), "no SentencePiece model"),
    "endless": ("spiece.model", write(b"\x80" * 99), "no SentencePiece model"),
    "piece": ("tokenizer.model", write(field(1, field(1, b"a" * 10**6))), "a token of 1,000,000"),
    "table": ("tokenizer.model", write(field(3, field(2, b"\xff" * 8))), "charsmap is broken"),
    "growth": (
        "tokenizer.model",
        write(field(3, field(2, b"\x04\0\0\0" + bytes(4) + b"x" * 10**6 + b"\0"))),
        "it may make 1,000,000 characters of one",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_are_looked_at_before_a_library_reads_them(case: str, tmp_path: Path) -> None:
    name, write_file, problem = FILES[case]
    folder = copy_shapes(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text('{"a": 0}')
    write_file(folder / name)
    told = message_of(lambda: load_processor(folder)) or ""
    assert str(folder / name) in told
    assert problem in told
    assert is_one_line(told)


def test_a_sound_model_is_let_through() -> None:
    number, four, eight = bytes([2 << 3, 0x80, 1]), bytes([2 << 3 | 5]), bytes([4 << 3 | 1])
    piece = field(1, "▁a".encode()) + four + bytes(4) + eight + bytes(8) + number
    table = b"\x04\0\0\0" + bytes(4) + "ﷺ".encode() + b"\0"
    check_sentencepiece(field(1, piece) * 3 + number + field(3, field(2, table)), "m")
