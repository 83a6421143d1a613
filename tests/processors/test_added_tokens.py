"""Tokens that only tokenizer_config.json declares are found in a text, as by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.processors.tiny import change_json
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_tokenizer

TOKENS = ["<s>", "</s>", "<x>", "<unk>", "<new>"]


def token(content: str, **flags: bool) -> dict[str, Any]:
    return {"__type": "AddedToken", "content": content, **flags}


CONFIGS: dict[str, dict[str, Any]] = {
    "none": {},
    "named": {"bos_token": "<s>", "eos_token": "</s>"},
    "flags": {"eos_token": token("</s>", lstrip=True, rstrip=True, special=True)},
    "whole words": {"eos_token": token("</s>", single_word=True)},
    "additional": {
        "additional_special_tokens": ["<x>", token("<s>", rstrip=True), token("</s>", special=True)]
    },
    "extra": {"eos_token": "</s>", "extra_special_tokens": {"image_token": "<x>"}},
    "decoder": {"added_tokens_decoder": {"258": {"content": "<x>", "special": False}}},
    "both": {
        "eos_token": "</s>",
        "added_tokens_decoder": {"257": {"content": "</s>", "lstrip": True, "special": True}},
    },
    "split": {"eos_token": "</s>", "split_special_tokens": True},
}


def backend(kind: str) -> Tokenizer:
    """Tokenizers that have the tokens in their vocabulary, and not among the added ones."""
    if kind == "bytes":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        ids = {token: index for index, token in enumerate([*alphabet, *TOKENS[:4]])}
        made = Tokenizer(models.BPE(ids, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        pieces = ["<unk>", "<s>", "</s>", "<x>", "▁", *"abcdehlnsuwx<>/.,!'"]
        made = Tokenizer(models.Unigram([(piece, -2.0) for piece in pieces], unk_id=0))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
    return made


def write(folder: Path, kind: str, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    backend(kind).save(str(folder / "tokenizer.json"))
    change_json(folder / "config.json", model_type="llama", vocab_size=300)
    change_json(
        folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", **config
    )
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Ours and transformers' tokenizer for every kind and config."""
    from transformers import AutoTokenizer

    made = {}
    for kind in ("bytes", "pieces"):
        for name, config in CONFIGS.items():
            if kind == "pieces" and name == "decoder":
                continue  # another id there
            folder = write(tmp_path_factory.mktemp("t"), kind, config)
            made[kind, name] = (load_tokenizer(folder), AutoTokenizer.from_pretrained(str(folder)))
    return made


texts = st.lists(
    st.one_of(st.sampled_from(TOKENS), st.sampled_from(" .,!'aéx\n"), st.text(max_size=3)),
    max_size=8,
).map("".join)


@given(text=texts.filter(lambda text: text.isprintable() or text.isascii()))
def test_equals_transformers(pairs: dict[tuple[str, str], tuple[Any, Any]], text: str) -> None:
    for name, (ours, theirs) in pairs.items():
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode_text(text) == ids, name
        assert ours.encode_whole(text) == theirs.encode(text), name
        for skip in (False, True):
            decoded = theirs.decode(ids, skip_special_tokens=skip)
            assert ours.decode_ids(ids, skip) == decoded, name


def test_the_same_tokens_are_special(pairs: dict[tuple[str, str], tuple[Any, Any]]) -> None:
    for name, (ours, theirs) in pairs.items():
        added = theirs.added_tokens_decoder.items()
        assert ours.special_ids == {index for index, token in added if token.special}, name


def test_a_named_token_without_an_id_stays_text(tmp_path: Path) -> None:
    plain = load_tokenizer(write(tmp_path / "a", "bytes", {}))
    named = load_tokenizer(write(tmp_path / "b", "bytes", {"pad_token": "<new>"}))
    assert named.encode_text("<new>") == plain.encode_text("<new>")
    assert named.vocab_size == plain.vocab_size


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"eos_token": 7}, "eos_token has 7; it has to be a token, or an object"),
        ({"eos_token": {"content": None}}, "eos_token has .*'content'"),
        ({"eos_token": {"content": "</s>", "lstrip": 1}}, r"eos_token\.lstrip is 1"),
        ({"pad_token": "\ud800"}, "pad_token has .*ud800"),
        ({"additional_special_tokens": "<x>"}, "additional_special_tokens is '<x>'; .* a list"),
        ({"additional_special_tokens": [["<x>"]]}, r"additional_special_tokens has \['<x>'\]"),
        ({"extra_special_tokens": {"image": 3}}, "extra_special_tokens has 3"),
        ({"split_special_tokens": "no"}, "split_special_tokens is 'no'; .* true or false"),
    ],
)
def test_what_is_no_token_is_named(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    folder = write(tmp_path / "t", "bytes", config)
    with pytest.raises(VlmkitError, match=rf"tokenizer_config\.json: {message}") as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)
