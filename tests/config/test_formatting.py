"""A run's prompts in the chat template: the same from YAML, from Python and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit import load
from vlmkit.cli.run import load_request
from vlmkit.config.formatting import format_run
from vlmkit.config.run import RunConfig, load_run
from vlmkit.contrast import CfgConfig
from vlmkit.processors import Processor
from vlmkit.prompt_utils import apply_chat_template

IMAGE = str(Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples" / "describe.png")


@pytest.fixture(scope="module")
def processor() -> Processor:
    return load("shapes")[1]


def negative_of(pipeline: Any) -> str:
    assert isinstance(pipeline.contrast, CfgConfig)
    assert pipeline.contrast.negative_prompt is not None
    return pipeline.contrast.negative_prompt


TEMPLATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "thinking": ({"enable_thinking": True}, {"enable_thinking": True}),
    "begun": ({"prefill_response": "There"}, {"continue_final_message": True}),
}


@pytest.mark.parametrize("sees_images", [False, True])
@pytest.mark.parametrize("case", TEMPLATES)
def test_a_negative_prompt_is_formatted_as_the_prompt_is(
    processor: Processor, tmp_path: Path, case: str, sees_images: bool
) -> None:
    template, switches = TEMPLATES[case]
    config = RunConfig(
        prompt="What is red?",
        images=(IMAGE,),
        template=template,
        contrast={"kind": "cfg", "negative_prompt": "Hi.", "negative_images": sees_images},
        seed=3,
    )
    answer = [{"role": "assistant", "content": "There"}] if case == "begun" else []

    def by_hand(text: str, num_images: int) -> str:
        messages = [{"role": "user", "content": text}, *answer]
        return apply_chat_template(processor, None, messages, num_images=num_images, **switches)

    prompt, pipeline = format_run(processor, config)
    assert prompt == by_hand("What is red?", 1)
    assert negative_of(pipeline) == by_hand("Hi.", int(sees_images))
    contrast = config.contrast
    assert pipeline.model_copy(update={"contrast": contrast}) == config.pipeline
    path = tmp_path / "run.json"  # JSON is YAML
    path.write_text(config.model_dump_json())
    read = load_run(path).config
    assert format_run(processor, read) == (prompt, pipeline)
    loaded = load_request(read, read.prompt)
    assert (loaded.request.prompt, loaded.pipeline) == (prompt, pipeline)


def test_formatted_text_is_taken_as_it_is(processor: Processor) -> None:
    contrast = {"kind": "cfg", "negative_prompt": "not this"}
    config = RunConfig(prompt="as it is", template={"apply": False}, contrast=contrast)
    prompt, pipeline = format_run(processor, config)
    assert (prompt, negative_of(pipeline)) == ("as it is", "not this")
    assert format_run(processor, config, "another").prompt == "another"


@pytest.mark.parametrize("contrast", [None, {"kind": "cfg"}, {"kind": "vcd"}])
def test_without_a_negative_prompt_the_pipeline_stays(
    processor: Processor, contrast: dict[str, Any] | None
) -> None:
    config = RunConfig(prompt="Hi", contrast=contrast)
    assert format_run(processor, config).pipeline == config.pipeline
