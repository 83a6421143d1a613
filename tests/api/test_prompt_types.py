"""What callers really give as a prompt or an image: used, or refused in one line."""

from __future__ import annotations

import array
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from vlmkit import VlmkitError, batch_generate, generate, stream_generate
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request
from vlmkit.pipeline import PipelineConfig

Loaded = tuple[Any, Any]
USER = {"role": "user", "content": "How many?"}
BRIEF = PipelineConfig(stopping=[{"kind": "max_tokens", "max_tokens": 2}])

WRONG: list[tuple[Any, tuple[str, ...]]] = [
    (None, ("None", "apply_chat_template")),
    (b"abc", ("bytes", "str(data, 'utf-8')")),
    (bytearray(b"abc"), ("bytearray",)),
    (memoryview(b"abc"), ("memoryview",)),
    (7, ("of type int",)),
    (1.5, ("of type float",)),
    (True, ("of type bool",)),
    (Path("prompt.txt"), ("Path", "apply_chat_template")),
    ({1, 2}, ("of type set",)),
    (iter([1, 2]), ("iterator",)),
    (USER, ("a message", "apply_chat_template(processor, model.config, messages)")),
    ([USER], ("a list of messages", "apply_chat_template")),
    (["How many?"], ("a list of strings", "batch_generate")),
    (["12", "13"], ("a list of strings",)),
    ([12.7], ("12.7 at position 0 is no token id",)),
    ([12, None], ("None at position 1",)),
    ([12, True], ("True at position 1",)),
    (np.array([1.0, 2.0]), ("1.0 at position 0",)),
    ([[1, 2]], ("[1, 2] at position 0",)),
    (np.array(5), ("of type int",)),
]


def entry_points(shapes: Loaded) -> dict[str, Callable[[Any], Any]]:
    return {
        "generate": lambda prompt: generate(*shapes, prompt, max_tokens=2, verbose=True),
        "stream_generate": lambda prompt: stream_generate(*shapes, prompt, max_tokens=2),
        "batch_generate": lambda prompt: batch_generate(*shapes, prompts=["Hi", prompt]),
        "stream_pipeline": lambda prompt: stream_pipeline(*shapes, Request(prompt), BRIEF),
        "batch_pipeline": lambda prompt: batch_pipeline(*shapes, [(Request(prompt), BRIEF)]),
    }


