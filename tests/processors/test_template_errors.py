"""Whatever a chat template does wrong is one line with its file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processors.tiny import SHAPES, change_json, copy_shapes
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor, load_processor
from vlmkit.processors.chat_template import render_chat_template, template_variables
from vlmkit.prompt_utils import apply_chat_template

# Describes types as published tool templates do: what is no known name is taken for a list of
# types, and a text is a list of its characters.
TYPES = """{% macro describe(type) %}
{% if type in ['string', 'number'] %}{{ type }}{% else %}
{% for one in type %}{{ describe(one) }}{% endfor %}
{% endif %}
{% endmacro %}
{% for tool in tools %}{{ describe(tool.parameters.type) }}{% endfor %}"""
TOOL = {"name": "f", "parameters": {"type": ["string", "null"]}}
DEEP = "(" * 500 + "1" + ")" * 500

MISTAKES = [
    (
        "{% macro f(x) %}\n{{ f(x) }}\n{% endmacro %}{{ f(1) }}",
        ":2: the chat template calls itself",
    ),
    (
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        ":1: .* calls itself wit",
    ),
    ("\n{{ cycler() }}", ":2: the chat template fails: RuntimeError: at least one item has to be"),
    ("{{ joiner(1, 2, 3) }}", ":1: the chat template fails: TypeError: .* were given$"),
    ("\n\n{{ strftime_now(3) }}", ":3: the chat template fails: TypeError: strftime"),
    (
        "{{ 'x' * 10 ** 18 }}",
        ":1: the chat template asks for more memory than its 1024 MiB$",
    ),
    (
        "{{ '{:>999999999999999999}'.format(1) }}",
        ":1: the chat template asks for more memory than its",
    ),
    ("{{ range(10 ** 9) | list }}", ":1: the chat template fails: OverflowError: Range too big"),
    ("{{ 10 ** 5000 }}", ": the chat template fails: ValueError: Exceeds the limit"),
    (
        "{{ raise_exception('no\nlines') }}",
        ":1: the chat template refuses these messages: no lines",
    ),
    (
        "\n{{ messages[0].x.y }}",
        ":2: the chat template refuses these messages: 'message' has no attr",
    ),
    ("{{ raise_exception('x' * 9000) }}", ":1: the chat template refuses these messages: x{300}…$"),
    ("{% include 'a' %}", ":1: the chat template fails: TypeError: no loader"),
    ("\n{{ 1 | upperr }}", ":2: No filter named 'upperr'"),
    ("\n\n{% endif %}", ":3: Encountered unknown tag 'endif'"),
    ("{{ " + DEEP + " }}", ": the chat template is nested too deeply to be read$"),
    ("{% for a in b %}" * 30 + "{% endfor %}" * 30, ": the chat template cannot be compiled: too "),
    ("{% break %}", ": the chat template cannot be compiled: 'break' outside loop$"),
]


def with_template(folder: Path, source: str) -> Path:
    """The embedded checkpoint without weights, with another template."""
    copy_shapes(folder)
    (folder / "chat_template.json").unlink()
    (folder / "chat_template.jinja").write_text(source)
    return folder


def message_of(processor: Processor, **options: Any) -> str:
    with pytest.raises(VlmkitError) as caught:
        apply_chat_template(processor, None, "Hi", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("source", "message"), MISTAKES)
def test_one_line_with_file_and_line(tmp_path: Path, source: str, message: str) -> None:
    processor = load_processor(with_template(tmp_path / "c", source))
    with pytest.raises(VlmkitError, match=message) as caught:
        apply_chat_template(processor, None, "Hi")
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "c" / "chat_template.jinja"))
    assert "\n" not in text
    with pytest.raises(VlmkitError, match=r"^chat_template="):
        apply_chat_template(load_processor(SHAPES), None, "Hi", chat_template=source)


def test_tool_templates_that_know_no_null(tmp_path: Path) -> None:
    processor = load_processor(with_template(tmp_path / "c", TYPES))
    text = message_of(processor, tools=[TOOL])
    assert "chat_template.jinja:" in text
    assert "calls itself without end; many do so on a parameter type" in text
    assert 'not a list such as ["string", "null"]' in text
    known = {"name": "f", "parameters": {"type": "string"}}
    assert apply_chat_template(processor, None, "Hi", tools=[known]).strip() == "string"


def test_a_template_within_json_is_named_by_its_key(tmp_path: Path) -> None:
    folder = with_template(tmp_path / "c", "-")
    (folder / "chat_template.jinja").unlink()
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        change_json(folder / name, chat_template="\n{{ cycler() }}")
        text = message_of(load_processor(folder))
        assert text.startswith(f"{folder / name}: chat_template, line 2: the chat template fails")


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    folder = with_template(tmp_path / "c", "-")
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(
        VlmkitError, match=r"chat_template\.jinja: byte 0 is no UTF-8; write the file"
    ):
        load_processor(folder)


@pytest.mark.parametrize("source", ["{% for %}", "{{ " + DEEP + " }}"])
def test_variables_of_a_broken_template(source: str) -> None:
    with pytest.raises(VlmkitError, match=r"^a\.jinja[:,]"):
        template_variables(source, place="a.jinja")


def test_values_that_cannot_be_shown_to_a_template() -> None:
    ring: list[Any] = []
    ring.append(ring)
    chat = [{"role": "user", "content": "Hi"}]
    for options, name in (
        ({"messages": [{"role": ring}]}, "messages"),
        ({"messages": chat, "tools": [{"x": ring}]}, "tools"),
        ({"messages": chat, "variables": {"x": ring}}, "template_kwargs"),
    ):
        with pytest.raises(VlmkitError, match=f"^{name}: nested too deeply, or a value that holds"):
            render_chat_template("{{ tools }}", add_generation_prompt=False, **options)
    with pytest.raises(VlmkitError, match="template_kwargs: 'messages' has an argument of its own"):
        render_chat_template("", chat, add_generation_prompt=False, variables={"messages": []})


def test_on_the_command_line_and_in_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_template(tmp_path / "c", "\n{{ cycler() }}")
    (folder / "model.safetensors").symlink_to(SHAPES / "model.safetensors")
    config = tmp_path / "run.yaml"
    config.write_text("prompt: Hi\nmodel: ./c\n")
    for arguments in ([str(config)], ["--prompt", "Hi", "--model", str(folder)]):
        assert main(["generate", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("vlmkit: error: ")
        assert captured.err.count("\n") == 1
        assert f"{folder / 'chat_template.jinja'}:2: the chat template fails" in captured.err
