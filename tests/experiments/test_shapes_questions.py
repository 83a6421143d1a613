"""The questions of the embedded model's data: each answer follows from its picture."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from vlmkit.experiment.shapes.drawing import COLOURS, GRID, SHAPES, Item, Scene
from vlmkit.experiment.shapes.question import Question, plural
from vlmkit.experiment.shapes.questions import ask, ask_about

NUM_QUESTIONS = 600
SHAPE_WORDS = {plural(s): s for s in SHAPES} | {s: s for s in SHAPES}


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
