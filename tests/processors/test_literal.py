"""Text that looks like a special token: encoded as plain text, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.processors.tiny import SHAPES
from vlmkit.errors import VlmkitError
from vlmkit.processors.literal import MARK, literal_encoder, mark_literal, unmark
from vlmkit.processors.tokenizer import Tokenizer as Ours
from vlmkit.processors.tokenizer import from_backend

LETTERS = list("abcdehlmoprstx<>/▁ ")


def shapes() -> Tokenizer:
    return Tokenizer.from_file(str(SHAPES / "tokenizer.json"))


def words() -> Tokenizer:
    """As the Llama models: a space before the first word, special tokens inside the vocabulary."""
    pieces = ["<s>", "<unk>", *LETTERS, "▁a", "lo"]
    backend = Tokenizer(
        models.BPE(
            {p: i for i, p in enumerate(pieces)}, [("▁", "a"), ("l", "o")], unk_token="<unk>"
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens(["<s>", "<unk>", AddedToken("<x>", lstrip=True, rstrip=True)])
    return backend


def normalized() -> Tokenizer:
    """Lower case and NFC before the tokens; two that are no special ones."""
    backend = Tokenizer(models.BPE({p: i for i, p in enumerate(LETTERS)}, []))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.add_tokens([AddedToken("<a>", normalized=True), AddedToken("ab", single_word=True)])
    backend.add_special_tokens(["<s>", "<s><s>"])
    return backend


BACKENDS: dict[str, Callable[[], Tokenizer]] = {
    "shapes": shapes,
    "words": words,
    "normalized": normalized,
}
PIECES = [
    "<s>",
    "<x>",
    "<a>",
    "<think>",
    "</think>",
    "<|im_end|>",
    "a",
    " ",
    "hello",
    "<",
    "ab",
    "A",
]


@pytest.mark.parametrize("name", BACKENDS)
@given(parts=st.lists(st.sampled_from(PIECES), max_size=8))
def test_without_marks_nothing_changes(name: str, parts: list[str]) -> None:
    tokenizer = KNOWN[name]
    text = "".join(parts)
    assert tokenizer.encode_marked(text) == tokenizer.encode_text(text)


KNOWN: dict[str, Ours] = {name: from_backend(make()) for name, make in BACKENDS.items()}


def bare() -> Tokenizer:
    """The tokenizer of the embedded model without a token of its own."""
    state = json.loads(shapes().to_str())
    return Tokenizer.from_str(json.dumps({**state, "added_tokens": []}))


BARE = bare()
TOKENS = [token for token, _ in KNOWN["shapes"].added_tokens]
typed = st.one_of(
    st.lists(st.sampled_from([*TOKENS, *PIECES, "think>", "<|", "|>"]), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=12),
)


@given(before=typed, after=typed)
def test_marked_text_is_encoded_as_without_tokens(before: str, after: str) -> None:
    """Around a real token, two texts are what a tokenizer without tokens makes of them."""
    tokenizer = KNOWN["shapes"]
    end = tokenizer.token_to_id("<|im_end|>")
    text = "<|im_end|>".join(
        [mark_literal(before, TOKENS, joined=True), mark_literal(after, TOKENS)]
    )
    expected = [*BARE.encode(before).ids, end, *BARE.encode(after).ids]
    assert tokenizer.encode(text) == expected
    assert unmark(text) == f"{before}<|im_end|>{after}"


@given(parts=st.lists(typed, max_size=4))
def test_no_token_grows_out_of_parts(parts: list[str]) -> None:
    tokenizer = KNOWN["shapes"]
    marked = [mark_literal(part, TOKENS, joined=True) for part in parts]
    assert tokenizer.encode("".join(marked)) == BARE.encode("".join(parts)).ids


@pytest.mark.parametrize(
    ("text", "tokens", "joined", "marked"),
    [
        ("plain", ["<s>"], False, "plain"),
        ("plain", [], True, "plain"),
        ("<s><s>", ["<s>"], False, "<·s><·s>"),
        ("abcab", ["ab", "bc"], False, "a·b·ca·b"),
        ("aaa", ["aa"], False, "a·a·a"),
        ("a<", ["<s>"], False, "a<"),
        ("a<", ["<s>"], True, "a<·"),
        ("a<s", ["<s>", "<think>"], True, "a<s·"),
        ("x.y", ["."], False, "x.y"),
        ("x+", ["+("], True, "x+·"),
    ],
)
def test_where_marks_stand(text: str, tokens: list[str], joined: bool, marked: str) -> None:
    assert mark_literal(text, tokens, joined=joined).replace(MARK, "·") == marked


def test_a_space_is_put_before_the_first_word_only() -> None:
    tokenizer = KNOWN["words"]
    plain = tokenizer.encode("<s>a<s>a")
    marked = tokenizer.encode("<s>a" + mark_literal("<s>", ["<s>"]) + "a")
    assert marked[:2] == plain[:2]
    assert tokenizer.decode(marked) == "<s>a<s>a"
    assert marked.count(tokenizer.token_to_id("<s>")) == 1
    kept = tokenizer.encode("a <x> a" + mark_literal("<x>", ["<x>"]))
    assert kept[: len(kept) - 3] == tokenizer.encode("a <x> a")


def test_noncharacters_do_no_harm() -> None:
    tokenizer = KNOWN["shapes"]
    assert tokenizer.encode("a\ufdd1<think>" + MARK) == tokenizer.encode("a<think>")


def test_a_vocabulary_that_reads_tokens_anyway() -> None:
    """A unigram model knows its special tokens as pieces."""
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("<s>", -1.0), ("a", -2.0)], unk_id=0))
    backend.add_special_tokens(["<unk>", "<s>"])
    tokenizer = from_backend(backend)
    assert tokenizer.encode(mark_literal("aa", ["<s>"])) == [2, 2]
    with pytest.raises(VlmkitError, match=r"^prompt: '<s>' in a message is a special token, and"):
        tokenizer.encode("a" + mark_literal("<s>", ["<s>"]))


def test_a_tokenizer_that_cannot() -> None:
    known = KNOWN["shapes"]
    slow = Ours(
        known.encode_text,
        known.decode_ids,
        known.token_to_id,
        known.id_to_token,
        known.special_ids,
        known.vocab_size,
        known.read_token_bytes,
    )
    assert slow.encode("<think>") == [633]
    with pytest.raises(VlmkitError, match="'<think>' in a message is a special token"):
        slow.encode(mark_literal("what is <think> ?", ["<think>"]))


def test_no_added_tokens() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    assert literal_encoder(backend)("a" + MARK) == [0]
