"""From a contrast config to what a row's logits are contrasted with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Model
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast import (
    CfgConfig,
    ContrastConfig,
    ContrastiveDecodingConfig,
    DolaConfig,
    StreamMarkers,
    build_contrast,
    other_inputs,
)
from vlmkit.errors import VlmkitError, within
from vlmkit.loading import load_model, resolve_checkpoint
from vlmkit.models.vlm import VisionLanguageModel
from vlmkit.models.vlm_bridge import BridgeModel
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import Video, fit_video
from vlmkit.processors import Processor, load_processor
from vlmkit.resolve.request import Request, prepare_inputs

_AMATEUR = ("contrast", "amateur")


class Amateur(NamedTuple):
    """A second checkpoint."""

    model: Model
    processor: Processor


class Method(NamedTuple):
    """The models of a batch, and how the logits of a row's streams become one."""

    model: Model
    contrast: Contrast | None = None  # None: the row's own logits, as they are
    num_others: int = 0  # prompts beside a row's own; none where early layers are the others
    amateur: Amateur | None = None  # runs these prompts; None: ``model`` does

    @property
    def taps(self) -> tuple[int, ...]:
        """The layers that the method reads, ascending."""
        return () if self.contrast is None else tuple(sorted(self.contrast.early_layers))

    @property
    def num_own(self) -> int:
        """Streams per row that ``model`` runs, the row's own first."""
        return 1 if self.amateur is not None else 1 + self.num_others

    @property
    def parts(self) -> tuple[tuple[Model, int], ...]:
        """Each model with the streams per row that it runs; the row's own is the first of all."""
        own = (self.model, self.num_own)
        return (own,) if self.amateur is None else (own, (self.amateur.model, self.num_others))


def build_method(
    model: Model,
    processor: Processor,
    pipeline: PipelineConfig,
    amateur: Amateur | None = None,
    *,
    loaded: dict[str, Amateur] | None = None,
) -> Method:
    """Build what the rows of a pipeline have in common: the models, and how streams are combined.

    Args:
        model: the model's functions.
        processor: its processor.
        pipeline: with or without a contrast.
        amateur: the second model of contrastive decoding; None: loaded from where the config says.
        loaded: those found before, by their path; takes in this one.

    Raises:
        VlmkitError: the method needs layers that are not there; the amateur's checkpoint cannot be
            used, or its tokens are not those of ``processor``.
    """
    config = pipeline.contrast
    if config is None:
        return Method(model)
    sees = isinstance(model, VisionLanguageModel)
    second = None
    if isinstance(config, ContrastiveDecodingConfig):
        second = _find_amateur(config.amateur, processor, amateur, {} if loaded is None else loaded)
    if isinstance(model, BridgeModel):
        _check_bridged(model, config)
    with within("contrast"):
        contrast = build_contrast(
            config,
            num_layers=len(model.layer_specs),
            tied_embeddings=sees and model.config.text_config.tie_word_embeddings,
        )
    return Method(model, contrast, 0 if contrast.early_layers else 1, second)


def _find_amateur(
    path: str, processor: Processor, given: Amateur | None, loaded: dict[str, Amateur]
) -> Amateur:
    """Return the given second model, or load it from its path."""
    if path not in loaded:
        if given is None:
            try:
                folder = resolve_checkpoint(path)
                given = Amateur(load_model(folder), load_processor(folder))
            except VlmkitError as error:
                raise VlmkitError(f"contrast.amateur: {error}", path=_AMATEUR) from error
        _check_vocabulary(given.processor, processor)
        loaded[path] = given
    return loaded[path]


def _check_vocabulary(amateur: Processor, own: Processor) -> None:
    for token_id in range(max(own.tokenizer.vocab_size, amateur.tokenizer.vocab_size)):
        here, there = own.tokenizer.id_to_token(token_id), amateur.tokenizer.id_to_token(token_id)
        if here != there:
            raise VlmkitError(
                f"contrast.amateur: {amateur.folder} has another vocabulary (token {token_id} is "
                f"{there!r} there, {here!r} in {own.folder}); both models need the same tokens",
                path=_AMATEUR,
            )


