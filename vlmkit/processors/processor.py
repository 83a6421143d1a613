"""The processor of a checkpoint: its tokenizer, its rules for media, its chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.contracts.inputs import ImageGrid
from vlmkit.errors import VlmkitError
from vlmkit.processors.calling import call_processor
from vlmkit.processors.chat_template import Message, render_chat_template
from vlmkit.processors.continuing import render_begun
from vlmkit.processors.encoding import Encoding
from vlmkit.processors.image_spans import ImageSpan, write_spans
from vlmkit.processors.literal import is_marker, mark_literal
from vlmkit.processors.reading import check_switches
from vlmkit.processors.refusals import why_none
from vlmkit.processors.tokenizer import Tokenizer
from vlmkit.processors.video_rules import VideoRules
from vlmkit.processors.whisper import AudioRules
from vlmkit.tokens.vocabulary import Vocabulary

THINKING = ("<think>", "</think>")
Patches = tuple[NDArray[np.float32], tuple[ImageGrid, ...]]


class Expanded(NamedTuple):
    """One image as a checkpoint's own processor gives it."""

    token_ids: tuple[int, ...]  # in its placeholder's place; the placeholder itself per vector
    parts: Mapping[str, object]  # arrays, by the names of ``vlmkit.contracts.packed_parts``


