"""From a question to a formatted prompt: messages, placeholders of media, the chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from vlmkit.errors import VlmkitError, nearest
from vlmkit.processors import Processor
from vlmkit.processors.chat_template import OWN_VARIABLES, template_variables
from vlmkit.processors.messages import MEDIA_TYPES, Prompt, build_messages, count_parts, mark_texts
from vlmkit.processors.reading import check_switches

KEYWORDS = (
    "add_generation_prompt",
    "return_messages",
    "num_images",
    "num_audios",
    "num_videos",
    "enable_thinking",
    "tools",
    "chat_template",
    "template_kwargs",
    "continue_final_message",
)
# Templates call the switch differently.
THINKING_ON: Mapping[str, object] = {
    "enable_thinking": True,
    "thinking": True,
    "thinking_mode": "enabled",
}


@overload
def apply_chat_template(
    processor: Processor,
    config: object,
    prompt: Prompt,
    add_generation_prompt: bool = True,
    return_messages: Literal[False] = False,
    num_images: int = 0,
    num_audios: int = 0,
    *,
    num_videos: int = 0,
    enable_thinking: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    continue_final_message: bool = False,
    **unknown: object,
) -> str: ...


@overload
def apply_chat_template(
    processor: Processor,
    config: object,
    prompt: Prompt,
    add_generation_prompt: bool = True,
    *,
    return_messages: Literal[True],
    num_images: int = 0,
    num_audios: int = 0,
    num_videos: int = 0,
    enable_thinking: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    continue_final_message: bool = False,
    **unknown: object,
) -> list[dict[str, Any]]: ...


def apply_chat_template(
    processor: Processor,
    config: object,
    prompt: Prompt,
    add_generation_prompt: bool = True,
    return_messages: bool = False,
    num_images: int = 0,
    num_audios: int = 0,
    *,
    num_videos: int = 0,
    enable_thinking: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    chat_template: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
    continue_final_message: bool = False,
    **unknown: object,
) -> str | list[dict[str, Any]]:
    """Format a prompt for a model with its checkpoint's chat template.

    Media that no message mentions come first in the last user message. What users and tools wrote
    is text: a special token in it, such as ``<|im_end|>`` or the placeholder of an image, gets an
    invisible mark (U+FDD0) that keeps :func:`vlmkit.generate` from reading it as one. Where it is
    meant as a token, format with ``processor.apply_chat_template(messages)``.

    Args:
        processor: from ``load``.
        config: ``model.config`` or None; not read, the processor knows the family.
        prompt: a question, a message (``{"role": ..., "content": ...}``), or a list of messages.
            Contents may be lists of parts as in the OpenAI API; images stay where they stand.
        add_generation_prompt: end with the header of the assistant's turn.
        return_messages: return the messages with their parts of media, not the text.
        num_images: images to place, those that messages mention included.
        num_audios: audio clips to place, likewise.
        num_videos: videos to place, likewise.
        enable_thinking: let the model think before it answers, where its template has the switch.
        tools: JSON schemas of functions the model may call, where its template reads them; the
            checkpoint's template for tools is used where it has one.
        chat_template: Jinja source in place of the checkpoint's.
        template_kwargs: further variables that the template reads.
        continue_final_message: the last message is the assistant's, and generation goes on from it:
            the prompt ends where its text ends (or its reasoning, where it has no content), and
            ``add_generation_prompt`` does not count. A thinking block in it stays as written, and
            may be left open.

    Raises:
        VlmkitError: no template, an unknown keyword or variable, a prompt of the wrong type, media
            that cannot be placed, a last message that cannot go on, or tools, tool calls, roles of
            tools or keys of a message that the template would drop.

    Example:
        >>> from importlib.resources import files
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> print(apply_chat_template(processor, None, "How many?", num_images=1))
        <|im_start|>user
        <|vision_start|><|image_pad|><|vision_end|>How many?<|im_end|>
        <|im_start|>assistant
        <think></think>
    """
    _check_keywords(unknown)
    check_switches(
        add_generation_prompt=add_generation_prompt,
        return_messages=return_messages,
        enable_thinking=enable_thinking,
    )
    _check_continuing(continue_final_message, return_messages)
    messages = build_messages(processor, prompt, num_images, num_audios, num_videos)
    for_template = {
        "enable_thinking": enable_thinking,
        "tools": tools,
        "chat_template": chat_template,
        "template_kwargs": template_kwargs,
    }
    if return_messages:
        _check_unused(for_template)
        return messages
    source = processor.template_for(tools, chat_template)
    _check_variables(source, template_kwargs)
    variables = _template_variables(processor, source, enable_thinking, template_kwargs or {})
    text = processor.apply_chat_template(
        messages if source is None else mark_texts(processor, messages, source),
        add_generation_prompt=add_generation_prompt and not continue_final_message,
        tools=tools,
        chat_template=source,
        template_kwargs=variables,
        continue_final_message=continue_final_message,
    )
    for kind in MEDIA_TYPES:
        _check_placeholders(processor, text, kind, count_parts(messages, kind))
    return text


def with_thinking(processor: Processor, prompt: str) -> str:
    """Return a formatted prompt whose assistant turn begins with thinking enabled.

    Raises:
        VlmkitError: the template has no such switch, or the prompt does not end in its generation
            prompt.
    """
    template = processor.chat_template
    if template is None:
        raise VlmkitError(
            f"enable_thinking: {processor.folder} has no chat template to say how; write the"
            " thinking marker into the prompt"
        )
    probe = build_messages(processor, "?")

    def ending(enable_thinking: bool) -> str:
        variables = _template_variables(processor, template, enable_thinking, {})
        text, bare = (
            processor.apply_chat_template(
                probe, add_generation_prompt=generation, template_kwargs=variables
            )
            for generation in (True, False)
        )
        return text.removeprefix(bare)

    on, off = ending(True), ending(False)
    if on == off:
        raise VlmkitError(
            f"enable_thinking: the chat template of {processor.folder} does not switch it at the"
            " assistant's turn; set it where the prompt is formatted, in apply_chat_template"
        )
    if prompt.endswith(off) and (len(off) >= len(on) or not prompt.endswith(on)):
        return prompt.removesuffix(off) + on
    if prompt.endswith(on):
        return prompt
    raise VlmkitError(
        "enable_thinking: the prompt does not end where the assistant's turn begins; format it with"
        " apply_chat_template(processor, config, prompt, enable_thinking=True)"
    )


def _check_keywords(unknown: Mapping[str, object]) -> None:
    for name in unknown:
        raise VlmkitError(
            f"apply_chat_template: unknown keyword {name!r}{nearest(name, KEYWORDS)}; variables of"
            f" the chat template go into template_kwargs={{{name!r}: ...}}"
        )


def _check_unused(for_template: Mapping[str, object]) -> None:
    for name, value in for_template.items():
        if value is not None and value is not False:
            raise VlmkitError(
                f"{name}: return_messages=True returns the messages before the template that reads"
                f" {name}; leave one of the two out"
            )


def _check_variables(source: object, given: object) -> None:
    if source is not None and not isinstance(source, str):
        raise VlmkitError(f"chat_template: {type(source).__name__}; give its Jinja source as text")
    if given is not None and not isinstance(given, Mapping):
        raise VlmkitError(f"template_kwargs: a dict is needed, got {type(given).__name__}")
    for name, value in (given or {}).items():
        if not isinstance(name, str):
            raise VlmkitError(f"template_kwargs: names are text, got {name!r}")
        if name in OWN_VARIABLES:
            raise VlmkitError(
                f"template_kwargs: {name!r} has an argument of its own; give it there"
            )
        if THINKING_ON.get(name) is True:
            check_switches(**{name: value})


def _check_continuing(value: object, return_messages: bool) -> None:
    if not isinstance(value, bool):
        raise VlmkitError(
            f"continue_final_message must be True or False, got {value!r}; it goes on from the"
            " content of the last message, or from its reasoning where there is no content"
        )
    if value and return_messages:
        raise VlmkitError("continue_final_message: return_messages gives no text; leave one out")


def _template_variables(
    processor: Processor, source: str | None, enable_thinking: bool, given: Mapping[str, Any]
) -> dict[str, object]:
    """The template's variables with its thinking switch; refuses what it does not read."""
    if source is None or not (enable_thinking or given):
        return {"enable_thinking": False}
    known = template_variables(source, place=processor.template_place(source))
    for name in given:
        if name not in known:
            raise VlmkitError(
                f"template_kwargs: the chat template of {processor.folder} does not read {name!r}"
                f"{nearest(name, known)}; it reads {', '.join(sorted(known))}"
            )
    switches = {name: on for name, on in THINKING_ON.items() if name in known}
    if enable_thinking and not switches:
        raise VlmkitError(
            f"enable_thinking: the chat template of {processor.folder} has no switch for it; leave"
            " it out, or pass chat_template="
        )
    values = switches if enable_thinking else {"enable_thinking": False}
    return {**values, **given}


def _check_placeholders(processor: Processor, text: str, kind: str, number: int) -> None:
    placeholder = processor.placeholder(kind)
    if placeholder is not None and text.count(placeholder) < number:
        raise VlmkitError(
            f"the chat template of {processor.folder} renders {text.count(placeholder)} {kind}"
            f" placeholders ({placeholder}) for {number} {kind}s; pass chat_template=, or give"
            f" generate a prompt in which you wrote {placeholder} yourself"
        )
