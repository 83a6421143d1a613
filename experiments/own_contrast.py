"""A contrast of one's own: ``kind: external`` finds it by name.

After Gera et al., "The benefits of bad advice", ACL 2023, arXiv:2305.01628.
"""

import mlx.core as mx

from vlmkit.contracts.stages import Contrast
from vlmkit.contrast.difference import only, without_gaps


def away_from_layer(layer: int, weight: float) -> Contrast:
    """Return ``(1 + w) z − w z'``: go on in the direction from an early layer to the last one."""

    def combine(logits, others, num_tokens):
        gap = logits - without_gaps(only(others))
        return logits + weight * mx.where(logits == -mx.inf, 0.0, gap)

    return Contrast("away_from_layer", combine, early_layers=(layer,))
