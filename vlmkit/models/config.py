"""Model configs: frozen values parsed from a checkpoint's config.json, in either hub layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlmkit.declare.section import MAX_SIZE, Section, shown
from vlmkit.models.audio import AudioConfig
from vlmkit.models.text_config import TextConfig
from vlmkit.models.text_reading import TextTraits, parse_text

ACTIVATIONS = ("silu", "quick_gelu", "gelu", "gelu_pytorch_tanh")


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
    rope_theta: float | None = 10000.0  # None: no rotary positions
    norm_eps: float = 1e-6
    window_size: int | None = None  # pixels; None: every block attends to the whole image
    full_attention_blocks: tuple[int, ...] = ()  # where a window_size is set
    video_time_step: int | None = 1  # positions between two frames of a video: of a second, where
    # the video says how long one lasts; None: each frame is a medium of its own
    patch_bias: bool = False
    num_position_embeddings: int | None = None  # a square grid of them, learned, resampled to the
    # size of each image and added to its patches; None: rotary positions alone
    merger: str = "mlp"  # or "pool": the mean of a token's patches, an RMSNorm, one matrix
    final_norm: bool = False  # behind the last block
    deepstack_blocks: tuple[int, ...] = ()  # what they give, merged, is added after the first
    # decoder layers, one for each

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True)
class ModelConfig:
    """A decoder and the encoders before it; what a family does not have is None.

    Example:
        >>> from vlmkit.models.families import FAMILIES
        >>> FAMILIES[0].name, FAMILIES[0].model_types
        ('qwen2_vl', ('qwen2_vl',))
    """

    model_type: str
    text_config: TextConfig
    eos_token_id: tuple[int, ...]  # may be empty: the tokenizer has its own
    vision_config: VisionConfig | None = None
    image_token_id: int | None = None
    video_token_id: int | None = None
    vision_start_token_id: int | None = None
    vision_end_token_id: int | None = None
    audio_config: AudioConfig | None = None
    audio_token_id: int | None = None
    bidirectional_media: bool = False  # the tokens of a medium see each other in the decoder

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        """The ids whose places media take."""
        found = (self.image_token_id, self.video_token_id, self.audio_token_id)
        return tuple(token_id for token_id in found if token_id is not None)

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


def shared_vision(section: Section, *, default_act: str, patch_size: int = 14) -> dict[str, Any]:
    """Read what every vision encoder has; ``patch_size`` is for a config that does not say."""
    rope = section.inner("rope_parameters")
    rope.choice("rope_type", "axial", ("axial", "default"))
    channels = "in_channels" if section.values.get("in_channels") is not None else "in_chans"
    return {
        "depth": section.positive("depth"),
        "num_heads": section.positive("num_heads"),
        "hidden_act": section.choice("hidden_act", default_act, ACTIVATIONS),
        "in_channels": section.positive(channels, 3),
        "patch_size": section.positive("patch_size", patch_size),
        "temporal_patch_size": section.positive("temporal_patch_size", 2),
        "spatial_merge_size": section.positive("spatial_merge_size", 2),
        "rope_theta": rope.number("rope_theta", 10000.0),
    }


class TokenIds(NamedTuple):
    """The ids of a family's placeholders, for a config.json that does not say."""

    image: int = 151655
    video: int = 151656
    vision_start: int = 151652
    vision_end: int = 151653


