"""From a checked run to what the engine takes; for the commands that generate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.config.run import RunConfig
    from vlmkit.engine import Request
    from vlmkit.processors import Processor
    from vlmkit.types import Model


def read_question(config: RunConfig) -> str:
    """The prompt as it was given; ``-`` reads standard input.

    Raises:
        VlmkitError: there is none.
    """
    question = sys.stdin.read() if config.prompt == "-" else config.prompt
    if not question:
        raise VlmkitError("no prompt: give --prompt TEXT, or 'prompt: …' in the config")
    return question


def load_request(config: RunConfig, question: str) -> tuple[Model, Processor, Request]:
    """Load the model and format the prompt."""
    from vlmkit.api import load
    from vlmkit.engine import Request
    from vlmkit.prompt_utils import apply_chat_template

    model, processor = load(config.model, revision=config.revision, dtype=config.dtype)
    prompt = question
    if config.template.apply:
        prompt = apply_chat_template(
            processor,
            model.config,
            question,
            num_images=len(config.images),
            num_audios=len(config.audio),
            enable_thinking=config.template.enable_thinking,
        )
    return model, processor, Request(prompt, config.images, config.audio)
