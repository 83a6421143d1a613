"""Messages that note which of their keys a chat template looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class WatchedMessage(dict[str, Any]):
    """A message that notes which keys are looked at; whoever takes it whole reads every key."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._seen: set[Any] = set()

    def __getitem__(self, key: str) -> Any:
        self._seen.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._seen.add(key)
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As in a dict."""
        self._seen.add(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def keys(self) -> Any:
        """As in a dict."""
        return self._whole().keys()

    def values(self) -> Any:
        """As in a dict."""
        return self._whole().values()

    def items(self) -> Any:
        """As in a dict."""
        return self._whole().items()

    def copy(self) -> dict[str, Any]:
        """As in a dict."""
        return self._whole()

    def __repr__(self) -> str:
        return repr(self._whole())

    def _whole(self) -> dict[str, Any]:
        whole = dict(super().items())
        self._seen.update(whole)
        return whole


WATCHED_NAME = f"{WatchedMessage.__module__}.{WatchedMessage.__name__} object"  # in Jinja's words


def seen_keys(message: WatchedMessage) -> frozenset[str]:
    """The keys of a message that were looked at; ``content`` also where there is none.

    Example:
        >>> message = WatchedMessage({"role": "user", "content": "Hi", "images": ["a.png"]})
        >>> message["role"], message.get("content"), sorted(seen_keys(message))
        ('user', 'Hi', ['content', 'role'])
    """
    # No method of the message: a template must not find one where a key is missing.
    return frozenset(message._seen & {*dict.keys(message), "content"})
