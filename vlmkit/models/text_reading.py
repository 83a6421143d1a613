"""Reading the text decoder's config from a checkpoint's config.json."""

from __future__ import annotations

from typing import Any, NamedTuple

from vlmkit.declare.section import MAX_SIZE, Section, shown
from vlmkit.models.text_config import (
    ATTENTION,
    LINEAR,
    SLIDING,
    DeltaNetConfig,
    ExpertsConfig,
    TextConfig,
)


class TextTraits(NamedTuple):
    """What a family's decoder is like where its config.json does not say. None: derived."""

    head_dim: int | None = None  # None: hidden_size / num_attention_heads, and nothing else
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1e6
    rotary_factor: float = 1.0  # of a head's size
    mrope_section: tuple[int, ...] = (16, 24, 24)  # empty: a token has one position
    mrope_interleaved: bool = False
    attention_bias: bool | None = True  # of q, k and v; None: attention_bias says, of o as well
    qk_norm: bool = False
    output_gate: bool = False
    full_attention_interval: int | None = None  # the layers between are gated delta nets
    between: str = LINEAR  # what these layers are
    interval_key: str = "full_attention_interval"
    hidden_act: str = "silu"
    act_key: str = "hidden_act"
    output_norms: bool = False
    scales_embeddings: bool = False  # by sqrt(hidden_size)
    defaults: tuple[tuple[str, Any], ...] = ()  # what a config.json may leave out
    has_experts: bool = False
    has_shared_expert: bool = False


def parse_text(section: Section, traits: TextTraits, *, tied: bool) -> TextConfig:
    """Read the decoder's part of a config.json.

    Args:
        section: the keys of the text model, wherever config.json has them.
        traits: what its family is like.
        tied: whether the head is the embedding.

    Raises:
        VlmkitError: a value is missing, has the wrong type, or asks for something unsupported.
    """
    hidden, heads = section.positive("hidden_size"), section.positive("num_attention_heads")
    head_dim = _head_dim(section, traits, hidden, heads)
    kv_heads = section.positive("num_key_value_heads", heads)
    section.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
    rope = _rope_section(section, traits)
    rotary_dim = _rotary_dim(section, rope, traits, head_dim)
    layers = section.positive("num_hidden_layers")
    if traits.between != SLIDING:
        _refuse_sliding_window(section, layers)
    types = _layer_types(section, layers, traits)
    experts = _experts(section, traits)
    bias = traits.attention_bias
    given_bias = section.flag("attention_bias", False) if bias is None else bias
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=section.positive(
            "intermediate_size", experts.intermediate_size if experts else None
        ),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=section.positive("vocab_size"),
        rms_norm_eps=section.number("rms_norm_eps", traits.rms_norm_eps),
        rope_theta=rope.number("rope_theta", section.number("rope_theta", traits.rope_theta)),
        mrope_section=_sections(rope, traits, rotary_dim),
        max_position_embeddings=section.positive("max_position_embeddings", 32768),
        tie_word_embeddings=tied,
        layer_types=types,
        rotary_dim=rotary_dim,
        mrope_interleaved=traits.mrope_interleaved,
        attention_bias=given_bias,
        output_bias=bias is None and given_bias,
        qk_norm=traits.qk_norm,
        output_gate=traits.output_gate,
        delta_net=_delta_net(section) if LINEAR in types else None,
        experts=experts,
        sparse_layers=_sparse_layers(section, layers) if experts else (),
        hidden_act=section.choice(traits.act_key, traits.hidden_act, (traits.hidden_act,)),
        output_norms=traits.output_norms,
        embed_scale=hidden**0.5 if traits.scales_embeddings else 1.0,
        **_sliding(section, rope, traits),
    )


def _sliding(section: Section, rope: Section, traits: TextTraits) -> dict[str, Any]:
    """What decoders with sliding windows say beside the rest."""
    if traits.between != SLIDING:
        return {}
    for key in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if section.values.get(key):
            raise section.error(key, f"is {shown(section.values[key])}, which is not supported")
    local = section.inner("rope_parameters").inner(SLIDING)
    local.choice("rope_type", "default", ("default",))
    return {
        "rope_factor": rope.number("factor", 1.0) if rope.values.get("rope_type") else 1.0,
        "local_rope_theta": local.number(
            "rope_theta", section.number("rope_local_base_freq", 10000.0)
        ),
        "window": section.positive("sliding_window"),
        "attention_scale": section.number("query_pre_attn_scalar") ** -0.5,
    }


