"""A row that cannot go on ends with an error; its neighbours do not notice, a single one raises."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from vlmkit import VlmkitError, load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Decision, HostReducer, SamplerStage, StoppingCriterion
from vlmkit.detokenize import DetokenizerState
from vlmkit.detokenize.row import TextDecoder
from vlmkit.engine import Request, check_requests, collect
from vlmkit.engine.rows import RowSpec, Taken, observe_token, start_row
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import build_chain
from vlmkit.sampling.sections import Section, set_hosts

Loaded = tuple[Any, Any]
STRAY = DetokenizerState((1,), 0, "a", "b")  # text changed that is out
LIMIT = {"kind": "max_tokens", "max_tokens": 6}


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def raising_stop(after: int) -> StoppingCriterion:
    """A criterion that breaks at a token."""

    def step(state: int, event: Any) -> tuple[int, Decision]:
        if event.num_tokens == after:
            raise ZeroDivisionError("a criterion's own mistake")
        return state, Decision()

    return StoppingCriterion("raising", lambda prompt: (0, Decision()), step)


def raising_stage(after: int) -> SamplerStage:
    """A stage that breaks at a draw, which counts its updates."""

    def apply(state: mx.array, logits: mx.array, uniform: Any) -> mx.array:
        if int(mx.max(state).item()) == after:
            raise ZeroDivisionError("a stage's own mistake")
        return logits

    return SamplerStage(
        "raising",
        lambda prompts, size: mx.zeros((len(prompts),), mx.int32),
        apply,
        lambda state, ids: state + 1,
    )


def broken_after(after: int) -> SamplerStage:
    """A stage whose logits are NaN from a draw on."""
    stage = raising_stage(-1)
    return stage._replace(
        apply=lambda state, logits, uniform: mx.where(state[:, None] >= after, mx.nan, logits)
    )


def fail(*_: Any) -> Any:
    raise ZeroDivisionError("a stage's own mistake")


def raising_init(after: int) -> SamplerStage:
    """A stage without a first state."""
    return raising_stage(after)._replace(init=fail)


def raising_update(after: int) -> SamplerStage:
    """A stage that breaks at a token."""
    stage = raising_stage(-1)
    return stage._replace(
        update=lambda state, ids: fail() if int(state.max()) == after - 1 else state + 1
    )


def on_host(after: int, **broken: Any) -> SamplerStage:
    """A stage that counts tokens on the host, and breaks there."""
    host = HostReducer(lambda prompt: 0, lambda state, token: state + 1, np.float32)
    return SamplerStage(
        "on_host",
        lambda prompts, size: mx.zeros((len(prompts),)),
        lambda state, logits, uniform: logits + state[:, None],
        lambda state, ids: state,
        host=host._replace(**broken),
    )


def host_init(after: int) -> SamplerStage:
    return on_host(after, init=fail)


def host_step(after: int) -> SamplerStage:
    return on_host(after, step=lambda state, _: fail() if state == after else state + 1)


def host_value(after: int) -> SamplerStage:
    return on_host(after, value=lambda state: fail() if state == after else np.float32(state))


def host_apply(after: int) -> SamplerStage:
    return on_host(after)._replace(apply=fail)


def no_first_decision(after: int) -> StoppingCriterion:
    return raising_stop(after)._replace(init=fail)


def own(factory: Callable[..., Any], after: int) -> dict[str, Any]:
    here = f"{__name__}:{factory.__name__}"
    return {"kind": "external", "factory": here, "config": {"after": after}}


BEAM = {"search": {"kind": "beam", "num_beams": 2}}
CFG = {"contrast": {"kind": "cfg"}}
FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str, int]] = {
    "criterion": ({"stopping": [LIMIT, own(raising_stop, 3)]}, ZeroDivisionError, "own mistake", 2),
    "stage": ({"sampling": [own(raising_stage, 3)]}, ZeroDivisionError, "own mistake", 3),
    "first stage": ({"sampling": [own(raising_stage, 0)]}, ZeroDivisionError, "own mistake", 0),
    "nan": ({"sampling": [own(broken_after, 2)]}, VlmkitError, "no token can be drawn", 2),
    "nothing left": (
        {
            "sampling": [
                {"kind": "allowed_tokens", "token_ids": [3]},
                {"kind": "suppress_tokens", "token_ids": [3]},
            ]
        },
        VlmkitError,
        "no token can be drawn after 0 tokens",
        0,
    ),
    "search": (
        {"sampling": [own(broken_after, 2)], "search": {"kind": "beam", "num_beams": 2}},
        VlmkitError,
        "no token can be drawn",
        0,
    ),
    "criterion in a search": (
        {"stopping": [LIMIT, own(raising_stop, 3)], "search": {"kind": "beam", "num_beams": 2}},
        ZeroDivisionError,
        "own mistake",
        0,
    ),
    "under a contrast": (
        {"sampling": [own(broken_after, 1)], "contrast": {"kind": "cfg"}},
        VlmkitError,
        "no token can be drawn after 1 tokens.*contrast may also cut",
        1,
    ),
}
STAGES: dict[str, tuple[Callable[..., Any], int, int]] = {
    # what breaks, when, and how many tokens there are by then
    "init of a stage": (raising_init, 0, 0),
    "update of a stage": (raising_update, 3, 2),
    "init on the host": (host_init, 0, 0),
    "step on the host": (host_step, 2, 2),
    "value on the host": (host_value, 2, 2),
    "first value on the host": (host_value, 0, 0),
    "apply of a stage with a host": (host_apply, 0, 0),
}
for _name, (_factory, _after, _num_tokens) in STAGES.items():
    for _extra, _where, _count in (
        ({}, "", _num_tokens),
        (BEAM, " in a search", 0),
        (CFG, " under a contrast", _num_tokens),
    ):
        _settings = {"sampling": [own(_factory, _after)], **_extra}
        FAULTS[_name + _where] = (_settings, ZeroDivisionError, "own mistake", _count)
_settings = {"stopping": [LIMIT, own(no_first_decision, 0)]}
FAULTS["first decision"] = (_settings, ZeroDivisionError, "own mistake", 0)


def good(seed: int, **more: Any) -> PipelineConfig:
    return PipelineConfig(
        stopping=[LIMIT], sampling=[{"kind": "temperature", "temperature": 1.3}], seed=seed, **more
    )


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_bad_row_ends_and_its_neighbours_go_on(
    shapes: Loaded, name: str, batch_size: int
) -> None:
    settings, _, message, num_tokens = FAULTS[name]
    contrast = {"contrast": settings["contrast"]} if "contrast" in settings else {}
    bad = PipelineConfig(**{"stopping": [LIMIT], **settings})
    request = Request("How many red circles?")
    pipelines = [good(1, **contrast), bad, good(2, **contrast)]
    results = batch_pipeline(
        *shapes, [(request, one) for one in pipelines], batch_size=batch_size
    ).results
    assert results[1].finish_reason == results[1].finish_kind == "error"
    assert results[1].error is not None
    assert re.search(message, results[1].error)
    assert len(results[1].token_ids) == num_tokens
    for place in (0, 2):
        alone = collect(stream_pipeline(*shapes, request, pipelines[place]))
        assert results[place].token_ids == alone.token_ids
        assert results[place].error is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_single_request_raises(shapes: Loaded, name: str) -> None:
    settings, kind, message, num_tokens = FAULTS[name]
    pipeline = PipelineConfig(**{"stopping": [LIMIT], **settings})
    stream = stream_pipeline(*shapes, Request("How many red circles?"), pipeline)
    found: list[Any] = []
    with pytest.raises(kind, match=message):
        found.extend(stream)
    assert sum(len(result.token_ids) for result in found) == num_tokens


def test_values_of_another_shape_end_the_row_that_gave_them() -> None:
    host = on_host(0).host
    assert host is not None
    chain = build_chain([])._replace(
        hosts=(host._replace(value=lambda state: np.zeros(state, np.float32)),),
        with_hosts=lambda state, values: values,
    )
    sections, failures = set_hosts((Section(chain, "own", 4, ()),), [[2], [2], [3], [2]])
    assert list(failures) == [2]
    assert "shapes [(3,)], and [(2,)] for another row" in str(failures[2])
    assert sections[0].state[0].shape == (4, 2)


def test_text_that_cannot_be_decoded_ends_the_row(shapes: Loaded) -> None:
    """Its last step gives the text that there is, and does not decode again."""

    def decode(ids: Any) -> str:
        return "\ufffd" if 0 in ids else fail()

    (work,) = check_requests(*shapes, [(Request("Hi"), PipelineConfig())])
    resolved = work.resolved
    text = TextDecoder(decode, frozenset(), skip_special_tokens=False)
    inputs = Inputs.of(np.array([5], np.int32))
    row = start_row(RowSpec(inputs, resolved.sampler, resolved.stopping, text, 9))
    row, first = observe_token(row, Taken(0, 0, mx.zeros(9)))
    assert first.finish is None
    broken = row._replace(text=row.text._replace(full="Hel"))
    broken = broken._replace(text=broken.text._replace(detokenizer=STRAY))
    row, last = observe_token(broken, Taken(7, 7, mx.zeros(9)))
    assert last.finish is not None
    assert isinstance(last.finish.error, ZeroDivisionError)
    assert last.text == "Hel"
    assert row.decision.finish == last.finish


class Refusing:
    """A model that breaks at prompts of one length."""

    def __init__(self, model: Any, length: int) -> None:
        self.model, self.length = model, length

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def embed(self, batch: Any, features: Any, starts: Any = None) -> Any:
        if any(len(inputs.token_ids) == self.length for inputs in batch):
            raise ZeroDivisionError("a model's own mistake")
        return self.model.embed(batch, features, starts)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_prompt_that_cannot_be_prefilled_ends_its_row_alone(
    shapes: Loaded, batch_size: int
) -> None:
    model, processor = shapes
    pipeline = PipelineConfig(stopping=(LIMIT,))  # type: ignore[arg-type]
    requests = [Request([5, 6, 7]), Request([5, 6]), Request([8, 9, 10])]
    work = [(request, pipeline) for request in requests]
    whole = batch_pipeline(model, processor, work, batch_size=batch_size).results
    refusing: Any = Refusing(model, 2)
    rows = batch_pipeline(refusing, processor, work, batch_size=batch_size).results
    assert [row.token_ids for row in rows] == [whole[0].token_ids, [], whole[2].token_ids]
    assert [row.finish_reason for row in rows] == ["length", "error", "length"]
    assert rows[1].error == "a model's own mistake"
    with pytest.raises(ZeroDivisionError, match="a model's own mistake"):
        collect(stream_pipeline(refusing, processor, requests[1], pipeline))