@dataclass(frozen=True)
class Processor:
    """What turns text and images into a model's inputs, and ids back into text.

    Example:
        >>> from importlib.resources import files
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> processor.decode(processor.encode("How many circles are there?"))
        'How many circles are there?'
    """

    folder: Path
    model_type: str
    backend: Literal["native", "transformers"]
    tokenizer: Tokenizer
    chat_template: str | None  # the Jinja source
    special_tokens: Mapping[str, str]  # bos_token, eos_token, ... as templates see them
    eos_token_ids: frozenset[int]
    num_embeddings: int  # ids below this have an embedding; checkpoints pad their vocabulary
    image_token_id: int | None = None  # None: the model takes no images
    video_token_id: int | None = None
    merge_size: int = 1  # a visual token is merge_size² patches
    image_processor: Callable[[Sequence[Image.Image]], Patches] | None = None
    image_rules: str | None = None  # what decides how an image is processed; None: not known
    image_grid: Callable[[int, int], ImageGrid] | None = None  # of (height, width) in pixels
    video: VideoRules | None = None
    audio_token_id: int | None = None  # None: the model takes no sounds
    audio: AudioRules | None = None
    is_text_part: bool = False  # the checkpoint takes more than text; what is loaded does not
    tool_template: str | None = None  # the Jinja source for chats with tools; None: the same
    chat_template_place: str = "chat template"  # what errors call it: file, and key in JSON
    expand_image: Callable[[Image.Image], Expanded] | None = None  # in place of image_processor
    image_span: ImageSpan | None = None  # None: prompts hold it whole

    @property
    def image_token(self) -> str | None:
        """The text that stands for one image in a prompt."""
        return self.placeholder("image")

    def placeholder(self, kind: str) -> str | None:
        """The text that stands for one "image", "video" or "audio" in a prompt; None: no such."""
        if kind == "image" and self.image_span is not None:
            return self.image_span.opening
        token_id = self.placeholder_id(kind)
        return None if token_id is None else self.tokenizer.id_to_token(token_id)

    def placeholder_id(self, kind: str) -> int | None:
        """The token id of :meth:`placeholder`."""
        return {
            "image": self.image_token_id,
            "video": self.video_token_id,
            "audio": self.audio_token_id,
        }[kind]

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """The ids that stand for media in a prompt, and are never an answer."""
        found = (self.image_token_id, self.video_token_id, self.audio_token_id)
        return frozenset(token_id for token_id in found if token_id is not None)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens as bytes, for constrained decoding; read when first needed, then kept."""
        return Vocabulary(
            read_tokens=self.tokenizer.read_token_bytes,
            num_ids=self.num_embeddings,
            special_ids=self.tokenizer.special_ids,
            eos_ids=self.eos_token_ids,
            encode=self.tokenizer.encode,
        )

    def process_images(self, images: Sequence[Image.Image]) -> Patches:
        """Return the patches of all images, float32 ``[N, C * T * P * P]``, and their grids.

        Raises:
            VlmkitError: the model takes no images, an image's aspect ratio is beyond 200, or it
                would have too many patches.
        """
        if self.image_processor is None:
            raise VlmkitError(self.takes_none("image"))
        for image in images:
            self.grid_of(image.height, image.width)
        return self.image_processor(images)

    def grid_of(self, height: int, width: int) -> ImageGrid:
        """Return the patches that an image of so many pixels becomes, before any is touched.

        Raises:
            VlmkitError: as `process_images`.
        """
        if self.image_grid is None:
            raise VlmkitError(self.takes_none("image"))
        return self.image_grid(height, width)

    def prepares(self, kind: str) -> bool:
        """Whether it can prepare an "image", "video" or "audio"."""
        images = self.image_processor or self.expand_image
        rules = {"image": images, "video": self.video, "audio": self.audio}
        return rules[kind] is not None

    def takes_none(self, kind: str) -> str:
        """Say why this processor takes no "image", "video" or "audio", and what would help."""
        return why_none(
            self.folder,
            self.model_type,
            kind,
            is_text_part=self.is_text_part,
            is_bridged=self.expand_image is not None,
            has_placeholder=self.placeholder_id(kind) is not None,
        )

    def num_image_tokens(self, grid: ImageGrid) -> int:
        """Return how many visual tokens an image of this grid becomes."""
        return grid.time * grid.height * grid.width // self.merge_size**2

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``; nothing is added but what stands around images."""
        return self.tokenizer.encode(write_spans(text, self.image_span))

    def encode_plain(self, text: str) -> list[int]:
        """Return the token ids of ``text`` with no special token read from it.

        Example:
            >>> from importlib.resources import files
            >>> from vlmkit.processors import load_processor
            >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
            >>> len(processor.encode("<think>")), len(processor.encode_plain("<think>"))
            (1, 5)
        """
        return self.encode(mark_literal(text, self.control_tokens(self.chat_template or "")))

    def control_tokens(self, template: str) -> list[str]:
        """The tokens with a meaning beside their text: special ones, and those a template writes.

        Other added tokens, such as runs of spaces or HTML tags, are a tokenizer's way to read text.
        """
        special = self.tokenizer.special_ids | self.placeholder_ids | self.eos_token_ids
        return [
            token
            for token, index in self.tokenizer.added_tokens
            if index in special or token in THINKING or (token in template and is_marker(token))
        ]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Return the text of token ids; ids without a token are nothing."""
        return self.tokenizer.decode(ids, skip_special_tokens)

    def template_for(self, tools: object, chat_template: str | None = None) -> str | None:
        """Return the Jinja source for a chat: what is given, or the checkpoint's for its tools."""
        if chat_template is not None:
            return chat_template
        own = self.tool_template if tools is not None else None
        return self.chat_template if own is None else own

    def batch_decode(
        self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        """Return the text of each row of token ids."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens)

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Encoding:
        """Tokenize texts and prepare their images, as transformers' processors do.

        Args:
            images: a Pillow image or a uint8 array ``[height, width, channels]`` (or the channels
                first), or a list of them in the order of the placeholders.
            text: one formatted prompt or several, with a placeholder per image.
            **options: ``padding``, ``max_length``, ``padding_side``, ``add_special_tokens``,
                ``return_attention_mask`` and ``return_tensors``: "np" (the default), "mlx", or
                None for lists.

        Returns:
            ``input_ids``, ``attention_mask``, ``mm_token_type_ids``, and with images
            ``pixel_values`` and ``image_grid_thw``; see
            :func:`vlmkit.processors.calling.call_processor`.

        Raises:
            VlmkitError: placeholders and images disagree, or an argument cannot be used.

        Example:
            >>> from importlib.resources import files
            >>> from vlmkit.processors import load_processor
            >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
            >>> found = processor(text="<|image_pad|>?", images=Image.new("RGB", (112, 112)))
            >>> found.input_ids.shape, found.pixel_values.shape, found.image_grid_thw.tolist()
            ((1, 17), (64, 1176), [[1, 8, 8]])
        """
        return call_processor(self, text, images, options)

    def template_place(self, template: str) -> str:
        """Return what errors call a template: the checkpoint's own has a file."""
        own = (self.chat_template, self.tool_template)
        return self.chat_template_place if template in own else "chat_template="

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        enable_thinking: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        continue_final_message: bool = False,
        tokenize: bool = False,
    ) -> str:
        """Render messages as they are with the checkpoint's chat template.

        ``vlmkit.prompt_utils.apply_chat_template`` also takes plain prompts and places images.

        Args:
            enable_thinking: None leaves the variable undefined in the template.
            chat_template: Jinja source in place of the checkpoint's.
            template_kwargs: further variables for the template.
            continue_final_message: end in the middle of the last message, which is the assistant's,
                so that generation goes on from it.
            tokenize: False; the tokenizer's method of this name gives ids, and a call of the
                processor prepares images too.

        Raises:
            VlmkitError: there is no template, it refuses the messages or drops some of what they
                say, the last message cannot go on, or an argument has the wrong type.
        """
        template = self.template_for(tools, chat_template)
        if template is None:
            raise VlmkitError(
                f"{self.folder}: the checkpoint has no chat template; pass chat_template=, or give"
                " generate the text itself"
            )
        check_switches(add_generation_prompt=add_generation_prompt)
        if enable_thinking is not None:
            check_switches(enable_thinking=enable_thinking)
        if not isinstance(template, str):
            raise VlmkitError(f"chat_template: {type(template).__name__}; give its Jinja source")
        thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        place = self.template_place(template)

        def render(chat: Sequence[Message]) -> str:
            return render_chat_template(
                template,
                chat,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                place=place,
                variables={**self.special_tokens, **thinking, **(template_kwargs or {})},
            )

        if tokenize:
            raise VlmkitError(
                "tokenize: this gives the text; the ids, with the images prepared, come from"
                " processor(text=..., images=...)"
            )
        if continue_final_message and add_generation_prompt:
            raise VlmkitError(
                "continue_final_message: add_generation_prompt would begin another message; leave"
                " one of them out"
            )
        return render_begun(messages, render, place) if continue_final_message else render(messages)
