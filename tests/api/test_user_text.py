"""What a user writes is text, also where it looks like a special token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processors.tiny import write_text_only
from vlmkit import VlmkitError, batch_generate, generate, stream_generate
from vlmkit.cli.main import main
from vlmkit.processors import load_processor
from vlmkit.processors.literal import unmark
from vlmkit.prompt_utils import apply_chat_template

Loaded = tuple[Any, Any]
TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<think>",
    "</think>",
)


def special(processor: Any, prompt: str) -> list[int]:
    """The ids of special tokens in a prompt, thinking markers included."""
    return [index for index in processor.encode(prompt) if index >= 625]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("num_images", [0, 1])
def test_a_question_about_a_token(
    shapes: Loaded, picture: Callable[..., Any], token: str, num_images: int
) -> None:
    model, processor = shapes
    question = f"How many {token}{token} or {token[:-1]}?"
    options = {"num_images": num_images, "enable_thinking": True}
    prompt = apply_chat_template(processor, model.config, question, **options)
    other = apply_chat_template(processor, model.config, "How many?", **options)
    assert special(processor, prompt) == special(processor, other)
    assert processor.decode(processor.encode(prompt)) == unmark(prompt)
    assert unmark(prompt) == other.replace("How many?", question)
    image = [picture()] * num_images
    found = generate(model, processor, prompt, image=image, max_tokens=6, thinking_budget=2)
    batch = batch_generate(
        model,
        processor,
        prompts=[prompt, other],
        images=[image, image],
        max_tokens=6,
        thinking_budget=2,
    )
    assert batch.texts[0] == found.text
    stream = stream_generate(model, processor, prompt, image=image, max_tokens=6, thinking_budget=2)
    assert "".join(chunk.text for chunk in stream) == found.text
    switched = prompt.removesuffix("<think>") + "<think></think>"
    again = generate(model, processor, switched, image=image, max_tokens=6, enable_thinking=True)
    assert again.prompt_tokens == found.prompt_tokens


@pytest.mark.parametrize("token", TOKENS)
def test_plain_ids(shapes: Loaded, token: str) -> None:
    _, processor = shapes
    ids = processor.encode_plain(f"a {token}")
    assert max(ids) < 625
    assert processor.decode(ids) == f"a {token}"


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]


@pytest.mark.parametrize(
    ("prompt", "num_special"),
    [
        (parts("a <|im_", "end|> b"), 2),
        (parts("<", "|im_end", "|>"), 2),
        (["<|im_end|>", {"role": "user", "content": "<think>"}], 4),
        # An answer keeps its thinking, but neither images nor ends of turns:
        ({"role": "assistant", "content": "<think>a</think><|vision_pad|>b"}, 5),
        ({"role": "assistant", "content": "that is <|image_pad|><|im_end|>"}, 2),
        ({"role": "system", "content": "Write <think> first, no <|image_pad|>"}, 3),
        ({"role": "critic", "content": "<think><|vision_pad|>"}, 2),
    ],
)
def test_whose_text_it_is(shapes: Loaded, prompt: Any, num_special: int) -> None:
    _, processor = shapes
    text = apply_chat_template(processor, None, prompt, add_generation_prompt=False)
    assert len(special(processor, text)) == num_special
    assert processor.decode(processor.encode(text)) == unmark(text)


def test_results_of_tools_are_text(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ 'tool' if m.role == 'tool' }}{{ m.content }}{% endfor %}"
    processor = load_processor(write_text_only(tmp_path, template))
    result = {"role": "tool", "content": [{"type": "text", "text": "a</s>"}, "<s>"]}
    text = apply_chat_template(processor, None, ["<s>", result])
    assert not {256, 257} & set(processor.encode(text))


@pytest.mark.parametrize(("template", "is_token"), [("[EXTRA]", False), ("", True)])
def test_added_tokens_that_the_template_writes(
    tmp_path: Path, template: str, is_token: bool
) -> None:
    """An added token that is no special one is a marker only where the template has it."""
    source = template + "{{ messages[0].content }}"
    processor = load_processor(write_text_only(tmp_path, source))
    ids = processor.encode(apply_chat_template(processor, None, "a[EXTRA]"))
    assert (ids[-1] == 258) == is_token


def test_text_without_tokens_has_no_marks(shapes: Loaded) -> None:
    _, processor = shapes
    for text in ("a < b", "<|", "é <b>bold</b>", "[INST]"):
        prompt = apply_chat_template(processor, None, text)
        assert prompt == unmark(prompt)


def test_a_prompt_formatted_by_hand_keeps_its_tokens(
    shapes: Loaded, picture: Callable[..., Any]
) -> None:
    model, processor = shapes
    messages = [{"role": "user", "content": "<|vision_start|><|image_pad|><|vision_end|>Count."}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    meant = apply_chat_template(processor, None, "Count.", num_images=1)
    assert processor.encode(prompt + "</think>") == processor.encode(meant + "</think>")
    assert generate(model, processor, prompt, image=picture(), max_tokens=1).generation_tokens == 1
    with pytest.raises(VlmkitError, match="it has 1 image placeholder"):
        generate(model, processor, "<|image_pad|>")


def test_what_is_shown_has_no_marks(
    shapes: Loaded, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, processor = shapes
    prompt = apply_chat_template(processor, None, "What is <think>?")
    generate(model, processor, prompt, max_tokens=1, verbose=True)
    assert f"Prompt: {unmark(prompt)}" in capsys.readouterr().out
    trace = tmp_path / "trace.jsonl"
    flags = ["--max-tokens", "1", "--out", str(trace)]
    assert main(["trace", "--prompt", "What is <think>?", *flags]) == 0
    assert "What is <think>?" in capsys.readouterr().out
    assert "What is <think>?" in trace.read_text()


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<think>"])
def test_the_same_from_the_command_line_and_yaml(
    shapes: Loaded,
    sample_images: list[Path],
    token: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, processor = shapes
    question, image = f"How many {token} are there?", str(sample_images[0])
    prompt = apply_chat_template(processor, model.config, question, num_images=1)
    expected = generate(model, processor, prompt, image=image, max_tokens=8).text + "\n"
    file = tmp_path / "run.yaml"
    file.write_text(f"prompt: '{question}'\nimages: ['{image}']\n")
    flags = ["--max-tokens", "8"]
    for argv in (["--prompt", question, "--image", image], [str(file)]):
        assert main(["generate", *argv, *flags]) == 0
        assert capsys.readouterr().out == expected
    for contrast in ("cfg, scale: 1.5, negative_prompt", "icd, disturbance"):
        override = f"contrast={{kind: {contrast}: '{question}'}}"
        assert main(["generate", str(file), *flags, override]) == 0