@pytest.mark.parametrize(("prompt", "words"), WRONG)
def test_a_wrong_prompt_is_refused_everywhere(
    shapes: Loaded, prompt: Any, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, call in entry_points(shapes).items():
        with pytest.raises(VlmkitError) as caught:
            call(prompt)
        message = str(caught.value)
        assert all(word in message for word in words), (name, message)
        assert message.partition(":")[0] in ("prompt", "prompts[1]", "row 0"), (name, message)
        assert "\n" not in message
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "form", [list, tuple, np.array, lambda ids: np.array(ids, np.uint16), mx.array]
)
def test_token_ids_are_a_prompt(shapes: Loaded, form: Callable[[list[int]], Any]) -> None:
    ids = shapes[1].encode("How many circles are there?")
    expected = generate(*shapes, "How many circles are there?", max_tokens=2).text
    assert generate(*shapes, form(ids), max_tokens=2).text == expected
    assert batch_generate(*shapes, prompts=[form(ids)], max_tokens=2).texts == [expected]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, "needs prompts"),
        (b"abc", r"prompts\[0\]: bytes"),
        (USER, r"prompts\[0\]: a message"),
        (7, r"prompts\[0\]: of type int"),
        ([1, 2], r"prompts\[0\]: of type int"),
        (["Hi", [USER]], r"prompts\[1\]: a list of messages"),
    ],
)
def test_wrong_lists_of_prompts(shapes: Loaded, prompts: Any, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        batch_generate(*shapes, prompts=prompts)


def test_a_prompt_in_place_of_a_request(shapes: Loaded) -> None:
    for call, message in (
        (lambda: stream_pipeline(*shapes, "Hi", BRIEF), r"^request: str given; .*Request\(prompt"),
        (lambda: batch_pipeline(*shapes, [("Hi", BRIEF)]), "^row 0: request: str given"),
        (lambda: batch_pipeline(*shapes, [Request("Hi")]), "^row 0: needs a pair"),
        (lambda: batch_pipeline(*shapes, ["Hi"]), "^row 0: needs a pair"),
    ):
        with pytest.raises(VlmkitError, match=message):
            call()


def test_thinking_cannot_be_switched_in_token_ids(shapes: Loaded) -> None:
    with pytest.raises(VlmkitError, match="enable_thinking: the prompt is token ids"):
        generate(*shapes, [5], enable_thinking=True)


@pytest.mark.parametrize(
    "form",
    [
        bytes,
        bytearray,
        memoryview,
        lambda raw: memoryview(raw + raw)[: len(raw)],
        lambda raw: memoryview(bytes(byte for b in raw for byte in (b, 0)))[::2],
    ],
)
def test_an_image_in_memory_is_one_image(
    shapes: Loaded,
    sample_images: list[Path],
    ask: Callable[..., str],
    form: Callable[[bytes], Any],
) -> None:
    path, prompt = sample_images[0], ask("How many objects are there?")
    image = form(path.read_bytes())
    expected = generate(*shapes, prompt, image=str(path), max_tokens=4)
    assert generate(*shapes, prompt, image=image, max_tokens=4).text == expected.text
    assert generate(*shapes, prompt, image=[image], max_tokens=4).text == expected.text
    assert generate(*shapes, prompt, image=(image,), max_tokens=4).text == expected.text
    for images in (image, [image], [[image]]):
        found = batch_generate(*shapes, images=images, prompts=[prompt], max_tokens=4)
        assert (found.texts, found.image_sizes) == ([expected.text], [(112, 112)])
    request = Request(prompt, image)
    assert next(stream_pipeline(*shapes, request, BRIEF)).prompt_tokens == expected.prompt_tokens
    assert batch_pipeline(*shapes, [(request, BRIEF)]).image_sizes == [(112, 112)]


def test_two_images_in_memory(
    shapes: Loaded, sample_images: list[Path], ask: Callable[..., str]
) -> None:
    raws = [bytearray(path.read_bytes()) for path in sample_images[:2]]
    prompt = ask("How many objects are there?", num_images=2)
    paths = [str(path) for path in sample_images[:2]]
    expected = generate(*shapes, prompt, image=paths, max_tokens=4).text
    assert generate(*shapes, prompt, image=raws, max_tokens=4).text == expected
    found = batch_generate(*shapes, images=[raws, paths], prompts=[prompt] * 2, max_tokens=4)
    assert found.texts == [expected] * 2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([["a.png", "b.png"]], "a list of 2 images stands where one image should"),
        ([()], "a list of 0 images"),
        (array.array("B", b"abc"), "an image of type array cannot be read"),
        (np.zeros((4, 4, 3), np.uint8), "of type ndarray .*PIL.Image.fromarray"),
    ],
)
def test_what_is_of_no_type_of_image(
    shapes: Loaded, ask: Callable[..., str], image: Any, message: str
) -> None:
    prompt = ask("How many objects are there?")
    for call in (
        lambda: generate(*shapes, prompt, image=image),
        lambda: batch_generate(*shapes, prompts=[prompt], images=[image]),
        lambda: stream_pipeline(*shapes, Request(prompt, image), BRIEF),
        lambda: batch_pipeline(*shapes, [(Request(prompt, image), BRIEF)]),
    ):
        with pytest.raises(VlmkitError, match=message):
            call()


@pytest.mark.parametrize(
    ("prompt", "image", "message"),
    [
        (None, bytearray(b"abc"), r"image in memory \(3 bytes\): not an image"),
        (None, memoryview(bytearray(16)).cast("I"), r"image in memory \(16 bytes\)"),
        ([], None, "prompt: it has no tokens"),
        ("", None, "prompt: it has no tokens"),
    ],
)
def test_what_nothing_can_be_read_from(
    shapes: Loaded, ask: Callable[..., str], prompt: Any, image: Any, message: str
) -> None:
    prompt = ask("How many objects are there?") if prompt is None else prompt
    for single in (
        lambda: generate(*shapes, prompt, image=image),
        lambda: stream_pipeline(*shapes, Request(prompt, image), BRIEF),
    ):
        with pytest.raises(VlmkitError, match=f"^{message}"):
            single()
    for response in (
        batch_generate(*shapes, prompts=[prompt], images=[image]),
        batch_pipeline(*shapes, [(Request(prompt, image), BRIEF)]),
    ):
        [result] = response.results or []
        assert result.finish_reason == "error"
        assert re.match(f"row 0: {message}", result.error or "")
