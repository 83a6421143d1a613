"""A sampler stage of one's own, as the README shows it: ``kind: external`` finds it by name.

To name it is to run it, so a YAML file that does needs ``--trust-code``. Top-a is by BlinkDL, https://github.com/BlinkDL/RWKV-LM.
"""

import mlx.core as mx

from vlmkit.contracts.stages import SamplerStage


def top_a(a: float) -> SamplerStage:
    """Keep p_i ≥ a · (max p)²: the surer the model, the stricter the cut."""

    def apply(state, logits, uniform):
        probs = mx.softmax(logits, axis=-1)
        return mx.where(probs >= a * probs.max(-1, keepdims=True) ** 2, logits, -mx.inf)

    return SamplerStage("top_a", lambda prompts, size: (), apply, lambda state, ids: state)
