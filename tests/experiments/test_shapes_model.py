"""The data, tokenizer and training of the embedded model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

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
from vlmkit.experiment.shapes.drawing import COLOURS, GRID, SHAPES, Item, Scene, render
from vlmkit.experiment.shapes.question import Question, plural
from vlmkit.experiment.shapes.questions import ask, ask_about

NUM_QUESTIONS = 600
SHAPE_WORDS = {plural(s): s for s in SHAPES} | {s: s for s in SHAPES}
NEEDS_TORCH = "torch is not installed: training needs the parity extra"


def words(text: str, names: Any) -> list[str]:
    """The known words of a text, in order."""
    return [w for w in re.findall(r"[a-z]+", text.lower()) if w in names]


def colours(text: str) -> list[str]:
    return words(text, COLOURS)


def shapes(text: str) -> list[str]:
    return [SHAPE_WORDS[w] for w in words(text, SHAPE_WORDS)]


def named(scene: Scene, text: str) -> Item:
    """The one object that the last noun phrase of `text` denotes."""
    colour, shape = colours(text)[-1:], shapes(text)[-1:]
    (item,) = [i for i in scene.items if [i.name] == shape and (not colour or [i.colour] == colour)]
    return item


def beside(scene: Scene, item: Item, where: str) -> Item | None:
    """The nearest object in the same row or column, from pixel positions."""
    sign = -1 if where in ("left", "above") else 1
    if where in ("left", "right"):
        line = [(sign * (i.x - item.x), i) for i in scene.items if i.row == item.row]
    else:
        line = [(sign * (i.y - item.y), i) for i in scene.items if i.column == item.column]
    return min((pair for pair in line if pair[0] > 0), default=(0, None))[1]


def look(item: Item | None) -> str:
    return "nothing" if item is None else f"{item.colour} {item.name}"


def follow(scene: Scene, text: str) -> str:
    """Walk the directions of the question from the last to the first."""
    item: Item | None = named(scene, text)
    for where in reversed(words(text, ("left", "right", "above", "below"))):
        assert item is not None
        item = beside(scene, item, where)
    return look(item)


def more(scene: Scene, text: str) -> str:
    """The commoner of the two colours or shapes named last."""
    by_colour = len(colours(text)) == 2
    pair = colours(text) if by_colour else [plural(s) for s in shapes(text)]
    first, second = (
        sum((i.colour if by_colour else plural(i.name)) == name for i in scene.items)
        for name in pair
    )
    return "same" if first == second else pair[first < second]


def unique(found: list[str]) -> str:
    assert len(found) <= 1
    return found[0] if found else "unknown"


def order(scene: Scene, text: str) -> str:
    match = re.search(r"the (?:image show the )?(.*?) (left|right|above|below)", text, re.I)
    assert match
    first, second = named(scene, match[1]), named(scene, text[match.end() :])
    gap = {"left": second.x - first.x, "right": first.x - second.x}
    gap |= {"above": second.y - first.y, "below": first.y - second.y}
    return "yes" if gap[match[2]] > 0 else "no"


def count(test: Callable[[Item, str], bool]) -> Callable[[Scene, str], str]:
    return lambda scene, text: str(sum(test(i, text) for i in scene.items))


def is_colour(item: Item, text: str) -> bool:
    return item.colour == colours(text)[0]


def is_shape(item: Item, text: str) -> bool:
    return item.name == shapes(text)[0]


LAWS: dict[str, Callable[[Scene, str], str]] = {
    "count all": count(lambda i, t: True),
    "count colour": count(is_colour),
    "count shape": count(is_shape),
    "count and": count(lambda i, t: is_colour(i, t) and is_shape(i, t)),
    "count not": count(lambda i, t: is_colour(i, t) and not is_shape(i, t)),
    "count or": count(lambda i, t: is_colour(i, t) or is_shape(i, t)),
    "compare": more,
    "same colour": lambda s, t: str(sum(i.colour == named(s, t).colour for i in s.items)),
    "colour of": lambda s, t: unique([i.colour for i in s.items if is_shape(i, t)]),
    "shape of": lambda s, t: unique([i.name for i in s.items if is_colour(i, t)]),
    "exists": lambda s, t: (
        "yes" if any(is_colour(i, t) and is_shape(i, t) for i in s.items) else "no"
    ),
    "beside": follow,
    "chain": follow,
    "order": order,
    "read": lambda s, t: "".join(i.name for i in sorted(s.items, key=lambda i: i.x)),
    "sum": lambda s, t: str(sum(int(i.name) for i in s.items)),
    "describe": lambda s, t: ", ".join(look(i) for i in sorted(s.items, key=lambda i: i.cell)),
    "unanswerable": lambda s, t: "unknown",
}


def question_and_follower(seed: int) -> tuple[Question, Question]:
    rng = Random(seed)
    first = ask(rng)
    return first, ask_about(rng, first.scene)


def test_every_kind_is_asked() -> None:
    asked = {q.kind for seed in range(NUM_QUESTIONS) for q in question_and_follower(seed)}
    assert asked == set(LAWS)


@given(st.integers(0, 2**40))
def test_answers_follow_from_the_scene(seed: int) -> None:
    for question in question_and_follower(seed):
        assert question.answer == LAWS[question.kind](question.scene, question.question)


@given(st.integers(0, 2**40))
def test_thinking_ends_in_what_the_answer_needs(seed: int) -> None:
    for question in question_and_follower(seed):
        steps = question.thinking.split()
        assert question.thinking == " " + " ".join(steps)
        if question.kind.startswith("count") or question.kind in ("same colour", "sum"):
            assert steps[-1] == question.answer
        if question.kind in ("beside", "chain"):
            assert question.thinking.endswith(question.answer)


@given(st.integers(0, 2**40))
def test_scenes_are_legible(seed: int) -> None:
    scene = ask(Random(seed)).scene
    assert 1 <= len(scene.items) <= 9
    assert len({i.cell for i in scene.items}) == len(scene.items)
    assert [i.cell for i in scene.items] == sorted(i.cell for i in scene.items)
    for item in scene.items:
        assert item.size >= 14
        assert 0 <= item.cell < GRID * GRID


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


def run_training(out: Path, *extra: str) -> list[dict[str, Any]]:
    """Ten steps on four images each, in this process; the lines of the log."""
    from experiments.shapes_model.train import arguments, train

    fixed = ("--steps", "10", "--batch-size", "4", "--workers", "1", "--evaluate-samples", "4")
    train(arguments(["--out", str(out), *fixed, *extra]))
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.torch
def test_ten_steps_of_training_learn_something(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    lines = run_training(tmp_path, "--checkpoint-seconds", "0")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert "thinking" in lines[-1]


@pytest.mark.torch
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    run_training(tmp_path / "whole")
    run_training(tmp_path / "halves", "--pause-after", "5")
    run_training(tmp_path / "halves")
    whole, halves = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "halves")
    )
    assert whole["progress"][0] == halves["progress"][0] == 10
    for name, weight in whole["model"].items():
        assert torch.equal(weight, halves["model"][name]), name


@pytest.mark.torch
def test_exported_folder_gives_the_same_logits_in_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from transformers import Qwen2VLForConditionalGeneration

    from experiments.shapes_model.export import export, rounded
    from experiments.shapes_model.model import ShapesModel, initialise

    model = ShapesModel()
    initialise(model, seed=1)
    export(rounded(model), tmp_path / "shapes")
    theirs = Qwen2VLForConditionalGeneration.from_pretrained(
        tmp_path / "shapes", dtype=torch.float32
    ).eval()
    question = data.question_at(0, 1)
    tokens = torch.tensor([data.prompt_tokens(question.question, thinks=True)])
    image = torch.from_numpy(render(question.scene)[None])
    vision = model.visual
    patches = ((image - vision.mean) / vision.std).view(1, 4, 2, 14, 4, 2, 14, 3)
    patches = patches.permute(0, 1, 4, 2, 5, 7, 3, 6)
    both = patches[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    with torch.no_grad():
        hidden, _ = model.hidden(tokens, image)
        ours = model.logits(hidden)
        reference = theirs(
            input_ids=tokens,
            pixel_values=both.reshape(64, -1),
            image_grid_thw=torch.tensor([[1, 8, 8]]),
            mm_token_type_ids=(tokens == theirs.config.image_token_id).int(),
        ).logits
    assert (ours - reference).abs().max() <= 1e-4 * reference.abs().max()
