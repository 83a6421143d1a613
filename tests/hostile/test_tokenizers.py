"""Whatever tokenizer.json says takes bounded time and memory, and is a processor or one line."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.limited import run_code
from tests.processors.tiny import SHAPES, copy_shapes
from vlmkit.errors import VlmkitError
from vlmkit.processors.tokenizer_limits import MAX_GROWTH, check_normalized, check_parts

Change = dict[str, Any]
USE = """
from vlmkit.processors import load_processor
def run(folder):
    processor = load_processor(folder)
    ids = processor.encode("aaaa xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")
    processor.encode_plain("a <think> b")
    processor.tokenizer.encode("hello", add_special_tokens=True)
    processor.batch_decode([ids, [1, 2**32 - 1, 5]])
    return len(processor.vocabulary.tokens)
"""


def replace(pattern: str, content: str, kind: str = "String") -> Change:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def normalizer(*steps: Change) -> Change:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def charsmap(data: bytes) -> Change:
    table = base64.b64encode(data).decode()
    return normalizer({"type": "Precompiled", "precompiled_charsmap": table})


def split(regex: str) -> Change:
    step = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step]}}


def byte_levels(number: int) -> Change:
    step = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step] * number}}


def around(number: int) -> Change:
    token = {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    known = {"id": "<|im_end|>", "ids": [627], "tokens": ["<|im_end|>"]}
    processor = {
        "type": "TemplateProcessing",
        "single": [*[token] * number, text],
        "pair": [text],
        "special_tokens": {"<|im_end|>": known},
    }
    return {"post_processor": processor}


GROWING = [replace("a", "a" * 200)] * 5
TOKENIZERS: dict[str, tuple[Change, str]] = {
    "five replacements": (normalizer(*GROWING), "it may make 320,000,000,000 characters of one"),
    "five of a regex": (normalizer(*[replace("", "a" * 200, "Regex")] * 5), "normalizer: it may"),
    "a long beginning": (
        normalizer({"type": "Prepend", "prepend": "a" * 10**7}),
        "normalizer: it adds 10,000,000 characters to every text",
    ),
    "many steps": (normalizer(*[replace("a", "b")] * 65), "normalizer: it has 65 steps"),
    "a decoder": (
        {"decoder": {"type": "Sequence", "decoders": GROWING}},
        "decoder: it may make 320,000,000,000 characters of one",
    ),
    "many byte levels": (byte_levels(30), "pre_tokenizer: it may make"),
    "many tokens around": (around(5000), "post_processor: it has"),
    "a table with a long entry": (
        charsmap(b"\x04\0\0\0" + bytes(4) + b"x" * 10**6 + b"\0"),
        "normalizer: it may make 1,000,000 characters of one",
    ),
    "a table that is broken": (charsmap(b"\xff\xff\xff\xff"), "precompiled_charsmap is broken"),
    "a table that is empty": (charsmap(b""), "precompiled_charsmap is broken"),
    "a regex without end": (split("(x+x+)+y"), "it cannot encode"),
    "a regex that is none": (split("(?<"), "not a readable tokenizer.json"),
}
VOCABULARIES = {
    "an id of 32 bits": ({"zzzz": 2**32 - 1}, "the token 'zzzz' has the id 4,294,967,295"),
    "an id of 31 bits": ({"zzzz": 2**31}, "the token 'zzzz' has the id 2,147,483,648"),
    "a long token": ({"a" * 10**6: 639}, "it has a token of 1,000,000 characters"),
}
FILES = {
    "deep tokenizer": ("tokenizer.json", b'{"a":' * 10**5),
    "deep settings": ("tokenizer_config.json", b'{"a":' * 10**5),
    "deep generation": ("generation_config.json", b'{"a":' * 10**5),
    "template of bytes": ("chat_template.jinja", b"\xff\xfe"),
    "template of a number": ("chat_template.json", b'{"chat_template": 5}'),
    "large vocabulary": ("config.json", b'{"model_type": "qwen2", "vocab_size": 2147483647}'),
}
ADDED: list[Any] = [
    [1],
    {"a": {"content": "x"}},
    {"1": None},
    {"9" * 5000: {"content": "x"}},
    {"4294967296": {"content": "zzx"}},
    {"640": {"content": "zzx", "special": "yes"}},
    {"628": {"content": ""}},
    {"628": {"content": ["x"]}},
    {"628": {"content": "\ud800"}},
]


def test_tokenizers_from_strangers(tmp_path: Path) -> None:
    own = json.loads((SHAPES / "tokenizer.json").read_text())
    cases: dict[Path, tuple[str, str]] = {}
    for index, (change, told) in enumerate(TOKENIZERS.values()):
        folder = copy_shapes(tmp_path / f"t{index}")
        (folder / "tokenizer.json").write_text(json.dumps({**own, **change}))
        cases[folder] = ("tokenizer.json", told)
    for index, (more, told) in enumerate(VOCABULARIES.values()):
        folder = copy_shapes(tmp_path / f"v{index}")
        model = {**own["model"], "vocab": {**own["model"]["vocab"], **more}}
        (folder / "tokenizer.json").write_text(json.dumps({**own, "model": model}))
        cases[folder] = ("tokenizer.json", told)
    settings = json.loads((SHAPES / "tokenizer_config.json").read_text())
    for index, added in enumerate(ADDED):
        folder = copy_shapes(tmp_path / f"a{index}")
        changed = json.dumps({**settings, "added_tokens_decoder": added})
        (folder / "tokenizer_config.json").write_text(changed)
        cases[folder] = ("tokenizer_config.json", "")
    for index, (name, data) in enumerate(FILES.values()):
        folder = copy_shapes(tmp_path / f"f{index}")
        for template in ("chat_template.json", "chat_template.jinja") if "chat" in name else ():
            (folder / template).unlink(missing_ok=True)
        (folder / name).write_bytes(data)
        cases[folder] = (name, "")
    for (folder, (name, told)), line in zip(
        cases.items(), run_code(USE, [str(folder) for folder in cases]), strict=True
    ):
        assert isinstance(line, str), folder
        assert str(folder) in line
        assert name in line
        assert told in line


def test_tokenizers_in_use_are_within_the_limits() -> None:
    albert = [
        replace("``", '"'),
        {"type": "NFKD"},
        {"type": "StripAccents"},
        {"type": "Lowercase"},
        {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(
                b"\x04\0\0\0" + bytes(4) + "ﷺ".encode() + b"\0"
            ).decode(),
        },
        replace(" {2,}", " ", "Regex"),
    ]
    llama = [{"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")]
    for steps in (albert, llama, [{"type": "NFC"}]):
        assert check_parts(normalizer(*steps), "-") <= MAX_GROWTH


def test_a_text_that_grows_is_refused_before_all_of_it_is_made() -> None:
    made = []

    def grow(text: str) -> str:
        made.append(len(text))
        return text * 100

    with pytest.raises(VlmkitError, match=r"^t\.json: its normalizer makes more than 20,000,000"):
        check_normalized("a" * 10**6, 100.0, grow, "t.json")
    assert sum(made) <= 220_000
