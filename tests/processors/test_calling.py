"""``processor(text=…, images=…)`` gives the ids and arrays of transformers' processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media import patches_of
from tests.processors.tiny import SHAPES, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor, load_processor
from vlmkit.prompt_utils import apply_chat_template

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
RANDOM = np.random.default_rng(0)
WIDE = RANDOM.integers(0, 256, (60, 99, 3), np.uint8)
TALL = Image.fromarray(RANDOM.integers(0, 256, (112, 80, 3), np.uint8))
CLEAR = Image.fromarray(RANDOM.integers(0, 256, (56, 84, 4), np.uint8))


@pytest.fixture(scope="module", params=["native", "transformers"])
def ours(request: pytest.FixtureRequest) -> Processor:
    return load_processor(SHAPES, backend=request.param)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """transformers' processor without its video processor, which needs torchvision."""
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

    class WithoutVideos(Qwen2VLProcessor):
        def __init__(self) -> None:
            self.tokenizer = AutoTokenizer.from_pretrained(str(SHAPES))
            self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(str(SHAPES))
            self.chat_template = None
            for kind in ("image", "video"):
                token = f"<|{kind}_pad|>"
                setattr(self, f"{kind}_token", token)
                setattr(self, f"{kind}_token_id", self.tokenizer.convert_tokens_to_ids(token))

        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    return WithoutVideos()


@pytest.mark.parametrize(
    "arguments",
    [
        {"text": "Hi"},
        {"text": ["Hi", "How many?"], "padding": True},
        {"text": f"{PLACE}Hi", "images": TALL},
        {"text": [f"{PLACE}Hi"], "images": [WIDE]},
        {"text": f"{PLACE}a{PLACE}", "images": [TALL, WIDE]},
        {"text": [f"{PLACE}How many?", f"a{PLACE}{PLACE}"], "images": [[WIDE], [TALL, CLEAR]]},
        {"text": [f"{PLACE}How many?", "Why?"], "images": [WIDE], "padding_side": "left"},
        {"text": PLACE, "images": WIDE.transpose(2, 0, 1)},
        {"text": PLACE, "images": WIDE[:, :, :1]},
        {"text": PLACE * 2, "images": np.stack([WIDE, WIDE[::-1]])},
        {"text": PLACE, "images": Image.new("L", (60, 70), 9)},
        {"text": PLACE, "images": Image.new("P", (60, 70), 9)},
        {"images": [TALL, WIDE]},
        {"text": PLACE, "images": WIDE, "return_attention_mask": False},
    ],
)
def test_equals_transformers(ours: Processor, theirs: Any, arguments: dict[str, Any]) -> None:
    padding = {"padding": True} if isinstance(arguments.get("text"), list) else {}
    expected = theirs(**{**padding, **arguments}, return_tensors="np")
    found = ours(**{**padding, **arguments})
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    lists = ours(**{**padding, **arguments}, return_tensors=None)
    for key, value in theirs(**{**padding, **arguments}, return_tensors=None).items():
        assert type(lists[key]) is type(value), key
        np.testing.assert_array_equal(lists[key], value, err_msg=key)


def test_arrays_of_mlx(ours: Processor) -> None:
    import mlx.core as mx

    arrays = ours(text=PLACE, images=WIDE, return_tensors="mlx")
    expected = ours(text=PLACE, images=WIDE)
    for key, value in arrays.items():
        assert isinstance(value, mx.array)
        np.testing.assert_array_equal(np.array(value), expected[key])
    assert arrays.input_ids.dtype == mx.int32
    assert arrays.pixel_values.dtype == mx.float32


def test_ids_are_those_that_generation_sees(ours: Processor) -> None:
    from vlmkit.preprocess import PreprocessConfig
    from vlmkit.preprocess.request import prepare

    prompt = apply_chat_template(ours, None, "How many?", num_images=1)
    inputs = prepare(ours, prompt, [TALL], config=PreprocessConfig())
    found = ours(text=prompt, images=TALL)
    assert found.input_ids[0].tolist() == inputs.token_ids.tolist()
    np.testing.assert_array_equal(found.pixel_values, patches_of(inputs))


def test_a_text_only_processor(tmp_path: Any) -> None:
    processor = load_processor(write_text_only(tmp_path))
    found = processor(text="hi")
    assert list(found) == ["input_ids", "attention_mask"]
    assert found.input_ids.tolist() == [processor.encode("hi")]
    assert processor.batch_decode(found.input_ids) == ["hi"]
    with pytest.raises(VlmkitError, match="the llama family takes no images"):
        processor(text="hi", images=WIDE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "processor: give text=, images= or both"),
        ({"text": 3}, "text: a string or a list of strings is needed, not int"),
        ({"text": "a", "images": WIDE}, "text: 0 image placeholders .* for 1 images; format it"),
        ({"text": PLACE}, "text: 1 image placeholders .* for 0 images; format it with apply_chat"),
        ({"images": "a.png"}, "images: a string given; prompts are text="),
        ({"images": b"a"}, "images: bytes given; open it with PIL.Image.open"),
        ({"images": WIDE / 255}, "images: an array of float64; give uint8 values from 0 to 255"),
        ({"images": WIDE[:, :, :2]}, r"images: an array of shape \(60, 99, 2\); give \[height"),
        ({"images": WIDE[:0]}, r"images: an array of shape \(0, 99, 3\)"),
        (
            {"text": "a", "videos": [WIDE]},
            "videos: generate takes videos; here give",
        ),
        ({"text": "a", "return_tensors": "pt"}, "return_tensors='pt': 'np' gives numpy arrays"),
        ({"text": ["a", "How many?"]}, "rows of 1 to 3 tokens make no array; set padding=True"),
        ({"text": "a", "image": WIDE}, "image: unknown keyword"),
    ],
)
def test_refused(ours: Processor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        ours(**arguments)
    assert "\n" not in str(caught.value)


def test_the_template_method_gives_text(ours: Processor) -> None:
    chat = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(chat, tokenize=False) == ours.apply_chat_template(chat)
    with pytest.raises(VlmkitError, match=r"tokenize: this gives the text; .* processor\(text="):
        ours.apply_chat_template(chat, tokenize=True)
