"""Any value as a prompt, a message, a tool or an image: used, or a VlmkitError of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from vlmkit import VlmkitError, batch_generate, load, stream_generate
from vlmkit.prompt_utils import apply_chat_template

MODEL, PROCESSOR = load("shapes")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 700),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(["user", "tool", "assistant", "<|image_pad|>", "<|im_end|>"]),
)
KEYS = ["role", "content", "type", "text", "image", "tool_calls", "function", "name", "images"]
json = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), scalars), inner, max_size=3),
    ),
    max_leaves=8,
)
json_keys = st.one_of(st.just({}), st.dictionaries(scalars, scalars, max_size=1))
part = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "image_url", 3])},
    optional={"text": json, "content": json, "image": json, "min_pixels": json},
)
message = st.fixed_dictionaries(
    {"role": st.one_of(st.sampled_from(["user", "assistant", "system", "tool"]), json)},
    optional={
        "content": st.one_of(json, st.lists(part, max_size=3)),
        "tool_calls": json,
        "thinking": json,
        "name": json,
    },
).flatmap(lambda known: json_keys.map(lambda more: {**more, **known}))
chats = st.one_of(json, message, st.lists(st.one_of(message, json), max_size=3))


def check(call: Callable[[], Any]) -> None:
    message = ""
    try:
        call()
    except VlmkitError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 400


@settings(max_examples=scaled(300))
@given(chat=chats, tools=st.one_of(st.none(), json), num_images=st.one_of(st.just(0), json))
def test_any_messages(chat: Any, tools: Any, num_images: Any) -> None:
    check(lambda: apply_chat_template(PROCESSOR, None, chat, num_images=num_images, tools=tools))
    check(lambda: apply_chat_template(PROCESSOR, None, chat, return_messages=True))


@settings(max_examples=scaled(150))
@given(options=st.dictionaries(st.sampled_from(["chat_template", "template_kwargs"]), json))
def test_any_template(options: dict[str, Any]) -> None:
    check(lambda: apply_chat_template(PROCESSOR, None, "Hi", **options))


@settings(max_examples=scaled(200))
@given(prompt=st.one_of(json, chats), image=st.one_of(st.none(), json))
def test_any_prompt_and_image(prompt: Any, image: Any) -> None:
    check(lambda: stream_generate(MODEL, PROCESSOR, prompt, image=image, max_tokens=1))


@pytest.mark.parametrize("name", ["prompts", "images", "audios"])
@settings(max_examples=scaled(60))
@given(value=json)
def test_any_batch(name: str, value: Any) -> None:
    options = {"prompts": ["Hi"], name: value}
    check(lambda: batch_generate(MODEL, PROCESSOR, max_tokens=0, **options))
