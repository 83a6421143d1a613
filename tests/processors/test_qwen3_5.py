"""The processor of Qwen3.5: images as published, a template that opens the thinking itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.loading.qwen3_5 import IMAGES, write_qwen3_5
from vlmkit import apply_chat_template, generate, load
from vlmkit.processors import load_processor

# The switch works the other way round than a template's that has the model open its thinking.
TEMPLATE = """\
{%- macro said(content) %}
    {%- if content is string %}{{- content }}{%- else %}
        {%- for part in content %}
            {%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- else %}{{- part.text }}{%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + said(message.content) | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
USER = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_qwen3_5(tmp_path_factory.mktemp("qwen3_5"))
    (made / "chat_template.json").unlink()
    (made / "chat_template.jinja").write_text(TEMPLATE)
    return made


@pytest.mark.parametrize("backend", ["native", "transformers"])
def test_images_are_those_of_transformers(backend: Any, folder: Path) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    rng = np.random.default_rng(0)
    sizes = ((5, 7), (90, 60), (33, 41))
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]
    theirs = Qwen2VLImageProcessorPil(**IMAGES)(images=images, return_tensors="np")
    processor = load_processor(folder, backend=backend)
    patches, grids = processor.process_images(images)
    np.testing.assert_array_equal(patches, theirs["pixel_values"])
    np.testing.assert_array_equal(np.array(grids), theirs["image_grid_thw"])
    assert (processor.image_token_id, processor.merge_size) == (631, 2)


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        (True, f"{USER}<|im_start|>assistant\n<think>\n"),
        (False, f"{USER}<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    ],
)
def test_thinking_is_opened_by_the_template(thinking: bool, expected: str, folder: Path) -> None:
    processor = load_processor(folder)
    text = apply_chat_template(processor, None, "How many?", num_images=1, enable_thinking=thinking)
    assert text == expected


def test_a_thinking_budget_ends_what_the_template_opened(folder: Path) -> None:
    model, processor = load(str(folder))
    image = Image.new("RGB", (40, 24), "red")
    prompts = {
        thinking: apply_chat_template(
            processor, model.config, "How many?", num_images=1, enable_thinking=thinking
        )
        for thinking in (True, False)
    }
    common: dict[str, Any] = {"image": image, "max_tokens": 8, "thinking_budget": 3}
    opened = generate(model, processor, prompts[True], enable_thinking=True, **common)
    (end,) = processor.encode("</think>")
    assert end in opened.token_ids[:5]
    assert opened.forced[opened.token_ids.index(end)]
    closed = generate(model, processor, prompts[False], **common)
    assert not any(closed.forced)
    # Switched on where the text is generated, the prompt is the one that was formatted so.
    switched = generate(model, processor, prompts[False], enable_thinking=True, **common)
    assert switched.token_ids == opened.token_ids
