"""Tokens that are not to be drawn yet, because they would end a row that shall go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vlmkit.errors import within
from vlmkit.stopping.config import StoppingConfig, each_config
from vlmkit.stopping.eos import EosConfig, eos_markers
from vlmkit.stopping.stop_token_ids import StopTokenIdsConfig
from vlmkit.tokens.ids import ids_of


def held_ids(
    configs: Sequence[StoppingConfig],
    encode: Callable[[str], Sequence[int]],
    eos_token_ids: frozenset[int],
) -> dict[int, tuple[int, ...]]:
    """Return which ids the stops' ``min_tokens`` hold back, by the number of tokens before them.

    Ids of an ``eos``, and of ``stop_token_ids`` with one id. A token that another stop lets end the
    row earlier is held back no longer than that one says.

    Args:
        configs: what may end the row; groups are looked into.
        encode: text to token ids, no special tokens added.
        eos_token_ids: the model's own end-of-sequence tokens.

    Example:
        >>> held_ids([EosConfig(token_ids=(7,), min_tokens=3)], list, frozenset({2}))
        {3: (2, 7)}

    Reference:
        Sampling parameter ``min_tokens`` of vLLM, vllm/v1/sample/logits_processor/builtin.py.
    """
    least: dict[int, int] = {}
    for path, config in each_config(configs, ("stopping",)):
        if isinstance(config, EosConfig | StopTokenIdsConfig):
            with within(*path):
                ending = list(_ending(config, encode, eos_token_ids))
            for token_id in ending:
                least[token_id] = min(config.min_tokens, least.get(token_id, config.min_tokens))
    counts = sorted({count for count in least.values() if count})
    return {count: tuple(sorted(i for i in least if least[i] == count)) for count in counts}


def _ending(
    config: EosConfig | StopTokenIdsConfig,
    encode: Callable[[str], Sequence[int]],
    eos_token_ids: frozenset[int],
) -> Iterator[int]:
    if isinstance(config, EosConfig):
        yield from eos_markers(config, encode=encode, eos_token_ids=eos_token_ids).ids
        return
    for sequence in config.sequences:
        if len(sequence) == 1:
            yield from ids_of(config.kind, sequence)
