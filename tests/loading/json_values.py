"""Every field of a checkpoint's JSON files, and the values that might stand there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Field = tuple[str, ...]

# Beside those that the file has already.
FURTHER_FIELDS: dict[str, str] = {
    "config.json": "architectures head_dim layer_types max_window_layers model_file pad_token_id "
    "quantization quantization_config quantization.bits quantization.group_size quantization.mode "
    "rope_parameters rope_scaling rope_scaling.mrope_section rope_scaling.type sliding_window "
    "text_config text_config.eos_token_id text_config.vocab_size tie_word_embeddings "
    "use_sliding_window vision_config vision_config.rope_parameters",
    "generation_config.json": "eos_token_id bos_token_id pad_token_id",
    "tokenizer_config.json": "added_tokens_decoder added_tokens_decoder.62 "
    "added_tokens_decoder.62.content added_tokens_decoder.62.special bos_token chat_template "
    "eos_token pad_token sep_token tokenizer_class unk_token",
    "special_tokens_map.json": "bos_token eos_token eos_token.content",
    "preprocessor_config.json": "do_normalize do_rescale do_resize feature_extractor_type "
    "image_mean image_processor_type image_std resample rescale_factor size size.height "
    "size.longest_edge size.max_pixels size.min_pixels size.shortest_edge",
    "processor_config.json": "chat_template image_processor image_processor.image_mean "
    "image_processor.min_pixels image_processor.size",
    "chat_template.json": "chat_template chat_template.default",
}
FILES = tuple(FURTHER_FIELDS)
LIKELY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 10**6, 2**31 - 1, 2**31, 2**64, 10**400, 1.5, -0.5, 1e308,
    math.nan, math.inf, "", "x", "w5", "16", "a\nb\ud800", [], [None], [0], [1, 2, 3], ["x"], [[1]],
    [{}], {}, {"a": 1}, {"content": "w1"}, {"1": {}}, {"w1": {"content": 5}}, {"default": 5},
    [{"name": "default", "template": 5}], {"type": "x"}, {"group_size": 64, "bits": 4},
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(LIKELY),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ),
)


def fields(path: Path) -> list[Field]:
    """Every key of a JSON file, nested ones included, and those that it might have."""
    values = json.loads(path.read_text()) if path.is_file() else {}
    known = set(_walk(values, ()))
    return sorted(known | {tuple(name.split(".")) for name in FURTHER_FIELDS[path.name].split()})


def _walk(values: Mapping[str, Any], outer: Field) -> Iterator[Field]:
    for key, value in values.items():
        yield (*outer, key)
        if isinstance(value, dict):
            yield from _walk(value, (*outer, key))


def with_value(text: str | None, field: Field, value: Any) -> str:
    """A JSON file's text with one field changed."""
    values = json.loads(text) if text is not None else {}
    section = values
    for key in field[:-1]:
        if not isinstance(section.get(key), dict):
            section[key] = {}
        section = section[key]
    section[field[-1]] = value
    return json.dumps(values)
