"""Contrasts and searches of other packages: checked as they are made, and at every step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from vlmkit.config.run import load_run
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast import External, StreamMarkers, build_contrast, other_inputs
from vlmkit.errors import VlmkitError
from vlmkit.search import (
    Extended,
    Hypothesis,
    Outcome,
    Search,
    SearchStart,
    SearchStep,
    build_search,
)

HERE = "tests.test_external_methods"
MODULE = "tests.external_package.vlmkit_example_stages"
MARKERS = StreamMarkers(lambda text: (), frozenset({9}), frozenset({7}), frozenset({8}), (3, 2, 14))
IMAGE = Inputs.of(np.array([1, 7, 9, 9, 8, 2], np.int32))


def make_contrast(
    *, result: str = "same", layers: tuple[Any, ...] = (), other: str = "none"
) -> Contrast:
    """A method that breaks one rule."""
    results: dict[str, Callable[[mx.array], Any]] = {
        "same": lambda logits: logits,
        "half": lambda logits: logits.astype(mx.float16),
        "narrow": lambda logits: logits[:, 1:],
        "list": lambda logits: logits.tolist(),
    }
    others: dict[str, Callable[[Inputs], Any] | None] = {
        "none": None,
        "tail": lambda inputs: Inputs.of(inputs.token_ids[-2:]),
        "ids": lambda inputs: inputs.token_ids,
        "empty": lambda inputs: Inputs.of(inputs.token_ids[:0]),
    }
    return Contrast(
        "made",
        lambda logits, streams, num_tokens: results[result](logits),
        early_layers=layers,
        other_prompt=others[other],
    )


def contrast(**config: Any) -> External:
    return External(factory=f"{HERE}:make_contrast", config=config)


def others_of(config: External, inputs: Inputs = IMAGE) -> list[list[int]]:
    found = other_inputs(config, inputs, MARKERS, seed=0, sample=0)
    return [each.token_ids.tolist() for each in found]


def test_the_other_stream_is_what_the_method_says() -> None:
    assert others_of(contrast()) == [[1, 2]]
    assert others_of(contrast(other="tail")) == [[8, 2]]
    assert others_of(contrast(layers=[0, 2], other="tail")) == []


BAD_CONTRASTS: dict[str, tuple[dict[str, Any], str]] = {
    "a layer too many": (
        {"layers": [1, 4]},
        "early_layers has 4, but layers are counted from 0 to 3",
    ),
    "a layer below": ({"layers": [-1]}, "early_layers has -1, but layers are counted from 0 to 3"),
    "no layer": ({"layers": ["last"]}, "early_layers has 'last', but layers are counted from 0"),
    "a layer twice": ({"layers": [1, 1]}, "early_layers names a layer twice: [1, 1]"),
    "half": ({"result": "half"}, "combine gave float16 [2, 5], not float32 [2, 5]"),
    "narrow": ({"result": "narrow"}, "combine gave float32 [2, 4], not float32 [2, 5]"),
    "list": ({"result": "list"}, "combine gave a list, not float32 [2, 5]"),
    "no prompt": ({"other": "ids"}, "other_prompt gave a ndarray, not vlmkit.contracts.inputs."),
    "an empty prompt": (
        {"other": "empty"},
        "other_prompt gave no tokens, not vlmkit.contracts.inputs.Inputs",
    ),
}


@pytest.mark.parametrize("case", BAD_CONTRASTS)
def test_a_contrast_that_would_mix_rows_is_stopped(case: str) -> None:
    config, message = BAD_CONTRASTS[case]

    def step() -> None:
        made = build_contrast(contrast(**config), num_layers=4, tied_embeddings=False)
        others_of(contrast(**config))
        made.combine(mx.zeros((2, 5)), mx.zeros((2, 1, 5)), mx.zeros(2, mx.int32))

    with pytest.raises(VlmkitError) as caught:
        step()
    assert str(caught.value).startswith(f"external: contrast 'made' of factory '{HERE}:make_")
    assert message in str(caught.value)


def test_a_prompt_without_an_image_has_nothing_to_leave_out() -> None:
    with pytest.raises(VlmkitError, match=r"external: contrast 'made' .*: the prompt has no image"):
        others_of(contrast(), Inputs.of(np.array([1, 2], np.int32)))


OUTCOMES: dict[str, Any] = {
    "good": Outcome((0, 1), (3, 4), ("a", "b")),
    "over": Outcome((), (), (), done=True, best=(Hypothesis("a", 1.0),)),
    "nothing": None,
    "lengths": Outcome((0, 1), (3,), ("a", "b")),
    "wide": Outcome((0, 0, 0), (1, 2, 3), ("a", "b", "c")),
    "row": Outcome((0, 2), (3, 4), ("a", "b")),
    "token": Outcome((0, 1), (3, 5), ("a", "b")),
    "lost": Outcome((), (), ()),
    "undone": Outcome((0,), (3,), ("a",), done=True, best=(Hypothesis("a", 1.0),)),
    "empty": Outcome((), (), (), done=True),
    "many": Outcome((), (), (), done=True, best=(Hypothesis("a", 1.0),) * 2),
}
BAD_OUTCOMES = {
    "nothing": "advance must return (state, Outcome), not (1, None)",
    "lengths": "advance gave 2 rows, 1 token ids and 2 paths",
    "wide": "advance gave 3 rows, more than its width 2",
    "row": "advance gave row 2 of 2",
    "token": "advance gave token id 5 of 5",
    "lost": "advance gave no live row, although it is not done",
    "undone": "advance gave live rows, although it is done",
    "empty": "advance gave 0 results, not 1 to 1",
    "many": "advance gave 2 results, not 1 to 1",
}


def make_search(*, outcome: str = "good", width: Any = 2, num_return: Any = 1) -> Search:
    """A search that breaks one rule."""
    return Search(
        "made", width, num_return, False, False, lambda start: 0,
        lambda state, step, extend: (state + 1, OUTCOMES[outcome]),
    )  # fmt: skip


def advance(outcome: str) -> tuple[Any, Outcome]:
    made = build_search(External(factory=f"{HERE}:make_search", config={"outcome": outcome}))
    step = SearchStep(mx.zeros((2, 5)))
    return made.advance(made.init(SearchStart()), step, lambda row, token: Extended(None, False))


@pytest.mark.parametrize("outcome", ["good", "over"])
def test_an_outcome_that_holds_together_is_handed_on(outcome: str) -> None:
    assert advance(outcome) == (1, OUTCOMES[outcome])


@pytest.mark.parametrize("outcome", BAD_OUTCOMES)
def test_an_outcome_that_does_not_is_stopped(outcome: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        advance(outcome)
    start = f"external: search 'made' of factory '{HERE}:make_search': "
    assert str(caught.value) == start + BAD_OUTCOMES[outcome]
    assert caught.value.path == ("search",)


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("num_return", 1.5), ("width", True)])
def test_a_search_of_no_rows_is_refused(name: str, value: Any) -> None:
    config = External(factory=f"{HERE}:make_search", config={name: value})
    with pytest.raises(VlmkitError, match=rf"{name} is {value}; it has to be a whole number above"):
        build_search(config)


@pytest.mark.parametrize(
    ("section", "factory", "wanted"),
    [
        ("contrast", "likeliest_path.py:likeliest_path", "Contrast"),
        ("search", "half_prompt.py:half_prompt", "Search"),
        ("cache", "half_prompt.py:half_prompt", "CacheKind"),
    ],
)
def test_the_other_kind_is_named_by_its_line(
    tmp_path: Path, section: str, factory: str, wanted: str
) -> None:
    name = f"{MODULE}.{factory.replace('.py', '')}"
    arguments = "{weight: 1}" if "half" in factory else "{}"
    path = tmp_path / "run.yaml"
    text = f"seed: 1\n{section}:\n  kind: external\n  factory: '{name}'\n  config: {arguments}\n"
    path.write_text(text)
    message = (
        rf"run\.yaml:4: {section}: external: factory '{name}' returned a .*, not a .*{wanted}$"
    )
    with pytest.raises(VlmkitError, match=message) as caught:
        load_run(path, trust_code=True)
    assert caught.value.path == (section, "factory")
    path.write_text(f"{section}: {{kind: external, factory: gone}}\n")
    message = rf"run\.yaml:1: {section}: .* no such entry point in the group 'vlmkit\.{section}'"
    with pytest.raises(VlmkitError, match=message):
        load_run(path)
