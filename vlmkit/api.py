"""The public functions: load a checkpoint, generate from it, stream from it."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping
from typing import Any, List, Union

import mlx.core as mx

from vlmkit.asking import check_request, read_params, read_prompt_cache
from vlmkit.backend.config import BackendConfig, as_choices
from vlmkit.contracts.interface import Model
from vlmkit.engine import (
    Amateur,
    Request,
    RunOptions,
    Step,
    check_requests,
    collect,
    run_request,
    to_result,
)
from vlmkit.loading import load_model, resolve_checkpoint
from vlmkit.loading.bridge import ModelSource, is_bridged, load_bridge
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import AudioSource, ImageSource
from vlmkit.printable import printable
from vlmkit.processors import Processor, load_processor
from vlmkit.processors.bridge import load_bridge_processor
from vlmkit.processors.literal import unmark
from vlmkit.processors.loading import Backend as ProcessorBackend
from vlmkit.prompts import PromptCache
from vlmkit.results import GenerationResult, describe_speed


def load(
    path_or_hf_repo: str,
    *,
    revision: str | None = None,
    lazy: bool = False,
    dtype: str | None = None,
    dequantize: bool | None = None,
    trust_remote_code: bool = False,
    processor_backend: ProcessorBackend = "auto",
    backend: Union[BackendConfig, Mapping[str, Any], None] = None,
    model_source: ModelSource = "vlmkit",
) -> tuple[Model, Processor]:
    """Load a checkpoint: its weights as a model, its tokenizer and image rules as a processor.

    Reads safetensors only and never writes to the checkpoint.

    Args:
        path_or_hf_repo: a local folder, a hub id such as
            ``"mlx-community/Qwen2-VL-2B-Instruct-4bit"``, or ``"shapes"``, the embedded model.
        revision: branch, tag or commit of a hub id.
        lazy: map the weights and read each when it is first used.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; by default float32 on the CPU and
            the checkpoint's dtype on a GPU.
        dequantize: expand quantized weights at load; by default on the CPU only, where quantized
            products are slow, and as far as the memory allows.
        trust_remote_code: let a hub checkpoint bring its own tokenizer code. Off by default.
        processor_backend: ``"native"`` (tokenizers and numpy), ``"transformers"``, or ``"auto"``.
        backend: what computes and how, as in the ``backend`` section of a config: a mapping such
            as ``{"weights": "half"}``. By default what is fast on this machine; ``vlmkit doctor``
            says what that is. ``model.backend`` is what came of it.
        model_source: ``"mlx-vlm"`` runs the architecture of an installed mlx-vlm behind the same
            stages, whether or not vlmkit has a family of its own; nothing of that is verified.

    Returns:
        The model and the processor.

    Raises:
        VlmkitError: the folder, a file in it, or the architecture cannot be used; says why.

    Warns:
        VlmkitWarning: the checkpoint takes images, but is of a family whose text part alone runs;
            or it runs through mlx-vlm.

    Example:
        >>> model, processor = load("shapes")
        >>> model.config.model_type
        'qwen2_vl'
    """
    folder = resolve_checkpoint(
        path_or_hf_repo, revision=revision, trust_remote_code=trust_remote_code
    )
    how = as_choices(backend)
    if is_bridged(model_source):
        bridged = load_bridge(folder, dtype=dtype, lazy=lazy, dequantize=dequantize, backend=how)
        return bridged, load_bridge_processor(folder, backend=processor_backend)
    processor = load_processor(folder, backend=processor_backend)
    model = load_model(
        folder,
        dtype=dtype,
        lazy=lazy,
        dequantize=dequantize,
        trust_remote_code=trust_remote_code,
        backend=how,
    )
    return model, processor


def generate(
    model: Model,
    processor: Processor,
    prompt: str,
    image: Union[ImageSource, List[ImageSource], None] = None,
    audio: Union[AudioSource, List[AudioSource], None] = None,
    verbose: bool = False,
    *,
    video: Any = None,
    **kwargs: Any,
) -> GenerationResult:
    """Generate text from a formatted prompt, optional images, audio and videos.

    Args:
        model: from :func:`load`.
        processor: from :func:`load`.
        prompt: formatted text, from :func:`vlmkit.prompt_utils.apply_chat_template`.
        image: path, URL, data URI, bytes or ``PIL.Image``, or a list of these.
        audio: path, URL, data URI, bytes, or samples with their rate, ``(array, 16000)``, or a
            list of these; families without audio refuse them.
        verbose: print the prompt, the text as it comes, and the timing to stdout.
        video: path, URL, data URI, bytes, or frames: a list of images or a uint8 array
            ``[frames, height, width, 3]``; or a list of these. ``fps`` and ``max_frames`` say
            which frames are taken.
        **kwargs: ``max_tokens=256``, ``temperature=0.0``, ``top_p=1.0``, ``top_k=0``,
            ``min_p=0.0``, ``repetition_penalty``, ``repetition_context_size=20``,
            ``presence_penalty``, ``frequency_penalty``, ``logit_bias`` (a number by token, which is
            an id, the text of one token, or ``eos``), ``seed=0``, ``sample=0``,
            ``resize_shape`` (height, width), ``fps``, ``max_frames``, ``kv_bits``,
            ``kv_group_size=64``, ``max_kv_size``,
            ``prefill_step_size=2048``, ``eos_tokens``, ``stop``, ``skip_special_tokens=False``,
            ``enable_thinking=False``, ``thinking_budget``, ``prompt_cache`` (a
            :class:`vlmkit.PromptCache`). ``sampling="checkpoint"`` takes the stages that the
            checkpoint's generation_config.json recommends in place of those that the sampling
            parameters make. An unknown name is an error.

    Returns:
        The whole response with its statistics.

    Raises:
        VlmkitError: an unknown or out-of-range parameter, an unreadable image, a prompt that does
            not fit the images or the context.

    Example:
        >>> from vlmkit import generate, load
        >>> model, processor = load("shapes")
        >>> generate(model, processor, "How many?", max_tokens=1).generation_tokens
        1
    """
    stream = stream_generate(model, processor, prompt, image, audio, video=video, **kwargs)
    if verbose:
        _print(f"Prompt: {unmark(prompt) if isinstance(prompt, str) else prompt}\n")
    result = collect(_shown(stream) if verbose else stream)
    if verbose:
        print("\n" + describe_speed(result))
    return result


def stream_generate(
    model: Model,
    processor: Processor,
    prompt: str,
    image: Union[ImageSource, List[ImageSource], None] = None,
    audio: Union[AudioSource, List[AudioSource], None] = None,
    *,
    video: Any = None,
    **kwargs: Any,
) -> Generator[GenerationResult, None, None]:
    """Generate like :func:`generate`, yielding one result per token.

    Each result's ``text`` is the newly decoded segment (it may be empty while a character or a
    possible stop string is incomplete); the statistics are cumulative. Parameters are checked when
    the function is called, not at the first token.

    Example:
        >>> from vlmkit import generate, load, stream_generate
        >>> model, processor = load("shapes")
        >>> text = "".join(chunk.text for chunk in stream_generate(model, processor, "How many?"))
        >>> text == generate(model, processor, "How many?").text
        True
    """
    prompt_cache = read_prompt_cache(kwargs.pop("prompt_cache", None))
    request, pipeline = read_params(processor, prompt, image, audio, kwargs, video)
    return stream_pipeline(model, processor, request, pipeline, prompt_cache=prompt_cache)


def stream_pipeline(
    model: Model,
    processor: Processor,
    request: Request,
    pipeline: PipelineConfig,
    *,
    amateur: Amateur | None = None,
    trace: bool = False,
    prompt_cache: PromptCache | None = None,
) -> Generator[GenerationResult, None, None]:
    """Run one request through a pipeline config; every other entry point comes down to this.

    The request is checked and its images are loaded when the function is called.

    Args:
        model: from :func:`load`.
        processor: from :func:`load`.
        request: prompt and images.
        pipeline: how it becomes text.
        amateur: the second model of contrastive decoding; by default it is loaded from where the
            pipeline says.
        trace: keep the logits after each stage in every result's ``trace``. Not with a search.
        prompt_cache: prompts of earlier calls; takes in this one.

    Raises:
        VlmkitError: the request or the pipeline cannot work; while generating, what a batch reports
            as ``finish_reason="error"``.
    """
    request = check_request(request)
    mx.reset_peak_memory()
    work = check_requests(model, processor, [(request, pipeline)], trace=trace)
    options = RunOptions(trace=trace, prompt_cache=prompt_cache)
    return _results(run_request(model, processor, work[0], options, amateur=amateur))


def _results(
    steps: Iterator[tuple[Step, dict[str, Any]]],
) -> Generator[GenerationResult, None, None]:
    for step, effective in steps:
        if step.finish is not None and step.finish.error is not None:
            raise step.finish.error
        yield to_result(step, effective)


def _shown(results: Iterator[GenerationResult]) -> Iterator[GenerationResult]:
    for result in results:
        _print(result.text)
        yield result


def _print(text: str) -> None:
    """Print a text as it is, but for what would command a terminal."""
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)
