"""The text decoder's config: what one decoder can be."""

from __future__ import annotations

from dataclasses import dataclass

ATTENTION, LINEAR, SLIDING = "full_attention", "linear_attention", "sliding_attention"
"""The kinds of decoder layers, as ``layer_types`` of config.json calls them."""


@dataclass(frozen=True)
class DeltaNetConfig:
    """The sizes of a gated delta net: linear attention behind a short convolution."""

    num_key_heads: int
    num_value_heads: int  # a multiple of num_key_heads
    key_dim: int  # of a head
    value_dim: int  # of a head
    conv_size: int  # tokens that the convolution sees

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: queries, keys and values of all heads."""
        keys = self.num_key_heads * self.key_dim
        return 2 * keys + self.num_value_heads * self.value_dim


@dataclass(frozen=True)
class ExpertsConfig:
    """The sizes of a mixture of experts."""

    num_experts: int
    num_per_token: int
    intermediate_size: int  # of an expert
    shared_size: (
        int | None
    )  # of one more that serves all tokens, behind a gate; None: there is none


@dataclass(frozen=True)
class TextConfig:
    """The text decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, ...]  # frequencies per position axis; sums to rotary_dim / 2; ():
    # a token has one position
    max_position_embeddings: int
    tie_word_embeddings: bool
    layer_types: tuple[str, ...]  # ATTENTION, LINEAR or SLIDING, one per layer
    rotary_dim: int  # so much of a head turns, from its start
    mrope_interleaved: bool = False  # axes take turns from frequency to frequency, or in chunks
    attention_bias: bool = True  # of q, k and v
    output_bias: bool = False  # of o
    qk_norm: bool = False  # RMSNorm over each head of q and k
    output_gate: bool = False  # q_proj gives a gate too; its sigmoid scales what attention gives
    delta_net: DeltaNetConfig | None = None  # of the LINEAR layers, where there are some
    experts: ExpertsConfig | None = None
    sparse_layers: tuple[int, ...] = ()  # those that have experts in place of the MLP
    rope_factor: float = 1.0  # positions are divided by it, in all but SLIDING layers
    local_rope_theta: float | None = None  # of SLIDING layers
    window: int | None = None  # tokens that a query of a SLIDING layer sees
    attention_scale: float | None = None  # of scores; None: 1 / sqrt(head_dim)
    output_norms: bool = False  # an RMSNorm behind each part, too
    embed_scale: float = 1.0  # of the embeddings of text
    hidden_act: str = "silu"
