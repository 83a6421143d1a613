"""What a thinking budget's config refuses, and the markers that it comes to."""

from __future__ import annotations

from typing import Any

import pytest

from vlmkit.errors import VlmkitError
from vlmkit.stopping import QWEN3_TRANSITION, S1_TRANSITION, ThinkingBudgetConfig
from vlmkit.stopping.thinking_config import ThinkingMarkers, thinking_markers


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget": -1}, "at least 0"),
        ({"budget": True}, "needs a number"),
        ({"budget": 3, "min_tokens": 4}, "lower min_tokens"),
        ({"budget": 3, "wait": "a </think>"}, "leave it out"),
        ({"budget": 3, "start": ""}, "at least 1"),
        ({"budget": 3, "scope": "all"}, "'block' or 'total'"),
        ({}, "required"),
    ],
)
def test_config_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        ThinkingBudgetConfig.model_validate(values)


VOCABULARY = {
    "<think>": [5, 6],
    "</think>": [7],
    "[T]": [1, 2],
    "[/T]": [3, 4],
    "So.\n": [10, 11],
    ".\n\n": [12],
    "Wait": [13],
    "\n\nFinal Answer:": [14, 15],
    QWEN3_TRANSITION.partition("</think>")[0]: [16, 17],
}


def markers(**values: Any) -> ThinkingMarkers:
    config = ThinkingBudgetConfig.model_validate({"budget": 3, **values})
    return thinking_markers(config, encode=lambda text: VOCABULARY.get(text, []))


def test_markers_set_by_the_user_may_be_several_tokens() -> None:
    found = markers(start="[T]", end="[/T]", transition="So.\n", min_tokens=1)
    assert found == ThinkingMarkers((1, 2), (3, 4), (10, 11, 3, 4), (13,))


@pytest.mark.parametrize(
    ("transition", "closing"),
    [(QWEN3_TRANSITION, (16, 17, 7, 12)), (S1_TRANSITION, (7, 14, 15)), (None, (7,))],
)
def test_presets_hold_the_end_marker_once(transition: str | None, closing: tuple[int, ...]) -> None:
    assert markers(start="<think>", transition=transition).closing == closing


@pytest.mark.parametrize("values", [{}, {"start": "<gone>"}, {"start": "[T]", "end": "<gone>"}])
def test_markers_that_the_tokenizer_does_not_know(values: dict[str, str]) -> None:
    with pytest.raises(VlmkitError, match=r"has no token .* set `start` and `end`"):
        markers(**values)


def test_a_wait_that_the_tokenizer_does_not_know() -> None:
    with pytest.raises(VlmkitError, match="turns wait 'Hm' into no token; set `wait`"):
        markers(start="[T]", min_tokens=1, wait="Hm")


def test_a_marker_that_becomes_the_unknown_token() -> None:
    config = ThinkingBudgetConfig(budget=1)
    with pytest.raises(VlmkitError, match="'<think>'"):
        thinking_markers(config, encode=lambda text: [0], decode=lambda ids: "<unk>")
