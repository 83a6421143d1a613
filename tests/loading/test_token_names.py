"""``eos_token_id`` and its like, given as ids, as tokens, or as lists of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.loading.three_ways import complete, edit, refusal
from vlmkit import load
from vlmkit.loading import load_model

FILES = ("config.json", "generation_config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return complete(tmp_path / "model")


@pytest.mark.parametrize("backend", ["native", "transformers"])
@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ("w5", {5}),
        (["w5", "<|bos|>"], {5, 56}),
        ([5, "w6"], {5, 6}),
        (7, {7}),
        ([], set()),
        (None, set()),
        (-1, set()),
    ],
)
@pytest.mark.parametrize("file", FILES)
def test_tokens_are_resolved(
    file: str, value: Any, ids: set[int], backend: Any, folder: Path
) -> None:
    for other in FILES:
        edit(folder / other, eos_token_id=value if other == file else None)
    model, processor = load(str(folder), processor_backend=backend)
    assert processor.eos_token_ids == {57} | ids  # 57: the tokenizer's own
    if file == "config.json":
        assert {token for token in model.config.eos_token_id if token >= 0} == ids


@pytest.mark.parametrize("nested", [False, True])
def test_the_models_own_ids_may_be_tokens(nested: bool, tmp_path: Path) -> None:
    plain = complete(tmp_path / "a", nested=nested)
    named = complete(tmp_path / "b", nested=nested)
    where = "text_config__" if nested else ""
    edit(
        named / "config.json",
        **{f"{where}eos_token_id": "<|im_end|>", f"{where}bos_token_id": "<|bos|>"},
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
    )
    (config, processor), (expected, _) = (
        (model.config, processor) for model, processor in (load(str(named)), load(str(plain)))
    )
    assert config == expected
    assert processor.image_token_id == 60


def test_a_model_alone_reads_the_tokenizer_where_it_must(folder: Path) -> None:
    edit(folder / "config.json", eos_token_id=["w5"])
    assert load_model(folder).config.eos_token_id == (5,)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("<|nothing|>", "names '<|nothing|>', which is no token of the tokenizer"),
        ([57, "<|nothing|>"], "names '<|nothing|>', which is no token of the tokenizer"),
        (True, "is True; it has to be a token id, a token, or a list of them"),
        (1.5, "is 1.5; it has to be a token id"),
        ([[57]], "is [[57]]; it has to be a token id"),
        ({"a": 1}, "is {'a': 1}; it has to be a token id"),
        (2**31, "is 2147483648; it has to be a token id"),
    ],
)
@pytest.mark.parametrize("key", ["eos_token_id", "bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("file", FILES)
def test_what_is_no_token_is_refused(
    file: str, key: str, value: Any, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / file, **{key: value})
    message = refusal(folder, capsys)
    assert message.startswith(f"{folder / file}: {key} {said}")


@pytest.mark.parametrize("file", FILES)
def test_an_end_outside_the_vocabulary_is_refused(
    file: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / file, eos_token_id=[57, 64])
    said = f"{folder / file}: eos_token_id 64 is outside the vocabulary of 64"
    assert refusal(folder, capsys) == said
