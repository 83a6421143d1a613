"""Stages that are kept on the host: applied once, before a contrast where there is one."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.engine.running import Passes, counted, run_steps, token_ids
from vlmkit import load
from vlmkit.contracts.stages import (
    Contrast,
    Decision,
    HostReducer,
    SamplerStage,
    StoppingCriterion,
    TokenEvent,
)
from vlmkit.engine import Request
from vlmkit.numeric.probabilities import keep_where
from vlmkit.pipeline import PipelineConfig

Loaded = tuple[Any, Any]
ASKED = Request("How many red circles?")
LIMIT = [{"kind": "max_tokens", "max_tokens": 4}]
SAME = {"kind": "cfg", "scale": 1.0}  # the logits as they are
EARLY = {"kind": "external", "factory": f"{__name__}:plain_difference"}
EVEN = {"kind": "external", "factory": f"{__name__}:even_tokens"}
SHIFT = {"kind": "external", "factory": f"{__name__}:shifted"}
HOT = {"kind": "temperature", "temperature": 2.0}


WATCHED: list[Passes] = []
SEEN: list[tuple[int, int]] = []  # (tokens read, decode passes launched by then)


def watching() -> StoppingCriterion:
    """A criterion that notes how far the device was sent ahead when it sees a token."""

    def step(state: tuple[()], event: TokenEvent) -> tuple[tuple[()], Decision]:
        SEEN.append((event.num_tokens, len(WATCHED[0].steps)))
        return state, Decision()

    return StoppingCriterion("watching", lambda prompt: ((), Decision()), step)


def plain_difference() -> Contrast:
    """A method that does not think of tokens that are ruled out."""
    return Contrast("plain", lambda logits, others, count: logits - others[:, 0], (1,))


def _kept(name: str, value: Any, apply: Any, is_random: bool = False) -> SamplerStage:
    host = HostReducer(lambda prompt: 0, lambda state, token: state + 1, value)
    return SamplerStage(
        name,
        lambda prompts, size: mx.array(np.stack([value(0) for _ in prompts])),
        apply,
        lambda state, ids: state,
        is_random=is_random,
        host=host,
    )


def even_tokens() -> SamplerStage:
    """Rule out odd ids by a mask that the host keeps."""
    mask = np.arange(1024) % 2 == 0

    def apply(state: mx.array, logits: mx.array, uniform: Any) -> mx.array:
        return keep_where(logits, state[:, : logits.shape[-1]])

    return _kept("even", lambda count: mask, apply)


def shifted(is_random: bool = False) -> SamplerStage:
    """Add 1 to the logits at the first token, 2 at the second, and so on."""

    def apply(state: mx.array, logits: mx.array, uniform: Any) -> mx.array:
        assert (uniform is None) != is_random
        return logits + state[:, None]

    return _kept("shifted", lambda count: np.float32(count + 1), apply, is_random)


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def traced(shapes: Loaded, stage: dict[str, Any], **more: Any) -> list[dict[str, mx.array]]:
    """The logits after each stage, by its name, of each step."""
    pipeline = PipelineConfig(stopping=LIMIT, sampling=[stage, HOT], seed=2, **more)
    (steps,) = run_steps(*shapes, [(ASKED, pipeline)], trace=True)
    assert len(token_ids(steps)) == 4
    traces = [step.trace for step in steps if step.trace is not None]
    return [dict(zip(one.names, one.logits, strict=True)) for one in traces]


def test_without_a_contrast_it_applies_at_its_place(shapes: Loaded) -> None:
    for count, logits in enumerate(traced(shapes, SHIFT), start=1):
        assert mx.array_equal(logits["shifted"], logits["model"] + count)


def test_with_a_contrast_it_applies_before_that_and_not_again(shapes: Loaded) -> None:
    for count, logits in enumerate(traced(shapes, SHIFT, contrast=SAME), start=1):
        assert mx.array_equal(logits["contrast"], logits["model"] + count)
        assert mx.array_equal(logits["shifted"], logits["contrast"])


def test_one_that_is_random_stays_at_its_place(shapes: Loaded) -> None:
    random = {**SHIFT, "config": {"is_random": True}}
    for count, logits in enumerate(traced(shapes, random, contrast=SAME), start=1):
        assert mx.array_equal(logits["contrast"], logits["model"])
        assert mx.array_equal(logits["shifted"], logits["model"] + count)


@pytest.mark.parametrize("contrast", [EARLY, SAME, {"kind": "dola", "layers": [1]}], ids=str)
def test_what_it_rules_out_stays_out_after_any_contrast(
    shapes: Loaded, contrast: dict[str, Any]
) -> None:
    for logits in traced(shapes, EVEN, contrast=contrast):
        odd = logits["contrast"][1::2]
        assert mx.all(odd == -mx.inf).item()
        assert mx.any(mx.isfinite(logits["contrast"][::2])).item()
        assert not mx.any(mx.isnan(logits["contrast"])).item()


@pytest.mark.parametrize("extra", [{}, {"contrast": SAME}], ids=["plain", "contrast"])
@pytest.mark.parametrize("stages", [[], [EVEN]], ids=["on the device", "on the host"])
def test_the_next_pass_is_launched_before_a_token_is_read(
    shapes: Loaded, stages: list[dict[str, Any]], extra: dict[str, Any]
) -> None:
    """Also where the host decides what comes next: the pass needs no more than the token."""
    model, passes = counted(shapes[0])
    WATCHED[:] = [passes]
    SEEN.clear()
    stopping = [*LIMIT, {"kind": "external", "factory": f"{__name__}:watching"}]
    pipeline = PipelineConfig(stopping=stopping, sampling=[*stages, HOT], **extra)
    run_steps(model, shapes[1], [(ASKED, pipeline)])
    assert SEEN == [(1, 1), (2, 2), (3, 3), (4, 3)]
