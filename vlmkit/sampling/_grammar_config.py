"""What may be said about a grammar: its config, and how it reads as text."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from vlmkit.configbase import StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.vocabulary import first_message, require_llguidance


class ThinkingBlock(StageConfig):
    """The texts around what a model thinks."""

    start: str | None = Field(
        default=None,
        min_length=1,
        description="opens a block; null is <think>, where that is a token of the model",
    )
    end: str | None = Field(
        default=None,
        min_length=1,
        description="closes a block; null is </think>, where that is a token of the model",
    )


class Grammar(StageConfig):
    """Keep the answer to a JSON schema, a regular expression or a Lark grammar."""

    kind: Literal["grammar"] = "grammar"
    json_schema: dict[str, JsonValue] | None = Field(
        default=None, description="the answer is a JSON value of this schema"
    )
    regex: str | None = Field(
        default=None,
        min_length=1,
        description=r"the whole answer matches this (Rust syntax; \d is [0-9]; no look-around)",
    )
    lark: str | None = Field(
        default=None,
        min_length=1,
        description="the answer is a sentence of this grammar, in llguidance's Lark dialect",
    )
    thinking: ThinkingBlock | None = Field(
        default=ThinkingBlock(),
        description="the block that is free of the grammar; null constrains thinking too",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Grammar:
        forms = {"json_schema": self.json_schema, "regex": self.regex, "lark": self.lark}
        given = [name for name, value in forms.items() if value is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            raise ValueError(f"needs one of json_schema, regex and lark, got {got}")
        return self

    @property
    def form(self) -> Literal["json_schema", "regex", "lark"]:
        """Which of the three forms the grammar has."""
        if self.json_schema is not None:
            return "json_schema"
        return "lark" if self.regex is None else "regex"

    def __hash__(self) -> int:
        return hash((self.kind, self.regex, self.lark, self.thinking))


def check_grammar(config: Grammar) -> None:
    """Compile a grammar without a vocabulary, to find mistakes before a model is loaded.

    Raises:
        VlmkitError: llguidance is missing or refuses the grammar.

    Example:
        >>> check_grammar(Grammar(json_schema={"enum": ["red", "blue"]}))
    """
    check = require_llguidance().LLMatcher.validate_grammar_with_warnings
    is_error, messages = check(to_lark(config))
    if is_error:
        raise VlmkitError(explain(config, messages[0]))


def to_lark(config: Grammar) -> str:
    """Return any form of grammar in llguidance's Lark dialect."""
    if config.json_schema is not None:
        text = f"start: %json {json.dumps(config.json_schema)}"
    elif config.regex is not None:
        regex = require_llguidance().regex_to_lark(config.regex, "d")  # d: \d is [0-9]
        text = f"start: /{regex}/"
    else:
        text = config.lark or ""
    # otherwise a text that can only go on in one way would have to be split in one way
    return text + '\n%llguidance {"no_forcing": true}\n'


def describe_grammar(config: Grammar) -> str:
    """Name a grammar in a message."""
    text = json.dumps(getattr(config, config.form), ensure_ascii=False)
    return f"grammar: {config.form} {text if len(text) <= 60 else text[:57] + '...'}"


def explain(config: Grammar, report: str) -> str:
    """Turn an error of llguidance about this grammar into one line."""
    message = first_message(report)
    if config.form != "lark":  # a place in the text that it was made into says nothing
        message = message.removeprefix("at 1(8): ").rpartition(" error: ")[2]
        message = message.removeprefix("failed to compile JSON schema: ")
    return f"{describe_grammar(config)}: {message}"
