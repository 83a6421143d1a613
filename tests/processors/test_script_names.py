"""The tokenizer answers as transformers' own does, by the names that scripts use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import pytest

from tests.processors.tiny import SHAPES, change_json, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import Tokenizer, load_processor

CHAT = [{"role": "user", "content": "How many?"}]
BEGUN = [*CHAT, {"role": "assistant", "content": "There are"}]


class Pair(NamedTuple):
    """Our tokenizer and transformers' of the same folder."""

    ours: Tokenizer
    theirs: Any


def both(folder: Path, backend: Any = "auto") -> Pair:
    from transformers import AutoTokenizer

    tokenizer = load_processor(folder, backend=backend).tokenizer
    return Pair(tokenizer, AutoTokenizer.from_pretrained(str(folder)))


@pytest.fixture(scope="module", params=["native", "transformers"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return both(SHAPES, request.param)


def same(ours: Any, theirs: Any) -> None:
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert type(ours[key]) is type(value)
        if isinstance(value, list):
            assert ours[key] == value
        else:
            assert ours[key].dtype == value.dtype
            assert ours[key].tolist() == value.tolist()


@pytest.mark.parametrize("tokens", ["<think>", "nothing", ["<|im_end|>", "nothing", "Ġred"], []])
def test_convert_tokens_to_ids(pair: Pair, tokens: Any) -> None:
    assert pair.ours.convert_tokens_to_ids(tokens) == pair.theirs.convert_tokens_to_ids(tokens)


@pytest.mark.parametrize("ids", [5, 627, 9999, [5, 627, 9999], np.array([5, 627]), []])
def test_convert_ids_to_tokens(pair: Pair, ids: Any) -> None:
    assert pair.ours.convert_ids_to_tokens(ids) == pair.theirs.convert_ids_to_tokens(ids)
    if not isinstance(ids, int):
        assert pair.ours.convert_ids_to_tokens(
            ids, skip_special_tokens=True
        ) == pair.theirs.convert_ids_to_tokens(ids, skip_special_tokens=True)


def test_numpy_and_mlx_numbers(pair: Pair) -> None:
    assert pair.ours.convert_ids_to_tokens(np.int64(5)) == pair.theirs.convert_ids_to_tokens(5)
    assert pair.ours.convert_ids_to_tokens(mx.array(5)) == "&"
    assert pair.ours.convert_ids_to_tokens(mx.array([5, 6])) == ["&", "'"]
    assert pair.ours.decode(mx.array([5, 6])) == pair.ours.decode(np.array([5, 6])) == "&'"


def test_named_tokens(pair: Pair) -> None:
    names = ("eos_token", "pad_token", "bos_token", "chat_template", "padding_side")
    for name in (*names, "eos_token_id", "pad_token_id", "bos_token_id"):
        assert getattr(pair.ours, name) == getattr(pair.theirs, name), name


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Hi", {}),
        ("", {}),
        (["Hi", "How many <think>?"], {}),
        (["Hi", "How many?"], {"padding": True}),
        (["Hi", "How many?"], {"padding": "longest", "return_tensors": "np"}),
        (["Hi", "How many?"], {"padding": True, "padding_side": "left", "return_tensors": "mlx"}),
        (["Hi"], {"padding": "max_length", "max_length": 5, "return_tensors": "np"}),
        (["How many?"], {"padding": "max_length", "max_length": 2}),
        ("Hi", {"return_tensors": "np"}),
        ("Hi", {"return_tensors": "mlx", "add_special_tokens": False}),
        ("Hi", {"return_attention_mask": False, "padding": False}),
        ("Hi", {"truncation": False, "padding": "do_not_pad"}),
    ],
)
def test_a_call(pair: Pair, text: Any, options: dict[str, Any]) -> None:
    same(pair.ours(text, **options), pair.theirs(text, **options))


def test_batch_decode_and_equality(pair: Pair) -> None:
    rows = pair.ours(["Hi<|im_end|>", "How many?"], padding=True).input_ids
    for skip in (False, True):
        assert pair.ours.batch_decode(rows, skip_special_tokens=skip) == pair.theirs.batch_decode(
            rows, skip_special_tokens=skip
        )
    assert {pair.ours: 1}[pair.ours] == 1


def test_results_have_attributes(pair: Pair) -> None:
    assert pair.ours("Hi").input_ids == pair.theirs("Hi").input_ids
    with pytest.raises(AttributeError, match="no 'labels' here; there is input_ids, attention_m"):
        assert pair.ours("Hi").labels


