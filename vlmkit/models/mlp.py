"""The MLPs of the text decoder: one for all tokens, or experts of which each token takes a few.

Reference: Shazeer (2020), arXiv:2002.05202 (SwiGLU); Shazeer et al. (2017), arXiv:1701.06538, and
Dai et al. (2024), "DeepSeekMoE", arXiv:2401.06066 (an expert that all tokens share).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.forms import Forms
from vlmkit.models.text_config import TextConfig
from vlmkit.ranks.group import ALONE, Ranks


class GatedMLP(nn.Module):
    """``down(act(gate(x)) * up(x))``; of several ranks each has some of the inner columns."""

    def __init__(
        self, inputs: int, inner: int, forms: Forms, ranks: Ranks, act: str = "silu"
    ) -> None:
        super().__init__()
        self.total = ranks.sum
        activation = forms.activations[act]
        self.glu = forms.swiglu if act == "silu" else lambda gate, up: activation(gate) * up
        self.gate_proj = nn.Linear(inputs, inner, bias=False)
        self.up_proj = nn.Linear(inputs, inner, bias=False)
        self.down_proj = nn.Linear(inner, inputs, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[..., hidden]`` to ``[..., hidden]``."""
        own = self.down_proj(self.glu(self.gate_proj(x), self.up_proj(x)))
        out: mx.array = self.total(own)
        return out


class Experts(nn.Module):
    """A router, and MLPs of which each token takes the few that it scores highest.

    Their outputs are weighted by the router's probabilities, which are made to sum to 1. One more
    MLP may serve all tokens, behind a gate of its own.
    """

    def __init__(self, config: TextConfig, forms: Forms, ranks: Ranks) -> None:
        super().__init__()
        from mlx_lm.models.switch_layers import SwitchGLU  # takes seconds to import

        experts, hidden = config.experts, config.hidden_size
        assert experts is not None
        self.total, self.num_per_token = ranks.sum, experts.num_per_token
        self.gate = nn.Linear(hidden, experts.num_experts, bias=False)
        self.switch_mlp = SwitchGLU(
            hidden,
            experts.intermediate_size,
            experts.num_experts,
            activation=lambda up, gate: forms.swiglu(gate, up),
        )
        self.is_shared = experts.shared_size is not None
        if experts.shared_size is not None:
            self.shared_expert = GatedMLP(hidden, experts.shared_size, forms, ALONE)
            self.shared_expert_gate = nn.Linear(hidden, 1, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        """Map ``[N, hidden]`` to ``[N, hidden]``."""
        chances = mx.softmax(self.gate(x).astype(mx.float32), axis=-1)
        best = mx.argpartition(-chances, self.num_per_token - 1, axis=-1)[:, : self.num_per_token]
        weights = mx.take_along_axis(chances, best, axis=-1)
        weights = (weights / weights.sum(axis=-1, keepdims=True)).astype(x.dtype)
        out = (self.switch_mlp(x, best) * weights[..., None]).sum(axis=-2)
        if self.is_shared:
            out = out + mx.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
        total: mx.array = self.total(out)
        return total
