"""The JSON Schema of a config, as the standard spells it."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

# pydantic writes its own names where a bound stands behind a validator function.
BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


@functools.lru_cache(maxsize=256)  # writing that of a run takes longer than all else of an error
def json_schema(model: type[BaseModel]) -> Schema:
    """JSON Schema (draft 2020-12) of a config class; shared, so copy it before changing it.

    Example:
        >>> from vlmkit.pipeline import PipelineConfig
        >>> json_schema(PipelineConfig)["properties"]["seed"]["minimum"]
        0
    """
    schema: Schema = _standard(model.model_json_schema())
    return schema


def kind_sections(schema: Schema) -> dict[str, str]:
    """The section that each kind of stage stands in.

    Args:
        schema: of a config with sections, as made by `json_schema`.

    Example:
        >>> from vlmkit.pipeline import PipelineConfig
        >>> kind_sections(json_schema(PipelineConfig))["beam"]
        'search'
    """
    found: dict[str, str] = {}
    for section, value in schema.get("properties", {}).items():
        for form in (value, value.get("items", {}), *value.get("anyOf", ())):
            for kind in form.get("discriminator", {}).get("mapping", {}):
                found.setdefault(kind, section)
    return found


def _standard(part: Any) -> Any:
    if isinstance(part, list):
        return [_standard(item) for item in part]
    if not isinstance(part, dict):
        return part
    is_number = part.get("type") in ("integer", "number")
    return {
        BOUNDS.get(key, key) if is_number else key: _standard(value) for key, value in part.items()
    }
