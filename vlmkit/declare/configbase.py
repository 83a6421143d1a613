"""What every config shares: unknown keys are errors, values are frozen, booleans are no numbers."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from vlmkit.errors import VlmkitError
from vlmkit.mistakes.explain import explain, one_line

Config = TypeVar("Config", bound=BaseModel)


class StageConfig(BaseModel):
    """Base of every stage's config. What does not fit is one line, as it is in a YAML file.

    Raises:
        VlmkitError: names the class, the key and what would work.

    Example:
        >>> class Cut(StageConfig):
        ...     share: float
        >>> Cut(share=0.5, shar=1)
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: Cut: shar: unknown key; did you mean 'share'? (known here: share)
    """

    # Each config's schema is built when it is first needed: of some seventy, a run needs few.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    def __init__(self, /, *unnamed: Any, **values: Any) -> None:
        if unnamed:
            name, fields = type(self).__name__, [k for k in type(self).model_fields if k != "kind"]
            example = f", as in {name}({fields[0]}=…)" if fields else ""
            raise VlmkitError(f"{name}: values are given by name{example}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _as_one_line(type(self), error) from None

    # As BaseModel's own: a config inside another is validated as a part of it, not made by a call.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate a mapping, with errors as above."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise _as_one_line(cls, error) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Validate JSON, with errors as above."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            raise _as_one_line(cls, error) from None


def parse_config(model: type[Config], value: Any) -> Config:
    """Validate a mapping and leave pydantic's own error to the caller.

    Raises:
        ValidationError: it does not fit.

    Example:
        >>> from vlmkit.passes.prefill import PrefillConfig
        >>> parse_config(PrefillConfig, {"step_size": 64}).step_size
        64
    """
    # No TypeAdapter: it would build the schema again each time, and not for the class.
    parsed: Config = model.__pydantic_validator__.validate_python(value)
    return parsed


def _as_one_line(model: type[BaseModel], error: ValidationError) -> VlmkitError:
    mistakes = explain(model, error)
    return VlmkitError(f"{model.__name__}: {one_line(mistakes)}", path=mistakes[0].about)


def _no_boolean(value: Any) -> Any:
    # YAML reads `off` and `no` as False, and Python counts False as 0.
    if isinstance(value, bool):
        raise ValueError(f"needs a number, not {value!r}")
    return value


Int = Annotated[int, BeforeValidator(_no_boolean)]
Float = Annotated[float, BeforeValidator(_no_boolean)]
