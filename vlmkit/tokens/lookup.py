"""The tokens of a model: what turns the text in a config into ids, once, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError, brief, dotted
from vlmkit.tokens.ids import EOS, Holds

Path = tuple[int | str, ...]
Config = TypeVar("Config", bound=StageConfig)


class TokenLookup(NamedTuple):
    """What a model knows about its tokens."""

    encode: Callable[[str], Sequence[int]]  # text to ids, no special tokens added
    decode: Callable[[Sequence[int]], str]  # ids to text, special tokens kept
    read_tokens: Callable[[], Sequence[bytes]]  # the bytes of every id; may take time
    eos_ids: frozenset[int]
    num_ids: int  # rows of the embedding: ids are below this


class _Known(NamedTuple):
    """A model's tokens, and which ids have the same bytes, which is found out once."""

    tokens: TokenLookup
    ids_by_content: dict[bytes, list[int]]  # empty until it is needed

    def find(self, content: bytes) -> list[int]:
        if not self.ids_by_content:
            for token_id, token in enumerate(self.tokens.read_tokens()):
                self.ids_by_content.setdefault(token, []).append(token_id)
        return self.ids_by_content.get(content, [])


def resolve_tokens(config: Config, lookup: TokenLookup, path: Path = ()) -> Config:
    """Turn every text in a config, and in those inside it, into the ids that it stands for.

    Args:
        config: any config; it is not changed.
        lookup: the model's tokens.
        path: where the config stands, for the messages.

    Raises:
        VlmkitError: text that is not just one token (it says how it splits), an id that is not in
            the vocabulary, ``eos`` where there is none, two biases for one token.

    Example:
        >>> from vlmkit.sampling import SuppressTokens
        >>> lookup = TokenLookup(
        ...     encode=lambda text: [ord(character) for character in text],
        ...     decode=lambda ids: "".join(map(chr, ids)),
        ...     read_tokens=lambda: [],
        ...     eos_ids=frozenset({3, 4}),
        ...     num_ids=128,
        ... )
        >>> resolve_tokens(SuppressTokens(token_ids=(7, "a", "eos")), lookup).token_ids
        (7, 97, 3, 4)
        >>> resolve_tokens(SuppressTokens(token_ids=("no",)), lookup)
        Traceback (most recent call last):
        ...
        vlmkit.errors.VlmkitError: token_ids: suppress_tokens: the text 'no' is 2 tokens here \
('n' 110, 'o' 111), and one is needed; give the id of one
    """
    return _resolve_config(config, _Known(lookup, {}), path)


def _resolve_config(config: Config, known: _Known, path: Path) -> Config:
    changed: dict[str, Any] = {}
    for name, value in config:
        here = (*path, name)
        if (marker := _marker(config, name)) is not None and value is not None:
            resolved = _resolve(marker.form, value, _Place(config, here), known)
        elif isinstance(value, StageConfig):
            resolved = _resolve_config(value, known, here)
        elif isinstance(value, tuple):
            resolved = tuple(
                _resolve_config(item, known, (*here, index))
                if isinstance(item, StageConfig)
                else item
                for index, item in enumerate(value)
            )
        else:
            continue
        if resolved != value:
            changed[name] = resolved
    return config.model_copy(update=changed) if changed else config


