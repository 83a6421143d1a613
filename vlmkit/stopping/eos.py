"""End a row at an end-of-sequence token: the model's own, and those that the user adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.stopping.text_stops import find_stop, held_from, text_stops
from vlmkit.tokens.ids import StopTexts, TokenIds, ids_of


class EosConfig(StageConfig):
    """End-of-sequence tokens beside the model's own, as strings or ids."""

    kind: Literal["eos"] = "eos"
    tokens: StopTexts = Field(
        default=(),
        description="More tokens, or texts of several tokens, that end a row; the text keeps what "
        "is before.",
    )
    token_ids: TokenIds = Field(default=(), description="More tokens (ids or text) that end a row.")
    min_tokens: Int = Field(
        default=0,
        ge=0,
        description="Tokens that come first: before them no token that ends a row is drawn, and "
        "none counts.",
    )


class EosMarkers(NamedTuple):
    """What ends a row: single tokens by their ids, anything longer by its text."""

    ids: frozenset[int]
    texts: tuple[str, ...]


NO_EOS = EosMarkers(frozenset(), ())


class EosState(NamedTuple):
    """Where the text stood before the token to come."""

    text_length: int
    start: int  # a marker's text may begin at this character at the earliest
    after: int = 0  # and ends behind this one


def eos_markers(
    config: EosConfig, *, encode: Callable[[str], Sequence[int]], eos_token_ids: frozenset[int]
) -> EosMarkers:
    """Resolve a config: a string of one token becomes its id, a longer one is matched as text.

    Args:
        config: the tokens to add to the model's own.
        encode: text to token ids, no special tokens added.
        eos_token_ids: the model's own.

    Raises:
        VlmkitError: a string that the tokenizer turns into no token at all.

    Example:
        >>> config = EosConfig(tokens=("<end>", "User:"))
        >>> vocabulary = {"<end>": [3], "User:": [4, 5]}
        >>> eos_markers(config, encode=vocabulary.__getitem__, eos_token_ids=frozenset({2}))
        EosMarkers(ids=frozenset({2, 3}), texts=('User:',))
    """
    ids, texts = set(eos_token_ids).union(ids_of("eos", config.token_ids)), []
    for token in config.tokens:
        encoded = encode(token)
        if not encoded:
            raise VlmkitError(
                f"eos tokens: the tokenizer turns {token!r} into no token; give a string that it "
                "knows, or the id in `token_ids`",
                path=("tokens",),
            )
        if len(encoded) == 1:
            ids.add(encoded[0])
        else:
            texts.append(token)
    return EosMarkers(frozenset(ids), tuple(texts))


def eos(markers: EosMarkers, *, min_tokens: int = 0) -> StoppingCriterion:
    """Build the criterion that ends a row at an end-of-sequence token.

    The marker's own text is no part of the result. A marker of several tokens counts only when
    its whole text is there, however the model spells it in tokens. The first ``min_tokens`` tokens
    never end the row.

    Example:
        >>> criterion = eos(EosMarkers(frozenset({2}), ()))
        >>> state, _ = criterion.init([1])
        >>> state, _ = criterion.step(state, TokenEvent(7, "Yes", 1))
        >>> state, decision = criterion.step(state, TokenEvent(2, "Yes<end>", 2))
        >>> decision.finish
        Finish(reason='stop', kind='eos', matched=2, text_end=3, error=None)
    """
    stops = text_stops(markers.texts)

    def init(prompt_ids: Sequence[int]) -> tuple[EosState, Decision]:
        return EosState(0, 0), Decision()

    def step(state: EosState, event: TokenEvent) -> tuple[EosState, Decision]:
        length = len(event.text)
        if "eos" in event.vetoed:
            return EosState(length, length), Decision()
        early = event.num_tokens <= min_tokens
        if event.token_id in markers.ids and not early:
            # what was held back as the beginning of a marker's text is plain text after all
            finish = Finish("stop", "eos", event.token_id, state.text_length)
            return EosState(length, length), Decision(finish=finish)
        match = None if early else find_stop(stops, event.text, state.start, state.after)
        if match is not None:
            begin, matched = match
            return EosState(length, length), Decision(finish=Finish("stop", "eos", matched, begin))
        held = held_from(stops, event.text, state.start)
        following = EosState(
            length, length if held is None else held, length if early else state.after
        )
        return following, Decision(hold_from=held)

    return StoppingCriterion("eos", init, step)
