"""Model configs: frozen values parsed from a checkpoint's config.json, in either hub layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vlmkit.section import MAX_SIZE, Section

ACTIVATIONS = ("silu", "quick_gelu", "gelu", "gelu_pytorch_tanh")


@dataclass(frozen=True)
class TextConfig:
    """The text decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, ...]  # frequencies per position axis; sums to head_dim / 2
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_bias: bool = True  # of q, k and v
    hidden_act: str = "silu"

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class VisionConfig:
    """The vision encoder."""

    depth: int
    embed_dim: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int  # the decoder's hidden size
    hidden_act: str
    norm: str  # "layer_norm" | "rms_norm"
    gated_mlp: bool  # act(gate(x)) * up(x) instead of act(fc1(x))
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    window_size: int | None = None  # pixels; None: every block attends to the whole image
    full_attention_blocks: tuple[int, ...] = ()  # where a window_size is set
    video_time_step: int = 1  # positions between two frames of a video, one second apart

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True)
class ModelConfig:
    """A vision-language model.

    Example:
        >>> from vlmkit.models.families import FAMILIES
        >>> FAMILIES[0].name, FAMILIES[0].model_types
        ('qwen2_vl', ('qwen2_vl',))
    """

    model_type: str
    text_config: TextConfig
    vision_config: VisionConfig
    image_token_id: int
    video_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    eos_token_id: tuple[int, ...]  # may be empty: the tokenizer has its own

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, which may be more than the tokenizer has tokens."""
        return self.text_config.vocab_size

    @property
    def hidden_size(self) -> int:
        """Width of the decoder."""
        return self.text_config.hidden_size

    @property
    def max_position_embeddings(self) -> int:
        """Longest context in tokens."""
        return self.text_config.max_position_embeddings


def shared_vision(section: Section, *, default_act: str) -> dict[str, Any]:
    """Read what every vision encoder has."""
    rope = section.inner("rope_parameters")
    rope.choice("rope_type", "axial", ("axial", "default"))
    channels = "in_channels" if section.values.get("in_channels") is not None else "in_chans"
    return {
        "depth": section.positive("depth"),
        "num_heads": section.positive("num_heads"),
        "hidden_act": section.choice("hidden_act", default_act, ACTIVATIONS),
        "in_channels": section.positive(channels, 3),
        "patch_size": section.positive("patch_size", 14),
        "temporal_patch_size": section.positive("temporal_patch_size", 2),
        "spatial_merge_size": section.positive("spatial_merge_size", 2),
        "rope_theta": rope.number("rope_theta", 10000.0),
    }


def _parse_text(section: Section, *, tied: bool) -> TextConfig:
    hidden, heads = section.positive("hidden_size"), section.positive("num_attention_heads")
    section.divides("num_attention_heads", heads, "hidden_size", hidden)
    kv_heads = section.positive("num_key_value_heads", heads)
    section.divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
    head_dim = section.positive("head_dim", hidden // heads)
    if head_dim * heads != hidden or head_dim % 2:
        raise section.error(
            "head_dim", f"is {head_dim}; it has to be even and hidden_size / num_attention_heads"
        )
    theta, sections = _parse_rope(section, head_dim)
    layers = section.positive("num_hidden_layers")
    _refuse_sliding_window(section, layers)
    return TextConfig(
        hidden_size=hidden,
        intermediate_size=section.positive("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=section.positive("vocab_size"),
        rms_norm_eps=section.number("rms_norm_eps", 1e-5),
        rope_theta=theta,
        mrope_section=sections,
        max_position_embeddings=section.positive("max_position_embeddings", 32768),
        tie_word_embeddings=tied,
        hidden_act=section.choice("hidden_act", "silu", ("silu",)),
    )


def _parse_rope(section: Section, head_dim: int) -> tuple[float, tuple[int, ...]]:
    # transformers 5 writes rope_parameters; before, there were rope_scaling and rope_theta.
    key = "rope_scaling" if section.values.get("rope_scaling") else "rope_parameters"
    rope = section.inner(key)
    kind = "rope_type" if rope.values.get("rope_type") else "type"
    rope.choice(kind, "default", ("default", "mrope"))
    theta = rope.number("rope_theta", section.number("rope_theta", 1e6))
    sections = rope.integers("mrope_section", (16, 24, 24))
    if min(sections, default=0) < 1 or sum(sections) != head_dim // 2:
        raise rope.error(
            "mrope_section", f"is {list(sections)}; it has to sum to head_dim / 2, {head_dim // 2}"
        )
    return float(theta), sections


def _refuse_sliding_window(section: Section, layers: int) -> None:
    by_type = "sliding_attention" in section.names("layer_types")
    first = section.integers("max_window_layers", (layers,))
    if by_type or (section.flag("use_sliding_window", False) and min(first, default=0) < layers):
        raise section.error(
            "use_sliding_window",
            "asks for sliding-window text attention, which is not supported; set it to false",
        )


def parse_config(
    config: Mapping[str, Any], *, vision: Callable[[Section], VisionConfig]
) -> ModelConfig:
    """Parse config.json, flat as on the hub or nested as transformers 5 writes it.

    Args:
        config: the contents of config.json.
        vision: reads the family's ``vision_config`` section.

    Raises:
        VlmkitError: a value is missing, has the wrong type, or asks for something unsupported.
    """
    top = Section(config, "")
    nested = top.mapping("text_config")
    flat = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    rope = {key: config[key] for key in ("rope_scaling", "rope_parameters") if key in config}
    section = Section({**flat, **rope, **nested}, "text_config." if nested else "")
    # Either level may tie the head: old nested configs have it in text_config.
    inner = Section(nested, "text_config.")
    tied = any(part.flag("tie_word_embeddings", False) for part in (top, inner))
    text = _parse_text(section, tied=tied)
    parsed = vision(top.inner("vision_config"))
    _check_vision(parsed, text)
    return ModelConfig(
        model_type=str(config["model_type"]),
        text_config=text,
        vision_config=parsed,
        image_token_id=top.token_id("image_token_id", 151655),
        video_token_id=top.token_id("video_token_id", 151656),
        vision_start_token_id=top.token_id("vision_start_token_id", 151652),
        vision_end_token_id=top.token_id("vision_end_token_id", 151653),
        eos_token_id=section.integers("eos_token_id", ()),
    )


def _check_vision(vision: VisionConfig, text: TextConfig) -> None:
    section = Section({}, "vision_config.")
    for key, size in (
        ("patch_size, temporal_patch_size, in_channels", vision.patch_dim),
        ("spatial_merge_size", vision.embed_dim * vision.spatial_merge_size**2),
        ("hidden_size (embed_dim)", 3 * vision.embed_dim),
    ):
        if size > MAX_SIZE:
            raise section.error(key, f"would make a matrix of {size} columns; 2³¹ is too many")
    section.divides("num_heads", vision.num_heads, "the width", vision.embed_dim)
    head_dim = vision.embed_dim // vision.num_heads
    if head_dim % 4:
        raise section.error("num_heads", f"gives heads of {head_dim}; it has to be a multiple of 4")
    if vision.out_hidden_size != text.hidden_size:
        raise section.error(
            "hidden_size (out_hidden_size)",
            f"is {vision.out_hidden_size}; it has to be the text hidden_size, {text.hidden_size}",
        )
    token = vision.patch_size * vision.spatial_merge_size
    if vision.window_size is not None and vision.window_size < token:
        raise section.error(
            "window_size", f"is {vision.window_size} pixels; it has to hold a token, {token}"
        )
