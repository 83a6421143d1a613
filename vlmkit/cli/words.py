"""The words of a command line that are no flags: configs, overrides, and misplaced values."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from vlmkit.errors import VlmkitError

_REPEATABLE = ("--image", "--audio", "--video", "--stop", "--eos-tokens")
_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
_LIKE_AN_OVERRIDE = re.compile(r"[^\s/\\=:]+=")
_MEDIA = {
    "--image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic"),
    "--audio": (".wav", ".mp3", ".flac", ".ogg", ".m4a"),
    "--video": (".mp4", ".mov", ".mkv", ".webm", ".avi"),
}


def sort_words(words: Sequence[str], argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Tell a config from ``key=value`` overrides.

    Args:
        words: those that no flag took, in their order.
        argv: the whole command line.

    Returns:
        The config, or ``None``, and the overrides.

    Raises:
        VlmkitError: two configs, or a word that was meant as the value of a flag.

    >>> sort_words(["run.yaml", "seed=3"], ["generate", "run.yaml", "seed=3"])
    ('run.yaml', ['seed=3'])
    """
    overrides = [word for word in words if _is_override(word)]
    configs = [word for word in words if not _is_override(word)]
    strays = _stray_values(argv)
    for word in configs:
        if (problem := _no_config(word, strays.get(word))) is not None:
            raise VlmkitError(problem)
    if len(configs) > 1:
        raise VlmkitError(
            f"two configs given, {configs[0]!r} and {configs[1]!r}; one config can include others, "
            f"and an override is written key=value"
        )
    return (configs[0] if configs else None), overrides


def _is_override(word: str) -> bool:
    """Whether a word is meant as ``key=value``, well or badly written."""
    if _OVERRIDE.match(word):
        return True
    return _LIKE_AN_OVERRIDE.match(word) is not None and not os.path.exists(word)


def _stray_values(argv: Sequence[str]) -> dict[str, str]:
    """Words behind the one value that a repeatable flag takes, and that flag."""
    strays: dict[str, str] = {}
    flag, num_values = "", 0
    for word in argv:
        if word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            flag, num_values = (name if name in _REPEATABLE else ""), len(equals)
        elif flag:
            num_values += 1
            if num_values > 1:
                strays[word] = flag
    return strays


def _no_config(word: str, flag: str | None) -> str | None:
    """Say what a word that is no config was meant as; ``None`` where it may be one."""
    ending = os.path.splitext(word.lower().partition("?")[0])[1]
    media = next((name for name, endings in _MEDIA.items() if ending in endings), None)
    if word.startswith("data:image/"):
        media = "--image"
    is_yaml = ending in (".yaml", ".yml") or os.path.exists(word)
    if flag is not None and (media is not None or not is_yaml):
        return f"{flag} takes one value: repeat it, as in {flag} A {flag} B (got {word:.60} too)"
    if media is not None:
        return f"{word:.60} is no config; give it as {media} {word:.60}"
    if not is_yaml and any(character.isspace() for character in word):
        return f"{word[:60]!r} is no config; a prompt is given as --prompt"
    return None
