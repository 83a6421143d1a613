"""A third party's contrast, held to the rules that batches rely on."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.streams import StreamMarkers, without_images
from vlmkit.declare.external import External, make_external
from vlmkit.errors import VlmkitError

GROUP = "vlmkit.contrast"


def external(config: External, *, num_layers: int | None = None) -> Contrast:
    """Make the method that an installed package or a module of yours offers.

    The factory gets ``config.config`` as keyword arguments and returns a ``Contrast``. A row is
    compared with early layers where it names ``early_layers``, else with one other prompt on the
    same model: what its ``other_prompt`` makes of the row's own, or that without its images.

    Args:
        config: which factory, and its arguments.
        num_layers: of the model; None does not check ``early_layers``.

    Raises:
        VlmkitError: the factory can't be found, fails, or returns something else; layers that the
            model doesn't have; while running, logits of another shape.

    Example:
        >>> away = External(
        ...     factory="experiments.own_contrast:away_from_layer", config={"layer": 2, "weight": 1}
        ... )
        >>> method = external(away, num_layers=4)
        >>> method.name, method.early_layers
        ('away_from_layer', (2,))
    """
    contrast = make_external(config, group=GROUP, result=Contrast)
    where = _where(config, contrast)
    layers = tuple(contrast.early_layers)
    for layer in layers:
        is_number = isinstance(layer, int) and not isinstance(layer, bool)
        if not is_number or layer < 0 or (num_layers is not None and layer >= num_layers):
            last = "" if num_layers is None else f" to {num_layers - 1}"
            raise VlmkitError(
                f"{where}: early_layers has {layer!r}, but layers are counted from 0{last}"
            )
    if len(set(layers)) < len(layers):
        raise VlmkitError(f"{where}: early_layers names a layer twice: {list(layers)}")

    def combine(logits: mx.array, others: mx.array, num_tokens: mx.array) -> mx.array:
        result = contrast.combine(logits, others, num_tokens)
        if not isinstance(result, mx.array) or (result.shape, result.dtype) != (
            logits.shape,
            logits.dtype,
        ):
            raise VlmkitError(
                f"{where}: combine gave {_show(result)}, not {_show(logits)}", path=("contrast",)
            )
        return result

    return contrast._replace(combine=combine, early_layers=layers)


def external_inputs(config: External, inputs: Inputs, markers: StreamMarkers) -> tuple[Inputs, ...]:
    """Return the prompt of a third party's other stream; none where it reads early layers.

    Raises:
        VlmkitError: the prompt has no image to leave out; an ``other_prompt`` that gives no prompt.
    """
    contrast = make_external(config, group=GROUP, result=Contrast)
    if contrast.early_layers:
        return ()
    where = _where(config, contrast)
    if contrast.other_prompt is None:
        return (without_images(inputs, markers, kind=where),)
    other = contrast.other_prompt(inputs)
    if not isinstance(other, Inputs) or not len(other.token_ids):
        got = "no tokens" if isinstance(other, Inputs) else f"a {type(other).__name__}"
        raise VlmkitError(
            f"{where}: other_prompt gave {got}, not vlmkit.contracts.inputs.Inputs with some"
        )
    return (other,)


def _where(config: External, contrast: Contrast) -> str:
    return f"external: contrast {contrast.name!r} of factory {config.factory!r}"


def _show(value: object) -> str:
    if not isinstance(value, mx.array):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('mlx.core.')} {list(value.shape)}"
