"""Rendering equals transformers' ``apply_chat_template`` on the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processors.tiny import SHAPES, change_json, copy_shapes, write_text_only
from vlmkit.errors import VlmkitError
from vlmkit.processors import load_processor
from vlmkit.processors.chat_template import render_chat_template, template_variables

FEATURES = """
{%- set ns = namespace(count=0) -%}
{{ bos_token }}{%- if tools %}{{ tools | tojson }}{% endif %}
{% for message in messages %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- if message.role == 'skip' %}{% continue %}{% endif %}
    {%- set ns.count = ns.count + 1 %}
    {% if message.role == 'bad' %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
[{{ message.role }}] {{ message.reasoning_content | default('-') }}
    {% generation %}
{{ message.content | trim }}{{ eos_token }}
    {% endgeneration %}
{% endfor %}
{{ ns.count }} {{ strftime_now('%Y') | length }} {{ 'en' if enable_thinking is defined }}
{%- if add_generation_prompt %}[assistant]{% endif %}
"""
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": " <b>hé</b> "}],
    [{"role": "system", "content": "s"}, {"role": "skip"}, {"role": "stop"}, {"role": "user"}],
    [{"role": "assistant", "content": "a", "thinking": "hm"}, {"role": "user", "content": "b"}],
    [{"role": "assistant", "content": "a", "reasoning": "hm", "tool_calls": None}],
]
TOOLS = [{"type": "function", "function": {"name": "f<>", "parameters": {"é": 1}}}]


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_only(tmp_path_factory.mktemp("features") / "c", FEATURES)


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("generation", [True, False])
def test_equals_transformers(featured: Path, tools: Any, generation: bool) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(featured))
    ours = load_processor(featured)
    for chat in CHATS:
        for thinking in (None, True, False):
            extra = {} if thinking is None else {"enable_thinking": thinking}
            expected = theirs.apply_chat_template(
                chat, tools=tools, add_generation_prompt=generation, tokenize=False, **extra
            )
            assert expected == ours.apply_chat_template(
                chat, tools=tools, add_generation_prompt=generation, enable_thinking=thinking
            )


def test_equals_transformers_on_the_embedded_checkpoint() -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(SHAPES))
    ours = load_processor(SHAPES)
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": "c"}]
    for thinking in (True, False):
        expected = theirs.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=False, enable_thinking=thinking
        )
        assert expected == ours.apply_chat_template(
            chat, add_generation_prompt=True, enable_thinking=thinking
        )


def test_refusals_of_a_template_are_told(featured: Path) -> None:
    with pytest.raises(VlmkitError, match="refuses these messages: roles must alternate"):
        load_processor(featured).apply_chat_template([{"role": "bad", "content": ""}])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", "chat template, line 1"),
        ("{{ messages[0].x.y }}", "refuses"),
        ("{{ messages.append(1) }}", "refuses"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),
        ("{% set n = namespace(_a=1) %}", "refuses"),
        ("{% set n = namespace() %}{% set n._a = 1 %}", "refuses"),
        ("{{ 1 / 0 }}", "line 1: the chat template fails: ZeroDivisionError: division by zero"),
    ],
)
def test_broken_and_hostile_templates(source: str, message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        render_chat_template(source, [{"role": "user"}], add_generation_prompt=False)


def test_templates_see_plain_values_only() -> None:
    class Rich:
        def danger(self) -> str:
            raise AssertionError

    chat = [{"role": "user", "content": Rich()}]
    text = render_chat_template("{{ messages[0].content }}", chat, add_generation_prompt=False)
    assert text == "<Rich>"


def test_variables_of_a_template() -> None:
    found = template_variables(FEATURES)
    assert found == {
        "bos_token",
        "eos_token",
        "tools",
        "messages",
        "add_generation_prompt",
        "enable_thinking",
    }


def test_where_templates_are_searched(tmp_path: Path) -> None:
    """First hit wins, in the order of transformers."""
    folder = copy_shapes(tmp_path / "c")
    change_json(folder / "processor_config.json", chat_template="A")
    change_json(folder / "chat_template.json", chat_template="B")
    (folder / "chat_template.jinja").write_text("C")
    named = [{"name": "tool_use", "template": "-"}, {"name": "default", "template": "D"}]
    change_json(folder / "tokenizer_config.json", chat_template=named)
    found = []
    for name in ("processor_config.json", "chat_template.json", "chat_template.jinja"):
        found.append(load_processor(folder).chat_template)
        (folder / name).unlink()
    found.append(load_processor(folder).chat_template)
    assert found == ["A", "B", "C", "D"]
    change_json(folder / "tokenizer_config.json", chat_template=None)
    bare = load_processor(folder)
    assert bare.chat_template is None
    with pytest.raises(VlmkitError, match="no chat template; pass chat_template="):
        bare.apply_chat_template([{"role": "user", "content": "x"}])
