"""Reading a checkpoint's small files, and saying what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.files import open_file, parse_json, read_file

MAX_FILE_BYTES = 64 * 2**20
"""Of a checkpoint's JSON or text: twice the largest tokenizer.json in use."""

_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_POINTER_BYTES = 1024
_MAX_REASON = 240
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


def read_bytes(path: Path) -> bytes:
    """Return a file's contents.

    Raises:
        VlmkitError: it cannot be read, or Git LFS has left a pointer in its place.
    """
    try:
        data = read_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise VlmkitError(f"cannot read {str(path)!r}: {error.strerror}") from error
    _refuse_pointer(path, data)
    return data


def check_fetched(path: Path) -> None:
    """Refuse a file that is only the pointer that Git LFS leaves where it fetches nothing.

    Reference: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md

    Raises:
        VlmkitError: says what to run.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tokenizer.json"
        >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1\\noid …\\nsize 99")
        >>> try: check_fetched(path)
        ... except VlmkitError as error: print(str(error)[-70:])
        run 'git lfs pull' in its folder, or load the checkpoint by its hub id
    """
    try:
        with open_file(path) as file:
            _refuse_pointer(path, file.read(_MAX_POINTER_BYTES))
    except OSError as error:
        raise VlmkitError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _refuse_pointer(path: Path, data: bytes) -> None:
    if not data.startswith(_POINTER):
        return
    words = data[:_MAX_POINTER_BYTES].split()
    size = words[words.index(b"size") + 1 :][:1] if b"size" in words else []
    whole = f" of {int(size[0]):,} bytes" if size and size[0].isdigit() else ""
    raise VlmkitError(
        f"{str(path)!r} is a Git LFS pointer, not yet the file{whole}: run 'git lfs pull' in "
        "its folder, or load the checkpoint by its hub id"
    )


def read_text(path: Path) -> str:
    """Return a text file's contents.

    Raises:
        VlmkitError: it cannot be read, is a Git LFS pointer, or is no UTF-8.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise VlmkitError(
            f"{path}: byte {error.start} is no UTF-8; write the file again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; infinite floats may be written as transformers does.

    Raises:
        VlmkitError: it cannot be read, is a Git LFS pointer, is no JSON object, or has a key twice.
    """
    data = read_bytes(path)
    try:
        value = parse_json(data, change=_untag_float)
    except ValueError as error:
        raise VlmkitError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise VlmkitError(f"{path}: needs a JSON object, not {type(value).__name__}")
    return value


def _untag_float(value: dict[str, Any]) -> Any:
    # transformers writes an infinite float as {"__float__": "Infinity"}.
    tag = value.get("__float__") if len(value) == 1 else None
    return _FLOATS[tag] if isinstance(tag, str) and tag in _FLOATS else value


def reason(error: BaseException) -> str:
    """Return what a library's exception says, on one line and not too long.

    Example:
        >>> reason(ValueError("two\\nlines"))
        'ValueError: two lines'
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON]
    return text.encode(errors="backslashreplace").decode()


def is_utf8(text: str) -> bool:
    """Tell whether a text can be written as UTF-8: JSON may hold half of a surrogate pair.

    Example:
        >>> is_utf8("grün"), is_utf8("\\ud800")
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
