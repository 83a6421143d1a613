"""A prompt cache: prompts of earlier calls, so that only what is new is computed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from vlmkit.cache import cache_num_bytes, finishes, trim_rows
from vlmkit.contracts.inputs import Inputs, num_equal, whole_media
from vlmkit.contracts.interface import DecodeState, Features
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import PixelCache
from vlmkit.prompts.prefill import Started

DEFAULT_BYTES = 1 << 30


class _Key(NamedTuple):
    owner: Hashable
    kind: str  # "prompt" | "media"
    content: bytes


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _locked(
    method: Callable[Concatenate[PromptCache, _Arguments], _Result],
) -> Callable[Concatenate[PromptCache, _Arguments], _Result]:
    """Let one thread at a time run the methods of a prompt cache."""

    @wraps(method)
    def locked(
        self: PromptCache, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class PromptCache:
    """Prompts by what they contain, with a limit in bytes; the least recently used go first.

    Pass one to several calls of :func:`vlmkit.generate`: the next turn of a chat, or another
    question about the same images, then computes only the tokens that differ; ``cached_tokens`` of
    a result says how many were taken from here. Encoded images are kept too, and processed ones.

    Entries belong to one model and one KV-cache config; another's are never mixed up with them. A
    cache kind that has dropped tokens (a full rotating window), or a recurrent layer, can be
    continued but not cut back; then an entry serves only prompts that begin with all of it.
    With a kind that drops or quantizes tokens at a prompt's end it serves that prompt alone. After
    a change of the model's weights, :meth:`clear` it. Several threads may share one.

    Args:
        max_bytes: the limit; None = no limit. An entry that is larger by itself is not kept.
        pixels: images after their processing, with limits of their own; None = in memory alone, up
            to 256 MiB.

    Example:
        >>> from vlmkit import generate, load
        >>> model, processor = load("shapes")
        >>> seen = PromptCache()
        >>> for question in ("How many red circles?", "How many red squares?"):
        ...     result = generate(model, processor, question, max_tokens=1, prompt_cache=seen)
        >>> 0 < result.cached_tokens < result.prompt_tokens
        True
    """

    def __init__(
        self, max_bytes: int | None = DEFAULT_BYTES, *, pixels: PixelCache | None = None
    ) -> None:
        if max_bytes is not None and not _is_count(max_bytes):
            raise VlmkitError(f"max_bytes is {max_bytes!r}; it must be 0 or more, or None")
        if pixels is not None and not isinstance(pixels, PixelCache):
            raise VlmkitError(f"pixels is of type {type(pixels).__name__}; give a PixelCache")
        self.max_bytes = max_bytes
        self.pixels = PixelCache() if pixels is None else pixels
        self.num_bytes = 0  # held: KV caches, recurrent states and encoded media
        self._held: OrderedDict[_Key, Started | Features] = OrderedDict()
        self._lock = threading.RLock()

    @_locked
    def __len__(self) -> int:
        """Return the number of prompts."""
        return sum(isinstance(entry, Started) for entry in self._held.values())

    @_locked
    def prompts(self, owner: Hashable) -> list[Started]:
        """Return the prompts of one owner, the least recently used first."""
        return [entry for key, entry in self._of(owner) if isinstance(entry, Started)]

    @_locked
    def find(
        self, owner: Hashable, inputs: Inputs, taps: tuple[int, ...]
    ) -> tuple[Started, int] | None:
        """Return the entry that saves most, cut back, and how many tokens of ``inputs`` it has."""
        best: tuple[_Key, Started, int] | None = None
        for key, entry in self._of(owner):
            usable = continued(entry, inputs, taps) if isinstance(entry, Started) else None
            if usable is not None and (best is None or usable[1] > best[2]):
                best = (key, *usable)
        if best is None:
            return None
        self._held.move_to_end(best[0])
        return best[1], best[2]

    @_locked
    def put(self, owner: Hashable, entry: Started) -> None:
        """Add a prompt. One that it goes on from, and that is no whole prompt itself, goes."""
        content = entry.inputs.content_ids
        for key, held in self._of(owner):
            if not isinstance(held, Started) or held.hidden is not None:
                continue
            whole = len(held.inputs.content_ids)
            if whole < len(content) and num_equal(held.inputs, entry.inputs) == whole:
                self._remove(key)
        # What a medium shows is in the digest; its pixels would be held for nothing.
        entry = entry._replace(inputs=entry.inputs.without_data())
        self._add(_Key(owner, "prompt", content.tobytes()), entry)

    @_locked
    def drop(self, owner: Hashable, inputs: Inputs) -> None:
        """Remove a prompt, if it is there."""
        self._remove(_Key(owner, "prompt", inputs.content))

    @_locked
    def features(self, owner: Hashable) -> dict[bytes, Features]:
        """Return the encoded media of one owner, by digest."""
        return {key.content: entry for key, entry in self._of(owner) if isinstance(entry, Features)}

    @_locked
    def keep_features(self, owner: Hashable, features: Mapping[bytes, Features]) -> None:
        """Add encoded media, by digest."""
        for digest, one in features.items():
            self._add(_Key(owner, "media", digest), one)

    @_locked
    def clear(self) -> None:
        """Remove everything that is in memory."""
        self._held.clear()
        self.pixels.clear()
        self.num_bytes = 0

    def _of(self, owner: Hashable) -> list[tuple[_Key, Started | Features]]:
        return [(key, entry) for key, entry in self._held.items() if key.owner == owner]

    def _add(self, key: _Key, entry: Started | Features) -> None:
        self._remove(key)
        self._held[key] = entry
        self.num_bytes += _num_bytes(entry)
        while self.max_bytes is not None and self.num_bytes > self.max_bytes:
            self._remove(next(iter(self._held)))

    def _remove(self, key: _Key) -> None:
        entry = self._held.pop(key, None)
        if entry is not None:
            self.num_bytes -= _num_bytes(entry)


def continued(entry: Started, inputs: Inputs, taps: tuple[int, ...]) -> tuple[Started, int] | None:
    """Cut an entry back to what it shares with a prompt; None where that is nothing.

    At least one token is left to compute, unless the entry is the whole prompt and has the hidden
    states that are wanted.
    """
    length, held = len(inputs.content_ids), entry.state.cache.lengths[0]
    shared = num_equal(entry.inputs, inputs)
    if shared == length == held and entry.hidden is not None and taps == entry.taps:
        return entry, length
    keep = whole_media(inputs, min(shared, length - 1, held))
    # What was done at a prompt's end depends on where it ended: no other prompt may go on from it.
    if keep < 1 or finishes(entry.state.cache):
        return None
    try:
        cache = trim_rows(entry.state.cache, (keep,))
    except VlmkitError:
        return None  # a kind that forgets serves only what continues it
    state = DecodeState(cache, entry.state.next_positions)
    return Started(entry.inputs, state, None), keep


def _num_bytes(entry: Started | Features) -> int:
    if isinstance(entry, Started):
        hidden = () if entry.hidden is None else (entry.hidden.final, *entry.hidden.taps)
        return cache_num_bytes(entry.state.cache) + sum(vector.nbytes for vector in hidden)
    return entry.embedded.nbytes + sum(layer.nbytes for layer in entry.layers)


class PromptStore:
    """One owner's view of a prompt cache: what prefills look up and add.

    Args:
        cache: the prompt cache.
        owner: what entries have to have in common: the model, and how its KV cache works.
    """

    def __init__(self, cache: PromptCache, owner: Hashable) -> None:
        self.cache, self.owner = cache, owner

    def find(self, inputs: Inputs, taps: tuple[int, ...]) -> tuple[Started, int] | None:
        """See :meth:`PromptCache.find`."""
        return self.cache.find(self.owner, inputs, taps)

    def prompts(self) -> list[Started]:
        """See :meth:`PromptCache.prompts`."""
        return self.cache.prompts(self.owner)

    def put(self, entry: Started) -> None:
        """See :meth:`PromptCache.put`."""
        self.cache.put(self.owner, entry)

    def drop(self, inputs: Inputs) -> None:
        """See :meth:`PromptCache.drop`."""
        self.cache.drop(self.owner, inputs)

    @property
    def features(self) -> Mapping[bytes, Features]:
        """See :meth:`PromptCache.features`."""
        return self.cache.features(self.owner)

    def keep_features(self, features: Mapping[bytes, Features]) -> None:
        """See :meth:`PromptCache.keep_features`."""
        self.cache.keep_features(self.owner, features)
