"""lmms-eval's chat model: a pipeline is the model under test.

``lmms-eval --model vlmkit --model_args pipeline=run.yaml,cache.kind=affine --tasks pope``

Reference:
    lmms-eval, ``lmms_eval/api/model.py`` and ``lmms_eval/models/registry_v2.py``,
    https://github.com/EvolvingLMMs-Lab/lmms-eval
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms

from vlmkit.adapters.answering import Answerer
from vlmkit.adapters.asking import Asked
from vlmkit.adapters.source import Source, check_task_settings, load_source
from vlmkit.errors import VlmkitError

_BATCH_SIZE = 16


class VlmkitModel(lmms):
    """A vlmkit pipeline as a chat model of lmms-eval.

    The whole response is returned, thinking included: lmms-eval cuts off what its
    ``--reasoning_tags`` name (``<think>`` by default) before it scores. A task's ``until`` cuts the
    answer after the thinking; it does not stop the decoding, as a line break would end a thought.

    Args:
        pretrained: a folder, a hub id or ``shapes``; None: the pipeline's own ``model``.
        pipeline: a YAML file, or ``vlmkit:…`` for one of the package; None: the defaults.
        task_settings: which settings of a task go over the pipeline: "limits", its
            ``max_new_tokens``; "apply", its sampling too, as flags of the command line do;
            "ignore", none. A pipeline that thinks needs "ignore" in tasks that leave room for one
            word.
        batch_size: rows in flight at most; "auto": 16.
        max_batch_size: not used.
        device: not used; MLX chooses.
        trust_code: let the pipeline's ``kind: external`` name any function.
        **overrides: values of the pipeline, as ``cache.kind`` or ``sampling.0.temperature``.

    Raises:
        VlmkitError: a file, a key or a value that cannot be used; says where and what would work.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        pipeline: str | None = None,
        task_settings: str = "limits",
        batch_size: int | str = _BATCH_SIZE,
        max_batch_size: int | None = None,
        device: str | None = None,
        trust_code: bool = False,
        **overrides: Any,
    ) -> None:
        super().__init__()
        self._source = Source(
            pipeline,
            pretrained,
            tuple(f"{key}={json.dumps(value)}" for key, value in overrides.items()),
            trust_code,
            check_task_settings(task_settings),
        )
        self._answerer = Answerer(load_source(self._source), batch_size=_read_size(batch_size))

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer requests, those of a task side by side; equal ones are draws 0, 1, 2, ….

        Raises:
            VlmkitError: names the task and the document that could not be answered.
        """
        draws: Counter[tuple[str, str, Any, str]] = Counter()
        asked = []
        for request in requests:
            _, doc_to_messages, settings, doc_id, task, split = request.args
            place = task, split, doc_id, json.dumps(settings, sort_keys=True, default=str)
            run = load_source(self._source, _read_settings(settings))
            messages = doc_to_messages(self.task_dict[task][split][doc_id])
            asked.append(Asked(*_read_messages(messages), run, sample=draws[place]))
            draws[place] += 1
        futures = self._answerer.ask(asked)
        results = []
        for request, future in zip(requests, futures, strict=True):
            _, _, settings, doc_id, task, _ = request.args
            try:
                result = future.result().result
            except VlmkitError as error:
                raise VlmkitError(f"{task}, document {doc_id}: {error}") from error
            if result.finish_reason == "error":
                raise VlmkitError(f"{task}, document {doc_id}: {result.error}")
            text = _cut(result.text, settings.get("until"))
            counts = TokenCounts(result.prompt_tokens, result.generation_tokens)
            results.append(GenerationResult(text, counts))
        return results

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported.

        Raises:
            VlmkitError: always.
        """
        raise VlmkitError("tasks of several rounds are not supported; choose one of one answer")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not supported.

        Raises:
            VlmkitError: always.
        """
        raise VlmkitError(
            "tasks that ask for the likelihood of given answers are not supported; choose one that "
            "generates (output_type: generate_until)"
        )

    def clean(self) -> None:
        """End the thread that the model runs in."""
        self._answerer.close()
        super().clean()


def _read_size(value: int | str) -> int:
    if value == "auto":
        return _BATCH_SIZE
    return int(value) if isinstance(value, str) and value.isdecimal() else value  # type: ignore


def _read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A task's generation arguments, named as the parameters of :func:`vlmkit.generate`."""
    samples = settings.get("do_sample", settings.get("temperature"))
    read = {"max_tokens": settings.get("max_new_tokens")}
    if not samples:
        return {**read, "temperature": 0.0}
    return {**read, **{name: settings.get(name) for name in ("temperature", "top_p", "top_k")}}


def _read_messages(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[tuple[dict[str, Any], ...], tuple[Any, ...]]:
    """A document's messages as `apply_chat_template` takes them, and the images they mention."""
    images: list[Any] = []
    read = []
    for message in messages:
        parts = [_part(part, images) for part in message["content"]]
        texts = all(part["type"] == "text" for part in parts)
        content = "".join(part["text"] for part in parts) if texts else parts
        read.append({"role": message["role"], "content": content})
    return tuple(read), tuple(images)


def _part(part: Mapping[str, Any], images: list[Any]) -> dict[str, str]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image":
        images.append(part["url"])
        return {"type": "image"}
    raise VlmkitError(
        f"messages: content of type {part['type']!r} is not supported; choose a task of text and "
        "images"
    )


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    """End an answer before the first of some strings; thinking is left as it is."""
    thinking, mark, answer = text.rpartition("</think>")
    for end in [until] if isinstance(until, str) else until or ():
        if end and end in answer.lstrip():
            space = answer[: len(answer) - len(answer.lstrip())]
            answer = space + answer.lstrip().partition(end)[0]
    return thinking + mark + answer
