"""What may be said about a grammar: its config, and how it reads as text."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.sampling.grammar_schema import ReadSchema, read_schema
from vlmkit.sampling.schema_size import MAX_CHARS, check_size
from vlmkit.tokens.vocabulary import byte_matcher, first_message, is_dead_end, require_llguidance


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
    json_schema: Annotated[
        dict[str, JsonValue] | Annotated[bool, Field(strict=True)] | None,
        BeforeValidator(check_size),
    ] = Field(
        default=None,
        description="the answer is a JSON value of this schema; true allows any value",
    )
    regex: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CHARS,
        description=r"the whole answer matches this (Rust syntax; \d is [0-9]; no look-around)",
    )
    lark: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CHARS,
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
        VlmkitError: llguidance is missing or refuses the grammar, or nothing can match it.

    Example:
        >>> check_grammar(Grammar(json_schema={"enum": ["red", "blue"]}))
    """
    text = to_lark(config)
    is_error, messages = require_llguidance().LLMatcher.validate_grammar_with_warnings(text)
    if is_error:
        raise VlmkitError(explain(config, messages[0]))
    matcher = byte_matcher(text)
    if not matcher.is_error() and is_dead_end(matcher, b""):  # a lark may name a model's tokens
        raise VlmkitError(f"{describe_grammar(config)}: no text matches it")


def grammar_doubts(config: Grammar) -> tuple[str, ...]:
    """Return why an answer that keeps to the grammar may yet not fit the JSON schema.

    Raises:
        VlmkitError: no value fits the schema.

    Example:
        >>> grammar_doubts(Grammar(json_schema={"type": "object", "minProperties": 2}))
        ('minProperties: 2 also counts a key that comes twice',)
    """
    if config.json_schema is None:
        return ()
    return _read(config).doubts


def to_lark(config: Grammar) -> str:
    """Return any form of grammar in llguidance's Lark dialect.

    Raises:
        VlmkitError: llguidance is missing, or no value fits the schema.
    """
    if config.json_schema is not None:
        text = f"start: %json {_read(config).text}"
    elif config.regex is not None:
        regex = require_llguidance().regex_to_lark(config.regex, "d")  # d: \d is [0-9]
        text = f"start: /{regex}/"
    else:
        text = config.lark or ""
    # otherwise a text that can only go on in one way would have to be split in one way
    return text + '\n%llguidance {"no_forcing": true}\n'


def _read(config: Grammar) -> ReadSchema:
    try:
        return read_schema(json.dumps(config.json_schema))
    except VlmkitError as error:
        raise VlmkitError(f"{describe_grammar(config)}: {error}") from error
    except RecursionError as error:
        raise VlmkitError(f"{describe_grammar(config)}: it is nested too deeply") from error


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
