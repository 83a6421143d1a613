"""Whether a response depends on what runs beside it, on this device.

A row's tokens should not depend on its neighbours; but sums of floating-point numbers depend on
their order, and kernels choose that order by the shape of a batch (He et al., "Defeating
Nondeterminism in LLM Inference", Thinking Machines Lab, 2025).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx
import msgspec
import numpy as np
from PIL import ImageOps
from PIL.Image import Image

from vlmkit.backend.device import describe_device
from vlmkit.contracts.interface import Model
from vlmkit.engine import Request, RunOptions, check_requests, prepare_inputs, run_requests
from vlmkit.errors import VlmkitError
from vlmkit.experiment.divergence import first_difference
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import ImageSource, load_image
from vlmkit.processors import Processor
from vlmkit.stopping import MaxTokensConfig, token_limit

MAX_BATCH = 256
_FILLER = "The picture shows a quiet street with trees and a few parked cars. "
KINDS = ("equal", "shorter", "longer")


class Setting(NamedTuple):
    """What one response is generated beside."""

    batch_size: int  # rows side by side
    place: int  # of the response among them, from 0
    neighbours: str  # "none", "equal", "shorter" or "longer" prompts


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """The response under one setting, against the one that ran alone."""

    batch_size: int
    place: int
    neighbours: str
    output: int  # equal numbers are equal token ids; 0 is that of the response alone
    first_difference: int | None  # the first token that differs, from 0
    max_logprob_difference: float | None  # of tokens before that, by the model; None: not known


class Invariance(msgspec.Struct, kw_only=True, frozen=True):
    """All settings."""

    device: str
    dtype: str
    prompt_tokens: int
    generation_tokens: int  # of the response alone
    num_outputs: int  # different responses: 1 is what should be
    outputs: list[str]  # their texts
    outcomes: list[Outcome]


class _Response(NamedTuple):
    token_ids: tuple[int, ...]
    logprobs: list[float]  # by the model itself; empty where a search does not say
    text: str


def check_batch_invariance(
    model: Model,
    processor: Processor,
    request: Request,
    pipeline: PipelineConfig,
    *,
    batch_sizes: Sequence[int] = (1, 2, 4, 8),
    announce: Callable[[Outcome], None] | None = None,
) -> Invariance:
    """Generate a response alone, again, and in batches; count how many responses come out.

    In each batch the response has the first, a middle and the last place, beside prompts as long as
    its own, shorter ones (which are padded) and longer ones (it is padded). The neighbours' prompts
    are others, so that their prefill is not shared but runs beside the response's. A contrast over
    images leaves the shorter ones out.

    Args:
        model: from :func:`vlmkit.load`.
        processor: from :func:`vlmkit.load`.
        request: what to generate from.
        pipeline: how; a random draw is the same in all settings.
        batch_sizes: rows side by side; the response alone is always among them.
        announce: called with each outcome as it is there.

    Raises:
        VlmkitError: a batch size out of range, a request that cannot run, or a response that ends
            with an error.

    Example:
        >>> from vlmkit import load
        >>> stopping = [{"kind": "max_tokens", "max_tokens": 2}]
        >>> found = check_batch_invariance(
        ...     *load("shapes"), Request("How many?"), PipelineConfig(stopping=stopping),
        ...     batch_sizes=[2],
        ... )
        >>> found.num_outputs, len(found.outcomes)
        (1, 7)
    """
    for size in batch_sizes:
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_BATCH:
            raise VlmkitError(
                f"batch_sizes: {size!r} is no number of rows; give whole numbers from 1 to "
                f"{MAX_BATCH}"
            )
    check = _Check(model, processor, request, pipeline)
    alone = check.run(Setting(1, 0, "none"))
    numbers = {alone.token_ids: 0}
    outputs, outcomes = [alone.text], []
    for setting in settings(batch_sizes, check.kinds):
        found = check.run(setting)
        if found.token_ids not in numbers:
            numbers[found.token_ids] = len(numbers)
            outputs.append(found.text)
        place = first_difference(alone.token_ids, found.token_ids)
        pairs = zip(alone.logprobs[:place], found.logprobs[:place], strict=False)
        outcomes.append(
            Outcome(
                **setting._asdict(),
                output=numbers[found.token_ids],
                first_difference=place,
                max_logprob_difference=max((abs(a - b) for a, b in pairs), default=None),
            )
        )
        if announce is not None:
            announce(outcomes[-1])
    return Invariance(
        device=describe_device(),
        dtype=str(model.dtype).removeprefix("mlx.core."),
        prompt_tokens=check.num_prompt,
        generation_tokens=len(alone.token_ids),
        num_outputs=len(numbers),
        outputs=outputs,
        outcomes=outcomes,
    )


def settings(batch_sizes: Sequence[int], kinds: Sequence[str] = KINDS) -> Iterator[Setting]:
    """Yield what a response is generated beside; first, alone once more.

    Args:
        batch_sizes: rows side by side.
        kinds: of neighbours.

    Example:
        >>> [setting.place for setting in settings([4]) if setting.neighbours == "equal"]
        [0, 2, 3]
    """
    yield Setting(1, 0, "none")
    for size in sorted(set(batch_sizes) - {1}):
        places = sorted({0, size // 2, size - 1})
        for neighbours, place in itertools.product(kinds, places):
            yield Setting(size, place, neighbours)


class _Check:
    """One response, and neighbours for it."""

    def __init__(
        self, model: Model, processor: Processor, request: Request, pipeline: PipelineConfig
    ) -> None:
        self._model, self._processor, self._pipeline = model, processor, pipeline
        (work,) = check_requests(model, processor, [(request, pipeline)])
        self._request = work.request
        inputs = prepare_inputs(model, processor, work.request, pipeline)
        self.num_prompt = len(inputs.token_ids)
        self._needs_images = pipeline.contrast is not None and bool(work.images)
        self.kinds = tuple(kind for kind in KINDS if kind != "shorter" or not self._needs_images)
        # Neighbours go on to the end of the response, whatever they say.
        limit = token_limit(pipeline.stopping)
        stopping = () if limit is None else (MaxTokensConfig(max_tokens=limit),)
        self._longest = pipeline.model_copy(update={"stopping": stopping})

    def run(self, setting: Setting) -> _Response:
        """Generate the response beside its neighbours."""
        rows = [
            (self._neighbour(setting.neighbours, number), self._longest)
            for number in range(1, setting.batch_size)
        ]
        rows.insert(setting.place, (self._request, self._pipeline))
        work = check_requests(self._model, self._processor, rows)
        options = RunOptions(batch_size=setting.batch_size, group_by_shape=False)
        token_ids: list[int] = []
        logprobs: list[float | None] = []
        text = ""
        for step, _ in run_requests(self._model, self._processor, work, options):
            if step.finish is not None and step.finish.error is not None:
                raise step.finish.error
            if step.row != setting.place:
                continue
            text += step.text
            if step.token_id is not None:
                token_ids.append(step.token_id)
                logprobs.append(_logprob(step.logits, step.token_id))
            if step.finish is not None:
                known = [value for value in logprobs if value is not None]
                whole = len(known) == len(token_ids)
                return _Response(tuple(token_ids), known if whole else [], text)
        raise AssertionError("the response never ended")

    def _neighbour(self, kind: str, number: int) -> Request:
        """A prompt that has next to nothing in common with the response's own."""
        length = {
            "equal": self.num_prompt,
            "shorter": max(self.num_prompt // 2, 1),
            "longer": self.num_prompt * 3 // 2,
        }[kind]
        images = self._request.images
        if not images or (kind != "equal" and not self._needs_images):
            return Request(self._filler(length, number))
        request = self._request._replace(images=tuple(_other(image, number) for image in images))
        if kind == "equal":
            return request
        more = _FILLER * max((length - self.num_prompt) // 8, 1)
        prompt = request.prompt
        longer = (
            prompt + more
            if isinstance(prompt, str)
            else (*prompt, *self._filler(length - self.num_prompt, number))
        )
        return request._replace(prompt=longer)

    def _filler(self, length: int, number: int) -> tuple[int, ...]:
        """Token ids of plain text, so many; another number begins elsewhere."""
        ids = self._processor.tokenizer.encode(_FILLER)
        return tuple(itertools.islice(itertools.cycle(ids), number, number + length))


def _other(image: ImageSource, number: int) -> Image:
    """Another picture of the same size for each number."""
    other = ImageOps.mirror(load_image(image))
    other.putpixel((0, 0), (number % 256, number // 256, 0))
    return other


def _logprob(logits: mx.array | None, token_id: int) -> float | None:
    if logits is None:
        return None
    values = np.array(logits, np.float64)
    values -= values.max()
    return float(values[token_id] - np.log(np.exp(values).sum()))