def _head_dim(section: Section, traits: TextTraits, hidden: int, heads: int) -> int:
    if traits.head_dim is not None:
        head_dim = section.positive("head_dim", traits.head_dim)
        if head_dim % 2:
            raise section.error("head_dim", f"is {head_dim}; it has to be even")
        if 2 * heads * head_dim > MAX_SIZE:
            raise section.error("head_dim", f"is {head_dim}; {heads} heads of it are too many")
        return head_dim
    section.divides("num_attention_heads", heads, "hidden_size", hidden)
    head_dim = section.positive("head_dim", hidden // heads)
    if head_dim * heads != hidden or head_dim % 2:
        raise section.error(
            "head_dim", f"is {head_dim}; it has to be even and hidden_size / num_attention_heads"
        )
    return head_dim


def _rope_section(section: Section, traits: TextTraits) -> Section:
    # transformers 5 writes rope_parameters; before, there were rope_scaling and rope_theta.
    key = "rope_scaling" if section.values.get("rope_scaling") else "rope_parameters"
    rope = section.inner(key)
    if traits.between == SLIDING and key == "rope_parameters":
        rope = rope.inner(ATTENTION)
    kind = "rope_type" if rope.values.get("rope_type") else "type"
    second = "linear" if traits.between == SLIDING else "mrope"
    rope.choice(kind, "default", ("default", second))
    return rope


def _rotary_dim(section: Section, rope: Section, traits: TextTraits, head_dim: int) -> int:
    if traits.rotary_factor == 1:
        return head_dim
    outer = section.number("partial_rotary_factor", traits.rotary_factor)
    factor = rope.number("partial_rotary_factor", outer)
    rotary_dim = int(head_dim * min(factor, 2))
    if factor > 1 or rotary_dim < 2 or rotary_dim % 2:
        raise rope.error(
            "partial_rotary_factor",
            f"is {factor:g}; it has to be at most 1, and an even part of head_dim, {head_dim}",
        )
    return rotary_dim


def _sections(rope: Section, traits: TextTraits, rotary_dim: int) -> tuple[int, ...]:
    if not traits.mrope_section:
        return ()
    sections = rope.integers("mrope_section", traits.mrope_section)
    if min(sections, default=0) < 1 or sum(sections) != rotary_dim // 2:
        whole = "head_dim" if traits.rotary_factor == 1 else "partial_rotary_factor * head_dim"
        raise rope.error(
            "mrope_section", f"is {list(sections)}; it has to sum to {whole} / 2, {rotary_dim // 2}"
        )
    if traits.mrope_interleaved and len(sections) != 3:
        raise rope.error("mrope_section", f"is {list(sections)}; it has to be three numbers")
    return sections


def _refuse_sliding_window(section: Section, layers: int) -> None:
    by_type = "sliding_attention" in section.names("layer_types")
    first = section.integers("max_window_layers", (layers,))
    if by_type or (section.flag("use_sliding_window", False) and min(first, default=0) < layers):
        raise section.error(
            "use_sliding_window",
            "asks for sliding-window text attention, which is not supported; set it to false",
        )


def _layer_types(section: Section, layers: int, traits: TextTraits) -> tuple[str, ...]:
    interval = traits.full_attention_interval
    if interval is None:
        return (ATTENTION,) * layers
    types = section.names("layer_types")
    if not types:
        every = section.positive(traits.interval_key, interval)
        return tuple(traits.between if (i + 1) % every else ATTENTION for i in range(layers))
    for name in types:
        if name not in (ATTENTION, traits.between):
            supported = f"{ATTENTION}, {traits.between}"
            raise section.error("layer_types", f"has {shown(name)}; supported: {supported}")
    if len(types) != layers:
        raise section.error(
            "layer_types", f"has {len(types)} entries; num_hidden_layers is {layers}"
        )
    return types


def _delta_net(section: Section) -> DeltaNetConfig:
    config = DeltaNetConfig(
        num_key_heads=section.positive("linear_num_key_heads", 16),
        num_value_heads=section.positive("linear_num_value_heads", 32),
        key_dim=section.positive("linear_key_head_dim", 128),
        value_dim=section.positive("linear_value_head_dim", 128),
        conv_size=section.positive("linear_conv_kernel_dim", 4),
    )
    section.divides(
        "linear_num_key_heads",
        config.num_key_heads,
        "linear_num_value_heads",
        config.num_value_heads,
    )
    if config.conv_dim * config.conv_size > MAX_SIZE:
        raise section.error("linear_value_head_dim", "and the sizes beside it are too large")
    return config


def _experts(section: Section, traits: TextTraits) -> ExpertsConfig | None:
    if not traits.has_experts:
        return None
    inner = section.positive("moe_intermediate_size")
    shared = (
        section.positive("shared_expert_intermediate_size") if traits.has_shared_expert else None
    )
    # transformers writes some families' number under another name.
    key = "num_local_experts" if section.values.get("num_local_experts") else "num_experts"
    number = section.positive(key)
    per_token = section.positive("num_experts_per_tok")
    if per_token > number:
        raise section.error("num_experts_per_tok", f"is {per_token}, and {key} is {number}")
    if number * inner > MAX_SIZE:
        raise section.error(key, f"is {number}; so many of {inner} columns are too many")
    if not section.flag("norm_topk_prob", True):
        raise section.error("norm_topk_prob", "is false, which is not supported; it has to be true")
    return ExpertsConfig(number, per_token, inner, shared)


def _sparse_layers(section: Section, layers: int) -> tuple[int, ...]:
    step = section.positive("decoder_sparse_step", 1)
    dense = section.integers("mlp_only_layers", ())
    return tuple(i for i in range(layers) if (i + 1) % step == 0 and i not in dense)
