"""A prompt that ends inside the last message equals transformers' ``continue_final_message``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processors.tiny import SHAPES, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor, load_processor
from vlmkit.processors.literal import unmark
from vlmkit.prompt_utils import apply_chat_template

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}"
TRIMMED = PLAIN.replace("m.content", "m.content | trim")
PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}|{% endfor %}{% endif %}</s>{% endfor %}"
)
# Moves thinking out of the content, and shows a block also where there was none.
BLOCKS = """{% for m in messages %}<{{ m.role }}>
{% if m.role == 'assistant' %}
{% set content, thinking = m.content or '', m.reasoning_content or '' %}
{% if '</think>' in content %}
{% set thinking = content.split('</think>')[0].split('<think>')[-1] %}
{% set content = content.split('</think>')[-1] %}
{% endif %}
{{- '<think>\\n' + thinking.strip('\\n') + '\\n</think>\\n\\n' + content }}
{%- else %}{{- m.content }}{% endif %}</s>
{% endfor %}"""
DROPPED = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}</s>{% endfor %}"
)
HIDDEN = PLAIN.replace("m.content", "(m.content or '') ~ (m.thinking or '')[:0]")
SHOUTED = PLAIN.replace("m.content", "m.content | upper")
QUESTION = {"role": "user", "content": "How many?"}


def answer(content: Any, **more: Any) -> list[dict[str, Any]]:
    return [QUESTION, {"role": "assistant", "content": content, **more}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    sources = {"plain": PLAIN, "trimmed": TRIMMED, "parts": PARTS, "blocks": BLOCKS}
    root = tmp_path_factory.mktemp("templates")
    return {"shapes": SHAPES} | {
        name: write_text_only(root / name, source) for name, source in sources.items()
    }


@pytest.mark.parametrize(
    ("name", "chat", "field"),
    [
        ("shapes", answer("There are"), True),
        ("shapes", answer("There are \n"), True),
        ("shapes", answer("<think>a3 1"), True),
        ("shapes", answer("<think>a3</think>4"), True),
        (
            "shapes",
            answer([{"type": "text", "text": "There"}, {"type": "text", "text": " a"}]),
            True,
        ),
        ("plain", answer(" There are "), True),
        ("plain", answer("<think>\nhm"), True),
        ("plain", [QUESTION, *answer("a"), *answer("a b</s>c")], True),
        ("trimmed", answer(" There are "), True),
        ("trimmed", answer("a\n"), True),
        ("parts", answer([{"type": "text", "text": "a"}, {"type": "text", "text": "b "}]), True),
        ("blocks", answer("There are"), True),
        ("blocks", answer("There are", reasoning_content="I count"), True),
        ("blocks", answer(None, reasoning_content="I count"), "reasoning_content"),
        ("blocks", answer(None, thinking="I count "), "thinking"),
        ("blocks", answer("", reasoning="I count"), "reasoning"),
    ],
)
def test_equals_transformers(
    folders: dict[str, Path], name: str, chat: list[dict[str, Any]], field: bool | str
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(folders[name]))
    expected = theirs.apply_chat_template(chat, tokenize=False, continue_final_message=field)
    ours = load_processor(folders[name])
    before = str(chat)
    assert ours.apply_chat_template(chat, continue_final_message=True) == expected
    assert str(chat) == before
    if not isinstance(chat[-1]["content"], list):
        marked = apply_chat_template(ours, None, chat, continue_final_message=True)
        assert unmark(marked) == expected


@pytest.mark.parametrize(
    "begun", ["<think>", "<think>\nI count", "<think>a</think>", "<think>a</think>\n4 "]
)
def test_thinking_stays_as_written(folders: dict[str, Path], begun: str) -> None:
    """The template would move the block, or put an empty one in front of it."""
    processor = load_processor(folders["blocks"])
    text = apply_chat_template(processor, None, answer(begun), continue_final_message=True)
    assert text == "<user>\nHow many?</s>\n<assistant>\n" + begun
    for source in (DROPPED, TRIMMED):
        text = apply_chat_template(
            processor, None, answer(begun), continue_final_message=True, chat_template=source
        )
        assert text.endswith("<assistant>" + begun)


def test_images_stay_with_the_question() -> None:
    chat = answer("There are")
    text = apply_chat_template(
        load_processor(SHAPES), None, chat, num_images=1, continue_final_message=True
    )
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == (
        f"<|im_start|>user\n{place}How many?<|im_end|>\n<|im_start|>assistant\nThere are"
    )


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("How many?", {}, "the last message is of role 'user'; end with {'role': 'assistant'"),
        ([QUESTION], {}, "the last message is of role 'user'"),
        (answer(""), {}, "does not end in text to go on from; leave it out"),
        (answer(" \n"), {}, "does not end in text to go on from"),
        (answer(None), {}, "does not end in text to go on from"),
        (answer([{"type": "text", "text": "a"}, {"type": "image"}]), {}, "does not end in text"),
        (answer(None, tool_calls=[{"function": {"name": "f"}}]), {}, "does not end in text"),
        (answer("I see</think>4"), {}, "closes a thinking block that it does not open; begin it"),
        (answer("four"), {"chat_template": SHOUTED}, "(chat_template=) does not show the content"),
        (answer("four"), {"chat_template": "{{ bos_token }}"}, "does not show the content of the"),
        (answer(None, thinking="hm"), {"chat_template": HIDDEN}, "does not show the reasoning of"),
        (answer("a"), {"return_messages": True}, "return_messages gives no text; leave one out"),
    ],
)
def test_refused(prompt: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        apply_chat_template(
            load_processor(SHAPES), None, prompt, continue_final_message=True, **options
        )
    assert message in str(caught.value)
    assert str(caught.value).startswith("continue_final_message: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["content", 1, None, "no"])
def test_no_boolean(value: Any) -> None:
    with pytest.raises(VlmkitError, match="continue_final_message must be True or False, got"):
        apply_chat_template(load_processor(SHAPES), None, answer("a"), continue_final_message=value)


def test_it_excludes_a_new_turn() -> None:
    processor: Processor = load_processor(SHAPES)
    with pytest.raises(VlmkitError, match="add_generation_prompt would begin another message"):
        processor.apply_chat_template(
            answer("a"), add_generation_prompt=True, continue_final_message=True
        )
