"""Where each keyword parameter stands in a config: a key of the run, or a field of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """A field of the stage of some kind, in a section of the config; no field: the stage itself."""

    section: str
    kind: str
    field: str = ""


LISTS = ("sampling", "stopping")  # sections with any number of stages
SECTIONS = (*LISTS, "cache", "contrast", "search", "prefill", "preprocess", "template")

RUN_FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": ("model",),
    "revision": ("revision",),
    "dtype": ("dtype",),
    "prompt": ("prompt",),
    "image": ("images",),
    "audio": ("audio",),
    "video": ("video",),
    "enable_thinking": ("template", "enable_thinking"),
    "continue_final_message": ("template", "continue_final_message"),
    "prefill_response": ("template", "prefill_response"),
    "seed": ("seed",),
    "skip_special_tokens": ("skip_special_tokens",),
    "resize_shape": ("preprocess", "resize_shape"),
    "fps": ("preprocess", "fps"),
    "max_frames": ("preprocess", "max_frames"),
    "prefill_step_size": ("prefill", "step_size"),
}
STAGE_FIELDS: Mapping[str, Place] = {
    "temperature": Place("sampling", "temperature", "temperature"),
    "top_p": Place("sampling", "top_p", "p"),
    "top_k": Place("sampling", "top_k", "k"),
    "min_p": Place("sampling", "min_p", "p"),
    "repetition_penalty": Place("sampling", "repetition_penalty", "penalty"),
    "repetition_context_size": Place("sampling", "repetition_penalty", "context_size"),
    "presence_penalty": Place("sampling", "presence_penalty", "penalty"),
    "frequency_penalty": Place("sampling", "frequency_penalty", "penalty"),
    "max_tokens": Place("stopping", "max_tokens", "max_tokens"),
    "eos_tokens": Place("stopping", "eos", "tokens"),
    "stop": Place("stopping", "stop_sequences", "sequences"),
    "thinking_budget": Place("stopping", "thinking_budget", "budget"),
}
# Those that no flag sets, or that one flag alone does not.
OTHER_FIELDS: Mapping[str, Place] = {
    "logit_bias": Place("sampling", "logit_bias", "bias"),
    "thinking_start_token": Place("stopping", "thinking_budget", "start"),
    "thinking_end_token": Place("stopping", "thinking_budget", "end"),
    "kv_bits": Place("cache", "affine", "bits"),
    "kv_group_size": Place("cache", "affine", "group_size"),
    "max_kv_size": Place("cache", "rotating", "max_size"),
}