@pytest.mark.parametrize(
    ("chat", "options"),
    [
        (CHAT, {}),
        (CHAT, {"add_generation_prompt": True, "enable_thinking": True}),
        (CHAT, {"add_generation_prompt": True, "tokenize": False}),
        (CHAT, {"return_dict": False}),
        (CHAT, {"return_tensors": "np"}),
        (CHAT, {"chat_template": "{{ messages[0].content }}{{ mood }}", "mood": "!"}),
        (BEGUN, {"continue_final_message": True, "tokenize": False}),
        ([CHAT, BEGUN], {"tokenize": False}),
        ([CHAT, BEGUN], {"padding": True, "return_tensors": "np"}),
    ],
)
def test_apply_chat_template(pair: Pair, chat: Any, options: dict[str, Any]) -> None:
    ours = pair.ours.apply_chat_template(chat, **options)
    theirs = pair.theirs.apply_chat_template(chat, **options)
    if isinstance(theirs, str | list):
        assert ours == theirs
    else:
        same(ours, theirs)


@pytest.mark.parametrize("backend", ["native", "transformers"])
@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("flags", [{}, {"add_eos_token": True}, {"add_bos_token": False}])
def test_what_comes_around_a_text(
    tmp_path: Path, backend: str, by_file: bool, flags: dict[str, bool]
) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.processors import TemplateProcessing

    folder = write_text_only(tmp_path)
    change_json(folder / "tokenizer_config.json", padding_side="left", pad_token="</s>", **flags)
    if by_file:
        file = Backend.from_file(str(folder / "tokenizer.json"))
        file.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
        file.save(str(folder / "tokenizer.json"))
    pair = both(folder, backend)
    for text in ("hé", ["a", "bcd"]):
        same(pair.ours(text, padding=True), pair.theirs(text, padding=True))
    assert pair.ours.encode("a", add_special_tokens=True) == pair.theirs.encode("a")
    assert pair.ours.encode("a") == pair.theirs.encode("a", add_special_tokens=False)


def test_padding_and_truncation_of_the_file_are_off(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend

    folder = write_text_only(tmp_path)
    file = Backend.from_file(str(folder / "tokenizer.json"))
    file.enable_truncation(2)
    file.enable_padding(length=10)
    file.save(str(folder / "tokenizer.json"))
    for backend in ("native", "transformers"):
        tokenizer = both(folder, backend).ours
        assert len(tokenizer.encode("hello")) == len(tokenizer("hello").input_ids) == 5


def test_unknown_tokens(tmp_path: Path) -> None:
    folder = write_text_only(tmp_path)
    change_json(folder / "tokenizer_config.json", unk_token="</s>")
    pair = both(folder)
    assert pair.ours.convert_tokens_to_ids(["a", "nothing"]) == [64, 257]
    assert pair.theirs.convert_tokens_to_ids("nothing") == 257


@pytest.mark.parametrize(
    ("name", "arguments", "options", "message"),
    [
        ("__call__", (3,), {}, "text: a string or a list of strings is needed, not int"),
        ("__call__", (["a", None],), {}, "text: a string or a list of strings .* not NoneType"),
        ("__call__", ("a",), {"paddin": True}, "paddin: unknown keyword; did you mean 'padding'"),
        ("__call__", ("a",), {"padding": "left"}, "padding='left': one of False, 'do_not_pad', T"),
        ("__call__", ("a",), {"max_length": 3}, "max_length=3: .* only with padding='max_length'"),
        ("__call__", ("a",), {"padding": "max_length"}, "max_length=None: a whole number above 0"),
        ("__call__", ("a",), {"truncation": True}, "truncation: a prompt that is cut loses its e"),
        ("__call__", ("a",), {"text_pair": "b"}, "text_pair: models that generate take one text"),
        ("__call__", ("a",), {"return_tensors": "pt"}, "return_tensors='pt': 'np' gives numpy ar"),
        ("__call__", ("a",), {"padding_side": "up"}, "padding_side='up': one of 'left', 'right'"),
        ("__call__", ("a",), {"add_special_tokens": "no"}, "add_special_tokens must be True or F"),
        ("__call__", (["a", "bcd e"],), {"return_tensors": "np"}, "rows of .* make no array; set"),
        ("convert_tokens_to_ids", (5,), {}, "tokens: strings are needed, not int"),
        ("convert_tokens_to_ids", ([5],), {}, "tokens: strings are needed, not int"),
        ("convert_ids_to_tokens", ("5",), {}, "ids: whole numbers are needed, not str"),
        ("convert_ids_to_tokens", ([1.5],), {}, "ids: whole numbers are needed"),
        ("convert_ids_to_tokens", (None,), {}, "ids: whole numbers are needed, not NoneType"),
        ("apply_chat_template", (CHAT,), {"mood": 1}, "does not read 'mood'"),
        ("apply_chat_template", (CHAT,), {"add_generation_promp": 1}, "mean 'add_generation_prom"),
    ],
)
def test_refused(
    pair: Pair, name: str, arguments: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        getattr(pair.ours, name)(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_what_a_bare_tokenizer_lacks(tmp_path: Path) -> None:
    folder = write_text_only(tmp_path)
    tokenizer = load_processor(folder).tokenizer
    with pytest.raises(VlmkitError, match="padding: the tokenizer has no pad_token; encode texts"):
        tokenizer(["a", "bc"], padding=True)
    with pytest.raises(VlmkitError, match="no chat template; pass chat_template="):
        tokenizer.apply_chat_template(CHAT)
