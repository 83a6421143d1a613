"""inspect_ai's model provider: a pipeline is the model under test.

``inspect eval task.py --model vlmkit/shapes -M pipeline=run.yaml -M cache.kind=affine``

Reference:
    inspect_ai, "Model API extensions", https://inspect.aisi.org.uk/extensions.html
"""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import Future
from typing import Any

import anyio
from inspect_ai._util.error import PrerequisiteError  # not among what inspect_ai exports
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
from inspect_ai.solver._task_state import sample_state  # the one way to a sample's epoch
from inspect_ai.tool import ToolChoice, ToolInfo
from rich.markup import escape

import vlmkit
from vlmkit.adapters.answering import Answerer
from vlmkit.adapters.asking import Asked
from vlmkit.adapters.decoding import Answer
from vlmkit.adapters.inspect_messages import read_messages, read_settings
from vlmkit.adapters.inspect_output import to_output
from vlmkit.adapters.source import Source, check_task_settings, load_source
from vlmkit.config.run import ResolvedRun
from vlmkit.errors import VlmkitError
from vlmkit.experiment.provenance import code_hash, config_hash, weights_hash

_POLL_S = 0.02
_PER_EPOCH = 1 << 20  # draws that an epoch can have of one prompt
_NOT_PIPELINE = {"prompt", "messages", "images", "audio", "video"}


class ModelArgumentError(VlmkitError, PrerequisiteError):
    """A model argument that cannot be used; inspect_ai prints it as one line."""

    def __init__(self, message: str) -> None:
        VlmkitError.__init__(self, message)
        PrerequisiteError.__init__(self, f"vlmkit: error: {escape(message)}")


class VlmkitAPI(ModelAPI):
    """A vlmkit pipeline as a model of inspect_ai.

    Requests that are in flight together are decoded side by side. The tokens of each depend on its
    prompt, the seed and its epoch alone, so neither ``max_connections`` nor the order of samples
    changes a log. Thinking becomes reasoning content, and what follows it the completion.

    Args:
        model_name: a folder, a hub id or ``shapes``; in place of the pipeline's own ``model``.
        base_url: not taken.
        api_key: not taken.
        config: inspect_ai's; what a task sets comes with each request.
        pipeline: a YAML file, or ``vlmkit:…`` for one of the package; None: the defaults.
        task_settings: which settings of a task go over the pipeline: "apply", all of them as flags
            of the command line do; "limits", ``max_tokens`` and ``stop_seqs``; "ignore", none.
        batch_size: rows in flight at most.
        trust_code: let the pipeline's ``kind: external`` name any function.
        **overrides: values of the pipeline, as ``cache.kind`` or ``sampling.0.temperature``.

    Raises:
        VlmkitError: a file, a key or a value that cannot be used; says where and what would work.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - it is inspect_ai's signature
        *,
        pipeline: str | None = None,
        task_settings: str = "apply",
        batch_size: int = 16,
        trust_code: bool = False,
        **overrides: Any,
    ) -> None:
        super().__init__(model_name, None, None, [], config)
        self._runs: dict[str, ResolvedRun] = {}
        self._asked: Counter[tuple[str, str]] = Counter()
        values = tuple(f"{key}={json.dumps(value)}" for key, value in overrides.items())
        try:
            if base_url is not None:
                raise VlmkitError("base_url: vlmkit runs the model itself; leave it out")
            taken = check_task_settings(task_settings)
            self._source = Source(pipeline, model_name, values, trust_code, taken)
            run = self._run({})
            self._answerer = Answerer(run, batch_size=batch_size)
        except VlmkitError as error:
            raise ModelArgumentError(str(error)) from error
        self.fingerprint = _fingerprint(run)
        # inspect_ai's response cache is keyed by the model's name and this, not by model_args.
        self.base_url = f"vlmkit:{self.fingerprint}"

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - it is inspect_ai's signature
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer a chat.

        Raises:
            VlmkitError: tools, content or settings that are not supported, an image that cannot be
                read, a prompt that does not fit, a row that could not go on.
        """
        if tools and tool_choice != "none":
            raise VlmkitError("tools: calls of tools are not supported; use a task without them")
        run = self._run(read_settings(config, self._source.task_settings))
        conversation = read_messages(input)
        count, started = config.num_choices or 1, time.perf_counter()
        first = self._first_draw(json.dumps(conversation), count)
        asked = [
            Asked(
                *conversation,
                run,
                sample=first + place,
                is_shared=place + 1 < count,
                num_logprobs=(config.top_logprobs or 0) if config.logprobs else None,
            )
            for place in range(count)
        ]
        answers = [await _wait_for(future) for future in self._answerer.ask(asked)]
        return to_output(
            answers,
            model=self.model_name,
            seconds=time.perf_counter() - started,
            metadata={
                "vlmkit": vlmkit.__version__,
                "fingerprint": self.fingerprint,
                "draw": first,
                "pipeline": run.config.model_dump(mode="json", exclude=_NOT_PIPELINE),
            },
        )

    def max_connections(self) -> int:
        """Requests at a time, so many that a row that becomes free has a next one."""
        return 2 * self._answerer.batch_size

    def connection_key(self) -> str:
        """Models of different pipelines do not wait for each other."""
        return f"vlmkit/{self.fingerprint}"

    def auto_reasoning_history(self) -> Any:
        """Thinking of earlier turns is left out, as chat templates do."""
        return "none"

    def close(self) -> None:
        """End the thread that the model runs in."""
        self._answerer.close()

    def _run(self, settings: dict[str, Any]) -> ResolvedRun:
        key = json.dumps(settings, sort_keys=True)
        if key not in self._runs:
            self._runs[key] = load_source(self._source, settings)
        return self._runs[key]

    def _first_draw(self, conversation: str, count: int) -> int:
        """Number the draws from a prompt: by epoch, and within a sample one after the other."""
        state = sample_state()
        epoch, place = (1, "") if state is None else (state.epoch, state.uuid)
        first = self._asked[place, conversation]
        self._asked[place, conversation] += count
        return (epoch - 1) * _PER_EPOCH + first


async def _wait_for(future: Future[Answer]) -> Answer:
    """Wait under any event loop; a task that is cancelled asks no more."""
    try:
        while not future.done():
            await anyio.sleep(_POLL_S)
        return future.result()
    finally:
        future.cancel()


def _fingerprint(run: ResolvedRun) -> str:
    """What decides the tokens of a prompt: the pipeline, the weights and the code."""
    config = run.config.model_dump(mode="json", exclude=_NOT_PIPELINE)
    weights = weights_hash(run.config.model, run.config.revision)
    return config_hash({"config": config, "weights": weights, "code": code_hash([config])})