def _check_bridged(model: BridgeModel, config: ContrastConfig) -> None:
    """Refuse methods that read layers, and those that change or leave out images."""
    names_prompt = isinstance(config, CfgConfig) and config.negative_prompt is not None
    if names_prompt or isinstance(config, ContrastiveDecodingConfig):
        return
    name = f"mlx-vlm's {model.config.model_type}"
    why = f"has to know where images stand in a prompt, and of {name} that is not known"
    if isinstance(config, DolaConfig):
        why = f"reads early layers, and those of {name} cannot be read"
    raise VlmkitError(
        f"contrast: {config.kind} {why}; use cfg with a negative_prompt, or contrastive_decoding",
        path=("contrast",),
    )


def other_prompts(
    method: Method,
    processor: Processor,
    request: Request,
    inputs: Inputs,
    pipeline: PipelineConfig,
) -> tuple[Inputs, ...] | None:
    """Return the prompts that a row is contrasted with; None without a contrast.

    Raises:
        VlmkitError: the method needs images that are not there, or its prompt is too long.
    """
    config, model = pipeline.contrast, method.model
    if config is None:
        return None
    if method.amateur is not None:
        try:
            own = _seen_by(method.amateur.processor, processor, request)
            return (prepare_inputs(*method.amateur, own, pipeline),)
        except VlmkitError as error:
            raise VlmkitError(f"contrast.amateur: {error}", path=_AMATEUR) from error
    negative = _negative(model, processor, request, pipeline, config)
    with within("contrast"):
        others = other_inputs(
            config,
            inputs,
            _markers(model, processor),
            seed=pipeline.seed,
            sample=request.sample,
            negative=negative,
        )
    _check_context(model, config, others)
    return others


def _seen_by(amateur: Processor, processor: Processor, request: Request) -> Request:
    """The request, whose frames were loaded for ``processor``, as another model takes them."""
    rules = amateur.video
    if rules is None or rules == processor.video:
        return request
    videos = []
    for index, video in enumerate(request.video):
        assert isinstance(video, Video)
        with within("video", index):
            videos.append(fit_video(video, rules))
    return request._replace(video=tuple(videos))


def _check_context(model: Model, config: ContrastConfig, streams: Sequence[Inputs]) -> None:
    context = model.config.max_position_embeddings
    longest = max((len(inputs.token_ids) for inputs in streams), default=0)
    if context is not None and longest > context:
        raise VlmkitError(
            f"contrast: {config.kind} makes a prompt of {longest} tokens, but the model's context "
            f"is {context}; shorten the text or set a smaller resize_shape",
            path=("contrast",),
        )


def _negative(
    model: Model,
    processor: Processor,
    request: Request,
    pipeline: PipelineConfig,
    config: ContrastConfig,
) -> Inputs | None:
    """The prepared negative prompt, where the config has one."""
    if not isinstance(config, CfgConfig) or config.negative_prompt is None:
        return None
    asked = request._replace(prompt=config.negative_prompt)
    if not config.negative_images:
        asked = asked._replace(images=(), audio=(), video=())
    try:
        return prepare_inputs(model, processor, asked, pipeline)
    except VlmkitError as error:
        raise VlmkitError(
            f"contrast.negative_prompt: {error}", path=("contrast", "negative_prompt")
        ) from error


def _markers(model: Model, processor: Processor) -> StreamMarkers:
    """What prompts of this model look like around images."""
    none = frozenset[int]()
    if not isinstance(model, VisionLanguageModel):
        return StreamMarkers(processor.encode_plain, none, none, none, (1, 1, 1))
    config, vision = model.config, model.config.vision_config
    if vision is None or config.vision_start_token_id is None or config.vision_end_token_id is None:
        placeholders = processor.placeholder_ids
        return StreamMarkers(processor.encode_plain, placeholders, none, none, (1, 1, 1))
    return StreamMarkers(
        encode=processor.encode_plain,
        placeholder_ids=processor.placeholder_ids,
        start_ids=frozenset({config.vision_start_token_id}),
        end_ids=frozenset({config.vision_end_token_id}),
        patch_shape=(vision.in_channels, vision.temporal_patch_size, vision.patch_size),
    )
