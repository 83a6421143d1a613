"""Generation goes on from an answer that is begun, as if the model had written it itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.reply import ROOT
from vlmkit import batch_generate, generate, load
from vlmkit.contracts.interface import Model
from vlmkit.processors import Processor
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

Loaded = tuple[Model, Processor]
PICTURE = str(ROOT / "vlmkit" / "assets" / "shapes" / "samples" / "count_all.png")
QUESTION = {"role": "user", "content": "Count the objects."}


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


@pytest.fixture(scope="module")
def whole(shapes: Loaded) -> GenerationResult:
    """The answer from its beginning; the prompt has opened its thinking block."""
    prompt = apply_chat_template(shapes[1], None, QUESTION, num_images=1, enable_thinking=True)
    return generate(*shapes, prompt, image=PICTURE)


def begun(processor: Processor, text: str) -> str:
    chat = [QUESTION, {"role": "assistant", "content": text}]
    return apply_chat_template(processor, None, chat, num_images=1, continue_final_message=True)


def test_the_rest_is_the_rest(shapes: Loaded, whole: GenerationResult) -> None:
    ids = whole.token_ids
    cuts = range(len(ids))
    prompts = [begun(shapes[1], "<think>" + shapes[1].decode(ids[:cut])) for cut in cuts]
    assert "</think>" in prompts[-1]
    found = batch_generate(*shapes, images=[PICTURE] * len(ids), prompts=prompts)
    assert [result.token_ids for result in found.results] == [ids[cut:] for cut in cuts]


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_the_budget_sees_an_open_block(shapes: Loaded, budget: int) -> None:
    end = shapes[1].tokenizer.token_to_id("</think>")
    for text in ("<think>", "<think> a3"):
        result = generate(*shapes, begun(shapes[1], text), image=PICTURE, thinking_budget=budget)
        assert result.token_ids.index(end) == budget


@pytest.mark.parametrize("text", ["<think></think>", "<think> a3 1</think>"])
def test_the_budget_leaves_a_closed_block_alone(shapes: Loaded, text: str) -> None:
    prompt = begun(shapes[1], text)
    free = generate(*shapes, prompt, image=PICTURE)
    assert generate(*shapes, prompt, image=PICTURE, thinking_budget=0).token_ids == free.token_ids


def test_what_the_prompt_has_thought_can_count(shapes: Loaded) -> None:
    from vlmkit.api import stream_pipeline
    from vlmkit.engine import Request, collect
    from vlmkit.pipeline import PipelineConfig

    text = "<think> a3 1"
    thought = len(shapes[1].encode(text)) - 1
    stop: dict[str, Any] = {"kind": "thinking_budget", "budget": thought + 2, "count_prompt": True}
    pipeline = PipelineConfig(stopping=[{"kind": "eos"}, stop])
    request = Request(begun(shapes[1], text), (PICTURE,))
    result = collect(stream_pipeline(*shapes, request, pipeline))
    assert result.token_ids.index(shapes[1].tokenizer.token_to_id("</think>")) == 2
