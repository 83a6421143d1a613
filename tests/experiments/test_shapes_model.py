"""The samples and the tokenizer of the embedded model."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.shapes_model import data
from experiments.shapes_model.samples import KINDS, PER_KIND, write_samples
from experiments.shapes_model.tokenizer import (
    CHAT_TEMPLATE,
    PADDED_VOCABULARY,
    SPECIAL_TOKENS,
    THINKING_TOKENS,
    save,
)
from vlmkit.experiment.shapes.drawing import render
from vlmkit.experiment.shapes.questions import ask


@given(st.integers(0, 2**40))
def test_pictures_and_questions_are_deterministic(index: int) -> None:
    first, second = data.question_at(3, index), data.question_at(3, index)
    assert first == second
    pixels = render(first.scene)
    assert pixels.shape == (112, 112, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, render(second.scene))
    assert data.sample_at(3, index) == data.sample_at(3, index)


def test_batches_are_deterministic_and_shared_out_evenly() -> None:
    first, second = data.batch_at(0, 5, 4), data.batch_at(0, 5, 4)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
    parts = [data.batch_at(0, 5, 2, worker, 2) for worker in (0, 1)]
    assert not np.array_equal(parts[0].images, parts[1].images)
    assert all(part.tokens.shape[0] == 2 for part in parts)


def test_targets_are_thinking_and_answers_only() -> None:
    tokenizer = data.tokenizer()
    modes = set()
    for index in range(100):
        sample = data.sample_at(0, index)
        for block in range(1, data.QUESTIONS + 1):
            pairs = [
                (t, known)
                for t, known, b in zip(sample.tokens, sample.targets, sample.blocks, strict=True)
                if b == block
            ]
            text = tokenizer.decode([t for t, known in pairs if not known])
            target = tokenizer.decode([t for t, known in pairs if known], skip_special_tokens=False)
            assert target.endswith("<|im_end|>")
            assert "assistant" in text
            assert "assistant" not in target
            whole = tokenizer.decode([t for t, _ in pairs])
            modes.add(("</think>" in target, "<think></think>" in whole))
    assert modes == {(True, False), (False, True), (False, False)}


@given(st.text(max_size=60))
def test_any_text_can_be_encoded(text: str) -> None:
    tokenizer = data.tokenizer()
    normal = tokenizer.normalizer.normalize_str(text)
    if any(mark in normal for mark in (*SPECIAL_TOKENS, *THINKING_TOKENS)):
        return
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == normal


@given(st.integers(0, 2**40))
def test_each_step_of_a_thought_is_one_token(seed: int) -> None:
    question = ask(Random(seed))
    tokens = data.tokenizer().encode(question.thinking).tokens
    assert len(tokens) == len(question.thinking.split())


def test_markers_are_single_tokens_and_rows_are_left_over() -> None:
    tokenizer = data.tokenizer()
    ids = [tokenizer.token_to_id(t) for t in (*SPECIAL_TOKENS, *THINKING_TOKENS)]
    assert None not in ids
    assert len(set(ids)) == len(ids)
    assert tokenizer.get_vocab_size() < PADDED_VOCABULARY
    assert PADDED_VOCABULARY % 64 == 0


@pytest.mark.parametrize(
    ("switch", "end"),
    [
        ({"enable_thinking": True}, "<think>"),
        ({"enable_thinking": False}, "<think></think>"),
        ({}, "<think></think>"),
    ],
)
def test_template(switch: dict[str, bool], end: str) -> None:
    import jinja2

    content = [{"type": "image"}, {"type": "text", "text": "Is there a star?"}]
    prompt = jinja2.Template(CHAT_TEMPLATE).render(
        messages=[{"role": "user", "content": content}], add_generation_prompt=True, **switch
    )
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    head = f"<|im_start|>user\n{image}Is there a star?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt == head + end
    expanded = prompt.replace("<|image_pad|>", "<|image_pad|>" * data.IMAGE_TOKENS)
    thinks = end == "<think>"
    assert data.tokenizer().encode(expanded).ids == data.prompt_tokens("Is there a star?", thinks)


def test_shipped_tokenizer_and_samples_are_the_ones_of_this_code(tmp_path: Path) -> None:
    assets = Path(data.__file__).parents[2] / "vlmkit" / "assets" / "shapes"
    save(data.tokenizer(), tmp_path)
    write_samples(tmp_path)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_text() == (assets / name).read_text(), name
    rows = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert rows == json.loads((assets / "samples" / "samples.json").read_text())
    assert [row["kind"] for row in rows] == list(KINDS) * PER_KIND