def parse_config(
    config: Mapping[str, Any],
    *,
    vision: Callable[[Section], VisionConfig],
    text: TextTraits = TextTraits(),  # noqa: B008
    ids: TokenIds = TokenIds(),  # noqa: B008
    bidirectional_media: bool = False,
) -> ModelConfig:
    """Parse config.json, flat as on the hub or nested as transformers 5 writes it.

    Args:
        config: the contents of config.json.
        vision: reads the family's ``vision_config`` section.
        text: what the family's decoder is like.
        ids: the family's placeholders.
        bidirectional_media: whether the tokens of a medium see each other.

    Raises:
        VlmkitError: a value is missing, has the wrong type, or asks for something unsupported.
    """
    top = Section(config, "")
    decoder, eos_token_id = _parse_decoder(config, text)
    parsed = vision(top.inner("vision_config"))
    _check_vision(parsed, decoder)
    _check_deepstack(parsed, decoder)
    return ModelConfig(
        model_type=str(config["model_type"]),
        text_config=decoder,
        eos_token_id=eos_token_id,
        vision_config=parsed,
        image_token_id=top.token_id("image_token_id", ids.image),
        video_token_id=top.token_id("video_token_id", ids.video),
        vision_start_token_id=top.token_id("vision_start_token_id", ids.vision_start),
        vision_end_token_id=top.token_id("vision_end_token_id", ids.vision_end),
        bidirectional_media=bidirectional_media,
    )


def parse_audio_config(
    config: Mapping[str, Any],
    *,
    audio: Callable[[Section, int], AudioConfig],
    text: TextTraits,
    token: tuple[str, int],
    defaults: Mapping[str, int],
) -> ModelConfig:
    """Parse the config.json of a model that hears and does not see.

    Args:
        config: the contents of config.json.
        audio: reads the family's ``audio_config`` section, given the decoder's width.
        text: what the family's decoder is like.
        token: the key of the placeholder's id, and the id where it is missing.
        defaults: sizes of the decoder that a config.json may leave out.

    Raises:
        VlmkitError: a value is missing, has the wrong type, or asks for something unsupported.
    """
    top = Section(config, "")
    nested = {**defaults, **top.mapping("text_config")}
    decoder, eos_token_id = _parse_decoder({**config, "text_config": nested}, text)
    parsed = audio(top.inner("audio_config"), decoder.hidden_size)
    section = Section({}, "audio_config.")
    section.divides("encoder_attention_heads", parsed.num_heads, "d_model", parsed.embed_dim)
    return ModelConfig(
        model_type=str(config["model_type"]),
        text_config=decoder,
        eos_token_id=eos_token_id,
        audio_config=parsed,
        audio_token_id=top.token_id(*token),
    )


def _parse_decoder(
    config: Mapping[str, Any], text: TextTraits
) -> tuple[TextConfig, tuple[int, ...]]:
    """Read the decoder's config, and the ids that end an answer."""
    top = Section(config, "")
    nested = top.mapping("text_config")
    flat = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    rope = {key: config[key] for key in ("rope_scaling", "rope_parameters") if key in config}
    given = {key: value for key, value in {**flat, **rope, **nested}.items() if value is not None}
    section = Section({**dict(text.defaults), **given}, "text_config." if nested else "")
    # Old nested configs say it in text_config alone; where both do, the model is the whole.
    inner = Section(nested, "text_config.").flag("tie_word_embeddings", False)
    tied = top.flag("tie_word_embeddings", inner)
    return parse_text(section, text, tied=tied), section.integers("eos_token_id", ())


def _check_deepstack(vision: VisionConfig, text: TextConfig) -> None:
    blocks = vision.deepstack_blocks
    are_blocks = all(0 <= block < vision.depth for block in blocks)
    if (
        not are_blocks
        or list(blocks) != sorted(set(blocks))
        or len(blocks) > text.num_hidden_layers
    ):
        raise Section({}, "vision_config.").error(
            "deepstack_visual_indexes",
            f"is {shown(list(blocks))}; it has to be ascending numbers below depth, "
            f"{vision.depth}, and at most num_hidden_layers, {text.num_hidden_layers}, of them",
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
    if vision.rope_theta is not None and head_dim % 4:
        raise section.error("num_heads", f"gives heads of {head_dim}; it has to be a multiple of 4")
    table = vision.num_position_embeddings
    if table is not None and math.isqrt(table) ** 2 != table:
        raise section.error("num_position_embeddings", f"is {table}; it has to be a square")
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
