"""From stopping configs to one criterion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmkit.contracts.stages import StoppingCriterion
from vlmkit.declare.external import External
from vlmkit.errors import KeyPath, VlmkitError, placed, within
from vlmkit.stopping.all_of import all_of
from vlmkit.stopping.any_of import any_of
from vlmkit.stopping.config import AllOfConfig, AnyOfConfig, StoppingConfig, each_config
from vlmkit.stopping.eos import EosConfig, EosMarkers, eos, eos_markers
from vlmkit.stopping.external import external
from vlmkit.stopping.max_tokens import MaxTokensConfig, max_tokens
from vlmkit.stopping.repetition_loop import RepetitionLoopConfig, repetition_loop
from vlmkit.stopping.stop_sequences import StopSequencesConfig, stop_sequences
from vlmkit.stopping.stop_token_ids import StopTokenIdsConfig, stop_token_ids
from vlmkit.stopping.thinking_budget import thinking_budget
from vlmkit.stopping.thinking_config import ThinkingBudgetConfig, thinking_markers
from vlmkit.stopping.time_limit import TimeLimitConfig, time_limit
from vlmkit.stopping.uncertainty import (
    ConfidenceStop,
    EntropyStop,
    confidence_stop,
    entropy_stop,
    uncertainty_markers,
)
from vlmkit.tokens.ids import ids_of


def build_stopping(
    configs: Sequence[StoppingConfig],
    encode: Callable[[str], Sequence[int]],
    eos_token_ids: frozenset[int],
    decode: Callable[[Sequence[int]], str] | None = None,
    num_ids: int | None = None,
) -> StoppingCriterion:
    """Build all criteria of a row and combine them by :func:`vlmkit.stopping.any_of.any_of`.

    Groups (``any_of``, ``all_of``) are looked into: an ``eos`` or a ``thinking_budget`` counts
    wherever it stands.

    Args:
        configs: what may end the row, in any order. Without an ``eos`` among them the model's
            end-of-sequence tokens are tokens like any other.
        encode: text to token ids, no special tokens added.
        eos_token_ids: the model's own end-of-sequence tokens.
        decode: token ids to text, special tokens kept; lets the markers be checked both ways.
        num_ids: token ids that the model knows, to which a third party's criterion is held.

    Raises:
        VlmkitError: markers that the tokenizer does not know, two thinking budgets, a stop that
            could never count, or an external factory that gives no criterion.

    Example:
        >>> criterion = build_stopping([MaxTokensConfig(max_tokens=0)], list, frozenset())
        >>> criterion.init([])[1].finish.reason
        'length'
    """
    markers = _all_eos_markers(configs, encode, eos_token_ids)
    kinds = [config.kind for _, config in each_config(configs)]
    if kinds.count("thinking_budget") > 1:
        raise VlmkitError(
            "stopping: two thinking_budget entries; keep one of them", path=("stopping",)
        )

    def build(config: StoppingConfig, path: KeyPath) -> StoppingCriterion:
        if isinstance(config, AnyOfConfig | AllOfConfig):
            members = [
                build(member, (*path, "criteria", index))
                for index, member in enumerate(config.criteria)
            ]
            return any_of(members) if isinstance(config, AnyOfConfig) else all_of(members)
        with within(*path):
            criterion = build_alone(config)
        return criterion._replace(
            init=placed(criterion.init, *path), step=placed(criterion.step, *path)
        )

    def build_alone(config: StoppingConfig) -> StoppingCriterion:
        if isinstance(config, MaxTokensConfig):
            return max_tokens(config)
        if isinstance(config, TimeLimitConfig):
            return time_limit(config)
        if isinstance(config, StopSequencesConfig):
            return stop_sequences(config)
        if isinstance(config, StopTokenIdsConfig):
            return stop_token_ids(config)
        if isinstance(config, RepetitionLoopConfig):
            return repetition_loop(config)
        if isinstance(config, External):
            return external(config, num_ids=num_ids)
        if isinstance(config, EosConfig):
            own = eos_markers(config, encode=encode, eos_token_ids=eos_token_ids)
            return eos(own, min_tokens=config.min_tokens)
        if isinstance(config, EntropyStop | ConfidenceStop):
            return _uncertainty(config, encode, decode)
        assert isinstance(config, ThinkingBudgetConfig)  # groups have been looked into
        resolved = thinking_markers(config, encode=encode, decode=decode)
        return thinking_budget(config, resolved, markers)

    built = any_of([build(config, ("stopping", index)) for index, config in enumerate(configs)])
    _refuse_dead_stops(configs, encode, decode)
    return built


def stop_markers(
    configs: Sequence[StoppingConfig],
    encode: Callable[[str], Sequence[int]],
    eos_token_ids: frozenset[int],
    decode: Callable[[Sequence[int]], str] | None = None,
) -> dict[str, dict[str, list[int] | list[str]]]:
    """Return what :func:`build_stopping` looks for, by kind: the markers as token ids or texts.

    Example:
        >>> stop_markers([EosConfig()], list, frozenset({7}))
        {'eos': {'token_ids': [7], 'texts': []}}
    """
    found: dict[str, dict[str, list[int] | list[str]]] = {}
    for _, config in each_config(configs):
        if isinstance(config, EosConfig):
            own = eos_markers(config, encode=encode, eos_token_ids=eos_token_ids)
            found[config.kind] = {"token_ids": sorted(own.ids), "texts": list(own.texts)}
            continue
        markers = None
        if isinstance(config, ThinkingBudgetConfig):
            markers = thinking_markers(config, encode=encode, decode=decode)
        elif isinstance(config, EntropyStop | ConfidenceStop):
            markers = uncertainty_markers(config, kind=config.kind, encode=encode, decode=decode)
        if markers is not None:
            found[config.kind] = {name: list(ids) for name, ids in markers._asdict().items()}
    return found


def _uncertainty(
    config: EntropyStop | ConfidenceStop,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str] | None,
) -> StoppingCriterion:
    markers = uncertainty_markers(config, kind=config.kind, encode=encode, decode=decode)
    if isinstance(config, EntropyStop):
        return entropy_stop(config, markers)
    return confidence_stop(config, markers)


def _all_eos_markers(
    configs: Sequence[StoppingConfig],
    encode: Callable[[str], Sequence[int]],
    eos_token_ids: frozenset[int],
) -> EosMarkers:
    resolved = []
    for path, config in each_config(configs, ("stopping",)):
        if isinstance(config, EosConfig):
            with within(*path):
                resolved.append(eos_markers(config, encode=encode, eos_token_ids=eos_token_ids))
    return EosMarkers(
        ids=frozenset[int]().union(*(markers.ids for markers in resolved)),
        texts=tuple(text for markers in resolved for text in markers.texts),
    )


def _refuse_dead_stops(
    configs: Sequence[StoppingConfig],
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str] | None,
) -> None:
    each = list(each_config(configs, ("stopping",)))
    thinking = next((one for _, one in each if isinstance(one, ThinkingBudgetConfig)), None)
    if thinking is None or thinking.stop_inside == "honor":
        return
    end_ids = thinking_markers(thinking, encode=encode, decode=decode).end
    if len(end_ids) == 1:
        return
    # the first tokens of an end marker can't be told from thinking, so no stop begins there
    for path, config in each:
        if not isinstance(config, StopSequencesConfig | StopTokenIdsConfig):
            continue
        for index, sequence in enumerate(config.sequences):
            if _holds(config.kind, sequence, thinking.end, end_ids):
                raise VlmkitError(
                    f"{config.kind}: {sequence!r} holds the end marker {thinking.end!r}, where "
                    "thinking_budget ignores stops; set its stop_inside to 'honor'",
                    path=(*path, "sequences", index),
                )


def _holds(kind: str, sequence: str | Sequence[int | str], text: str, part: Sequence[int]) -> bool:
    """Whether a text stands within a stop string, or its ids in a row within a sequence."""
    if isinstance(sequence, str):
        return text in sequence
    ids = ids_of(kind, sequence)
    return any(
        ids[place : place + len(part)] == tuple(part) for place in range(len(ids) - len(part) + 1)
    )
