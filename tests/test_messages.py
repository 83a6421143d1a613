"""Messages, tools and switches of ``apply_chat_template``: used, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processors.tiny import SHAPES, change_json, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor, load_processor
from vlmkit.prompt_utils import apply_chat_template

USER = {"role": "user", "content": "How many?"}
TOOL = {"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": TOOL["function"]}]}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "a", "name": "count"}
SAID = {"role": "assistant", "content": "4"}

# In the manner of the published templates, much reduced.
WITH_TOOLS = """
{%- if tools %}[tools]{{ tools | tojson }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}[result]{{ m['content'] }}
{%- else %}[{{ m.role }}]{{ m.get('content') or '' }}
{%- for call in m.tool_calls or [] %}[call]{{ call.function.name }}{% endfor %}{% endif %}
{%- endfor %}"""
REASONING = "{% for m in messages %}{{ m.content }}{% if loop.last and m.reasoning_content %}"
REASONING += "({{ m.reasoning_content }}){% endif %}{% endfor %}"
WHOLE = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
FIRST = "{{ messages[0].content }}"


def image(**keys: object) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image", **keys}]}


def words(**keys: object) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", **keys}]}


@pytest.fixture(scope="module")
def shapes() -> Processor:
    return load_processor(SHAPES)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(write_text_only(tmp_path_factory.mktemp("tools") / "c", WITH_TOOLS))


@pytest.mark.parametrize(
    ("prompt", "options", "expected"),
    [
        (
            [USER, CALL, RESULT],
            {"tools": [TOOL]},
            ("[tools]", '"count"', "[call]count", "[result]4"),
        ),
        (
            [USER, RESULT],
            {"chat_template": "{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}"},
            ("How many?4",),
        ),
        ([USER, {**SAID, "tool_calls": [], "refusal": None, "annotations": []}], {}, ("4",)),
        ("How many?", {"tools": []}, ("[user]How many?",)),
        ([USER, {**SAID, "thinking": "hm"}], {"chat_template": REASONING}, ("4(hm)",)),
        ([{**SAID, "reasoning": "hm"}, USER], {"chat_template": REASONING}, ("4How many?",)),
        ({**USER, "mood": "good"}, {"chat_template": WHOLE}, ('"mood": "good"',)),
        (
            {**USER, "mood": "good"},
            {"chat_template": "{{ messages[0].content }}{{ messages[0].mood }}"},
            ("How many?good",),
        ),
        (
            "Hi",
            {"chat_template": "{{ documents[0] }}", "template_kwargs": {"documents": ["d"]}},
            ("d",),
        ),
    ],
)
def test_used_where_the_template_reads_it(
    reader: Processor, prompt: Any, options: dict[str, Any], expected: tuple[str, ...]
) -> None:
    text = apply_chat_template(reader, None, prompt, **options)
    assert all(part in text for part in expected), text


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("Hi", {"tools": [TOOL]}, "^tools: the chat template reads none; leave .* chat_template="),
        ("Hi", {"tools": TOOL}, "^tools: a list of JSON schemas is needed, not of type dict"),
        ("Hi", {"tools": "count"}, "^tools: a list .* type str"),
        ("Hi", {"tools": [print]}, "^tools: entry 0 is of type builtin_function_or_method; give"),
        ([USER, CALL], {}, "message 1: the chat template does not read 'tool_calls'; leave"),
        ([USER, {**SAID, "tool_calls": "count"}], {}, "tool_calls of message 1 must be a list"),
        ([USER, RESULT], {}, "message 1: the chat template does not know the role 'tool'; write"),
        ([USER, SAID], {"chat_template": FIRST}, r"message 1: .* drops it \(role 'assistant'\)"),
        (
            {**USER, "images": ["a.png"]},
            {},
            "message 0: .* read 'images'; .*'image'}, or set num_i",
        ),
        ({**USER, "name": "Ann"}, {}, "message 0: the chat template does not read 'name'"),
        ({"role": "user", "contents": "Hi"}, {}, "'contents'; did you mean 'content'"),
        ({**SAID, "thinking": "hm"}, {}, "does not read 'thinking'"),
        ({**SAID, "reasoning": "hm"}, {}, "does not read 'reasoning'"),
        (image(max_pixels=9), {}, "message 0: a part of type 'image' has no use for 'max_pixels'"),
        (words(text="a", txt="b"), {}, "no use for 'txt'; did you mean 'text'"),
        (words(txt="b"), {}, "no use for 'txt'"),
        (words(), {}, "a part of text needs 'text', a string"),
        (words(text=3), {}, "a part of text needs 'text', a string"),
        ({"role": "user", "content": 0}, {}, "content of message 0 must be a string or a list"),
        ({"role": "user", "content": b"Hi"}, {}, "content of message 0 must be a string"),
        ({"role": 3, "content": "a"}, {}, "message 0 needs the form"),
        (None, {}, "^prompt: None; give a question, a message, or a list of messages"),
        (b"Hi", {}, "^prompt: of type bytes"),
        (bytearray(b"Hi"), {}, "^prompt: of type bytearray"),
        (7, {}, "^prompt: of type int"),
        (iter([USER]), {}, "^prompt: of type list_iterator"),
        ([5, 7], {}, "^prompt: a list of token ids needs no chat template"),
        ([None], {}, "message 0 needs the form"),
        ([[USER]], {}, "message 0 needs the form"),
        ("Hi", {"num_images": ["a.png"]}, "^num_images: list given; it takes their number"),
        ("Hi", {"num_images": bytearray(b"ab")}, "^num_images: bytearray given"),
        ("Hi", {"num_images": "1"}, "^num_images: str given"),
        ("Hi", {"num_images": 1.0}, "^num_images must be a whole number, got 1.0"),
        ("Hi", {"num_images": True}, "^num_images must be a whole number, got True"),
        ("Hi", {"num_images": None}, "^num_images must be a whole number, got None"),
        ("Hi", {"enable_thinking": "no"}, "^enable_thinking must be True or False, got 'no'"),
        ("Hi", {"enable_thinking": None}, "^enable_thinking must be True or False, got None"),
        ("Hi", {"enable_thinking": 1}, "^enable_thinking must be True or False, got 1"),
        ("Hi", {"add_generation_prompt": 1}, "^add_generation_prompt must be True or False"),
        ("Hi", {"return_messages": "no"}, "^return_messages must be True or False"),
        (
            "Hi",
            {"template_kwargs": {"enable_thinking": "no"}},
            "^enable_thinking must be True or False, got 'no'",
        ),
        ("Hi", {"template_kwargs": {"tools": []}}, "^template_kwargs: 'tools' has an argument"),
        ("Hi", {"template_kwargs": [1]}, "^template_kwargs: a dict is needed, got list"),
        ("Hi", {"chat_template": b"x"}, "^chat_template: bytes; give its Jinja source"),
        ("Hi", {"return_messages": True, "tools": [TOOL]}, "^tools: return_messages=True returns"),
        ("Hi", {"return_messages": True, "enable_thinking": True}, "^enable_thinking: return_mess"),
    ],
)
def test_refused_by_name(
    shapes: Processor, prompt: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        apply_chat_template(shapes, None, prompt, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "options", "message"),
    [
        ("Hi", {}, "^messages: a list of messages is needed, not of type str"),
        (None, {}, "^messages: a list of messages is needed, not None"),
        (["Hi"], {}, "^message 0 is of type str"),
        ([USER], {"enable_thinking": "no"}, "^enable_thinking must be True or False"),
        ([USER], {"add_generation_prompt": 1}, "^add_generation_prompt must be True"),
        ([USER], {"tools": [TOOL]}, "^tools: the chat template reads none"),
        ([USER], {"chat_template": 3}, "^chat_template: int"),
        ([{**USER, "images": []}, {**USER, "images": ["a"]}], {}, "message 1: .* 'images'"),
    ],
)
def test_the_processors_own_method(
    shapes: Processor, messages: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(VlmkitError, match=message):
        shapes.apply_chat_template(messages, **options)


def test_a_template_without_contents_is_left_alone(tmp_path: Path) -> None:
    processor = load_processor(write_text_only(tmp_path, "{{ messages | length }}"))
    assert apply_chat_template(processor, None, [USER, SAID]) == "2"


def test_a_missing_key_is_told_in_plain_words(shapes: Processor) -> None:
    source = "{{ messages[0].mood + 'x' }}"
    with pytest.raises(VlmkitError, match="these messages: 'message' has no attribute 'mood'"):
        apply_chat_template(shapes, None, "Hi", chat_template=source)


@pytest.mark.parametrize("place", ["list", "folder"])
def test_the_checkpoints_template_for_tools(tmp_path: Path, place: str) -> None:
    """Its own template is used where tools are given, as transformers does."""
    from transformers import AutoTokenizer

    folder = write_text_only(tmp_path / "c")
    plain = "{% for m in messages %}{{ m.content }}{% endfor %}"
    named = [{"name": "default", "template": plain}]
    if place == "list":
        named.append({"name": "tool_use", "template": WITH_TOOLS})
        change_json(folder / "tokenizer_config.json", chat_template=named)
    else:
        (folder / "chat_template.jinja").write_text(plain)
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(WITH_TOOLS)
    processor, theirs = load_processor(folder), AutoTokenizer.from_pretrained(str(folder))
    for tools in (None, [], [TOOL]):
        expected = theirs.apply_chat_template([USER], tools=tools, tokenize=False)
        found = apply_chat_template(
            processor, None, [USER], tools=tools, add_generation_prompt=False
        )
        assert found == expected
    assert "[call]count" in apply_chat_template(processor, None, [USER, CALL], tools=[TOOL])
    with pytest.raises(VlmkitError, match="does not read 'tool_calls'"):
        apply_chat_template(processor, None, [USER, CALL])
