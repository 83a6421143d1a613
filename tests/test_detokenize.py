"""Segments of text add up to the text of all tokens, for the kinds of tokenizers in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vlmkit.detokenize import DetokenizerState, finish, init, push

CORPUS = [
    "the quick brown fox jumps over the lazy dog, and then the dog sleeps",
    "naïve café — déjà vu “quoted” … 日本語の文章です。日本は良い。",
    "emoji 🙂🙃🙂 family 👨‍👩‍👧 flags 🇫🇷 e\u0301 combining  two  spaces\n\nlines\t\tend",
    "def f(x):\n    return x + 1\n",
]
SPECIAL = ["<think>", "</think>", "<eos>"]
TEXTS = st.lists(
    st.sampled_from(
        [
            *"abé日🙂 \n",
            "  ",
            "the ",
            "👨‍👩‍👧",
            "e\u0301",
            "\ufffd",
            "<think>",
            "<eos>",
            "▁",
            "dog",
            "़",
        ]
    ),
    max_size=25,
).map("".join)


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "byte_level":
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        built.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=330, initial_alphabet=alphabet, show_progress=False
        )
        built.train_from_iterator(CORPUS * 3, trainer)
    elif kind == "metaspace":
        built = Tokenizer(models.Unigram())
        built.pre_tokenizer = pre_tokenizers.Metaspace()
        built.decoder = decoders.Metaspace()
        unigram = trainers.UnigramTrainer(
            vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
        built.train_from_iterator(CORPUS * 3, unigram)
    else:
        vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
        for piece in ["▁", "t", "h", "e", "▁the", "do", "d", "o", "g", "▁a", "a", "b"]:
            vocabulary[piece] = len(vocabulary)
        merges = [("d", "o"), ("▁", "a")]
        built = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True))
        built.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        built.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    built.add_special_tokens(SPECIAL)
    return built


class Decode:
    """A tokenizer's decode that counts how many ids it was given."""

    def __init__(self, kind: str, *, skip_special_tokens: bool = False) -> None:
        self.tokenizer, self.skip, self.num_ids = tokenizer(kind), skip_special_tokens, 0

    def __call__(self, ids: Sequence[int]) -> str:
        self.num_ids += len(ids)
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=self.skip))


def stream(ids: Sequence[int], decode: Decode) -> list[str]:
    state, segments = init(), []
    for token_id in ids:
        state, segment = push(state, token_id, decode)
        segments.append(segment)
    return [*segments, finish(state, decode)]


KINDS = ["byte_level", "metaspace", "byte_fallback"]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@example(text="  🙂🙂🙂 the")
@example(text="<think>  the<eos> dog")
def test_segments_of_real_text_add_up(kind: str, skip: bool, text: str) -> None:
    decode = Decode(kind, skip_special_tokens=skip)
    ids = tokenizer(kind).encode(text, add_special_tokens=False).ids
    segments = stream(ids, decode)
    assert "".join(segments) == decode(ids)
    if "\ufffd" not in text and kind != "metaspace":  # that one has an unknown token
        assert not any("\ufffd" in segment for segment in segments)


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@given(data=st.data())
def test_segments_of_any_ids_add_up(kind: str, data: st.DataObject) -> None:
    size = tokenizer(kind).get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size + 5), max_size=60))
    for skip in (False, True):
        decode = Decode(kind, skip_special_tokens=skip)
        assert "".join(stream(ids, decode)) == decode(ids)


@given(ids=st.lists(st.sampled_from([0xF0, 0x9F, 0x99, 0x82, 0xC3, 0xA9, 256, 260, 400])))
def test_stray_byte_tokens_never_fail(ids: list[int]) -> None:
    segments = stream(ids, decode := Decode("byte_fallback"))
    assert ("".join(segments) == "") == (decode(ids) == "")


@given(data=st.data())
def test_stray_bytes_that_go_on_and_on(data: st.DataObject) -> None:
    vocabulary = tokenizer("byte_level").get_vocab()
    mapping = {byte: vocabulary[symbol] for byte, symbol in byte_symbols().items()}
    period = data.draw(
        st.lists(st.sampled_from([0xFF, 0xF0, 0x9F, 0x99, 0x82, 0x41]), min_size=1, max_size=5)
    )
    ids = [mapping[byte] for byte in period] * 40
    decode = Decode("byte_level")
    assert "".join(stream(ids, decode)) == decode(ids)


def byte_symbols() -> dict[int, str]:
    """The byte-level alphabet: byte to symbol, by what each symbol encodes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


def test_characters_are_never_split() -> None:
    vocabulary, symbols = tokenizer("byte_level").get_vocab(), byte_symbols()
    ids = [vocabulary[symbols[byte]] for byte in "é🙂a".encode()]
    assert stream(ids, Decode("byte_level")) == ["", "é", "", "", "", "🙂", "a", ""]


def test_an_unfinished_character_is_flushed_at_the_end() -> None:
    vocabulary, symbols = tokenizer("byte_level").get_vocab(), byte_symbols()
    ids = [vocabulary[symbols[byte]] for byte in "a🙂".encode()[:-1]]
    assert stream(ids, Decode("byte_level")) == ["a", "", "", "", "\ufffd"]


def test_a_real_replacement_character_comes_out() -> None:
    decode = Decode("byte_level")
    ids = tokenizer("byte_level").encode("a\ufffdb\ufffd").ids
    assert "".join(stream(ids, decode)) == "a\ufffdb\ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_beyond_the_vocabulary_are_nothing(kind: str) -> None:
    known = tokenizer(kind).encode("the dog").ids
    ids = [10**6, *known[:1], *[10**6] * 100, *known[1:], 10**6]
    segments = stream(ids, Decode(kind))
    assert "".join(segments) == "the dog"
    assert not any(segments[2:102])


@pytest.mark.parametrize("kind", KINDS)
def test_skipped_special_tokens_leave_spaces_alone(kind: str) -> None:
    eos = tokenizer(kind).token_to_id("<eos>")
    known = tokenizer(kind).encode("the dog the").ids
    ids = [token_id for one in known for token_id in (one, eos)]
    assert "".join(stream(ids, Decode(kind, skip_special_tokens=True))) == "the dog the"


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_per_token_does_not_grow(kind: str) -> None:
    encoded = tokenizer(kind).encode(" ".join(CORPUS)).ids
    stray = [tokenizer(kind).encode("🙂").ids[-1]]
    for ids in (encoded * 5, stray * 500, [10**6] * 500, [encoded[0], 10**6] * 200):
        decode = Decode(kind)
        stream(ids, decode)
        assert decode.num_ids <= 64 * len(ids)
    decode = Decode(kind)
    stream(encoded * 5, decode)
    assert decode.num_ids <= 12 * 5 * len(encoded)


def test_old_states_stay_valid() -> None:
    decode = Decode("byte_level")
    ids = tokenizer("byte_level").encode("the 🙂 dog").ids
    states: list[DetokenizerState] = [init()]
    for token_id in ids:
        states.append(push(states[-1], token_id, decode)[0])
    again = [push(state, i, decode)[0] for state, i in zip(states, ids, strict=False)]
    assert again == states[1:]
