"""A row that cannot be prepared ends alone: its neighbours' tokens are those of their own runs."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from vlmkit import PipelineConfig, VlmkitError, batch_generate, generate
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request

Loaded = tuple[Any, Any]
LIMIT = {"kind": "max_tokens", "max_tokens": 3}
NEGATIVE = {"kind": "cfg", "negative_prompt": "<|image_pad|>"}

BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an id without an embedding": (Request((5, 10**6)), {}, "prompt: token id 1000000 at position"),
    "no token": (Request(""), {}, "prompt: it has no tokens"),
    "no id": (Request(()), {}, "prompt: it has no tokens"),
    "too long": (Request((5,) * 100_000), {}, "prompt: 100000 tokens"),
    "no such file": (Request("<|image_pad|>?", ("none.png",)), {}, "image none.png: no such file"),
    "no image": (Request("<|image_pad|>?", (b"abc",)), {}, r"image in memory \(3 bytes\): not an"),
    "no placeholder": (Request("?", (Image.new("RGB", (56, 56)),)), {}, "prompt: it has 0 image"),
    "a negative prompt": (Request("Hi"), {"contrast": NEGATIVE}, "contrast.negative_prompt: "),
    "no image to noise": (
        Request("Hi"),
        {"contrast": {"kind": "vcd"}},
        "vcd: the prompt has no image",
    ),
    "a search": (Request(""), {"search": {"kind": "beam", "num_beams": 2}}, "prompt: it has no"),
}


@pytest.mark.parametrize("case", BAD)
def test_it_ends_alone(shapes: Loaded, case: str) -> None:
    bad, values, message = BAD[case]
    pipeline = PipelineConfig(stopping=(LIMIT,), **values)  # type: ignore[arg-type]
    plain = PipelineConfig(stopping=(LIMIT,))  # type: ignore[arg-type]
    rows = [(Request("Hi"), plain), (bad, pipeline), (Request("How many?"), plain)]
    first, third = batch_pipeline(*shapes, rows[::2]).results or []
    for batch_size in (1, 3):
        response = batch_pipeline(*shapes, rows, batch_size=batch_size)
        one, refused, other = response.results or []
        assert [one.token_ids, other.token_ids] == [first.token_ids, third.token_ids]
        assert (refused.finish_reason, refused.token_ids, refused.text) == ("error", [], "")
        with pytest.raises(VlmkitError, match=f"^row 1: {message}"):
            raise VlmkitError(refused.error or "")
        assert "\n" not in (refused.error or "")
        assert refused.effective is not None
        assert refused.effective["pipeline"]["stopping"] == [LIMIT]
        assert response.stats.prompt_tokens == first.prompt_tokens + third.prompt_tokens
    with pytest.raises(VlmkitError, match=f"^{message}"):
        list(stream_pipeline(*shapes, bad, pipeline))


def test_equal_rows_each_end_and_samples_are_numbered_without_them(shapes: Loaded) -> None:
    prompts = ["Hi", "", "Hi", "", "Hi"]
    options: dict[str, Any] = {"max_tokens": 3, "temperature": 2.0, "seed": 7}
    results = batch_generate(*shapes, prompts=prompts, batch_size=2, **options).results or []
    for sample, result in enumerate(results[::2]):
        assert result.token_ids == generate(*shapes, "Hi", sample=sample, **options).token_ids
    assert [result.error for result in results[1::2]] == [
        f"row {row}: prompt: it has no tokens; give at least one character" for row in (1, 3)
    ]


def test_sizes_are_those_of_the_images_that_were_read(shapes: Loaded) -> None:
    images = [Image.new("RGB", (56, 84)), "none.png", Image.new("RGB", (112, 56))]
    prompts = ["<|image_pad|>?"] * 3
    response = batch_generate(*shapes, prompts=prompts, images=images, max_tokens=1)
    assert response.image_sizes == [(84, 56), (56, 112)]
    assert [result.finish_reason for result in response.results or []][1] == "error"


class Refusing:
    """A processor whose tokenizer breaks at one text."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def encode(self, text: str) -> list[int]:
        if text == "break":
            raise ZeroDivisionError
        return list(self.processor.encode(text))


def test_what_a_processor_raises_ends_the_row_too(shapes: Loaded) -> None:
    refusing: Any = Refusing(shapes[1])
    results = batch_generate(shapes[0], refusing, prompts=["Hi", "break"], max_tokens=2).results
    assert [result.error for result in results or []] == [None, "row 1: ZeroDivisionError"]
    with pytest.raises(ZeroDivisionError):
        generate(shapes[0], refusing, "break")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [None, 5]}, "row 1: an image of type int cannot be read"),
        ({"images": [None, [["a.png"]]]}, "row 1: a list of 1 images stands"),
        ({"audios": [None, "speech.wav"]}, "row 1: .*the qwen2_vl family takes no audio"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_before_anything_runs(
    shapes: Loaded, arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmkit.batch.run_requests", lambda *_, **__: pytest.fail("a row ran"))
    with pytest.raises(VlmkitError, match=f"^{message}"):
        batch_generate(*shapes, prompts=["Hi", "?"], **arguments)