def token_fields(config: StageConfig, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that holds tokens in a config and those inside it, and where it stands.

    Example:
        >>> from vlmkit.sampling import SuppressTokens
        >>> list(token_fields(SuppressTokens(token_ids=(7, "eos"))))
        [(('token_ids',), (7, 'eos'))]
    """
    for name, value in config:
        if _marker(config, name) is not None:
            yield (*path, name), value
        for index, item in enumerate(value if isinstance(value, tuple) else ()):
            if isinstance(item, StageConfig):
                yield from token_fields(item, (*path, name, index))
        if isinstance(value, StageConfig):
            yield from token_fields(value, (*path, name))


def has_text(value: Any) -> bool:
    """Whether some tokens are written as text: only a tokenizer can say which they are.

    Example:
        >>> has_text(((1, 2), (3, "a"))), has_text({7: -1.0})
        (True, False)
    """
    if isinstance(value, Mapping | tuple):
        return any(map(has_text, value))
    return isinstance(value, str)


def known_tokens(lookup: TokenLookup, text: str) -> list[int]:
    """Encode text, and refuse tokens that the model does not have.

    Raises:
        VlmkitError: the tokenizer knows more tokens than the model.
    """
    ids = list(lookup.encode(text))
    if wrong := [token_id for token_id in ids if not 0 <= token_id < lookup.num_ids]:
        raise VlmkitError(
            f"the tokenizer turns {brief(text)} into token id {wrong[0]}, which is not in the"
            f" model's vocabulary: ids go from 0 to {lookup.num_ids - 1}"
        )
    return ids


def _marker(config: StageConfig, name: str) -> Holds | None:
    metadata = type(config).model_fields[name].metadata
    return next((entry for entry in metadata if isinstance(entry, Holds)), None)


class _Place(NamedTuple):
    """Whose tokens these are, for the messages."""

    config: StageConfig
    path: Path

    def error(self, message: str) -> VlmkitError:
        where = dotted(self.path)
        kind = getattr(self.config, "kind", where)
        return VlmkitError(f"{where}: {kind}: {message}", path=self.path)


def _resolve(form: str, value: Any, place: _Place, known: _Known) -> Any:
    if form == "sequences":
        return tuple(_sequence(parts, place, known.tokens) for parts in value)
    if form == "ids":
        return tuple(dict.fromkeys(i for token in value for i in _ids(token, place, known)))
    names: dict[int, int | str] = {}
    for token in value:
        for token_id in _ids(token, place, known):
            if token_id in names:
                raise place.error(
                    f"{names[token_id]!r} and {token!r} are both token id {token_id}; keep one"
                )
            names[token_id] = token
    return {token_id: value[token] for token_id, token in names.items()}


def _ids(token: int | str, place: _Place, known: _Known) -> tuple[int, ...]:
    if isinstance(token, str):
        ids = _eos(place, known.tokens) if token == EOS else (_one_id(token, place, known),)
    else:
        ids = (token,)
    _check(ids, place, known.tokens)
    return ids


def _sequence(parts: Sequence[int | str], place: _Place, lookup: TokenLookup) -> tuple[int, ...]:
    ids: list[int] = []
    for part in parts:
        if part == EOS:
            found = _eos(place, lookup)
            if len(found) > 1:
                raise place.error(
                    f"eos is one of {', '.join(map(str, found))} here; write the id that is meant"
                )
        elif isinstance(part, str):
            found = tuple(lookup.encode(part))
            if not found:
                raise place.error(f"the tokenizer turns the text {part!r} into no token")
        else:
            found = (part,)
        ids.extend(found)
    _check(ids, place, lookup)
    return tuple(ids)


def _check(ids: Iterable[int], place: _Place, lookup: TokenLookup) -> None:
    if wrong := [token_id for token_id in ids if not 0 <= token_id < lookup.num_ids]:
        raise place.error(
            f"token id {wrong[0]} is not in the vocabulary; ids go from 0 to {lookup.num_ids - 1}"
        )


def _eos(place: _Place, lookup: TokenLookup) -> tuple[int, ...]:
    ids = tuple(sorted(i for i in lookup.eos_ids if i < lookup.num_ids))
    if not ids:
        raise place.error("the model has no end-of-sequence token for eos; give an id")
    return ids


def _one_id(text: str, place: _Place, known: _Known) -> int:
    """Return the token that text is by itself.

    Tokenizers that put a space before text have other tokens for text in the middle of a line;
    where encoding gives no single token, one with just these bytes is taken.
    """
    lookup = known.tokens
    ids = list(lookup.encode(text))
    if len(ids) == 1 and _says(lookup.decode(ids), text):
        return ids[0]
    if len(same := known.find(text.encode())) == 1:
        return same[0]
    if len(ids) == 1:
        raise place.error(
            f"the tokenizer has no token for the text {brief(text)}: it would be "
            f"{lookup.decode(ids)!r} (id {ids[0]}); give the id that is meant"
        )
    if not ids:
        raise place.error(f"the tokenizer turns the text {brief(text)} into no token; give an id")
    shown = ", ".join(f"{lookup.decode([i])!r} {i}" for i in ids[:6])
    more = ", …" if len(ids) > 6 else ""
    raise place.error(
        f"the text {brief(text)} is {len(ids)} tokens here ({shown}{more}), and one is needed;"
        " give the id of one"
    )


def _says(decoded: str, text: str) -> bool:
    return decoded == text or (bool(text.strip()) and decoded.strip() == text.strip())
