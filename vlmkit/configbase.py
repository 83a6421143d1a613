"""What every config shares: unknown keys are errors, values are frozen, booleans are no numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class StageConfig(BaseModel):
    """Base of every stage's config."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _no_boolean(value: Any) -> Any:
    # YAML reads `off` and `no` as False, and Python counts False as 0.
    if isinstance(value, bool):
        raise ValueError(f"needs a number, not {value!r}")
    return value


Int = Annotated[int, BeforeValidator(_no_boolean)]
Float = Annotated[float, BeforeValidator(_no_boolean)]
