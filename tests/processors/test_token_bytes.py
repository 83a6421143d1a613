"""The bytes of single tokens: joined, they are the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from tests.effort import scaled
from tests.processors.tiny import SHAPES, change_json, copy_shapes
from tests.test_detokenize import tokenizer as trained
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_processor
from vlmkit.processors.token_bytes import byte_alphabet, token_bytes
from vlmkit.processors.tokenizer import from_backend

words = st.lists(
    st.sampled_from(["the", "dog", "a", " ", "é", "日本", "🙂", "?", "\n", "▁"]), max_size=12
).map("".join)


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "byte_fallback"])
@settings(max_examples=scaled(50))
@given(text=words)
def test_joined_they_are_what_the_tokenizer_decodes(kind, text):
    tokenizer = from_backend(trained(kind))
    tokens = tokenizer.read_token_bytes()
    ids = tokenizer.encode(text)
    joined = b"".join(tokens[token_id] for token_id in ids).decode()
    # these decoders leave out the space that stands before a first word
    assert joined.removeprefix("" if kind == "byte_level" else " ") == tokenizer.decode(ids)


@given(text=words)
def test_the_embedded_model(text):
    vocabulary = load_processor(str(SHAPES)).vocabulary
    ids = vocabulary.encode(f"{text}<think><|im_end|>")
    assert b"".join(vocabulary.tokens[token_id] for token_id in ids).decode().startswith(text)
    assert vocabulary.tokens[ids[-1]] == b"<|im_end|>"
    assert len(vocabulary.tokens) == vocabulary.num_ids == 640


def test_every_byte_has_a_character():
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_added_tokens_outside_the_alphabet_are_written_as_they_are():
    texts = ["Ġ", " ", "a b", "\xa0", "日", "Ġé", "\x7f", "¡"]
    expected = [b" ", b" ", b"a b", b"\xc2\xa0", "日".encode(), b" \xe9", b"\x7f", b"\xa1"]
    assert list(token_bytes(texts, {"type": "ByteLevel"})) == expected


def test_a_processor_keeps_its_vocabulary(tmp_path: Path):
    folder = copy_shapes(tmp_path / "shapes")
    change_json(folder / "config.json", vocab_size=700)
    processor = load_processor(str(folder))
    assert processor.vocabulary is processor.vocabulary
    assert processor.vocabulary.tokens is processor.vocabulary.tokens
    assert processor.vocabulary.tokens[640:] == (b"",) * 60
    assert processor.vocabulary.eos_ids == processor.eos_token_ids


@pytest.mark.parametrize(
    ("decoder", "names"),
    [(None, "none"), (decoders.WordPiece(), "WordPiece"), (decoders.BPEDecoder(), "BPEDecoder")],
    ids=["none", "WordPiece", "BPEDecoder"],
)
def test_decoders_that_look_at_the_neighbours_are_refused(decoder, names):
    backend = Tokenizer(models.WordLevel({"hello": 0, "[UNK]": 1}, unk_token="[UNK]"))
    if decoder is not None:
        backend.decoder = decoder
    with pytest.raises(VlmkitError, match=rf"^grammar: the tokenizer's decoder \({names}\)"):
        from_backend(backend).read_token_bytes()


def test_a_pattern_may_be_a_regex():
    replace = decoders.Replace("▁", " \\1")
    state = json.loads(replace.__getstate__())
    assert token_bytes(["a▁"], state) == (rb"a \1",)
    assert token_bytes(["a▁b"], {**state, "pattern": {"Regex": "[▁]"}}) == (rb"a \1b",)


def test_the_transformers_backend_has_them_too():
    native, other = (load_processor(str(SHAPES), backend=b) for b in ("native", "transformers"))
    assert native.vocabulary.tokens == other.vocabulary.tokens
