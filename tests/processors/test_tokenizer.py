from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processors.tiny import SHAPES, change_json, copy_shapes, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor, load_processor

PIECES = [
    "<|im_start|>",
    "<|image_pad|>",
    "<think>",
    " red",
    "circle",
    "\n",
    "é",
    "漢",
    "🙂",
    " 15",
    " a1",
]
texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)


@pytest.fixture(scope="module")
def shapes() -> Processor:
    return load_processor(SHAPES)


@pytest.fixture(scope="module")
def oracle() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(SHAPES))


@given(text=texts)
def test_equals_transformers(shapes: Processor, oracle: Any, text: str) -> None:
    ids = shapes.encode(text)
    assert ids == oracle.encode(text, add_special_tokens=False)
    for skip in (False, True):
        assert shapes.decode(ids, skip_special_tokens=skip) == oracle.decode(
            ids, skip_special_tokens=skip
        )


@given(ids=st.lists(st.integers(-(2**40), 2**40), max_size=8), text=texts)
def test_ids_without_a_token_decode_to_nothing(
    shapes: Processor, ids: list[int], text: str
) -> None:
    known = shapes.encode(text)
    alien = [i for i in ids if not 0 <= i < shapes.tokenizer.vocab_size]
    padded = [shapes.tokenizer.vocab_size, shapes.num_embeddings - 1, 2**32, -1]
    assert shapes.decode(alien + known + padded) == shapes.decode(known)
    assert shapes.tokenizer.id_to_token(-1) is None
    assert shapes.tokenizer.id_to_token(2**40) is None


def test_facts_of_the_embedded_checkpoint(shapes: Processor) -> None:
    tokenizer = shapes.tokenizer
    names = {tokenizer.id_to_token(i) for i in shapes.eos_token_ids}
    assert names == {"<|im_end|>", "<|endoftext|>"}
    assert shapes.image_token == "<|image_pad|>"
    assert {tokenizer.id_to_token(i) for i in shapes.placeholder_ids} == {
        "<|image_pad|>",
        "<|video_pad|>",
    }
    assert tokenizer.token_to_id("<think>") not in tokenizer.special_ids
    assert shapes.eos_token_ids <= tokenizer.special_ids
    assert (shapes.model_type, shapes.merge_size, shapes.num_embeddings) == ("qwen2_vl", 2, 640)


def test_half_a_surrogate_pair_is_refused(shapes: Processor) -> None:
    with pytest.raises(VlmkitError, match="character 2 is"):
        shapes.encode("ab\ud800")


def test_added_tokens_that_only_the_config_knows(tmp_path: Path) -> None:
    processor = load_processor(write_text_only(tmp_path))
    assert processor.encode("[EXTRA]") == [258]
    assert processor.backend == "native"
    change_json(
        tmp_path / "tokenizer_config.json", added_tokens_decoder={"270": {"content": "[FAR]"}}
    )
    with pytest.raises(VlmkitError, match=r"'\[FAR\]' the id 270, .* ends at 258"):
        load_processor(tmp_path)


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = write_text_only(tmp_path)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(2)
    backend.enable_padding(length=10)
    backend.save(str(folder / "tokenizer.json"))
    assert len(load_processor(folder).encode("hello")) == 5


def test_eos_ids_are_the_union(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    change_json(folder / "config.json", eos_token_id=None, text_config={"eos_token_id": 3})
    change_json(folder / "generation_config.json", eos_token_id=[4, 5])
    assert load_processor(folder).eos_token_ids == {3, 4, 5, 627}
