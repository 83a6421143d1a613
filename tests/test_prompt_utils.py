from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processors.tiny import SHAPES, change_json, copy_shapes, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor, load_processor
from vlmkit.prompt_utils import apply_chat_template, with_thinking

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
IMAGE = {"type": "image"}
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
PLAIN += "{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.fixture(scope="module")
def shapes() -> Processor:
    return load_processor(SHAPES)


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(write_text_only(tmp_path_factory.mktemp("text") / "c", PLAIN))


def user(content: str) -> str:
    return f"<|im_start|>user\n{content}<|im_end|>\n"


START = "<|im_start|>assistant\n<think>"


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("prompt", "options", "expected"),
    [
        ("Hi", {}, user("Hi") + START + "</think>"),
        ("Hi", {"enable_thinking": True}, user("Hi") + START),
        ("Hi", {"add_generation_prompt": False}, user("Hi")),
        ("Hi", {"num_images": 2}, user(PLACE * 2 + "Hi") + START + "</think>"),
        (
            {"role": "user", "content": "Hi"},
            {"num_images": 1},
            user(PLACE + "Hi") + START + "</think>",
        ),
        (
            ["a", {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            {"num_images": 1, "add_generation_prompt": False},
            user("a") + "<|im_start|>assistant\nb<|im_end|>\n" + user(PLACE + "c"),
        ),
        (
            [
                {"role": "user", "content": [text("a"), IMAGE, text("b")]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            ],
            {"add_generation_prompt": False, "num_images": 3},
            user("a" + PLACE + "b") + user(PLACE * 2),
        ),
    ],
)
def test_the_embedded_template(
    shapes: Processor, prompt: Any, options: dict[str, Any], expected: str
) -> None:
    for config in (None, {"model_type": "qwen2_vl"}):
        assert apply_chat_template(shapes, config, prompt, **options) == expected


def test_positional_arguments_as_on_the_page(shapes: Processor) -> None:
    assert apply_chat_template(shapes, None, "Hi", False, False, 1) == user(PLACE + "Hi")


def test_messages_are_returned_with_their_images(shapes: Processor, text_only: Processor) -> None:
    found = apply_chat_template(shapes, None, "Hi", return_messages=True, num_images=1)
    assert found == [{"role": "user", "content": [IMAGE, text("Hi")]}]
    parts = [{"role": "user", "content": [text("a"), text("b")]}]
    found = apply_chat_template(text_only, None, parts, return_messages=True)
    assert found == [{"role": "user", "content": "a b"}]


def test_messages_of_the_caller_are_left_alone(shapes: Processor) -> None:
    messages = [{"role": "user", "content": [text("a")]}]
    apply_chat_template(shapes, None, messages, num_images=2)
    assert messages == [{"role": "user", "content": [text("a")]}]


def test_tool_messages_pass_unchanged(text_only: Processor) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    answer = {"role": "tool", "content": "4", "tool_call_id": "1"}
    found = apply_chat_template(text_only, None, ["q", call, answer], return_messages=True)
    assert found[1:] == [call, answer]


def test_template_kwargs_and_another_template(text_only: Processor) -> None:
    source = "{{ messages[0].content }}{{ bos_token }}{{ mood }}"
    found = apply_chat_template(
        text_only, None, "Hi", chat_template=source, template_kwargs={"mood": "!"}
    )
    assert found == "Hi<s>!"


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("Hi", {"num_image": 1}, "unknown keyword 'num_image'; did you mean 'num_images'"),
        ("Hi", {"video": "a.mp4"}, "unknown keyword 'video'"),
        ("Hi", {"num_audios": 1}, "the qwen2_vl family takes no audio"),
        ("Hi", {"num_images": -1}, "num_images=-1"),
        ("Hi", {"template_kwargs": {"moods": 1}}, "does not read 'moods'; did|does not read"),
        ([], {}, "an empty list of messages"),
        (["a", 3], {}, "message 1 needs the form"),
        ({"content": "a"}, {}, "message 0 needs the form"),
        ({"role": "user", "content": 3}, {}, "content of message 0"),
        ({"role": "user", "content": [{"type": "mesh"}]}, {}, "part of type 'mesh'; supported"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, {}, "takes no audio"),
        ({"role": "system", "content": "x"}, {"num_images": 1}, "no user message to place"),
        ({"role": "user", "content": [IMAGE] * 3}, {"num_images": 2}, "num_images=2, .* mention 3"),
        ("Hi", {"chat_template": PLAIN.replace("content", "role"), "num_images": 1}, "renders 0"),
    ],
)
def test_refused(shapes: Processor, prompt: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        apply_chat_template(shapes, None, prompt, **options)
    assert "\n" not in str(caught.value)


def test_text_only_models(text_only: Processor) -> None:
    assert apply_chat_template(text_only, None, "Hi") == "[user]Hi[assistant]"
    with pytest.raises(VlmkitError, match="the llama family takes no images"):
        apply_chat_template(text_only, None, "Hi", num_images=1)
    with pytest.raises(VlmkitError, match="has no switch for it"):
        apply_chat_template(text_only, None, "Hi", enable_thinking=True)


def test_no_template(tmp_path: Path) -> None:
    bare = load_processor(write_text_only(tmp_path))
    with pytest.raises(VlmkitError, match="no chat template"):
        apply_chat_template(bare, None, "Hi")
    with pytest.raises(VlmkitError, match="no chat template to say how"):
        with_thinking(bare, "Hi")


@pytest.mark.parametrize("name", ["thinking", "enable_thinking"])
def test_other_names_of_the_thinking_switch(tmp_path: Path, name: str) -> None:
    source = "{% if " + name + " %}on{% else %}off{% endif %}"
    processor = load_processor(write_text_only(tmp_path, source))
    assert apply_chat_template(processor, None, "Hi", enable_thinking=True) == "on"
    assert apply_chat_template(processor, None, "Hi") == "off"
    found = apply_chat_template(processor, None, "Hi", template_kwargs={name: True})
    assert found == "on"


def test_with_thinking_switches_a_formatted_prompt(shapes: Processor) -> None:
    off = apply_chat_template(shapes, None, "Hi", num_images=1)
    on = apply_chat_template(shapes, None, "Hi", num_images=1, enable_thinking=True)
    assert with_thinking(shapes, off) == on
    assert with_thinking(shapes, on) == on
    with pytest.raises(VlmkitError, match="does not end where the assistant's turn begins"):
        with_thinking(shapes, "Hi")


def test_with_thinking_where_off_is_longer_or_elsewhere(tmp_path: Path) -> None:
    folder = copy_shapes(tmp_path / "c")
    for name in ("chat_template.json", "chat_template.jinja"):
        (folder / name).unlink()
    tail = (
        "{% if add_generation_prompt %}A:{% if not enable_thinking %}<x></x>{% endif %}{% endif %}"
    )
    change_json(folder / "tokenizer_config.json", chat_template="Q" + tail)
    assert with_thinking(load_processor(folder), "QA:<x></x>") == "QA:"
    assert with_thinking(load_processor(folder), "QA:") == "QA:"
    head = "{% if enable_thinking %}think{% endif %}Q{% if add_generation_prompt %}A:{% endif %}"
    change_json(folder / "tokenizer_config.json", chat_template=head)
    with pytest.raises(VlmkitError, match="does not switch it at the assistant's turn"):
        with_thinking(load_processor(folder), "QA:")
