"""What a conversion file says: how modules are packed, in which dtype, in files of which size."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from vlmkit.config.tree import Node, Origin, merge
from vlmkit.config.validate import validate
from vlmkit.config.yaml_tree import INCLUDE, load_yaml, parse_overrides
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.loading.quantization import (
    AFFINE_BITS,
    AFFINE_GROUP_SIZES,
    FIXED_SCHEMES,
    Scheme,
)
from vlmkit.mistakes.jsonschema import json_schema

Mode = Literal["affine", "mxfp4", "mxfp8", "nvfp4"]
Name = Annotated[str, Field(min_length=1)]


class PackingConfig(StageConfig):
    """How matrices are packed: the mode decides which bits and group sizes there are."""

    mode: Mode = Field(
        default="affine",
        description="affine: integers with a scale and a bias per group; mxfp4, mxfp8, nvfp4: "
        "small floats with a scale per group",
    )
    bits: Int | None = Field(
        default=None, description="of each weight; null: 4 for affine, else the mode's own"
    )
    group_size: Int | None = Field(
        default=None,
        description="weights that share a scale; null: 64 for affine, else the mode's own",
    )

    @model_validator(mode="after")
    def _exists(self) -> PackingConfig:
        is_affine = self.mode == "affine"
        size, bits = (None, None) if is_affine else FIXED_SCHEMES[self.mode]
        _check(self, "bits", self.bits, AFFINE_BITS if bits is None else (bits,))
        _check(self, "group_size", self.group_size, AFFINE_GROUP_SIZES if size is None else (size,))
        return self

    @property
    def scheme(self) -> Scheme:
        """The mode with its bits and group size."""
        size, bits = FIXED_SCHEMES.get(self.mode, (64, 4))
        return Scheme(self.group_size or size, self.bits or bits, self.mode)


class RuleConfig(PackingConfig):
    """How the modules of a pattern are packed, or that they are not."""

    modules: Name | tuple[Name, ...] = Field(
        description="a module's path in the new folder, or that of one around it, or several; '*' "
        "stands for any text, as in '*.down_proj' or 'language_model.model.layers.0'",
    )
    keep: bool = Field(default=False, description="leave them in full precision")

    @property
    def patterns(self) -> tuple[str, ...]:
        """The modules' patterns."""
        return (self.modules,) if isinstance(self.modules, str) else self.modules

    @model_validator(mode="after")
    def _is_one_of_both(self) -> RuleConfig:
        given = {"mode", "bits", "group_size"} & self.model_fields_set
        if self.keep and given:
            raise VlmkitError(
                f"a rule that keeps modules has no {sorted(given)[0]}; leave out one of them",
                path=("keep",),
            )
        return self


class QuantizationConfig(PackingConfig):
    """How matrices are packed: all of one scheme, but for what rules say of some.

    What no rule names and that sees or hears, such as a vision encoder, is left in full precision.
    """

    rules: tuple[RuleConfig, ...] = Field(
        default=(), description="of several that match a module the first one counts"
    )


class ConvertConfig(StageConfig):
    """How a checkpoint is converted. Without any key it gets the names and layouts of MLX alone.

    Example:
        >>> ConvertConfig(quantization={"bits": 8}).quantization.scheme
        Scheme(group_size=64, bits=8, mode='affine')
        >>> ConvertConfig(quantization={"bits": 7})
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: ConvertConfig: quantization: affine has no bits 7; use 2, 3, 4, \
5, 6, 8
    """

    quantization: QuantizationConfig | None = Field(
        default=None, description="how matrices are packed; null: not at all"
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="of what is not packed, and of scales; null: as stored"
    )
    shard_gb: Float = Field(
        default=5.0,
        gt=0,
        description="billions of bytes in a weight file at most; a larger tensor has its own file",
    )


class LoadedConvert(NamedTuple):
    """A conversion's config, and where its values were written."""

    config: ConvertConfig
    tree: Node


def load_convert(
    path: str | os.PathLike[str] | None = None, *, overrides: Sequence[str] = ()
) -> LoadedConvert:
    """Read a conversion file.

    Args:
        path: a YAML file, or ``vlmkit:PATH`` for one of the package; None: without.
        overrides: ``a.b=c`` strings.

    Raises:
        VlmkitError: names file, line and key, and what would work.

    Example:
        >>> found = load_convert("vlmkit:convert/affine_4bit.yaml", overrides=["dtype=float16"])
        >>> found.config.dtype, found.config.quantization.scheme.bits
        ('float16', 4)
    """
    file = Node({}, Origin("convert")) if path is None else load_yaml(path)
    tree = merge(file, parse_overrides(overrides))
    return LoadedConvert(validate(ConvertConfig, tree), tree)


def convert_schema_text() -> str:
    """JSON Schema (draft 2020-12) of a conversion file, as ``configs/convert.schema.json`` has it.

    Example:
        >>> sorted(json.loads(convert_schema_text())["properties"])
        ['dtype', 'include', 'quantization', 'shard_gb']
    """
    schema: dict[str, Any] = copy.deepcopy(json_schema(ConvertConfig))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vlmkit convert"
    schema["description"] = "How a checkpoint is converted."
    name = {"type": "string"}
    schema["properties"][INCLUDE] = {
        "description": "files of the same kind to start from, relative to this one; later ones win",
        "anyOf": [name, {"type": "array", "items": name}],
    }
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _check(config: PackingConfig, key: str, value: int | None, allowed: Sequence[int]) -> None:
    if value is not None and value not in allowed:
        choices = ", ".join(map(str, allowed))
        raise VlmkitError(f"{config.mode} has no {key} {value}; use {choices}", path=(key,))
